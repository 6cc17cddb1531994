"""What is installed is whole: the wheel carries studies and the demo, and works from anywhere.

Room: all of mtl and minbert.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.paths import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    code = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=REPOSITORY, check=True)
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_carries_what_is_no_code(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for study in (REPOSITORY / "studies").glob("*.toml"):
        assert f"mtl/studies/{study.name}" in names
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        assert f"minbert/demo/encoder/{name}" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mtl", "minbert"}


def test_the_wheel_works_from_another_folder(wheel: Path, tmp_path: Path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)  # a wheel of pure Python is installed by unpacking
    done = subprocess.run(
        [sys.executable, "-m", "mtl", "study", "list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "lora_sweep" in done.stdout
    code = "import mtl, minbert; print(mtl.__file__, minbert.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.count(str(site)) == 2

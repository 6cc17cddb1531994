"""Pages that are generated must be those that the code generates now.

Room: mtl/cli.
"""

import re

import pytest

from mtl.cli.docs import pages
from mtl.study.load import load_study
from support.paths import REPOSITORY


@pytest.mark.parametrize("name", ["cli.md", "configuration.md"])
def test_generated_pages_are_up_to_date(name: str):
    kept = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")
    assert kept == pages()[name], "run: python -m mtl.cli.docs docs"


def test_links_between_pages_lead_somewhere():
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_study_file_of_the_documentation_is_one(tmp_path):
    text = (REPOSITORY / "docs" / "study-files.md").read_text(encoding="utf-8")
    file = tmp_path / "mine.toml"
    file.write_text(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    for profile, trials in (("demo", 8), ("paper", 16)):
        assert load_study(str(file), profile=profile).trials == trials

"""Users without HOME, without a name, or with a folder that they cannot write.

Room: mtl/common.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SETTLE = """
import json, os
from mtl.storage.home import Home
Home.resolve(create=False)
names = ("HOME", "MPLCONFIGDIR", "HF_XET_CACHE")
print(json.dumps({name: os.environ[name] for name in names if name in os.environ}))
"""


def _settled(home: Path, nobody: bool, **env: str) -> dict[str, str]:
    """Return where libraries find folders once the home is known."""
    as_nobody = ["setpriv", "--reuid=54321", "--regid=54300", "--clear-groups",
                 "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # fmt: skip
    done = subprocess.run(
        [*(as_nobody if nobody else ()), sys.executable, "-c", _SETTLE],
        capture_output=True, text=True, check=True,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MTL_HOME": str(home), **env},
    )  # fmt: skip
    assert not home.exists()
    return json.loads(done.stdout)


def test_what_the_environment_says_stays(home, tmp_path):
    env = {"HOME": str(tmp_path)}
    assert _settled(home, False, **env) == env


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="users are changed by root"
)
def test_a_user_without_a_folder_has_one_in_the_home(home, tmp_path):
    place = home / "cache/user-54321"
    assert _settled(home, True) == _settled(home, True, HOME="") == {"HOME": str(place)}
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    for user in (closed, Path("/"), closed / "never" / "made"):
        assert _settled(home, True, HOME=str(user)) == {
            "HOME": str(user),
            "MPLCONFIGDIR": str(place / "mplconfigdir"),
            "HF_XET_CACHE": str(place / "hf_xet_cache"),
        }
    own = {"HOME": "/", "MPLCONFIGDIR": "/tmp/a", "HF_XET_CACHE": "/tmp/b"}
    assert _settled(home, True, **own) == own

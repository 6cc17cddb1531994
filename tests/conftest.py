"""What tests share: a home of their own, the real command line, real data where it is at hand."""

import json
import os
import signal
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

# A shell has what it starts in the background ignore Ctrl-C, and nohup SIGHUP; commands under test
# must not, or an interrupt would never reach them.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

REPOSITORY = Path(__file__).resolve().parents[1]
REAL = REPOSITORY.parent / "shared"  # beside the repository: not part of it
TINY = ("train.epochs=1", "train.steps_per_epoch=3", "train.batch_size=8")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for this test alone; nothing of the environment leads elsewhere."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MTL_HOME", str(folder))
    for name in (
        *("MLFLOW_TRACKING_URI", "MTL_STORAGE", "COLUMNS", "FORCE_COLOR", "MLFLOW_RUN_ID"),
        *("MTL_UI_PASSWORD", "MTL_UI_USER", "MTL_MLFLOW_ADDRESS"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """Standard output, which must be one JSON object on one line and nothing else."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    def refused(self, *words: str) -> None:
        """Assert that the input was refused: exit 2, one line that holds these words."""
        assert self.code == 2, self
        assert self.out == ""
        assert self.err.startswith("mtl: ") and self.err.count("\n") == 1, self.err
        for word in words:
            assert word in self.err, self.err


def command() -> str:
    """The installed console script."""
    return str(Path(sysconfig.get_path("scripts")) / "mtl")


@pytest.fixture
def mtl(home: Path, tmp_path: Path):
    """Run the real ``mtl`` in a folder of its own; returns its Outcome."""

    def run(*args: object, timeout: float = 240, **env: str) -> Outcome:
        done = subprocess.run(
            [command(), *map(str, args)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            cwd=tmp_path,
            env={**os.environ, **env},
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Run a command line in this process, where the libraries are loaded already."""

    def run(folder: Path, *args: object, **env: str) -> Outcome:
        from mtl.cli import cli, exits

        monkeypatch.chdir(folder)
        for name, value in {"MTL_HOME": str(folder / "home"), **env}.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = exits.run(cli, [str(arg) for arg in args])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server. A test may stop it: `postgres_url` finds it started again."""
    from postgres import Postgres, binaries

    pytest.importorskip("psycopg")
    programs = binaries()
    if programs is None:
        pytest.skip("needs PostgreSQL's initdb and postgres (Debian: apt-get install postgresql)")
    server = Postgres(programs)
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres) -> str:
    """The URL of an empty database on a server that runs."""
    postgres.start()
    return postgres.database()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-storage", action="store_true", help="also on PostgreSQL: tests marked any_storage"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storage" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("any_storage")
        one = marked is not None and not metafunc.config.getoption("--every-storage")
        kinds = ["sqlite"] if one else ["sqlite", "postgresql"]
        metafunc.parametrize("storage", kinds, indirect=True)


@pytest.fixture
def storage(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have Optuna's storage and the leases in the home's file, and in a PostgreSQL database."""
    if request.param == "postgresql":
        monkeypatch.setenv("MTL_STORAGE", request.getfixturevalue("postgres_url"))
    return request.param


def sets(*pairs: str) -> list[str]:
    """Spell ``--set`` once for each KEY=VALUE."""
    return [word for pair in pairs for word in ("--set", pair)]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the paper's data files."""
    return _beside("data")


@pytest.fixture(scope="session")
def real_backbone() -> Path:
    """The folder with real BERT weights (all-MiniLM-L6-v2)."""
    return _beside("backbone/all-MiniLM-L6-v2")


def _beside(name: str) -> Path:
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, which is not part of the repository")
    return folder

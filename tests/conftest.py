"""What tests share: a home of their own, the real command line, real data where it is at hand."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

# Tests share the cores, and a study's scores are compared with those of one in another process.
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")

# Tests hold tensors of the processor, also where there is a GPU; `gpu` shows it to those that ask.
os.environ["MTL_TEST_GPUS"] = os.environ.get(
    "MTL_TEST_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES", "all")
)
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # to look must not settle it for the process

import pytest
from filelock import FileLock

from mtl.common import process
from support.commands import Outcome, mtl_here, mtl_process
from support.homes import furnish
from support.invariants import broken
from support.paths import REAL
from support.study_runs import Study
from support.tracking_samples import new_store
from support.warm_workers import WarmWorkers

# A shell has what it starts in the background ignore Ctrl-C, and nohup SIGHUP; commands under test
# must not, or an interrupt would never reach them.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# What is started keeps what it has compiled: without, each process takes a second to do it again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

process.tune_gc()  # as the command does: this process imports everything, too

LONG = (
    *("test_contention", "test_sharing", "test_cli_study", "test_dispatch", "test_lost_workers"),
    *("test_kills", "test_resume", "test_outage", "test_docker", "test_pages", "test_executors"),
    *("test_ray", "test_suspended", "test_own_interface", "test_changed_inputs", "test_serve"),
    *("test_postgres", "test_demo", "test_training", "test_spool", "test_study_report"),
    *("test_moved_home", "test_properties", "test_cli", "test_data_pull", "test_studies"),
    *("test_faults", "test_deleted", "test_tracking", "test_gc", "test_folders", "test_security"),
    *("test_recorded_home", "test_doctor", "test_escaping", "test_loopback", "test_data"),
)
"""Files of tests that take long, the longest first."""


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


@pytest.fixture
def furnished(home: Path) -> Path:
    """The same home, as an earlier command has left it, with the embedded data."""
    furnish(home)
    return home


@pytest.fixture(autouse=True, scope="session")
def warm_workers():
    """The studies that tests run in this process, one after another, share worker processes: each
    start takes seconds. Studies in processes of their own start theirs."""
    workers = WarmWorkers()
    with workers.kept():
        yield workers


@pytest.fixture
def own_workers(warm_workers):
    """The studies that this test runs in this process start and end their workers, too."""
    with warm_workers.sent_away():
        yield


@pytest.fixture(autouse=True, scope="session")
def quick_store():
    """MLflow makes the tables of a new store by sixty migrations, which take seconds: once in this
    process, copies after that. Commands in processes of their own make theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtl.tracking.store._create", new_store)
        yield


@pytest.fixture
def mtl(home: Path, tmp_path: Path):
    """Run the real ``mtl`` in a folder of its own; returns its Outcome."""
    return partial(mtl_process, tmp_path)


@pytest.fixture
def here():
    """Run a command line in this process, at home in a folder; returns its Outcome."""

    def run(folder: Path, *args: object, **env: str) -> Outcome:
        return mtl_here(folder, *args, **{"MTL_HOME": str(folder / "home"), **env})

    return run


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server. A test may stop it: `postgres_url` finds it started again."""
    from support.postgres import Postgres, binaries

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take longest begin first: at the end, what is left to share out is short.

    Of two processes, `--dist worksteal` gives each a half of the list to begin with.
    """
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path.stem, []).append(item)
    halves = [[i for name in LONG[start::2] for i in files.pop(name, [])] for start in (0, 1)]
    short = [item for file in files.values() for item in file]
    rest = max(0, len(items) // 2 - len(halves[0]))
    items[:] = [*halves[0], *short[:rest], *halves[1], *short[rest:]]


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


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of three trials that nobody disturbed: run once for all test processes, to read. No
    process has its databases open."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "reference"
    file, home = folder / "study/tiny.toml", folder / "home"
    with FileLock(f"{folder}.lock"):
        if not home.is_dir():
            study = Study(file.parent, home, trials=3, epochs=4, steps=10).furnished()
            code, said = study.run()
            assert code == 0 and broken(study, 3) == [], said
    return Study.of(file, home)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """The first GPU, as a torch.device."""
    import torch

    shown = os.environ["MTL_TEST_GPUS"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    if shown == "all":
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    # torch keeps what it counted once there was something to count.
    monkeypatch.setattr(torch.cuda, "_cached_device_count", None)
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    stream = torch.cuda.current_stream()
    yield torch.device("cuda:0")
    torch.cuda.set_stream(stream)
    monkeypatch.undo()
    torch.cuda._cached_device_count = 0


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest):
    """The processor, and a GPU where there is one."""
    import torch

    return torch.device("cpu") if request.param == "cpu" else request.getfixturevalue("gpu")


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

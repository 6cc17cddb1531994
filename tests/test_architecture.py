"""Data flows one way: who may import whom, what may not be loaded early, what the pages say of it.

Room: all of mtl and minbert.
"""

import ast
import importlib
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from support.imports import BASES, Import, defined, imports, modules, parsed
from support.paths import REPOSITORY

HEAVY = ("torch", "mlflow", "optuna", "plotly", "matplotlib", "pandas", "sklearn", "scipy")
ROOMS = {
    "mtl": (
        *("__main__", "pyfunc", "cli", "ui", "terminal", "dispatch", "doctor", "executors"),
        *("worker", "report", "housekeeping", "tracking", "artifacts", "trials", "study"),
        *("storage", "common"),
    ),
    "minbert": (
        *("inference", "training", "evaluation", "data", "demo", "multitask", "backbone"),
        *("adapters", "model", "packing", "config", "tasks", "device", "common", "errors"),
    ),
}
"""Folders and single modules of each package: imports run down the list, never up."""


def room(module: str) -> str:
    """The room that a module is in; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def upwards(package: str) -> list[str]:
    """Say of each import that runs up the list where it stands and what it does."""
    rank = {name: number for number, name in enumerate(ROOMS[package])}
    return [
        f"{found}: {room(found.importer)} imports {found.target}, which stands above it"
        for found in imports(package)
        if found.target.partition(".")[0] == package and room(found.importer) and room(found.target)
        if rank[room(found.target)] < rank[room(found.importer)]
    ]


def from_itself(package: str) -> list[Import]:
    """Imports of a package's public names by the package itself, which hide where they run to."""
    return [f for f in imports(package) if f.target == package and f.importer != package]


@pytest.mark.parametrize("package", ROOMS)
def test_imports_run_down_the_list_of_rooms(package: str):
    assert {room(name) for name in modules(package)} - {""} == set(ROOMS[package])
    assert upwards(package) == []
    assert [str(found) for found in from_itself(package)] == []


@pytest.mark.parametrize("package", ROOMS)
def test_no_modules_import_each_other_in_a_circle(package: str):
    graph: dict[str, set[str]] = {name: set() for name in modules(package)}
    for found in imports(package):
        if found.target in graph and found.importer != package:  # the package hands names on
            graph[found.importer].add(found.target)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_an_import_that_runs_up_is_named_by_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """The tests above can fail: on a package with such imports, in functions."""
    for name, text in (("trials", ""), ("tracking", ""), ("__init__", "")):
        file = tmp_path / "platform/mtl" / (f"{name}.py" if name == "__init__" else f"{name}/a.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "platform/mtl/trials/a.py").write_text(
        "def late():\n    from ..tracking import a\ndef later():\n    from mtl import run_study\n"
    )
    monkeypatch.setitem(BASES, "mtl", tmp_path / "platform")
    monkeypatch.setattr("support.imports.REPOSITORY", tmp_path)
    (line,) = upwards("mtl")
    assert line.startswith("platform/mtl/trials/a.py:2: trials imports mtl.tracking.a")
    assert [str(found) for found in from_itself("mtl")] == ["platform/mtl/trials/a.py:4"]


def test_minbert_knows_nothing_of_the_platform():
    forbidden = {"click", "rich", "optuna", "mlflow", "mtl", "sqlalchemy"}
    taken = [f for f in imports("minbert") if f.target.partition(".")[0] in forbidden]
    assert [f"{found}: {found.target}" for found in taken] == []


def test_the_command_line_alone_parses():
    taken = [f for f in imports("mtl") if f.target.partition(".")[0] == "click"]
    assert [str(found) for found in taken if room(found.importer) != "cli"] == []


def test_tracking_alone_speaks_to_mlflow():
    """But for the process that is MLflow's server."""
    taken = [f for f in imports("mtl") if f.target.partition(".")[0] == "mlflow"]
    others = [f for f in taken if room(f.importer) != "tracking" and not f.typing]
    assert {found.importer for found in others} == {"mtl.ui.mlflow_server"}


def reached(starts: list[str], late: tuple[str, ...]) -> set[str]:
    """Modules that are loaded with some; where `late` begins a name, by its functions, too."""
    carried: dict[str, set[str]] = {}
    for found in (*imports("mtl"), *imports("minbert")):
        if found.early or (not found.typing and found.importer.startswith(late)):
            carried.setdefault(found.importer, set()).add(found.target)
    seen, left = set(), list(starts)
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += carried.get(name, ())
    return seen


def test_the_worker_never_opens_optuna():
    """Not by itself, and not by anything that is loaded with it, by now or during a trial."""
    worker = [name for name in modules("mtl") if room(name) == "worker"]
    late = ("mtl.worker", "mtl.tracking", "mtl.artifacts.training", "mtl.artifacts.confusion")
    loaded = reached(worker, late)
    assert {"mtl.tracking.uploader", "mtl.artifacts.training", "minbert.training.loop"} <= loaded
    assert "optuna" not in {name.partition(".")[0] for name in loaded}


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_begin_empty(package: str):
    """Whoever imports one module of a room loads nothing but that."""
    begins = {name: file for name, file in modules(package).items() if file.name == "__init__.py"}
    del begins[package]
    trees = {name: parsed(file) for name, file in begins.items()}
    assert [
        name for name, tree in trees.items() if len(tree.body) > bool(ast.get_docstring(tree))
    ] == []


@pytest.mark.parametrize("package", ROOMS)
def test_packages_begin_lazy(package: str):
    early = {f.target for f in imports(package) if f.importer == package and f.early}
    assert early <= {"typing", "minbert.common.lazy", "mtl.common.telemetry", "mtl.common.proxies"}


@pytest.mark.parametrize("package", ROOMS)
def test_names_are_imported_from_where_they_are_defined(package: str):
    known = modules("mtl") | modules("minbert")
    names = {name: defined(file) for name, file in known.items() if "." in name}
    elsewhere = [
        f for f in imports(package) if f.name and f.name not in names.get(f.target, {f.name})
    ]
    assert [f"{found}: {found.name} from {found.target}" for found in elsewhere] == []


@pytest.mark.parametrize("package", ["mtl", "minbert"])
def test_what_is_public_is_there_for_type_checkers_and_at_run_time(package: str):
    """The plain re-exports that a type checker reads are the names that are loaded at first use."""
    library = importlib.import_module(package)
    tree = parsed(BASES[package] / package / "__init__.py")
    typed = next(node for node in tree.body if isinstance(node, ast.If)).body
    read = {a.asname: n.module for n in typed if isinstance(n, ast.ImportFrom) for a in n.names}
    assert read == library._PUBLIC and sorted(read) == sorted(library.__all__)
    for name in library.__all__:
        assert getattr(library, name) is not None and name in dir(library)
    assert (BASES[package] / package / "py.typed").is_file()


@pytest.mark.parametrize("args", [["--help"], ["study", "run", "--help"], ["study", "list"]])
def test_light_commands_load_nothing_heavy(args: list[str]):
    code = (
        "import sys\n"
        "from mtl.cli.main import cli\n"
        f"cli.main({args!r}, standalone_mode=False)\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_configurations_need_no_torch():
    code = "import sys, minbert; minbert.Config(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- what the pages say -------------------------------------------------------------------------


def listed(page: str, package: str) -> list[str]:
    """The rooms that a page lists under a package's name, in its order."""
    text = (REPOSITORY / page).read_text("utf-8")
    block = text.partition(f"\n{package}/\n")[2].partition("```")[0].partition("\n\n")[0]
    return re.findall(r"^  (\w+)(?:/|\.py)", block, flags=re.MULTILINE)


@pytest.mark.parametrize("package", ROOMS)
def test_the_page_on_architecture_lists_the_rooms_in_their_order(package: str):
    assert listed("docs/architecture.md", package) == list(ROOMS[package])


def arrows(picture: list[str]) -> list[tuple[str, str]]:
    """The pairs of rooms that arrows of a picture join, to the right and downwards."""
    names = {
        (row, column): name[0]
        for row, line in enumerate(picture)
        for name in re.finditer(r"(?:mtl|minbert)/\w+", line)
        for column in range(*name.span())
    }
    found = []
    for row, line in enumerate(picture):
        across = re.finditer(r"─+► ", line)
        found += [(names[row, each.start() - 2], names[row, each.end()]) for each in across]
        for column in (each.start() for each in re.finditer("▼", line)):
            above = row - 1
            while picture[above][column] == "│":
                above -= 1
            found.append((names.get((above, column)), names[row + 1, column]))
    return [(source, target) for source, target in found if source]


def test_the_picture_of_the_flow_is_that_of_the_imports():
    """Each arrow joins two rooms of which one imports the other."""
    page = (REPOSITORY / "docs/architecture.md").read_text("utf-8")
    drawn = arrows(page.partition("```text\n")[2].partition("```")[0].splitlines())
    tied = {(titled(f.importer), titled(f.target)) for package in ROOMS for f in imports(package)}
    assert len(drawn) == 14
    assert [pair for pair in drawn if pair not in tied and pair[::-1] not in tied] == []


def titled(module: str) -> str:
    """A module's room with its package, as the page writes it: ``mtl/study``."""
    return "/".join(module.split(".")[:2])


def files_of_tests() -> list[Path]:
    return sorted((REPOSITORY / "tests").glob("test_*.py"))


@pytest.mark.parametrize("file", files_of_tests(), ids=lambda file: file.stem)
def test_a_test_says_which_room_it_looks_at(file: Path):
    said = re.search(r"^Room: (.+)\.$", ast.get_docstring(parsed(file)) or "",
                     flags=re.MULTILINE)  # fmt: skip
    assert said, f"{file.name}: its first lines should end with `Room: PACKAGE/ROOM.`"
    known = {f"{package}/{name}" for package, names in ROOMS.items() for name in names}
    rooms = {"all of mtl and minbert"} & {said[1]} or set(said[1].split(", "))
    assert rooms <= known | {"all of mtl and minbert"}

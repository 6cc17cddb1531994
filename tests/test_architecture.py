"""Data flows one way: who may import whom, and what may not be loaded early."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "mlflow", "optuna", "plotly", "matplotlib", "pandas", "sklearn", "scipy")


def imported(file: Path) -> set[str]:
    """Top-level names of all modules that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def relative(file: Path) -> set[str]:
    """First parts of the names that a file imports from its own package, made absolute."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = file.parent
            for _ in range(node.level - 1):
                base = base.parent
            parts = base.relative_to(ROOT / "platform").parts
            tail = [node.module] if node.module else [alias.name for alias in node.names]
            found.update(".".join((*parts, name)) for name in tail)
    return found


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("file", modules("models/minbert"), ids=lambda file: file.name)
def test_minbert_knows_nothing_of_the_platform(file: Path):
    forbidden = {"click", "rich", "optuna", "mlflow", "mtl", "sqlalchemy"}
    assert not forbidden & {name.partition(".")[0] for name in imported(file)}


@pytest.mark.parametrize(
    "file",
    [f for f in modules("platform/mtl") if "cli" not in f.parts and f.name != "__main__.py"],
    ids=lambda file: file.name,
)
def test_nobody_reaches_back_to_the_command_line(file: Path):
    names = imported(file) | relative(file)
    assert not {name for name in names if name.startswith(("mtl.cli", "click"))}


def test_the_worker_never_opens_optuna():
    names: set[str] = set()
    for file in ("worker/__main__.py", "worker/trial.py", "tracking/run_recorder.py"):
        names |= imported(ROOT / "platform/mtl" / file)
    assert "optuna" not in {name.partition(".")[0] for name in names}


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

"""What files import, read from their text: nothing is run."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .paths import REPOSITORY

BASES = {"mtl": REPOSITORY / "platform", "minbert": REPOSITORY / "models"}


class Import(NamedTuple):
    """One import.

    Attributes:
        file: of this repository, as a path from its root. line: counted from 1.
        importer, target: modules, as they are imported.
        name: what is taken from the target; None if it is the module itself.
        typing: whether it is for type checkers alone.
        early: whether it is carried out when the file is imported: it stands at the top level, and
            not for type checkers alone.
    """

    file: str
    line: int
    importer: str
    target: str
    name: str | None
    typing: bool
    early: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def modules(package: str) -> dict[str, Path]:
    """Return every module of a package with its file."""
    found = {}
    for file in sorted((BASES[package] / package).rglob("*.py")):
        parts = file.relative_to(BASES[package]).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(package: str) -> list[Import]:
    """Return every import in a package, those in functions and for type checkers too."""
    known = modules("mtl") | modules("minbert")
    return [found for name, file in modules(package).items() for found in _of(name, file, known)]


@cache
def parsed(file: Path) -> ast.Module:
    """Return the syntax of a file, read once."""
    return ast.parse(file.read_text("utf-8"))


def _of(name: str, file: Path, known: dict[str, Path]) -> Iterator[Import]:
    shown = file.relative_to(REPOSITORY).as_posix()
    inside = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node, typing, function in _nodes(parsed(file)):
        for target, taken in _targets(node, inside, known):
            early = not typing and not function
            yield Import(shown, node.lineno, name, target, taken, typing, early)


def _nodes(
    tree: ast.AST, typing: bool = False, function: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    """Yield imports, whether each is for type checkers alone, and whether it is in a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, typing, function
            continue
        only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        only = only and not ast.unparse(node.test).startswith("not ")
        late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _nodes(node, typing or only, function or late)


def _targets(
    node: ast.Import | ast.ImportFrom, inside: list[str], known: dict[str, Path]
) -> Iterator[tuple[str, str | None]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, None) for alias in node.names)
        return
    base = inside[: len(inside) - node.level + 1] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    for alias in node.names:
        whole = f"{module}.{alias.name}"
        yield (whole, None) if whole in known else (module, alias.name)


def defined(file: Path) -> set[str]:
    """Return the names that a file defines or assigns, without those that it imports."""
    names: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names

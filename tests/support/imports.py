"""What files import, read from their text: nothing is run."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .paths import REPOSITORY

BASES = {"mtl": REPOSITORY / "platform", "minbert": REPOSITORY / "models"}


class Import(NamedTuple):
    """One import.

    Attributes:
        file: of this repository, as a path from its root. line: counted from 1.
        importer, target: modules, as they are imported.
        early: whether it is carried out when the file is imported: it stands at the top level, and
            not for type checkers alone.
    """

    file: str
    line: int
    importer: str
    target: str
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


def _of(name: str, file: Path, known: dict[str, Path]) -> Iterator[Import]:
    shown = file.relative_to(REPOSITORY).as_posix()
    inside = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node, early in _nodes(ast.parse(file.read_text("utf-8"))):
        for target in _targets(node, inside, known):
            yield Import(shown, node.lineno, name, target, early)


def _nodes(tree: ast.AST, early: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, early
            continue
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _nodes(node, early and not typing and not function)


def _targets(
    node: ast.Import | ast.ImportFrom, inside: list[str], known: dict[str, Path]
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = inside[: len(inside) - node.level + 1] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    names = [f"{module}.{alias.name}" for alias in node.names]
    yield from dict.fromkeys(name if name in known else module for name in names)

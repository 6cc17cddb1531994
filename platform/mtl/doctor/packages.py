"""Python and the packages: installed, and in the ranges that the project names."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from .checks import Check, bad, note, ok

NAMED = ("torch", "optuna", "mlflow", "optuna-dashboard")
"""The packages that have a line each; the others share one."""

_ALL = "pip install -c constraints.txt ."


def packages() -> Iterator[Check]:
    """Compare what is installed with what the installed mtl asks for."""
    try:
        about = metadata.metadata("mtl")
    except metadata.PackageNotFoundError:
        yield note("python", platform.python_version(), "")
        yield bad("mtl", "runs, but is not installed: versions cannot be compared", _ALL)
        return
    yield _python(about.get_all("Requires-Python", [""])[0])
    yield ok("mtl", about["Version"])
    wanted = [Requirement(text) for text in about.get_all("Requires-Dist", [])]
    wanted = [need for need in wanted if need.marker is None or need.marker.evaluate()]
    yield from (package(need) for need in wanted if need.name in NAMED)
    yield _others([package(need) for need in wanted if need.name not in NAMED])


def _python(wanted: str) -> Check:
    version = platform.python_version()
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return ok("python", version)
    mend = "make clean, then: make setup PYTHON=... with such a Python"
    return bad("python", f"{version}; mtl needs {wanted}", mend)


def package(need: Requirement) -> Check:
    """Say whether a package is here, in a version that is asked for."""
    mend = f'pip install "{need.name}{need.specifier}"'
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return bad(need.name, f"not installed; mtl needs {need.specifier or 'it'}", mend)
    if need.specifier.contains(version, prereleases=True):
        return ok(need.name, version)
    return bad(need.name, f"{version}; mtl needs {need.specifier}", mend)


def _others(checks: list[Check]) -> Check:
    faults = [check for check in checks if check.state != "ok"]
    if not faults:
        return ok("other packages", f"{len(checks)} in range")
    found = "; ".join(f"{fault.name} {fault.found}" for fault in faults)
    return bad("other packages", found, _ALL)

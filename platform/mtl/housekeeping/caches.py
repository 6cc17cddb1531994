"""Cached data that no data file refers to any more, and what killed processes left half written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from minbert import InputError

from .checkpoints import running_trainings
from .removal import DAY, Removal

if TYPE_CHECKING:
    from ..storage.home import Home
    from .runs import Runs
    from .studies import Studies

KEEP_LOGS = 30 * DAY

_TOKENS = re.compile(r"[a-z]+-[0-9a-f]{24}$")
_CORPUS = re.compile(r"demo-corpus-[0-9a-f]{12}$")
# Where a writer works on something before it is renamed: in the cache, in its tokens, among its
# backbones, and in the home.
_DRAFTS = {
    "cache": re.compile(r"demo-corpus-.*\.part$"),
    "cache/tokens": re.compile(r"\.rows-|\.[a-z]+-[0-9a-f]{24}-"),
    "cache/backbones": re.compile(r"\.(pull|old)-"),
    ".": re.compile(r"(\.write-\d+|mlflow\.db\.(\w+\.)?part)$"),
}


def tidy_caches(removal: Removal, home: Home, studies: Studies | None, runs: Runs | None) -> None:
    """Go through tokenised data and demo corpora; those that somebody may be reading stay."""
    tokens = [path for path in removal.children(home.cache / "tokens") if _TOKENS.match(path.name)]
    corpora = [path for path in removal.children(home.cache) if _CORPUS.match(path.name)]
    if not tokens and not corpora:
        return
    needed = _needed(home, studies, runs)
    unneeded = [p for p in (*tokens, *corpora) if p.name not in needed and removal.is_old([p])]
    busy = _at_work(removal, home, studies, runs) if unneeded else None
    for path in unneeded:
        if busy is not None:
            removal.leave(path, f"{busy} may be reading it")
        elif path in corpora:
            removal.drop("corpus", "demo corpus of another version", path)
        else:
            locks = [lock for lock in (path.with_name(f"{path.name}.lock"),) if lock.exists()]
            removal.drop("tokens", "tokenised data that no known file gives", path, *locks)


def _needed(home: Home, studies: Studies | None, runs: Runs | None) -> set[str]:
    """Name what the data and backbones of everything recorded give, and the demo's."""
    from minbert.data.datasets import cached_names, demo_folder

    pairs = {("demo", "demo")}
    pairs |= runs.inputs if runs is not None else set()
    pairs |= studies.inputs() if studies is not None else set()
    paths, backbones = ({pair[place] for pair in pairs} for place in (0, 1))
    names = {demo_folder(home.cache).name}
    for path in sorted(paths | {"demo"}):
        for backbone in sorted(backbones | {"demo"}):
            try:
                names |= cached_names(path, backbone, home.cache)
            except (InputError, OSError):
                continue  # the folder is gone: nothing of it can be trained on any more
    return names


def _at_work(
    removal: Removal, home: Home, studies: Studies | None, runs: Runs | None
) -> str | None:
    """Name something that reads the caches now: a training reads its sentences at its end."""
    attended = studies.attended() if studies is not None else []
    if attended:
        return f"study {attended[0]}"
    running = running_trainings(removal, home, runs)
    return f"training {running[0]}" if running else None


def tidy_drafts(removal: Removal, home: Home) -> None:
    """Go through what writers leave when they are killed; what is young is still being written."""
    for folder, pattern in _DRAFTS.items():
        for path in removal.children(home.path / folder):
            if pattern.match(path.name) and removal.is_old([path]):
                removal.drop("draft", "left half written by a killed process", path)


def tidy_logs(removal: Removal, home: Home) -> None:
    """Go through the tracebacks in the logs."""
    for path in removal.children(home.logs):
        if _is_traceback(path) and removal.is_old([path], KEEP_LOGS):
            removal.drop("log", "traceback of more than 30 days ago", path)


def _is_traceback(path: Path) -> bool:
    return path.name.startswith("error-") and path.suffix == ".log"

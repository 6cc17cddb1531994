"""The command line that leads to a recorded study, rebuilt from its settings."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minbert.errors import InputError

if TYPE_CHECKING:
    import optuna

    from ..study.spec import StudySpec


def study_command(study: optuna.Study, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return a command that runs a study of these settings; None if no shipped study file does.

    Args:
        rows: its leaderboard.
    """
    settings = study.user_attrs.get("settings")
    if not settings:
        return None
    profile = study.user_attrs.get("profile")
    tried = {name: _sets(name, profile, settings) for name in _candidates(study.study_name)}
    able = {name: sets for name, sets in tried.items() if sets is not None}
    if not able:
        return None
    nearest = min(able, key=lambda name: len(able[name]))
    return shlex.join(_words(study.study_name, nearest, profile, able[nearest], rows))


def _candidates(study: str) -> list[str]:
    from ..study.load import list_studies

    known = [info.name for info in list_studies()]
    own = study.partition("@")[0]
    return [own] if own in known else known


def _sets(name: str, profile: str | None, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what must be set for a study file to mean these settings; None if nothing can."""
    from ..study.load import load_study

    try:
        fixed = load_study(name, profile=profile).settings["config"]
        changed = {
            key: value
            for key, value in settings["config"].items()
            if key not in fixed or fixed[key] != value
        }
        spec = load_study(name, profile=profile, overrides=changed)
    except InputError:  # no such profile, or a key that is no more
        return None
    return changed if _same(spec, settings) else None


def _same(spec: StudySpec, settings: Mapping[str, Any]) -> bool:
    from ..study.spec import differing_keys

    return not differing_keys(settings, json.loads(json.dumps(spec.settings)))


def _words(
    study: str,
    name: str,
    profile: str | None,
    sets: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> list[str]:
    originals = [row for row in rows if row["replicate_of"] is None and not row["extra"]]
    copies = [row["replicate_of"] for row in rows if row["replicate_of"] is not None]
    words = ["mtl", "study", "run", name]
    words += ["--profile", profile] if profile else []
    words += ["--trials", str(len(originals))] if originals else []
    if copies:
        words += ["--replicates", str(1 + max(Counter(copies).values()))]
    for key, value in sets.items():
        words += ["--set", f"{key}={_literal(value)}"]
    own = study.partition("@")[0]
    return words if own == name else [*words, "--as", study]


def _literal(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

"""The embedded demo, for whoever shows scores: they say nothing of real data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DEMO_NOTE = "Demo scores mean nothing outside the demo."


def is_demo(*configs: Mapping[str, Any]) -> bool:
    """Say whether one of some trainings uses the generated corpus or the tiny encoder.

    Args:
        configs: configuration keys with their values; what a key is searched in is not among them.
    """
    return any("demo" in (keys.get("backbone"), keys.get("data.path")) for keys in configs)


def is_demo_study(settings: Mapping[str, Any] | None, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Say the same of a study, by its settings as they were recorded and its leaderboard."""
    fixed = (settings or {}).get("config", {})
    return is_demo(fixed, *(row["config"] for row in rows))

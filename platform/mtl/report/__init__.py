"""What is made of a study for people to look at: leaderboard, tables, figures."""

from importlib import import_module

_PUBLIC = {
    "METRICS": "rows",
    "SCORES": "rows",
    "best_of": "rows",
    "leaderboard": "rows",
    "grouped": "rows",
    "replicated": "rows",
    "row_setting": "rows",
    "state_word": "rows",
    "why_no_best": "rows",
    "export_csv": "export",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)

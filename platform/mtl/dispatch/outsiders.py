"""What others do to a study with Optuna's own interface while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minbert import InputError

if TYPE_CHECKING:
    import optuna


class StudyGoneError(InputError):
    """A study is no more in Optuna's storage: it was deleted or renamed while it ran."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"study {name} was deleted or renamed in Optuna's storage while it ran: it is left; "
            "what it has recorded is in MLflow, and the same command begins it anew"
        )


def is_gone(study: optuna.Study, key: str) -> bool:
    """Say whether a study was deleted or renamed.

    Args:
        key: what tells it from others, which may have got its id since.
    """
    try:
        return study.user_attrs.get("key") != key
    except KeyError:
        return True

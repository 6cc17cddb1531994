"""Which recorded study a command means, and the reading of recorded studies."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minbert import InputError

from ..common.process import reading_many
from ..storage.home import Home
from ..storage.optuna import read_storage
from ..study.file import nearest
from ..study.names import check_distinct, check_name
from ..study.spec import StudySpec, differing_keys
from .attributes import late_runs, run_of
from .constraints import exceeded
from .states import COMPLETE, COUNTED, TO_OPTUNA

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_DIGITS = 6  # of a variant's name


@dataclass(frozen=True)
class RecordedStudy:
    """A study that was run.

    Attributes:
        states: how many trials are complete, pruned, failed and running.
        best: the best complete trial as number, score and params; None without one.
    """

    name: str
    profile: str | None
    description: str
    trials: int
    states: dict[str, int]
    best: dict[str, Any] | None


def recorded_studies(home: Home) -> list[RecordedStudy]:
    """List what was recorded, by name. Reads only; works while a study runs.

    Raises:
        InputError: the database cannot be opened.
    """
    storage = read_storage(home)
    if storage is None:  # nothing was recorded, and there is nothing to load Optuna for
        return []
    import optuna

    names = sorted(study.study_name for study in storage.get_all_studies())
    return [summarize(optuna.load_study(study_name=name, storage=storage)) for name in names]


class UnknownStudyError(InputError):
    """Nothing is recorded under a name."""


def open_recorded(home: Home, name: str) -> optuna.Study:
    """Open a recorded study for reading; writing to it is refused by the database.

    Raises:
        UnknownStudyError: nothing is recorded under that name.
        InputError: the database cannot be opened.
    """
    import optuna

    storage = read_storage(home)
    known = [study.study_name for study in storage.get_all_studies()] if storage else []
    if storage is None or name not in known:
        near = nearest(name, known)
        raise UnknownStudyError(f"no study {name!r} is recorded in {home.path}; {near}")
    return optuna.load_study(study_name=name, storage=storage)


def summarize(study: optuna.Study) -> RecordedStudy:
    """Count the trials of a study and name its best one."""
    with reading_many():
        trials = study.get_trials(deepcopy=False)
    states = Counter(trial.state.name for trial in trials)
    complete = [t for t in trials if t.state.name == TO_OPTUNA[COMPLETE] and not exceeded(t)]
    best = max(complete, key=lambda trial: (trial.value, -trial.number), default=None)
    attributes = study.user_attrs
    return RecordedStudy(
        name=study.study_name,
        profile=attributes.get("profile"),
        description=attributes.get("description", ""),
        trials=len(trials),
        states={state: states[TO_OPTUNA[state]] for state in COUNTED},
        best=None if best is None else _described(best, study),
    )


def _described(best: FrozenTrial, study: optuna.Study) -> dict[str, Any]:
    return {
        "number": best.number,
        "score": best.value,
        "params": dict(best.params),
        "run_id": run_of(best, late_runs(study, [best])),
    }


def to_continue(attributes: Mapping[str, Any]) -> str | None:
    """Return the command that last ran a study, and where it was typed; None if that is not known.

    Args:
        attributes: the study's user attributes.
    """
    command, folder = attributes.get("command"), attributes.get("folder")
    if not command:
        return None
    if folder == os.getcwd():
        return command
    moved = "" if os.path.isdir(folder or "") else ", which is not there any more"
    return f"{command} (in {folder}{moved})"


def choose_name(
    storage: optuna.storages.BaseStorage,
    spec: StudySpec,
    name: str | None,
    say: Callable[[str], None],
) -> str:
    """Decide which study a command means.

    Args:
        name: given by --as; None takes the file's name, or a variant of it (``NAME@3f2a1b``) where
            the study of that name has other fixed settings. The same settings always mean the
            same study.
        say: told when a variant is taken.

    Raises:
        InputError: the study of that name has other settings, or the name is not safe or too like
            another's.
    """
    settings = {
        study.study_name: study.user_attrs.get("settings") for study in storage.get_all_studies()
    }
    wanted = check_name(spec.name if name is None else name)
    check_distinct(wanted, settings)
    differing = _differing(settings, wanted, spec)
    if not differing:
        return wanted
    if name is not None:
        raise InputError(
            f"--as {name}: that study has other settings in {differing}; use another name"
        )
    variant = f"{wanted}@{spec.identity[:_DIGITS]}"
    if others := _differing(settings, variant, spec):
        raise InputError(f"study {variant} has other settings in {others}; use --as NAME")
    say(f"study {wanted} has other settings in {differing}: this one is {variant}")
    return variant


def fits(settings: dict[str, Any], name: str, spec: StudySpec) -> bool:
    """Say whether a study of that name does not exist, or has the settings of `spec`."""
    return not _differing(settings, name, spec)


def _differing(settings: Mapping[str, Any], name: str, spec: StudySpec) -> str:
    """Name the settings in which a study of that name is another; empty if it is not."""
    known = settings.get(name)
    return "" if known is None else ", ".join(differing_keys(known, spec.settings))

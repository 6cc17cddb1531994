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
from ..study.inputs import INPUT_KEYS, INPUTS, Digests, changed, moved
from ..study.names import check_distinct, check_name
from ..study.spec import StudySpec, differing_keys, digest
from .attributes import attributes_of, late_runs, run_of
from .constraints import exceeded
from .origin import ASKED_FROM
from .states import COMPLETE, COUNTED, TO_OPTUNA

if TYPE_CHECKING:
    import optuna
    from optuna.study._frozen import FrozenStudy
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
    attributes = study.user_attrs
    marked = ASKED_FROM in attributes
    complete = [t for t in trials if t.state.name == TO_OPTUNA[COMPLETE] and not exceeded(t)]
    complete = [t for t in complete if not marked or "scores" in attributes_of(t)]
    best = max(complete, key=lambda trial: (trial.value, -trial.number), default=None)
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
    digests: Callable[[], Digests] = dict,
) -> str:
    """Decide which study a command means.

    Args:
        name: given by --as; None takes the file's name, or a variant of it (``NAME@3f2a1b``) where
            the study of that name has other fixed settings, or had other files under the same
            paths. The same settings and files always mean the same study.
        say: told when a variant is taken.
        digests: reads those of data and backbones; asked only where a study has the name.

    Raises:
        InputError: the study of that name has other settings, or the name is not safe or too like
            another's.
    """
    known = {study.study_name: study for study in storage.get_all_studies()}
    wanted = check_name(spec.name if name is None else name)
    check_distinct(wanted, known)
    if wanted not in known:
        return wanted
    _check_ours(storage, known[wanted])
    now = digests()
    differing = differing_settings(known[wanted].user_attrs, spec, now)
    if not differing:
        return wanted
    if name is not None:
        raise InputError(
            f"--as {name}: that study has other settings in {differing}; use another name"
        )
    variant = _variant(known, wanted, spec, now)
    say(f"study {wanted} has other settings in {differing}: this one is {variant}")
    return variant


def _variant(known: Mapping[str, FrozenStudy], wanted: str, spec: StudySpec, now: Digests) -> str:
    """Return the variant of a study with the spec's settings and files; a new one if none is
    recorded."""
    contents = digest([spec.identity, {key: sorted(now[key].values()) for key in sorted(now)}])
    names = [f"{wanted}@{each[:_DIGITS]}" for each in (spec.identity, contents)]
    recorded = sorted(name for name in known if name.startswith(f"{wanted}@"))
    for name in [name for name in names if name in known] + recorded:
        if not differing_settings(known[name].user_attrs, spec, now):
            return name
    for name in names:
        if name not in known:
            return name
    others = differing_settings(known[names[-1]].user_attrs, spec, now)
    raise InputError(f"study {names[-1]} has other settings in {others}; use --as NAME")


def _check_ours(storage: optuna.storages.BaseStorage, study: FrozenStudy) -> None:
    """Refuse a study that something else has made under the name."""
    from optuna.study import StudyDirection

    foreign = storage.get_n_trials(study._study_id) and "settings" not in study.user_attrs
    if study.directions != [StudyDirection.MAXIMIZE]:
        why = "does not maximise one score"
    elif foreign:
        why = "has trials that were not run by mtl"
    else:
        return
    raise InputError(
        f"study {study.study_name!r} in Optuna's storage was made by something else: it {why}; "
        "use --as NAME"
    )


def differing_settings(attributes: Mapping[str, Any], spec: StudySpec, now: Digests) -> str:
    """Name the settings in which a recorded study is another than the spec, and the keys under
    whose values other files lie now; empty if it is the same.

    Args:
        attributes: the study's user attributes.
    """
    settings, known = attributes.get("settings"), attributes.get(INPUTS) or {}
    if settings is None:
        return ""
    old, new = settings["config"], spec.settings["config"]
    shared = {*INPUT_KEYS} & old.keys() & new.keys()
    same = {key for key in shared if moved(key, old[key], new[key], known, now)}
    keys = [key for key in differing_keys(settings, spec.settings) if key not in same]
    return ", ".join([*keys, *(f"the files of {key}" for key in changed(known, now))])

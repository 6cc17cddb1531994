"""Studies whose dispatcher is gone while trials of theirs were running."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from minbert import InputError

from ..storage.home import Home
from ..storage.optuna import read_engine
from ..storage.short_look import optuna_storage
from ..storage.sqlite import sqlite_file
from ..trials.recorded import to_continue
from .checks import Check, note, ok

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage


def unfinished(home: Home) -> Iterator[Check]:
    """Name the studies that nobody works on though trials of theirs are RUNNING.

    Raises:
        InputError: the database cannot be opened.
    """
    file = sqlite_file("MTL_STORAGE", home.storage_url)
    if file is not None and not file.exists():
        yield ok("studies", "none is recorded yet")
        return
    with optuna_storage(home.storage_url) as storage:
        yield from _look(home, storage) if storage else [ok("studies", "none is recorded yet")]


def _look(home: Home, storage: RDBStorage) -> list[Check]:
    import optuna

    names = optuna.get_all_study_names(storage)
    studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
    left = [check for study in studies if (check := _left(home, study, storage)) is not None]
    return left or [ok("studies", f"{len(names)} recorded, none left unfinished")]


def _left(home: Home, study: optuna.Study, storage: RDBStorage) -> Check | None:
    from optuna.trial import TrialState

    from ..common.text import count
    from ..storage.lease import dispatcher_of

    # Of the study itself one would get these by way of all its trials.
    running = storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.RUNNING,))
    if not running:
        return None
    engine = read_engine(home)
    try:
        if dispatcher_of(engine, study.study_name):
            return None
    finally:
        engine.dispose()
    found = f"{study.study_name}: {count(len(running), 'trial')} unfinished, nobody works on it"
    return note("studies", found, goes_on(study.study_name, study.user_attrs))


def goes_on(name: str, attributes: Mapping[str, Any]) -> str:
    """Say the command that goes on with a study, as far as it can be told from what is recorded.

    Args:
        name: of the recorded study.
        attributes: the study's user attributes: settings, profile.
    """
    from ..study.load import load_study
    from ..study.spec import differing_keys

    if typed := to_continue(attributes):
        return typed
    file, settings = name.partition("@")[0], attributes.get("settings")
    profile = attributes.get("profile")
    try:
        if not settings:
            raise KeyError(name)
        spec = load_study(file, profile=profile)
        changed = differing_keys(settings, spec.settings)
        sets = {key: settings["config"][key] for key in changed}
        spec = load_study(file, profile=profile, overrides=sets)
        if differing_keys(settings, spec.settings):
            raise KeyError(name)
    except (InputError, KeyError):
        return f"the command that ran it: mtl study run FILE (mtl study status {shlex.quote(name)})"
    words = ["mtl", "study", "run", file, *(["--profile", profile] if profile else [])]
    for key, value in sets.items():
        words += ["--set", f"{key}={_literal(value)}"]
    return shlex.join(words)


def _literal(value: Any) -> str:
    # What JSON and TOML write the same way; null is no value of a key.
    return value if isinstance(value, str) else json.dumps(value)

"""What Optuna's storage says of a home: studies, their trials, pictures, and who works on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from minbert import InputError

from ..common.masking import masked
from ..common.process import reading_many
from ..storage.home import Home
from ..storage.lease import Lease, dispatcher_of, dispatchers
from ..storage.optuna import open_engine, read_engine
from ..storage.short_look import optuna_storage
from ..storage.sqlite import sqlite_file, undisturbed
from ..storage.urls import sqlite_url
from ..trials.attributes import attributes_of

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study._frozen import FrozenStudy
    from optuna.trial import FrozenTrial
    from sqlalchemy import Engine

_PICTURE = "artifacts:"  # in the name of a system attribute, before the id


class _Database(NamedTuple):
    storage: BaseStorage  # it reads trials that have ended only once
    engine: Engine

    def studies(self) -> list[FrozenStudy]:
        return self.storage.get_all_studies()

    def trials(self, study: FrozenStudy) -> list[FrozenTrial]:
        with reading_many():
            return self.storage.get_all_trials(study._study_id, deepcopy=False)


class Studies:
    """The studies of a home. What can still change is read afresh at each question.

    Args:
        databases: the storage in use first; the home's own file too where MTL_STORAGE names
            another, since checkpoints of both lie in one home.
    """

    def __init__(self, databases: list[_Database]) -> None:
        self._databases = databases

    @contextmanager
    def unattended(self, study: str, hold: bool) -> Iterator[str | None]:
        """Keep dispatchers off a study while its files are looked at.

        Args:
            hold: take its lease; without, it is only asked who has it.

        Yields:
            None, or who works on it, in words: then nothing of it may be touched.
        """
        found = [database for database, known in self._all() if known.study_name == study]
        engine = (found or self._databases)[0].engine
        busy = dispatcher_of(engine, study)
        with ExitStack() as stack:
            if busy is None and hold:
                try:
                    stack.enter_context(Lease(engine, study))
                except InputError as error:  # it was taken a moment ago
                    busy = str(error)
            yield busy

    def _all(self) -> Iterator[tuple[_Database, FrozenStudy]]:
        for database in self._databases:
            yield from ((database, study) for study in database.studies())

    def attended(self) -> list[str]:
        """Return the studies that a dispatcher works on now."""
        return sorted({name for data in self._databases for name in dispatchers(data.engine)})

    def trials(self, study: str) -> dict[int, FrozenTrial] | None:
        """Return the trials of a study by number; None if there is no such study."""
        for database, known in self._all():
            if known.study_name == study:
                return {trial.number: trial for trial in database.trials(known)}
        return None

    def pictures(self) -> set[str]:
        """Return the ids of everything that hangs on a study or a trial."""
        names: set[str] = set()
        for database, study in self._all():
            names.update(study.system_attrs)
            for trial in database.trials(study):
                names.update(trial.system_attrs)
        return {name.rpartition(":")[2] for name in names if _PICTURE in name}

    def runs_needed(self) -> set[str]:
        """Return the ids of the runs without which a study cannot go on: its own, and those of its
        unfinished trials."""
        return self._runs(lambda trial: not trial.state.is_finished())

    def runs_named(self) -> set[str]:
        """Return the ids of every run that a study or a trial says it has."""
        return self._runs(lambda _: True)

    def _runs(self, wanted: Callable[[FrozenTrial], bool]) -> set[str]:
        found: set[str | None] = set()
        for database, study in self._all():
            found.add(study.user_attrs.get("parent_run_id"))
            trials = filter(wanted, database.trials(study))
            found.update(trial.user_attrs.get("mlflow_run_id") for trial in trials)
        return {run for run in found if run is not None}

    def inputs(self) -> set[tuple[str, str]]:
        """Return what was trained on: pairs of data folder and backbone."""
        found = set()
        for database, study in self._all():
            configs = [study.user_attrs.get("settings", {}).get("config", {})]
            configs += [attributes_of(trial).get("config", {}) for trial in database.trials(study)]
            found |= {(c["data.path"], c["backbone"]) for c in configs if c.keys() >= _PAIR}
        return found


_PAIR = {"data.path", "backbone"}


@contextmanager
def open_studies(home: Home, hold: bool) -> Iterator[Studies | None]:
    """Open the home's storage so that looking changes nothing; None where nothing was recorded.

    Args:
        hold: leases are taken, see `Studies.unattended`; without, nothing need be writable.

    Raises:
        InputError: MTL_STORAGE is no database URL, or the database cannot be opened.
    """
    own = home.path / "optuna.db"
    places = [home]
    if sqlite_file("MTL_STORAGE", home.storage_url) != own:
        places.append(replace(home, storage_url=sqlite_url(own)))
    with ExitStack() as stack:
        databases = [stack.enter_context(_open(place, hold)) for place in places]
        if databases[0] is None:
            yield None
        else:
            yield Studies([database for database in databases if database is not None])


@contextmanager
def _open(home: Home, hold: bool) -> Iterator[_Database | None]:
    from optuna.exceptions import OptunaError
    from optuna.storages import get_storage
    from sqlalchemy.exc import SQLAlchemyError

    file = sqlite_file("MTL_STORAGE", home.storage_url)
    if file is not None and not file.is_file():
        yield None
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(undisturbed(file))
            storage = stack.enter_context(optuna_storage(home.storage_url))
            engine = open_engine(home) if hold else read_engine(home)
        except (SQLAlchemyError, OptunaError, ImportError) as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
            raise InputError(
                f"storage {masked(home.storage_url)} cannot be opened: {reason}"
            ) from error
        stack.callback(engine.dispose)
        yield None if storage is None else _Database(get_storage(storage), engine)

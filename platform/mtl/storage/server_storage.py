"""Optuna's storage on a database server."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models

from .server import alone, server_options
from .urls import optuna_template


class ServerStorage(RDBStorage):
    """Optuna's storage, which creates a trial once though it asks several times.

    Where the connection is lost, Optuna asks for a new trial again, up to five times. If it was
    only the answer that was lost, the trial exists, and would exist twice.
    """

    _asked_for: int | None = None

    def _create_new_trial(self, *args: Any, **kwargs: Any) -> Any:
        self._asked_for = None
        return super()._create_new_trial(*args, **kwargs)

    def _get_prepared_new_trial(self, study_id: int, template_trial: Any, session: Any) -> Any:
        # Ids come from a sequence: none that was rolled back is given again.
        if self._asked_for is not None:
            known = session.get(models.TrialModel, self._asked_for)
            if known is not None:
                return known
        # Typed as a class with columns, and an instance has values.
        trial: Any = super()._get_prepared_new_trial(study_id, template_trial, session)
        self._asked_for = trial.trial_id
        return trial


def open_server_storage(url: str) -> ServerStorage:
    """Open Optuna's storage on a server, with its tables made if they are not there.

    Raises:
        SQLAlchemyError, OptunaError, ImportError: it cannot be opened.
    """
    options = server_options(url)
    engine = sa.create_engine(url, **options)
    try:
        with engine.begin() as connection:
            alone(connection)
            return ServerStorage(optuna_template(url), options)
    finally:
        engine.dispose()

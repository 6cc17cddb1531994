"""From the operations of an outbox to MLflow: in order, and none twice.

A run that was deleted in MLflow meanwhile is restored, with its experiment; one that MLflow does
not know any more (its store was put aside, or purged by ``mlflow gc``) is made anew from all that
its outbox holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import tag_keys
from .experiments import Experiments
from .live_store import LiveStore
from .operations import METRICS_PER_CALL, Operations
from .outbox import Operation, Outbox
from .refusals import AwayError, BlockedError, GoneError, RefusedError, judged

if TYPE_CHECKING:
    from mlflow.entities import RunInfo

_ATTEMPTS = 3  # to bring back what is gone: more than one thing may be


class Sender:
    """Sends outboxes to one MLflow store.

    Args:
        tracking_uri: an SQLAlchemy URL or the address of a server.
        artifact_root: folder for artifacts where the store is a local SQLite file; a server
            decides by itself where artifacts go.

    Attributes:
        notices: what a person should know of what was done, a line each; who reads them takes
            them away.

    Raises:
        InputError: the store cannot be opened.
    """

    def __init__(self, tracking_uri: str, artifact_root: Path) -> None:
        self.tracking_uri = tracking_uri
        self.notices: list[str] = []
        say, root = self.notices.append, Path(artifact_root)
        self._store = LiveStore(tracking_uri, root)
        self.experiments = Experiments(self._store.client, tracking_uri, root, say)
        self._operations = Operations(self._store.client, self.experiments, say)

    def send(self, outbox: Outbox) -> None:
        """Send everything that waits.

        Raises:
            AwayError, BlockedError, RefusedError: what was sent until then is noted; the rest
                waits.
        """
        attempts = 0
        while waiting := outbox.waiting():
            try:
                for group in _groups(waiting):
                    self._translated(outbox, group)
                    outbox.mark_sent(group[-1].end)
            except GoneError as error:
                attempts += 1
                if attempts > _ATTEMPTS:
                    raise RefusedError(str(error)) from error
                self._bring_back(outbox)

    def forget(self, outbox: Outbox) -> None:
        """Drop what is remembered of an outbox that is removed."""
        self._operations.forget(outbox)

    def knows(self, run_id: str) -> bool | None:
        """Say whether MLflow has a run, deleted or not; None where it cannot be asked now."""
        try:
            return self._info(run_id) is not None
        except (AwayError, BlockedError, RefusedError):
            return None

    def _translated(self, outbox: Outbox, group: list[Operation]) -> None:
        try:
            self._store.check()
            self._operations.do(outbox, group)
            self._store.check()
        except (AwayError, BlockedError, GoneError, RefusedError):
            raise
        except Exception as error:
            raise judged(error, outbox.folder) from error

    # ---- what is gone ---------------------------------------------------------------------------

    def _bring_back(self, outbox: Outbox) -> None:
        """Let a run be there again, and its study's first."""
        self.experiments.forget()
        study = _study_of(outbox)
        if study is not None:
            lock = study.sole_sender()
            if lock is None:
                if study.begun:
                    raise AwayError("the study's own run is being brought back", answers=True)
            else:
                try:
                    self._restore(study)
                    if study.run is None:
                        self.send(study)
                finally:
                    lock.release()
        self._restore(outbox)

    def _restore(self, outbox: Outbox) -> None:
        run = outbox.run
        if run is None:
            return  # it is about to be created
        info = self._info(run.run_id)
        if info is None:
            self._begin_anew(outbox, run.run_id)
            return
        try:
            self.experiments.restore(info.experiment_id)
            if self._known(run.run_id).lifecycle_stage == "deleted":
                self._store.client.restore_run(run.run_id)
                self.notices.append(
                    f"run {run.run_id} ({info.run_name}) was deleted in MLflow while more is to be "
                    "recorded in it: it is restored"
                )
        except Exception as error:
            raise judged(error, outbox.folder) from error

    def _begin_anew(self, outbox: Outbox, run_id: str) -> None:
        first = next(outbox.operations(), None)
        if first is None or first.fields["op"] != "create":  # as earlier versions left it
            raise RefusedError(
                f"MLflow does not have run {run_id} any more, and {outbox.folder} does not say "
                "how to make it anew"
            )
        self._operations.forget(outbox)
        outbox.begin_anew()
        if not first.fields.get("ended"):  # of those, one line for all is said
            self.notices.append(
                f"MLflow does not have run {run_id} ({first.fields['name']}) any more: it is made "
                "anew"
            )

    def _info(self, run_id: str) -> RunInfo | None:
        try:
            return self._known(run_id)
        except Exception as error:
            found = judged(error, Path(run_id))
            if isinstance(found, GoneError):
                return None
            raise found from error

    def _known(self, run_id: str) -> RunInfo:
        return self._store.client.get_run(run_id).info


def _study_of(outbox: Outbox) -> Outbox | None:
    """Return the outbox of the study that a trial's belongs to; None for other runs'."""
    for operation in outbox.operations():
        tags = operation.fields.get("tags")
        if operation.fields["op"] == "create" and tags is not None:
            key = tags.get(tag_keys.STUDY_KEY)
            trial = tags.get(tag_keys.KIND) == "trial"
            return Outbox(outbox.folder.with_name(key)) if key and trial else None
    return None


def _groups(waiting: Iterable[Operation]) -> Iterator[list[Operation]]:
    """Put neighbouring metrics together, as many as one call takes."""
    group: list[Operation] = []
    size = 0
    for operation in waiting:
        points = len(operation.fields["values"]) if operation.fields["op"] == "metrics" else 0
        if group and (not points or size + points > METRICS_PER_CALL):
            yield group
            group, size = [], 0
        group.append(operation)
        size += points
        if not points:
            yield group
            group, size = [], 0
    if group:
        yield group

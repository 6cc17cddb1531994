"""``mtl study sync``: send what waits in the spool, without running anything."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minbert.errors import InputError

from ..storage.home import Home
from ..storage.optuna import open_storage, read_storage
from ..trials.attributes import late_runs
from .noting import note_own_run, note_run, number_of
from .outbox import Outbox, outboxes

if TYPE_CHECKING:
    import optuna

    from .study_tracker import StudyTracker
    from .uploader import Uploader


@dataclass(frozen=True)
class SyncResult:
    """What became of what waited.

    Attributes:
        sent: runs that MLflow has whole now.
        waiting: runs that still wait. reason: why.
    """

    sent: int
    waiting: int
    reason: str | None

    @property
    def words(self) -> str:
        """The same as a sentence."""
        if self.waiting:
            return f"{self.sent} runs sent, {self.waiting} wait: {self.reason}"
        return f"{self.sent} runs sent" if self.sent else "nothing waits for MLflow"


def sync_runs(home: Home, study: str | None) -> SyncResult:
    """Send what waits for MLflow.

    Args:
        study: its name; None: of every study and training of the home.

    Raises:
        InputError: no such study, or a store cannot be opened.
    """
    from .study_tracker import StudyTracker

    keys = _keys(home, study)
    boxes = [box for box in outboxes(home.spool) if study is None or _key(box) in keys]
    waiting = [box for box in boxes if not box.empty]
    if not waiting and not any(box.closed for box in boxes):
        return SyncResult(0, 0, None)
    with closing(StudyTracker(home)) as tracker:
        for box in waiting:
            tracker.uploader.watch(box)
        for box in waiting:  # one that is refused holds up no other
            tracker.uploader.wait([box])
        _note(home, keys, boxes, tracker)
        left = [box for box in waiting if not box.empty]
        reason = _reason(tracker.uploader, left)
    return SyncResult(len(waiting) - len(left), len(left), reason if left else None)


def _reason(uploader: Uploader, left: list[Outbox]) -> str | None:
    if uploader.hindrance is not None:
        return uploader.hindrance.reason
    return next((uploader.refused[box.folder] for box in left if box.folder in uploader.refused),
                None)  # fmt: skip


def _keys(home: Home, name: str | None) -> dict[str, str]:
    """Return the names of the studies (or of one) by the key that their outboxes have."""
    storage = read_storage(home)
    studies = storage.get_all_studies() if storage is not None else []
    if name is not None and name not in [study.study_name for study in studies]:
        raise InputError(f"no study {name!r} is recorded in {home.path}")
    return {
        study.user_attrs["key"]: study.study_name
        for study in studies
        if "key" in study.user_attrs and name in (None, study.study_name)
    }


def _key(box: Outbox) -> str:
    return box.folder.name.partition("-")[0]


def _note(home: Home, keys: dict[str, str], boxes: list[Outbox], tracker: StudyTracker) -> None:
    """Note the ids that MLflow gave to runs of studies that nobody dispatches, and remove what it
    has whole. A dispatcher that runs does this itself."""
    import optuna

    from ..storage.lease import dispatcher_of
    from ..storage.optuna import open_engine

    engine = open_engine(home)
    for key, name in keys.items():
        own = [box for box in boxes if _key(box) == key]
        if own and dispatcher_of(engine, name) is None:
            study = optuna.load_study(study_name=name, storage=open_storage(home))
            _note_study(study, own, tracker)
    for box in boxes:
        if _key(box) not in keys and box.empty and box.closed:
            box.remove()


def _note_study(study: optuna.Study, boxes: list[Outbox], tracker: StudyTracker) -> None:
    late = late_runs(study)
    for box in boxes:
        run, number = box.run, number_of(box)
        if run is None or run.experiment_id is None:
            continue
        if number is not None:
            note_run(study, number, run, tracker.address(run), late)
        else:
            note_own_run(study, run, tracker)
        if box.empty and box.closed:
            box.remove()

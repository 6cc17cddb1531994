"""What MLflow keeps of a study, seen from the dispatcher: it creates runs and ends them.

The worker's half, which fills a trial's run, is `mtl.tracking.run_recorder`. Both only watch:
nothing here decides what is trained. And nothing here waits for MLflow, but where it says so:
everything goes into outboxes, which an uploader sends.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minbert.errors import InputError

from ..common.masking import clean, without_login
from ..common.text import paragraph
from ..storage.sqlite import refuse_damaged
from ..storage.urls import is_server
from ..trials.labels import run_name
from ..trials.states import RUNNING
from . import tag_keys
from .inputs import DatasetInput
from .outbox import Outbox, Run, outboxes
from .run_texts import dataset_fields, source_tags, tag_text, value_text
from .runs_view import run_path, view_path
from .sender import Sender
from .store import UI_PORT, sqlite_file
from .uploader import Uploader

if TYPE_CHECKING:
    import optuna

    from ..storage.home import Home

_PATIENCE = 3.0  # seconds that a run's id is waited for: without it, its trial begins all the same


class StudyTracker:
    """The dispatcher's side of tracking: a study's run, and those of its trials.

    A run is known by its outbox, and MLflow's id of it as soon as MLflow has created it
    (`mtl.tracking.outbox.Outbox.run`).

    Args:
        home: names MLflow's store and holds the spool.

    Attributes:
        uploader: sends; it says whether MLflow is away.

    Raises:
        InputError: the store cannot be opened, or is damaged.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        if file := sqlite_file(home.mlflow_uri):
            refuse_damaged(file)
        self._sender = Sender(home.mlflow_uri, home.mlflow_artifacts)
        self.uploader = Uploader(self._sender)

    def study_box(self, study_key: str) -> Outbox:
        """Return the outbox of a study's run; the key tells the study from others of its name."""
        return Outbox(self._home.spool / study_key)

    def trial_box(self, study_key: str, number: int) -> Outbox:
        """Return the outbox of a trial's run."""
        return Outbox(self._home.spool / f"{study_key}-{number}")

    def left_over(self, study_key: str) -> list[Outbox]:
        """Return the outboxes that earlier dispatchers of a study left, its own first."""
        boxes = outboxes(self._home.spool)
        return [box for box in boxes if box.folder.name.partition("-")[0] == study_key]

    def open_study(
        self,
        box: Outbox,
        name: str,
        description: str,
        tags: Mapping[str, object],
        run_id: str | None = None,
    ) -> None:
        """Open a study's run: created, or RUNNING again.

        Args:
            name: of the study, and of its experiment.
            run_id: the run that it has.
        """
        note = {"mlflow.note.content": paragraph(description)}
        own = {tag_keys.STUDY: name, tag_keys.KIND: "study", tag_keys.STUDY_KEY: box.folder.name}
        find = {tag_keys.STUDY_KEY: box.folder.name, tag_keys.KIND: "study"}
        create = _creation(name, f"study {name}", {**tags, **own, **note}, find)
        if self._begun(box, run_id, create):
            box.append("tags", values=note)
        self.uploader.watch(box)

    def open_trial(
        self,
        box: Outbox,
        *,
        study: str,
        number: int | None,
        params: Mapping[str, object],
        tags: Mapping[str, object],
        parent: Outbox | None = None,
        run_id: str | None = None,
        label: str = "",
        datasets: Sequence[DatasetInput] = (),
        began: int | None = None,
        only_anew: bool = False,
    ) -> None:
        """Record that one training begins.

        The run of a study's trial is created once: a dispatcher that was killed before it noted
        the id finds the run by its tags.

        Args:
            study: the experiment's name.
            number: the trial's number; None outside a study.
            params: every configuration key with its value.
            parent: the study's outbox; None for a training outside any study.
            run_id: the run that it has, if its outbox was lost.
            label: what distinguishes it from its neighbours; it is in the run's name.
            datasets: the data it reads.
            began: when it did, in milliseconds of Unix time; None: now.
            only_anew: it is not to go on. If its run is there, it gets its place below the study's
                run, and nothing else; see `mtl.tracking.restoring`.
        """
        own = {tag_keys.KIND: "training" if number is None else "trial", tag_keys.STUDY: study}
        find = {}
        if parent is not None:
            own |= {tag_keys.STUDY_KEY: parent.folder.name, tag_keys.TRIAL: str(number)}
            # Found by the name of a tag that no other run has: MLflow has an index of names alone,
            # and would look at every run of the study for a value.
            find = {f"mtl.run.{box.folder.name}": "1"}
        create = _creation(study, run_name(number, label), {**tags, **own, **find}, find)
        create |= {} if began is None else {"time": began}
        create |= {"ended": True} if only_anew else {}
        anew = {"anew": True} if only_anew else {}
        self._begun(box, run_id, create, on="parent" if only_anew else "reopen")
        values = {key: value_text(value) for key, value in params.items()}
        box.append("params", values=values, **anew)
        if datasets:
            box.append("inputs", datasets=[dataset_fields(part) for part in datasets], **anew)
        self.uploader.watch(box)

    def reopen(self, box: Outbox, run_id: str | None) -> None:
        """Set a run that MLflow knows RUNNING again, whatever became of it."""
        if box.run is None and run_id is not None:
            box.set_run(Run(run_id, None))
        box.append("reopen")
        self.uploader.watch(box)

    def _begun(
        self, box: Outbox, run_id: str | None, create: Mapping[str, Any], on: str = "reopen"
    ) -> bool:
        """Record that a run begins, or goes on, by the operation ``on``; say whether it goes on.

        What it is created with is recorded even where it is there: MLflow may lose it.
        """
        goes_on = run_id is not None or box.begun
        if box.run is None and run_id is not None:
            box.set_run(Run(run_id, None))
        if not box.begun:
            box.append("create", **create)
        if goes_on:
            box.append(on)
        return goes_on

    def end(
        self,
        box: Outbox,
        state: str,
        reason: str | None = None,
        at: int | None = None,
        anew: bool = False,
    ) -> None:
        """End a run.

        Args:
            state: complete, pruned, failed or killed; ``reason`` says why.
            at: when, in milliseconds of Unix time; None: now.
            anew: only if the run was made anew.
        """
        why = {} if reason is None else {tag_keys.REASON: clean(reason)}
        more: dict[str, Any] = {} if at is None else {"time": at}
        more |= {"anew": True} if anew else {}
        box.append("tags", values={tag_keys.STATE: state, **why}, **more)
        box.append("end", state=state, **more)
        self.uploader.watch(box)

    def log_text(self, box: Outbox, text: str, path: str) -> None:
        """Keep a text, a traceback say, as the artifact ``path`` of a run."""
        box.append("text", text=text, path=path)

    def record_study(
        self, box: Outbox, rows: list[dict[str, Any]], optuna_study: optuna.Study
    ) -> None:
        """Put leaderboard, figures and description of the study on its run, anew each time.

        Args:
            rows: the leaderboard (``mtl.dispatch.lifecycle.leaderboard.leaderboard``).
        """
        from ..artifacts.study import describe_study, leaderboard_table, write_study_files

        shutil.rmtree(box.files, ignore_errors=True)
        box.files.mkdir(parents=True)
        write_study_files(rows, optuna_study, box.files)
        # Not log_table, which appends: a study that is continued would list its trials twice.
        table = json.dumps(leaderboard_table(rows))
        (box.files / "leaderboard.json").write_text(table, "utf-8")
        box.append("files", folder=box.files.name)
        listed = json.dumps([{"path": "leaderboard.json", "type": "table"}])
        note = describe_study(rows, optuna_study)
        box.append("tags", values={"mlflow.loggedArtifacts": listed, "mlflow.note.content": note})

    def offer_runs(self, box: Outbox, keys: Sequence[str]) -> None:
        """Give the study a list of its runs, with the configuration keys that tell them apart as
        columns."""
        box.append("view", keys=list(keys))

    def wait_for_run(
        self, box: Outbox, should_stop: Callable[[], bool] = lambda: False
    ) -> Run | None:
        """Wait a moment for MLflow to create or reopen a run; None if it has not.

        Raises:
            InputError: MLflow will not have it, and says why.
        """
        self.uploader.wait([box], _PATIENCE, should_stop)
        if box.folder in self.uploader.refused:
            raise InputError(f"MLflow refuses: {self.uploader.refused[box.folder]}")
        return box.run

    def knows(self, run_id: str) -> bool | None:
        """Say whether MLflow has a run, deleted or not; None where it cannot be asked now."""
        return self._sender.knows(run_id)

    def refuse_blocked(self) -> None:
        """Refuse to begin what could not be recorded until somebody puts something right.

        Raises:
            InputError: MLflow takes nothing, and that does not pass by itself.
        """
        hindrance = self.uploader.hindrance
        if hindrance is not None and not hindrance.passes:
            raise InputError(hindrance.words)

    def drain(self, boxes: Iterable[Outbox], should_stop: Callable[[], bool]) -> bool:
        """Wait until MLflow has everything, or is away; say whether it has."""
        return self.uploader.wait(boxes, None, should_stop)

    def close(self, seconds: float = 1.0) -> None:
        """Send no more."""
        self.uploader.close(seconds)

    def address(self, run: Run) -> str:
        """Return where a browser finds a run: on the server, or where `mtl ui` serves it."""
        return self.root + run_path(_experiment_of(run), run.run_id)

    def list_path(self, run: Run) -> str:
        """Return the path of the list of a study's runs on the server."""
        return view_path(_experiment_of(run))

    @property
    def root(self) -> str:
        """Where a browser finds MLflow: the server, or where `mtl ui` serves the file. In a
        container the server has another name outside, which $MTL_MLFLOW_ADDRESS gives."""
        root = (os.environ.get("MTL_MLFLOW_ADDRESS") or self._home.mlflow_uri).rstrip("/")
        return without_login(root) if is_server(root) else f"http://127.0.0.1:{UI_PORT}"


def _creation(
    experiment: str, name: str, tags: Mapping[str, object], find: Mapping[str, str]
) -> dict[str, Any]:
    """Return what a run is created with; ``find``: tags by which one that is there is found."""
    tags = {**source_tags(tags), **tags, tag_keys.STATE: RUNNING}
    values = {key: tag_text(value) for key, value in tags.items() if value is not None}
    return {"experiment": experiment, "name": name, "tags": values, "find": dict(find)}


def _experiment_of(run: Run) -> str:
    """Return the experiment's id of a run that MLflow has created or opened again."""
    assert run.experiment_id is not None
    return run.experiment_id

"""Files of a trial outside its MLflow run: checkpoints while it trains, pictures afterwards."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

from ..trials.attributes import trial_of

if TYPE_CHECKING:
    import optuna
    from optuna.trial import Trial

    from ..storage.home import Home


class TrialFiles:
    """The files of a study's trials in a home."""

    def __init__(self, home: Home, study: optuna.Study) -> None:
        self._home, self._study = home, study
        self._store = FileSystemArtifactStore(str(home.optuna_artifacts))

    def checkpoints(self, number: int) -> Path:
        """The folder of a trial's checkpoints."""
        return self._home.checkpoint_dir(self._study.study_name, number)

    def checkpointed(self, number: int) -> int:
        """When a trial's last checkpoint was written, in nanoseconds; 0 if there is none."""
        from minbert.training.checkpoint import LAST  # torch comes with it, which is seldom needed

        try:
            return (self.checkpoints(number) / LAST).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def clear(self, number: int) -> None:
        """Remove the checkpoints that a trial of this number in a study of this name has left."""
        for file in self.checkpoints(number).glob("*.safetensors"):
            file.unlink(missing_ok=True)
        self._deferred(number).unlink(missing_ok=True)

    def remove(self, number: int) -> None:
        """Remove what a trial that has ended leaves here: what counts lies in MLflow."""
        folder = self.checkpoints(number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f"{number}.lock").unlink(missing_ok=True)
        self._deferred(number).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # when it was the last trial's

    def defer(self, number: int, epoch: int, score: float) -> None:
        """Keep a score that Optuna cannot be told now, whatever becomes of this process."""
        file = self._deferred(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([epoch, score]) + "\n")

    def deferred(self, number: int) -> dict[int, float]:
        """Scores by epoch that Optuna could not be told when they came."""
        try:
            lines = self._deferred(number).read_text("utf-8").split("\n")
        except FileNotFoundError:
            return {}
        return dict(json.loads(line) for line in lines[:-1])  # behind the last: what was cut off

    def _deferred(self, number: int) -> Path:
        return self.checkpoints(number).with_name(f"{number}.scores")

    def attach_picture(self, trial: Trial, picture: Path) -> None:
        """Attach a picture to the Optuna trial, once, however often the trial has ended."""
        for meta in get_all_artifact_meta(trial, storage=self._study._storage):
            if meta.filename == picture.name:
                with picture.open("rb") as source:
                    self._store.write(meta.artifact_id, source)
                return
        upload_artifact(artifact_store=self._store, file_path=str(picture), study_or_trial=trial)


def report_deferred(trial: Trial, files: TrialFiles) -> None:
    """Report the scores that were kept in a file while the database was away."""
    if deferred := files.deferred(trial.number):
        known = trial_of(trial.study, trial.number).intermediate_values
        for epoch in sorted(deferred.keys() - known.keys()):
            trial.report(deferred[epoch], epoch)

"""What a worker is told of a trial, and what the trial is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..storage.home import Home
from ..study.inputs import INPUT_KEYS, INPUTS, Digests
from ..study.spec import StudySpec
from ..trials.attributes import attributes_of
from ..trials.labels import trial_label
from ..trials.origin import QUEUED, queued_params
from ..trials.tally import REPLICATE
from ..worker.messages import TrialJob
from .trial_files import TrialFiles

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from minbert import Config

    from ..tracking.outbox import Outbox


class Jobs:
    """Makes the jobs of a study's trials."""

    def __init__(self, study: optuna.Study, home: Home, files: TrialFiles) -> None:
        self._name, self._home, self._files = study.study_name, home, files
        self._inputs: Digests = study.user_attrs.get(INPUTS) or {}

    def job(self, frozen: FrozenTrial, config: Config, outbox: Outbox, resumed: bool) -> TrialJob:
        """Return what a worker needs to train a trial."""
        number = frozen.number
        return TrialJob(
            study=self._name,
            number=number,
            config=config.to_keys(),
            checkpoint_dir=str(self._files.checkpoints(number)),
            cache_dir=str(self._home.cache),
            outbox=str(outbox.folder),
            tracking_uri=self._home.mlflow_uri,
            artifact_root=str(self._home.mlflow_artifacts),
            resumed=resumed,
            inputs=self._digests(config),
            apart=attributes_of(frozen).get("apart") == 1,
        )

    def _digests(self, config: Config) -> dict[str, str]:
        """What the files of data and backbone of a trial are in this study."""
        keys = config.to_keys()
        known = {key: self._inputs.get(key, {}).get(keys[key]) for key in INPUT_KEYS}
        return {key: digest for key, digest in known.items() if digest is not None}


def label_of(spec: StudySpec, frozen: FrozenTrial, config: Config) -> str:
    """Say what tells a trial apart: what is searched, set by a point or queued, and a further
    seed."""
    known, values = attributes_of(frozen), config.to_keys()
    keys = [*spec.distinguishing_keys, *(["train.seed"] if REPLICATE in known else [])]
    if QUEUED in known:
        keys += [key for key in queued_params(frozen) if key not in keys]
    return trial_label({key: values[key] for key in keys}, known.get("label"))

"""Multi-task minBERT: the model and its trainer, usable alone.

>>> from pathlib import Path
>>> from minbert import Config, train
>>> config = Config.from_keys({"train.epochs": 1, "lora.rank": 4})
>>> for report in train(config, cache_dir=Path("cache")):  # doctest: +SKIP
...     print(report.epoch, report.scores)
"""

from typing import TYPE_CHECKING

from .common.lazy import lazy_names

# What type checkers read; a test compares it with what is loaded at first use.
if TYPE_CHECKING:
    from .backbone.check import BackboneReport as BackboneReport, check_backbone as check_backbone
    from .backbone.pull import pull_backbone as pull_backbone
    from .backbone.weights import backbone_digest as backbone_digest
    from .config import (
        KEYS as KEYS,
        Config as Config,
        KeyInfo as KeyInfo,
        describe_keys as describe_keys,
    )
    from .data.datasets import data_digest as data_digest
    from .data.files import FileReport as FileReport, Skipped as Skipped, check_data as check_data
    from .data.pull import DataPull as DataPull, pull_data as pull_data
    from .errors import (
        DivergedError as DivergedError,
        InputError as InputError,
        TrainingStopped as TrainingStopped,
    )
    from .evaluation.intervals import (
        Estimate as Estimate,
        differences as differences,
        estimates as estimates,
    )
    from .evaluation.predictions import TaskPredictions as TaskPredictions
    from .inference.model_folder import load_model as load_model, save_model as save_model
    from .inference.prediction_files import predict_files as predict_files
    from .inference.sentences import SentenceModel as SentenceModel
    from .model.encoder import EncoderShape as EncoderShape
    from .multitask import (
        MultiTaskModel as MultiTaskModel,
        ParameterCounts as ParameterCounts,
        count_parameters as count_parameters,
    )
    from .tasks.builtin import TASKS as TASKS, get_task as get_task
    from .tasks.task import DataFile as DataFile, Kind as Kind, Task as Task
    from .training.checkpoint import load_best as load_best
    from .training.cohort import Cohort as Cohort
    from .training.cost import Measurement as Measurement, measure as measure
    from .training.loop import (
        evaluate_best as evaluate_best,
        total_steps as total_steps,
        train as train,
    )
    from .training.reports import EpochReport as EpochReport, StepReport as StepReport

_PUBLIC = {
    "BackboneReport": "backbone.check",
    "Cohort": "training.cohort",
    "Config": "config",
    "DataFile": "tasks.task",
    "DataPull": "data.pull",
    "DivergedError": "errors",
    "EncoderShape": "model.encoder",
    "EpochReport": "training.reports",
    "Estimate": "evaluation.intervals",
    "FileReport": "data.files",
    "InputError": "errors",
    "KEYS": "config",
    "KeyInfo": "config",
    "Kind": "tasks.task",
    "Measurement": "training.cost",
    "MultiTaskModel": "multitask",
    "ParameterCounts": "multitask",
    "SentenceModel": "inference.sentences",
    "Skipped": "data.files",
    "StepReport": "training.reports",
    "TASKS": "tasks.builtin",
    "Task": "tasks.task",
    "TaskPredictions": "evaluation.predictions",
    "TrainingStopped": "errors",
    "backbone_digest": "backbone.weights",
    "check_backbone": "backbone.check",
    "check_data": "data.files",
    "count_parameters": "multitask",
    "data_digest": "data.datasets",
    "describe_keys": "config",
    "differences": "evaluation.intervals",
    "estimates": "evaluation.intervals",
    "evaluate_best": "training.loop",
    "get_task": "tasks.builtin",
    "load_best": "training.checkpoint",
    "load_model": "inference.model_folder",
    "measure": "training.cost",
    "predict_files": "inference.prediction_files",
    "pull_backbone": "backbone.pull",
    "pull_data": "data.pull",
    "save_model": "inference.model_folder",
    "total_steps": "training.loop",
    "train": "training.loop",
}
__all__ = sorted(_PUBLIC)

if not TYPE_CHECKING:  # whom any name would pass for then
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)

"""Multi-task minBERT: the model and its trainer, usable alone.

>>> from pathlib import Path
>>> from minbert import Config, train
>>> config = Config.from_keys({"train.epochs": 1, "lora.rank": 4})
>>> for report in train(config, cache_dir=Path("cache")):  # doctest: +SKIP
...     print(report.epoch, report.scores)
"""

from importlib import import_module

# Name -> module. Loaded at first use: torch takes seconds, and most commands do not need it.
_PUBLIC = {
    "Config": "config",
    "KEYS": "config",
    "KeyInfo": "config",
    "describe_keys": "config",
    "InputError": "errors",
    "DivergedError": "errors",
    "TrainingStopped": "errors",
    "ParameterCounts": "multitask",
    "count_parameters": "multitask",
    "EpochReport": "training.reports",
    "StepReport": "training.reports",
    "TaskPredictions": "evaluation.predictions",
    "TASKS": "tasks.builtin",
    "Task": "tasks.task",
    "train": "training.loop",
    "total_steps": "training.loop",
    "evaluate_best": "training.loop",
    "load_best": "training.checkpoint",
    "save_model": "inference.model_folder",
    "load_model": "inference.model_folder",
    "predict_files": "inference.prediction_files",
    "SentenceModel": "inference.sentences",
    "Estimate": "evaluation.intervals",
    "differences": "evaluation.intervals",
    "estimates": "evaluation.intervals",
    "measure": "training.cost",
    "Measurement": "training.cost",
    "check_data": "data.files",
    "data_digest": "data.datasets",
    "check_backbone": "backbone.check",
    "backbone_digest": "backbone.weights",
    "pull_backbone": "backbone.pull",
    "pull_data": "data.pull",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value

"""The plain script that `contention.py` runs beside a study of mtl: Optuna's `optimize` with
threads, its storage in SQLite, and its MLflow callback on another SQLite file.

The objective trains the same configurations on the same data, through the same library.
"""

from __future__ import annotations

import argparse
import json
import threading
import tomllib
from pathlib import Path

import mlflow
import optuna
import torch

from minbert import Config, train

try:
    from optuna_integration import MLflowCallback
except ImportError:  # written after its documentation: one run a trial, parameters, value and tags
    MLflowCallback = None

_LOCK = threading.Lock()  # MLflow's run of the moment belongs to the process; so does theirs


def plain_callback(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """What MLflowCallback does, where optuna-integration is not installed."""
    with _LOCK:
        mlflow.set_experiment(study.study_name)
        with mlflow.start_run(run_name=str(trial.number)):
            mlflow.log_metrics({"score": trial.value} if trial.value is not None else {})
            mlflow.log_params(trial.params)
            tags = {
                "number": str(trial.number),
                "datetime_start": str(trial.datetime_start),
                "datetime_complete": str(trial.datetime_complete),
                "state": trial.state.name,
                "direction": study.direction.name,
            }
            kinds = {f"{name}_distribution": str(d) for name, d in trial.distributions.items()}
            mlflow.set_tags(tags | kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="for its [config]")
    parser.add_argument("--folder", type=Path, required=True, help="optuna.db and mlflow.db")
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    options = parser.parse_args()
    config = tomllib.loads(options.study.read_text())["config"]
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    uri = f"sqlite:///{options.folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    callback = MLflowCallback(uri, "score") if MLflowCallback else plain_callback

    def objective(trial: optuna.Trial) -> float:
        rank = trial.suggest_categorical("lora.rank", [1, 2, 4])
        alpha = trial.suggest_float("lora.alpha", 1.0, 32.0, log=True)
        keys = config | {"lora.rank": rank, "lora.alpha": alpha}
        reports = list(train(Config.from_keys(keys), cache_dir=options.folder / "cache"))
        return reports[-1].best_score

    study = optuna.create_study(
        study_name="peer",
        storage=f"sqlite:///{options.folder / 'optuna.db'}",
        sampler=optuna.samplers.RandomSampler(seed=0),
        direction="maximize",
        load_if_exists=True,
    )
    # A trial that raises is FAIL and the others go on, as in a study of mtl.
    study.optimize(
        objective,
        n_trials=options.trials,
        n_jobs=options.workers,
        callbacks=[callback],
        catch=(Exception,),
    )
    print(json.dumps({"callback": "MLflowCallback" if MLflowCallback else "written by hand"}))


if __name__ == "__main__":
    main()

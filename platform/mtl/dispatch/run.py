"""The life of a study: ask, submit, report, prune, tell, retry, resume.

One process writes a study in Optuna's storage, its dispatcher: here, and by what `mtl.trials` and
`mtl.tracking.study_runs` do for it (`mtl study sync` notes runs where nobody dispatches). Every
step is written down before the next begins, in an order that lets a dispatcher which is killed
anywhere be followed by another that goes on:

    trial created -> values -> MLflow run created -> run id at the trial -> work
    work done -> results at the trial -> MLflow run ended -> trial told -> checkpoints removed

What is RUNNING in Optuna is unfinished, and is taken up under its own number and run.
"""

from __future__ import annotations

import os
import time
import uuid
import warnings
from contextlib import closing
from typing import TYPE_CHECKING, Any

from minbert import InputError

from ..common.signals import Interrupts
from ..common.text import count
from ..executors.factory import open_executor
from ..executors.resources import Folders, Resources
from ..storage.home import Home
from ..storage.lease import Lease
from ..storage.optuna import open_engine, open_storage
from ..study.spec import StudySpec
from ..trials.pruning import make_pruner
from ..trials.recorded import choose_name, fits, summarize
from ..trials.replicates import missing
from ..trials.sampling import make_sampler
from ..trials.tally import Tally
from .dispatcher import Dispatcher
from .lifecycle import Trials
from .outage import Outage
from .preflight import local_inputs, preflight
from .view import StudyResult

if TYPE_CHECKING:
    import optuna

    from .view import View


_LAST_WORDS = "stopped at once; nothing recorded is lost, and the same command goes on with it"


def run_study(
    spec: StudySpec,
    home: Home,
    *,
    jobs: int | None = None,
    executor: str = "local",
    cpus: float | None = None,
    gpus: float | None = None,
    view: View,
    study_name: str | None = None,
    synchronous: bool = False,
    command: str | None = None,
) -> StudyResult:
    """Run a study to its total of trials, or go on with it.

    Args:
        jobs: trials at the same time; None: as the machine allows.
        executor: see `mtl.executors.factory.EXECUTORS`.
        cpus, gpus: of one trial, for executors that hand them out.
        view: is told what happens.
        study_name: the study to record into; None: see `mtl.trials.recorded.choose_name`.
        synchronous: trials in batches of ``jobs``, each asked for when all of the one before have
            ended: the same seed and jobs then give the same trials and scores (on processors).
        command: what was typed, kept for who goes on with the study.

    Raises:
        InputError: nothing can be run: bad data, weights, home, database; the study has other
            settings; another dispatcher has it.
        LeaseLostError: another dispatcher took the study over while this one was suspended.
        KeyboardInterrupt: interrupted while the database server was away, so nothing can be told.
    """
    started = time.monotonic()
    make_sampler(spec.sampler, 0)
    with Interrupts(_LAST_WORDS) as interrupts:
        interrupts.preparing = True
        storage = open_storage(home)
        named: list[str] = []  # said once the input is found good: else there is no such study
        name = choose_name(storage, spec, study_name, named.append)
        engine = open_engine(home)
        with Lease(engine, name) as lease:
            outage = Outage(engine, view.message, interrupts)
            wanted = _wanted(storage, name, spec)
            if not wanted:
                study = _open_study(storage, spec, name, command)
                trials = Trials(study, spec, home, view)
                for line in named:
                    view.message(line)
                _tidy_up(trials)
                return _result(trials, False, time.monotonic() - started)
            # The workers load their libraries while this process looks at data and weights.
            resources = Resources(jobs, wanted, cpus, gpus)
            with closing(open_executor(executor, resources, _folders(spec, home))) as pool:
                lease.also = pool.keep_alive
                if pool.note:
                    view.message(pool.note)
                inputs = preflight(spec, home)
                for line in named:
                    view.message(line)
                study = outage.through(lambda: _open_study(storage, spec, name, command))
                trials = outage.through(
                    lambda: Trials(study, spec, home, view, inputs, lambda: interrupts.asked)
                )
                batch = pool.width if synchronous else None
                dispatcher = Dispatcher(trials, view, lease, interrupts, outage, pool, batch)
                with closing(trials.runs.tracker):
                    dispatcher.run()
            seconds = time.monotonic() - started
            return outage.through(lambda: _result(trials, dispatcher.interrupted, seconds))


def _folders(spec: StudySpec, home: Home) -> Folders:
    return Folders(home.path, home.logs, home.mlflow_uri, local_inputs(spec))


def _tidy_up(trials: Trials) -> None:
    """Finish what an earlier life of a study that has its trials left open."""
    trials.view.message(
        f"study {trials.study.study_name} has its {count(trials.spec.total, 'trial')}: "
        "nothing to do; raise --trials to continue it"
    )
    with closing(trials.runs.tracker):
        trials.sweep()
        trials.close_study()


def _wanted(storage: Any, name: str, spec: StudySpec) -> int:
    """How many trials are to be trained: those left running, and those that do not exist yet."""
    import optuna

    if name not in [study.study_name for study in storage.get_all_studies()]:
        return spec.total
    study = optuna.load_study(study_name=name, storage=storage)
    tally = Tally(study)
    return len(tally.running) + missing(study, spec, tally)


def _open_study(storage: Any, spec: StudySpec, name: str, command: str | None) -> optuna.Study:
    import optuna

    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=make_pruner(spec),
    )
    settings = study.user_attrs.get("settings")
    if not fits({name: settings}, name, spec):  # another dispatcher made it a moment ago
        raise InputError(f"study {name!r} was just created with other settings; use --as NAME")
    attributes = {
        "settings": spec.settings,
        "identity": spec.identity,
        "profile": spec.profile,
        "total": spec.total,
        "description": spec.description,
        **({"command": command, "folder": os.getcwd()} if command else {}),
    }
    _name_score(study)
    if "key" not in study.user_attrs:  # what tells its MLflow run from one of an earlier life
        study.set_user_attr("key", uuid.uuid4().hex)
    for key, value in attributes.items():
        if study.user_attrs.get(key) != value and (key != "settings" or settings is None):
            study.set_user_attr(key, value)
    return study


def _name_score(study: optuna.Study) -> None:
    """Give the score its name, or the dashboard calls it "Objective 0"."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if study.metric_names is None:
            study.set_metric_names(["dev score"])


def _result(trials: Trials, interrupted: bool, seconds: float) -> StudyResult:
    summary = summarize(trials.study)
    states = summary.states
    result = StudyResult(
        name=summary.name,
        total=max(trials.spec.total, summary.trials),
        complete=states["complete"],
        pruned=states["pruned"],
        failed=states["failed"],
        unfinished=states["running"],
        best=summary.best,
        interrupted=interrupted,
        new_trials=trials.ended_here,
        seconds=seconds,
        waiting=trials.runs.waiting,
    )
    trials.view.study_ended(result, trials.rows())
    if result.waiting:
        trials.view.message(
            f"{result.waiting} runs wait for MLflow in {trials.home.spool}; when it is back, "
            f"`mtl study sync {result.name}` sends them, or any further run of the study"
        )
    return result

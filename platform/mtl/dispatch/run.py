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
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minbert import InputError

from ..common.signals import Interrupts
from ..common.text import count
from ..executors.factory import open_executor
from ..executors.resources import Folders, Resources, default_cohort
from ..storage.home import Home
from ..storage.lease import Lease
from ..storage.optuna import open_engine, open_storage
from ..study.inputs import INPUTS, Digests, merged, read_digests
from ..study.spec import StudySpec
from ..tracking.asking import ask_server
from ..trials.origin import ASKED_FROM
from ..trials.pruning import make_pruner
from ..trials.recorded import choose_name, differing_settings, summarize
from ..trials.replicates import missing
from ..trials.sampling import make_sampler
from ..trials.states import COMPLETE, FAILED, PRUNED
from ..trials.tally import Tally
from ..worker.messages import SILENCE
from .dispatcher import Dispatcher
from .lifecycle import TrialLifecycle
from .outage import Outage
from .preflight import check_cohort, local_inputs, preflight
from .view import StudyResult, View

if TYPE_CHECKING:
    import optuna

    from ..tracking.inputs import Inputs


_LAST_WORDS = "stopped at once; nothing recorded is lost, and the same command goes on with it"


def run_study(
    spec: StudySpec,
    home: Home,
    *,
    jobs: int | None = None,
    cohort: int | None = 1,
    executor: str = "local",
    cpus: float | None = None,
    gpus: float | None = None,
    view: View | None = None,
    study_name: str | None = None,
    synchronous: bool = False,
    command: str | None = None,
) -> StudyResult:
    """Run a study to its total of trials, or go on with it.

    Args:
        jobs: workers; None: as the machine allows.
        cohort: trials at the same time in each worker, on this machine; None: as suits it.
        executor: see `mtl.executors.factory.EXECUTORS`.
        cpus, gpus: of one trial, for executors that hand them out.
        view: is told what happens; None: nobody is.
        study_name: the study to record into; None: see `mtl.trials.recorded.choose_name`.
        synchronous: trials in rounds of ``jobs`` times ``cohort``, each asked for when all of the
            one before have ended: the same seed and jobs then give the same trials and scores (on
            processors).
        command: what was typed, kept for who goes on with the study.

    Raises:
        InputError: nothing can be run: bad data, weights, home, database; the study has other
            settings; another dispatcher has it.
        LeaseLostError: another dispatcher took the study over while this one was suspended.
        KeyboardInterrupt: interrupted while the database server was away, so nothing can be told.
    """
    started, view = time.monotonic(), view or View()
    cohort = cohort or default_cohort()
    make_sampler(spec.sampler, 0)
    check_cohort(spec, cohort)
    with Interrupts(_LAST_WORDS) as interrupts:
        interrupts.preparing = True
        storage = open_storage(home)
        notes: list[str] = []  # said once the input is found good: else there is no such study
        name = choose_name(
            storage, spec, study_name, notes.append, lambda: read_digests(spec, home.cache)
        )
        engine = open_engine(home)
        with Lease(engine, name, say=view.message, beat=SILENCE / 3) as lease:
            outage = Outage(engine, view.message, interrupts)
            life = _Life(spec, home, view, storage, name, command, notes, outage, interrupts)
            wanted = _wanted(storage, name, spec)
            if wanted:
                resources = Resources(jobs, wanted, cpus, gpus, cohort)
                life.train(executor, resources, synchronous, lease)
            else:
                life.tidy_up()
            seconds = time.monotonic() - started
            return outage.through(lambda: life.result(seconds))


@dataclass
class _Life:
    """One call's share of a study's life: what it trains, and how the study stands then."""

    spec: StudySpec
    home: Home
    view: View
    storage: Any
    name: str
    command: str | None
    notes: list[str]
    outage: Outage
    interrupts: Interrupts
    interrupted: bool = False

    def train(self, executor: str, resources: Resources, synchronous: bool, lease: Lease) -> None:
        """Train what the study lacks, until it has it or is interrupted."""
        # The workers load their libraries while this process looks at data and weights.
        with closing(open_executor(executor, resources, self._folders())) as pool:
            lease.also = pool.keep_alive
            if pool.note:
                self.view.message(pool.note)
            inputs = preflight(self.spec, self.home)
            ask_server(self.home, self.name)
            self.outage.through(lambda: self._open(inputs))
            round_size = pool.width if synchronous else None
            dispatcher = Dispatcher(
                self.lifecycle, self.view, lease, self.interrupts, self.outage, pool, round_size
            )
            with closing(self.lifecycle.runs.tracker):
                dispatcher.run()
        self.interrupted = dispatcher.interrupted

    def tidy_up(self) -> None:
        """Finish what an earlier life of a study that has its trials left open."""
        self._open({})
        said = f"study {self.name} has its {count(self.spec.total, 'trial')}: nothing to do"
        self.view.message(f"{said}; {more}" if (more := _more(self.spec)) else said)
        with closing(self.lifecycle.runs.tracker):
            self.lifecycle.sweep()
            self.lifecycle.close_study()
            self.lifecycle.poll()

    def _open(self, inputs: Mapping[tuple[str, str], Inputs]) -> None:
        while self.notes:
            self.view.message(self.notes.pop(0))
        digests = read_digests(self.spec, self.home.cache)
        study = _open_study(self.storage, self.spec, self.name, self.command, digests)
        self.lifecycle = TrialLifecycle(
            study, self.spec, self.home, self.view, inputs, lambda: self.interrupts.asked
        )

    def _folders(self) -> Folders:
        home = self.home
        return Folders(home.path, home.logs, home.mlflow_uri, local_inputs(self.spec))

    def result(self, seconds: float) -> StudyResult:
        """Say how the study stands, and show it."""
        lifecycle, summary = self.lifecycle, summarize(self.lifecycle.study)
        states, tally = summary.states, Tally(lifecycle.study)
        result = StudyResult(
            name=summary.name,
            total=tally.count + missing(lifecycle.study, self.spec, tally),
            complete=states[COMPLETE],
            pruned=states[PRUNED],
            failed=states[FAILED],
            unfinished=len(tally.running),
            best=summary.best,
            interrupted=self.interrupted,
            new_trials=lifecycle.ended_here,
            seconds=seconds,
            waiting=lifecycle.runs.waiting,
        )
        self.view.study_ended(result, lifecycle.rows())
        if result.waiting:
            self.view.message(
                f"{result.waiting} runs wait for MLflow in {self.home.spool}; when it is back, "
                f"`mtl study sync {result.name}` sends them, or any further run of the study"
            )
        return result


def _more(spec: StudySpec) -> str:
    """Say which option continues a study that has its trials; empty if none does."""
    if spec.open_ended:
        return "raise --trials to continue it"
    if spec.untried:
        total = spec.originals_total + spec.untried
        return f"--trials {total} tries the other {count(spec.untried, 'setting')}, too"
    return "raise --replicates for more seeds" if spec.replicable else ""


def _wanted(storage: Any, name: str, spec: StudySpec) -> int:
    """How many trials are to be trained: those left running, and those that do not exist yet."""
    import optuna

    if name not in [study.study_name for study in storage.get_all_studies()]:
        return spec.total
    study = optuna.load_study(study_name=name, storage=storage)
    tally = Tally(study)
    return len(tally.running) + len(tally.waiting) + missing(study, spec, tally)


def _open_study(
    storage: Any, spec: StudySpec, name: str, command: str | None, digests: Digests
) -> optuna.Study:
    import optuna

    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=make_pruner(spec),
    )
    known = study.user_attrs
    settings = known.get("settings")
    # Another dispatcher made it a moment ago, or somebody has just changed the files.
    if differing := differing_settings(known, spec, digests):
        raise InputError(
            f"study {name!r} has other settings in {differing} since a moment ago; run it again"
        )
    attributes = {
        INPUTS: merged(known.get(INPUTS) or {}, digests),
        "settings": spec.settings,
        "identity": spec.identity,
        "profile": spec.profile,
        "total": spec.total,
        "description": spec.description,
        **({"command": command, "folder": os.getcwd()} if command else {}),
    }
    if ASKED_FROM not in study.user_attrs:
        study.set_user_attr(ASKED_FROM, storage.get_n_trials(study._study_id))
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

"""Optuna studies over multi-task minBERT trainings, every trial recorded in MLflow.

What the command line does, as functions; bad input raises `minbert.InputError`:

>>> from mtl import Home, load_study, run_study
>>> spec = load_study("lora_sweep", trials=3)
>>> result = run_study(spec, Home.resolve())  # doctest: +SKIP
>>> result.best["score"]  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from minbert.common.lazy import lazy_names

from .common.proxies import leave_out_proxies
from .common.telemetry import turn_off

# What type checkers read; a test compares it with what is loaded at first use.
if TYPE_CHECKING:
    from .artifacts.csv_tables import export_csv as export_csv
    from .dispatch.plan import Plan as Plan, Sized as Sized, plan_study as plan_study
    from .dispatch.run import run_study as run_study
    from .dispatch.train import (
        TrainingResult as TrainingResult,
        Watcher as Watcher,
        train_once as train_once,
    )
    from .dispatch.view import StudyResult as StudyResult, View as View
    from .doctor.checks import Check as Check
    from .doctor.diagnose import diagnose as diagnose
    from .housekeeping.removal import Removal as Removal
    from .housekeeping.tidy import tidy as tidy
    from .report.comparison import compare_trials as compare_trials
    from .report.page import write_report_page as write_report_page
    from .storage.home import Home as Home
    from .storage.lease import LeaseLostError as LeaseLostError
    from .study.load import (
        StudyInfo as StudyInfo,
        list_studies as list_studies,
        load_study as load_study,
    )
    from .study.spec import Pruner as Pruner, Sampler as Sampler, StudySpec as StudySpec
    from .tracking.registry import Promotion as Promotion, promote as promote
    from .tracking.sync import SyncResult as SyncResult, sync_runs as sync_runs
    from .trials.leaderboard import best_of as best_of, leaderboard as leaderboard
    from .trials.recorded import (
        RecordedStudy as RecordedStudy,
        UnknownStudyError as UnknownStudyError,
        open_recorded as open_recorded,
        recorded_studies as recorded_studies,
    )
    from .ui.serve import serve as serve
    from .worker.messages import Progress as Progress

_PUBLIC = {
    "Check": "doctor.checks",
    "Home": "storage.home",
    "LeaseLostError": "storage.lease",
    "Plan": "dispatch.plan",
    "Progress": "worker.messages",
    "Promotion": "tracking.registry",
    "Pruner": "study.spec",
    "RecordedStudy": "trials.recorded",
    "Removal": "housekeeping.removal",
    "Sampler": "study.spec",
    "Sized": "dispatch.plan",
    "StudyInfo": "study.load",
    "StudyResult": "dispatch.view",
    "StudySpec": "study.spec",
    "SyncResult": "tracking.sync",
    "TrainingResult": "dispatch.train",
    "UnknownStudyError": "trials.recorded",
    "View": "dispatch.view",
    "Watcher": "dispatch.train",
    "best_of": "trials.leaderboard",
    "compare_trials": "report.comparison",
    "diagnose": "doctor.diagnose",
    "export_csv": "artifacts.csv_tables",
    "leaderboard": "trials.leaderboard",
    "list_studies": "study.load",
    "load_study": "study.load",
    "open_recorded": "trials.recorded",
    "plan_study": "dispatch.plan",
    "promote": "tracking.registry",
    "recorded_studies": "trials.recorded",
    "run_study": "dispatch.run",
    "serve": "ui.serve",
    "sync_runs": "tracking.sync",
    "tidy": "housekeeping.tidy",
    "train_once": "dispatch.train",
    "write_report_page": "report.page",
}
__all__ = sorted(_PUBLIC)

if not TYPE_CHECKING:  # whom any name would pass for then
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)

leave_out_proxies()
turn_off()  # before any library is imported that would send something

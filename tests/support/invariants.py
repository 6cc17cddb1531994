"""What must hold of a study that has ended, whatever was done to it on the way.

Read from the files that the two stores keep, not through the code that wrote them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from .study_runs import TIMED, Study

_FACTS = ("best_epoch", "model_bytes", "trainable_parameters")
_FACTS_HIDDEN = ("mtl:config", "mtl:estimates", "mtl:point", "mtl:scores")
_PICTURES = ("para.png", "sst.png", "sts.png")
# Artifacts that equal trainings have equal to the last byte.
_EXACT = (".csv", ".json", ".safetensors", ".toml")


@dataclass
class Trial:
    """All that is kept of one trial.

    Attributes:
        params, facts: in Optuna. intermediate: (epoch, score) reported to Optuna.
        pictures: names of the files that hang on the Optuna trial.
        logged: MLflow's parameters. points: (key, step) -> value. files: artifacts by path.
    """

    number: int
    state: str
    value: float | None
    started: str
    params: dict[str, tuple] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    intermediate: dict[int, float] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)
    run_id: str | None = None
    logged: dict[str, str] = field(default_factory=dict)
    points: dict[tuple[str, int], float] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


def broken(study: Study, total: int) -> list[str]:
    """Say what does not hold of a study that has ended with `total` complete trials: a line for
    each fault, none if there is none."""
    trials = read_trials(study)
    return [
        *_broken_trials(trials, total),
        *_broken_runs(study, trials),
        *_broken_points(study, trials),
        *_left_over(study),
    ]


def read_trials(study: Study) -> list[Trial]:
    """Read every trial of the study `tiny` of a home, in the order of their numbers."""
    trials: dict[int, Trial] = {}
    for key, *row in study.query(
        "optuna.db",
        """select t.trial_id, number, t.state, value, datetime_start from trials t
        join studies using (study_id) left join trial_values using (trial_id)
        where study_name = 'tiny' order by number""",
    ):
        trials[key] = Trial(*row)
    _read_optuna(study, trials)
    _read_mlflow(study, {t.run_id: t for t in trials.values()})
    return list(trials.values())


def _read_optuna(study: Study, trials: dict[int, Trial]) -> None:
    for key, name, *value in study.query(
        "optuna.db", "select trial_id, param_name, param_value, distribution_json from trial_params"
    ):
        trials[key].params[name] = tuple(value)
    for key, epoch, value in study.query(
        "optuna.db",
        "select trial_id, step, intermediate_value from trial_intermediate_values",
    ):
        trials[key].intermediate[epoch] = value
    for key, name, text in study.query(
        "optuna.db",
        """select trial_id, key, value_json from trial_user_attributes
        union all select trial_id, key, value_json from trial_system_attributes""",
    ):
        if name in _FACTS or name in _FACTS_HIDDEN:
            trials[key].facts[name] = json.loads(text)
        elif name == "mlflow_run_id":
            trials[key].run_id = json.loads(text)
        elif name.startswith("artifacts:"):
            trials[key].pictures.append(json.loads(json.loads(text))["filename"])


    by_number = {trial.number: trial for trial in trials.values()}
    for name, text in study.query(  # of trials that had ended when MLflow came back
        "optuna.db",
        "select key, value_json from study_system_attributes where key like 'mtl:run:%'",
    ):
        by_number[int(name.removeprefix("mtl:run:"))].run_id = json.loads(text)


def _read_mlflow(study: Study, by_run: dict[str | None, Trial]) -> None:
    for run, key, step, value, is_nan in study.query(
        "mlflow.db", "select run_uuid, key, step, value, is_nan from metrics"
    ):
        if run in by_run:
            by_run[run].points[key, step] = "nan" if is_nan else value
    for run, key, value in study.query("mlflow.db", "select run_uuid, key, value from params"):
        if run in by_run:
            by_run[run].logged[key] = value
    for folder in (study.mlflow / "artifacts").rglob("artifacts"):
        if folder.parent.name in by_run:
            found = (path for path in folder.rglob("*") if path.is_file())
            files = {str(path.relative_to(folder)): path for path in found}
            by_run[folder.parent.name].files = files


def _broken_trials(trials: list[Trial], total: int) -> list[str]:
    """Trials in Optuna: exactly the total, complete, in the order in which they were asked for."""
    found = []
    if [t.number for t in trials] != list(range(total)):
        found.append(f"{total} trials expected, there are {[t.number for t in trials]}")
    found += [f"trial {t.number} is {t.state}" for t in trials if t.state != "COMPLETE"]
    if [t.started for t in trials] != sorted(t.started for t in trials):
        found.append("trials do not begin in the order of their numbers")
    for trial in trials:
        if sorted(trial.pictures) != list(_PICTURES):
            found.append(f"trial {trial.number} has the pictures {sorted(trial.pictures)}")
    return found


def _broken_runs(study: Study, trials: list[Trial]) -> list[str]:
    """Runs in MLflow: the study's and one a trial, which know each other, all finished."""
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    for run, key, value in study.query("mlflow.db", "select run_uuid, key, value from tags"):
        tags[run][key] = value
    runs = study.query("mlflow.db", "select run_uuid, name, status, lifecycle_stage from runs")
    parent = _parent(study)
    expected = {t.run_id: str(t.number) for t in trials} | {parent: None}
    found = []
    for run, name, status, stage in runs:
        told = tags[run].get("mtl.trial"), tags[run].get("mlflow.parentRunId")
        if run not in expected:
            found.append(f"run {run} ({name}) belongs to nothing")
        elif told != (expected[run], None if run == parent else parent):
            found.append(f"run {run} ({name}) says {told} of its trial and parent")
        if (status, stage) != ("FINISHED", "active"):
            found.append(f"run {run} ({name}) is {status}, {stage}")
    missing = expected.keys() - {run for run, *_ in runs}
    return found + [f"run {run} of trial {expected[run]} does not exist" for run in missing]


def _parent(study: Study) -> str | None:
    rows = study.query(
        "optuna.db", "select value_json from study_user_attributes where key = 'parent_run_id'"
    )
    return json.loads(rows[0][0]) if rows else None


def _broken_points(study: Study, trials: list[Trial]) -> list[str]:
    """Points: none twice, none lost. Trials that differ in their adapter alone have the same."""
    found = [f"{count} points for {row}" for *row, count in study.doubles()]
    shapes = Counter(frozenset(_shape(trial)) for trial in trials)
    if not shapes:
        return found
    usual = shapes.most_common(1)[0][0]
    for trial in trials:
        lost, more = usual - _shape(trial), _shape(trial) - usual
        if lost or more:
            found.append(f"trial {trial.number} lacks points {sorted(lost)}, has {sorted(more)}")
        if not trial.logged:
            found.append(f"trial {trial.number} has no parameters in MLflow")
    stale = study.query(
        "mlflow.db",
        """select m.run_uuid, m.key, max(m.step), l.step from metrics m
        left join latest_metrics l on l.run_uuid = m.run_uuid and l.key = m.key
        group by m.run_uuid, m.key, l.step having l.step is null or l.step <> max(m.step)""",
    )
    return found + [f"the latest point of {row[:2]} is not the last: {row[2:]}" for row in stale]


def _shape(trial: Trial) -> set[tuple[str, int | None]]:
    """What points a trial has; those of its best epoch, whichever that is, without the step."""
    once = ("final/", "parameters/")
    return {(key, None if key.startswith(once) else step) for key, step in trial.points}


def _left_over(study: Study) -> list[str]:
    """What only a study that has not ended has: checkpoints, and what MLflow was not yet told."""
    found = []
    for name in ("checkpoints", "spool"):
        left = sorted(str(p.relative_to(study.home)) for p in (study.home / name).rglob("*"))
        found += [f"{name} still has {left[:5]}"] if left else []
    return found


# ---- beside an undisturbed study ----------------------------------------------------------------


def differences(study: Study, undisturbed: Study, within: float = 0.0) -> list[str]:
    """Say in what the trials that both studies have differ, timings aside: a line for each.

    Args:
        within: by how much numbers may differ; then nothing is said of what files hold.
    """
    found = []
    for one, other in zip(read_trials(study), read_trials(undisturbed), strict=False):
        parts = ("state", "value", "params", "facts", "intermediate", "logged")
        for part in parts:
            if not _near(getattr(one, part), getattr(other, part), within):
                found.append(f"trial {one.number}: {part} differ: {getattr(one, part)}")
        points = _different_points(one, other, within)
        files = _different_files(one, other, () if within else _EXACT)
        found += [f"trial {one.number}: point {key}" for key in points]
        found += [f"trial {one.number}: artifact {name}" for name in files]
    return found


def _near(one: object, other: object, within: float) -> bool:
    """Whether two values are equal, numbers in them nearly."""
    if isinstance(one, dict) and isinstance(other, dict):
        same = one.keys() == other.keys()
        return same and all(_near(value, other[key], within) for key, value in one.items())
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= within
    return one == other


def _different_points(one: Trial, other: Trial, within: float) -> list[tuple[str, int]]:
    def same(key: tuple[str, int]) -> bool:
        if key not in one.points or key not in other.points:
            return False
        return key[0] in TIMED or _near(one.points[key], other.points[key], within)

    return [key for key in sorted({*one.points, *other.points}) if not same(key)]


def _different_files(one: Trial, other: Trial, exact: tuple[str, ...]) -> list[str]:
    def same(name: str) -> bool:
        if name not in one.files or name not in other.files:
            return False
        compared = name.endswith(exact)
        return not compared or one.files[name].read_bytes() == other.files[name].read_bytes()

    return [name for name in sorted({*one.files, *other.files}) if not same(name)]

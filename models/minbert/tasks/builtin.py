"""The paper's three tasks, as data.

These three are not the whole of it: configuration, score, tables and demo name them, too
(CONTRIBUTING.md lists the places).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError
from .task import DataFile, Task

SST = Task(
    name="sst",
    title="Sentiment (SST)",
    kind="classification",
    outputs=5,
    classes=("very negative", "negative", "neutral", "positive", "very positive"),
    text_columns=("sentence",),
    label_column="sentiment",
    train=(
        DataFile("ids-sst-train.csv", (0, 4)),
        DataFile("ids-cfimdb-train.csv", (0, 1), scale=4.0),
    ),
    dev=DataFile("ids-sst-dev.csv", (0, 4)),
    test=DataFile("ids-sst-test-student.csv", (0, 4)),
    prediction_header="Predicted_Sentiment",
)
PARA = Task(
    name="para",
    title="Paraphrase (Quora)",
    kind="binary",
    outputs=1,
    classes=("different", "paraphrase"),
    text_columns=("sentence1", "sentence2"),
    label_column="is_duplicate",
    train=(DataFile("quora-train.csv", (0, 1)),),
    dev=DataFile("quora-dev.csv", (0, 1)),
    test=DataFile("quora-test-student.csv", (0, 1)),
    prediction_header="Predicted_Is_Paraphrase",
)
STS = Task(
    name="sts",
    title="Similarity (STS)",
    kind="regression",
    outputs=1,
    text_columns=("sentence1", "sentence2"),
    label_column="similarity",
    train=(DataFile("sts-train.csv", (0, 5)),),
    dev=DataFile("sts-dev.csv", (0, 5)),
    test=DataFile("sts-test-student.csv", (0, 5)),
    prediction_header="Predicted_Similiary",  # the course's spelling, which its scorer expects
)

TASKS: tuple[Task, ...] = (SST, PARA, STS)
HEAD_WIDTHS: Mapping[str, int] = {task.name: task.outputs for task in TASKS}
"""Outputs of each task's head, by its name."""
TASK_METRICS: tuple[str, ...] = tuple(task.metric for task in TASKS)
"""What each task is scored by, in their order: names of scores."""
_BY_NAME: Mapping[str, Task] = {task.name: task for task in TASKS}


def get_task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        InputError: there is none; those that there are are named.
    """
    if name not in _BY_NAME:
        raise InputError(f"unknown task {name!r}; known: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]

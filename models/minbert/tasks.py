"""The tasks, as data: what a task is called, reads, predicts and minimises.

Adding a task touches this file and a data file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["classification", "binary", "regression"]


@dataclass(frozen=True)
class DataFile:
    """One file of a task.

    Attributes:
        name: the file's name in the data folder.
        labels: the labels that it may hold, low and high; both inclusive.
        scale: what its labels are multiplied by (CFIMDB's 0/1 become SST's 0/4).
    """

    name: str
    labels: tuple[float, float]
    scale: float = 1.0


@dataclass(frozen=True)
class Task:
    """One of the tasks that are trained together.

    Attributes:
        name: short name, as in metrics and files.
        title: name for people.
        kind: decides loss, prediction and metric.
        outputs: width of the head.
        classes: names of the classes in order; empty for a regression.
        text_columns, label_column: columns of its files.
        train, dev, test: its files; test files carry no labels.
        prediction_header: the column title in the paper's prediction files.
    """

    name: str
    title: str
    kind: Kind
    outputs: int
    text_columns: tuple[str, ...]
    label_column: str
    train: tuple[DataFile, ...]
    dev: DataFile
    test: DataFile
    prediction_header: str
    classes: tuple[str, ...] = field(default=())

    @property
    def metric(self) -> str:
        """Name of the dev metric: ``sst_accuracy``, ``sts_pearson``, ..."""
        return f"{self.name}_{'pearson' if self.kind == 'regression' else 'accuracy'}"

    @property
    def whole_labels(self) -> bool:
        """Whether labels are whole numbers."""
        return self.kind != "regression"


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
BY_NAME: Mapping[str, Task] = {task.name: task for task in TASKS}
HEADS: Mapping[str, int] = {task.name: task.outputs for task in TASKS}

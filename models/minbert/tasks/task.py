"""What a task is: what it is called, reads, predicts and minimises."""

from __future__ import annotations

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

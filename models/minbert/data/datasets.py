"""Datasets: tokenised once, cached by content, memory-mapped and shared by every training."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from filelock import FileLock
from tokenizers import Tokenizer

from ..backbone.tokenizer import load_tokenizer, tokenize
from ..backbone.weights import file_digest, find_backbone, read_shape, tokenizer_files
from ..common.paths import new_folder
from ..errors import InputError
from ..packing.pack import PackedBatch, pack
from ..tasks.builtin import TASKS
from ..tasks.task import DataFile, Task
from .files import DEFAULT_CACHE, Example, Reading, Skipped, find_data, read_file

_FORMAT = 2  # of the cache; a change of what is below makes a new one


class Dataset:
    """The examples of one task and split, tokenised, on disk.

    Attributes:
        tokens: int32 [all tokens], the sequences end to end.
        offsets: int64 [examples + 1]; example i is ``tokens[offsets[i]:offsets[i + 1]]``.
        segment_starts: int32 [examples], where the second segment of each begins.
        labels: float32 [examples], on the task's scale; NaN where there is none.
        skipped: rows of the files that could not be used.
    """

    def __init__(self, task: Task, folder: Path) -> None:
        self.task = task
        self._folder = folder
        arrays = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("tokens", "offsets", "seconds", "labels")  # the cache's own words
        )
        self.tokens, self.offsets, self.segment_starts, self.labels = arrays

    @classmethod
    def from_texts(
        cls, task: Task, texts: Sequence[tuple[str, ...]], tokenizer: Tokenizer
    ) -> Dataset:
        """Tokenise sentences or pairs into a dataset in memory, without labels."""
        made = cls.__new__(cls)
        ids, made.segment_starts = tokenize(tokenizer, list(texts))
        made.task, made.tokens = task, np.concatenate(ids)
        made.offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        made.labels = np.full(len(ids), np.nan, dtype=np.float32)
        made._rows = {"ids": list(map(str, range(len(ids)))), "texts": list(texts), "skipped": []}
        return made

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 [examples]."""
        return np.diff(self.offsets)

    @cached_property
    def _rows(self) -> dict:
        return json.loads((self._folder / "rows.json").read_text("utf-8"))

    @property
    def ids(self) -> list[str]:
        """The id of each example."""
        return self._rows["ids"]

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The one or two sentences of each example."""
        return [tuple(texts) for texts in self._rows["texts"]]

    @property
    def skipped(self) -> list[Skipped]:
        """Rows of the files that could not be used."""
        return [Skipped(*row) for row in self._rows["skipped"]]

    def select(self, indices: np.ndarray) -> Dataset:
        """Return some examples as a dataset of their own, in memory, in the order given."""
        part = copy(self)
        pieces = [self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        part.tokens = np.concatenate(pieces)
        part.offsets = np.cumsum([0, *map(len, pieces)])
        part.segment_starts, part.labels = self.segment_starts[indices], self.labels[indices]
        rows = self._rows
        chosen = {key: [rows[key][i] for i in indices] for key in ("ids", "texts")}
        part._rows = rows | chosen
        return part

    def stratified(self, limit: int) -> Dataset:
        """Return at most ``limit`` examples whose labels are spread as all labels are.

        Always the same ones: evenly spaced among the examples in order of label.
        """
        if not 0 < limit < len(self):
            return self
        by_label = np.argsort(self.labels, kind="stable")
        places = np.linspace(0, len(self) - 1, limit).round().astype(int)
        return self.select(np.sort(by_label[places]))

    def batch(
        self,
        indices: np.ndarray,
        fill: bool = False,
        level: bool = False,
        ragged: bool = False,
    ) -> tuple[PackedBatch, np.ndarray]:
        """Return examples as one packed batch, and their labels in packed order, float32.

        Args:
            fill, level, ragged: see :func:`minbert.packing.pack.pack`.
        """
        sequences = [self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        tasks = [self.task.name] * len(indices)
        packed = pack(sequences, self.segment_starts[indices], tasks, fill, level, ragged)
        return packed, self.labels[indices][packed.order]


@dataclass(frozen=True)
class Corpus:
    """Train and dev sets of every task, by task name."""

    train: dict[str, Dataset]
    dev: dict[str, Dataset]

    @property
    def skipped(self) -> list[Skipped]:
        """Every row that could not be used."""
        datasets = (*self.train.values(), *self.dev.values())
        return [row for dataset in datasets for row in dataset.skipped]


def load_corpus(path: str, backbone: str, cache_dir: Path | None) -> Corpus:
    """Open the train and dev sets of every task for a backbone's tokenizer.

    Raises:
        InputError: see :func:`minbert.data.files.read_file` and
            :func:`minbert.backbone.weights.find_backbone`.
    """
    source = DatasetSource(path, backbone, cache_dir)
    return Corpus(
        train={task.name: source.open(task, task.train) for task in TASKS},
        dev={task.name: source.open(task, (task.dev,)) for task in TASKS},
    )


class DatasetSource:
    """Opens datasets of a data folder under a backbone's tokenizer, from the cache or anew."""

    def __init__(self, path: str, backbone: str, cache_dir: Path | None) -> None:
        self.folder = find_data(path, cache_dir)
        self.backbone = find_backbone(backbone, cache_dir)
        self.cache = Path(cache_dir or DEFAULT_CACHE) / "tokens"
        self.shape = read_shape(self.backbone)

    def open(self, task: Task, files: tuple[DataFile, ...]) -> Dataset:
        """Return the labelled examples of some files, joined in order."""
        target = self.cache / self.name(task, files)
        if not target.is_dir():
            self.cache.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"):  # workers that start together tokenise once
                if not target.is_dir():
                    self._write(task, [read_file(self.folder, task, f) for f in files], target)
                    self._check_unchanged(task, files, target)
        return Dataset(task, target)

    def _check_unchanged(self, task: Task, files: tuple[DataFile, ...], target: Path) -> None:
        """Make sure that the files were read as they were when they got this name."""
        if self.name(task, files) != target.name:
            shutil.rmtree(target)
            raise InputError(f"{self.folder}: its files changed while they were read; run it again")

    def open_rows(self, task: Task, source: DataFile) -> Dataset:
        """Return every row of one file, usable or not, without labels; not cached."""
        reading = read_file(self.folder, task, source, labelled=False, limit=1.0)
        folder = Path(tempfile.mkdtemp(prefix="mtl-rows-"))  # the cache need not be writable
        try:
            self._fill(task, [Reading(reading.file, examples=reading.rows)], folder)
            dataset = Dataset(task, folder)
            _ = dataset.ids  # read before the folder goes; mapped arrays stay valid
            return dataset
        finally:
            shutil.rmtree(folder)

    def name(self, task: Task, files: tuple[DataFile, ...]) -> str:
        """Return the name of the content's folder in the cache: files, labels' meaning, tokenizer,
        length limit and format make it."""
        parts = [str(_FORMAT), str(self.shape.max_positions), repr(task.text_columns)]
        parts += map(file_digest, tokenizer_files(self.backbone))
        for source in files:
            file = self.folder / source.name
            if not file.is_file():
                read_file(self.folder, task, source)  # says what is wrong
            parts += [repr(source), file_digest(file)]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return f"{task.name}-{digest[:24]}"

    def _write(self, task: Task, readings: list[Reading], target: Path) -> None:
        part = new_folder(self.cache, f".{target.name}-")
        try:
            self._fill(task, readings, part)
            os.replace(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _fill(self, task: Task, readings: list[Reading], folder: Path) -> None:
        examples: list[Example] = [e for reading in readings for e in reading.examples]
        tokenizer = load_tokenizer(self.backbone, self.shape.max_positions, self.shape.vocab_size)
        ids, segment_starts = tokenize(tokenizer, [e.texts for e in examples])
        np.save(folder / "tokens.npy", np.concatenate(ids))
        np.save(folder / "offsets.npy", np.cumsum([0, *map(len, ids)], dtype=np.int64))
        np.save(folder / "seconds.npy", segment_starts)
        np.save(folder / "labels.npy", np.array([e.label for e in examples], dtype=np.float32))
        rows = {
            "ids": [e.id for e in examples],
            "texts": [e.texts for e in examples],
            "skipped": [row for reading in readings for row in reading.skipped],
        }
        (folder / "rows.json").write_text(json.dumps(rows), "utf-8")


def demo_folder(cache_dir: Path) -> Path:
    """Return where this version's demo corpus lies, once it is written."""
    from ..demo.corpus import corpus_version

    return Path(cache_dir) / f"demo-corpus-{corpus_version()}"


def cached_names(path: str, backbone: str, cache_dir: Path) -> set[str]:
    """Name the folders of the cache that a data folder's files have under a backbone's tokenizer,
    written yet or not. Reads only: a demo corpus that is not there gives none.

    Raises:
        InputError: the folder, one of its files, or the backbone is missing.
    """
    if path == "demo" and not demo_folder(cache_dir).is_dir():
        return set()
    source = DatasetSource(path, backbone, cache_dir)
    return {source.name(task, files) for task in TASKS for files in (task.train, (task.dev,))}


def data_digest(path: str, cache_dir: Path | None = None) -> str:
    """Return a sha256 over the training and dev files of a data folder, in hex.

    Raises:
        InputError: the folder or one of the files is missing.
    """
    folder = find_data(path, cache_dir)
    digest = hashlib.sha256()
    for task in TASKS:
        for source in (*task.train, task.dev):
            file = folder / source.name
            if not file.is_file():
                read_file(folder, task, source)  # says what is wrong
            digest.update(f"{source.name} {file_digest(file)}\n".encode())
    return digest.hexdigest()

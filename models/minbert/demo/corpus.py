"""The embedded default: a generated corpus in three tasks and a tiny pretrained encoder.

`data.path = "demo"` is the corpus, `backbone = "demo"` is the encoder in `FOLDER`. Both exist so
that everything can be tried without a download. Scores on them mean nothing outside the demo.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from filelock import FileLock

from ..common.paths import new_folder
from . import events, reviews, words

FOLDER = Path(__file__).parent / "encoder"
SEED = 11711

# Rows by file. Dev is as small as keeps the noise of a score near 0.01.
SIZES = {
    "ids-sst": {"train": 2400, "dev": 400, "test-student": 200},
    "ids-cfimdb": {"train": 200, "dev": 40, "test-student": 40},
    "quora": {"train": 3000, "dev": 400, "test-student": 200},
    "sts": {"train": 1600, "dev": 300, "test-student": 150},
}
COLUMNS = {
    "ids-sst": ("sentence", "sentiment"),
    "ids-cfimdb": ("sentence", "sentiment"),
    "quora": ("sentence1", "sentence2", "is_duplicate"),
    "sts": ("sentence1", "sentence2", "similarity"),
}
_GRADE_SHARES = (0.16, 0.23, 0.22, 0.23, 0.16)

Row = tuple[object, ...]


def _graded(rng: Random) -> Row:
    wanted = rng.choices(range(reviews.GRADES), _GRADE_SHARES)[0]
    return reviews.graded_sentence(rng, wanted), wanted


def _review(rng: Random) -> Row:
    positive = rng.random() < 0.5
    return reviews.review(rng, positive), int(positive)


def _paraphrase(rng: Random) -> Row:
    pair = events.paraphrase_pair(rng)
    return pair.first, pair.second, float(pair.same)


def _similar(rng: Random) -> Row:
    pair = events.similar_pair(rng)
    return pair.first, pair.second, pair.similarity


_DRAW: dict[str, Callable[[Random], Row]] = {
    "ids-sst": _graded,
    "ids-cfimdb": _review,
    "quora": _paraphrase,
    "sts": _similar,
}


def rows(dataset: str, seed: int = SEED) -> dict[str, list[Row]]:
    """The rows of one dataset by split: its texts, then the label. No text (pair) comes twice.

    Args:
        dataset: a key of `SIZES`.
        seed: another seed gives another corpus of the same kind.
    """
    rng = Random(f"{dataset}/{seed}")
    fresh = _without_repeats(_DRAW[dataset], rng)
    return {split: [next(fresh) for _ in range(n)] for split, n in SIZES[dataset].items()}


def _without_repeats(draw: Callable[[Random], Row], rng: Random) -> Iterator[Row]:
    seen: set[frozenset] = set()
    while True:
        row = draw(rng)
        texts = frozenset(row[:-1])
        if texts not in seen:
            seen.add(texts)
            yield row


def corpus_version() -> str:
    """12 hex digits that change whenever the grammar does."""
    digest = hashlib.sha256()
    for module in (words.__file__, events.__file__, reviews.__file__, __file__):
        # Line ends are the checkout's matter, not the grammar's.
        digest.update(Path(module).read_text(encoding="utf-8").encode())
    return digest.hexdigest()[:12]


def write_corpus(folder: Path, seed: int = SEED) -> None:
    """Write the corpus into an existing folder, in the paper's files: twelve of them.

    Tab-separated, with the paper's unnamed index column; `*-test-student.csv` carry no labels.
    """
    for dataset, columns in COLUMNS.items():
        for split, data in rows(dataset, seed).items():
            shown = columns if split != "test-student" else columns[:-1]
            _write(folder / f"{dataset}-{split}.csv", shown, data)


def _write(path: Path, columns: tuple[str, ...], data: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["", "id", *columns])
        for number, row in enumerate(data):
            identity = hashlib.sha256(f"{path.name}/{number}".encode()).hexdigest()[:25]
            writer.writerow([number, identity, *row[: len(columns)]])


def ensure_corpus(cache_dir: Path) -> Path:
    """The corpus's folder under `cache_dir`, written at the first call and only then.

    Processes that call it together get one folder: it appears whole or not at all.
    """
    cache_dir = Path(cache_dir)
    cache_dir.mkdir(parents=True, exist_ok=True)
    folder = cache_dir / f"demo-corpus-{corpus_version()}"
    if folder.is_dir():
        return folder
    with FileLock(cache_dir / "demo-corpus.lock"):
        if not folder.is_dir():
            draft = new_folder(cache_dir, "demo-corpus-", ".part")
            try:
                write_corpus(draft)
                os.replace(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder

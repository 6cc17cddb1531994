"""What MLflow loads when it loads a champion.

``mlflow.pyfunc.load_model("models:/NAME@champion").predict(...)`` takes sentences (strings), pairs
of sentences, or a table with the columns ``sentence1`` and, for pairs, ``sentence2``. It returns a
table with a row for each: ``sentiment`` (0 to 4) and its ``sentiment_name`` for a sentence;
``paraphrase`` (probability) and ``similarity`` (0 unrelated, 5 the same) for a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def _load_pyfunc(path: str) -> Champion:
    """Load a model folder; the name and the argument are MLflow's."""
    from .storage.home import Home

    return Champion(Path(path), Home.resolve(create=False).cache)


class Champion:
    """A trained model behind MLflow's ``predict``."""

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        from minbert import SentenceModel

        self._model = SentenceModel(folder, cache_dir)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer to sentences or pairs of sentences.

        Raises:
            InputError: the input is none of them.
        """
        import pandas as pd

        rows = _rows(model_input)
        answers = pd.DataFrame({"sentence1": [row[0] for row in rows]})
        for columns, size, answer in (
            (("sentiment", "sentiment_name"), 1, self._sentiments),
            (("paraphrase", "similarity"), 2, self._pairs),
        ):
            places = [i for i, row in enumerate(rows) if len(row) == size]
            if places:
                values = answer([rows[i] for i in places])
                for column, given in zip(columns, values, strict=True):
                    answers[column] = pd.Series(given, index=places)
        return answers

    def _sentiments(self, texts: list[tuple[str, ...]]) -> tuple[Sequence, ...]:
        import pandas as pd

        from minbert.tasks.builtin import SST

        classes = self._model.predict("sst", texts).astype(int)
        # Nullable: a table of sentences and pairs keeps whole numbers.
        return pd.array(classes, dtype="Int64"), [SST.classes[c] for c in classes]

    def _pairs(self, texts: list[tuple[str, ...]]) -> tuple[Any, ...]:
        return self._model.predict("para", texts), self._model.predict("sts", texts)


def _rows(given: Any) -> list[tuple[str, ...]]:
    """Read the input as sentences and pairs."""
    import pandas as pd

    from minbert import InputError

    if isinstance(given, str):
        return [(given,)]
    if isinstance(given, dict):
        given = pd.DataFrame(given)
    if isinstance(given, pd.DataFrame):
        named = [name for name in ("sentence1", "sentence2") if name in given.columns]
        if "sentence1" not in named:
            raise InputError(f"columns {list(given.columns)}: sentence1 is missing")
        lines = given[named].itertuples(index=False, name=None)
        rows = [tuple(text if isinstance(text, str) else "" for text in line) for line in lines]
        for number, row in enumerate(rows):
            if not row[0]:
                raise InputError(f"row {number}: sentence1 is blank")
        return [tuple(filter(None, row)) for row in rows]
    rows = [(item,) if isinstance(item, str) else tuple(item) for item in given]
    for number, row in enumerate(rows):
        if len(row) not in (1, 2):
            raise InputError(f"row {number}: give a sentence or a pair of them, not {row!r}")
    return rows

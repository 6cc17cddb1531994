"""What waits for MLflow in a home, and why, for whoever only looks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from .outbox import Outbox


class Waiting(NamedTuple):
    """Runs that MLflow does not have whole.

    Attributes:
        runs: how many.
        reasons: why, as it was found when they were last tried, the most frequent first; those of
            which nothing is known are not among them.
    """

    runs: int
    reasons: list[str]

    @property
    def words(self) -> str:
        """The same as a sentence."""
        runs = "1 run waits" if self.runs == 1 else f"{self.runs} runs wait"
        more = f" (and {len(self.reasons) - 1} more reasons)" if len(self.reasons) > 1 else ""
        return f"{runs} for MLflow" + (f": {self.reasons[0]}{more}" if self.reasons else "")


def waiting(spool: Path, study_key: str | None = None) -> Waiting:
    """Look at the outboxes of a home; of one study, if its key is given."""
    boxes = [Outbox(file.parent) for file in sorted(spool.glob("[!.]*/journal.jsonl"))]
    if study_key is not None:
        boxes = [box for box in boxes if box.folder.name.partition("-")[0] == study_key]
    boxes = [box for box in boxes if not box.empty]
    reasons = Counter(box.reason for box in boxes)
    return Waiting(len(boxes), [reason for reason, _ in reasons.most_common() if reason])

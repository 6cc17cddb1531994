"""What a training keeps on the disk: its checkpoints and its best epoch; and how it goes on from
them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from ..backbone.weights import backbone_digest
from ..config import Config
from ..data.datasets import data_digest
from ..errors import InputError
from .arithmetic import arithmetic, difference
from .checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    DamagedError,
    Snapshot,
    best_snapshot,
    read_snapshot,
    set_aside,
    tidy,
    write_snapshot,
)
from .cohort import Cohort
from .reports import EpochReport
from .trainer import Trainer

_COST = 20.0  # a checkpoint may take a twentieth of the time
_COUNTS = ("epoch", "in_epoch", "step", "best_epoch")
_log = logging.getLogger(__name__)


class Checkpointer:
    """Keeps a training's checkpoints, and its best epoch.

    Args:
        folder: where they are kept; None keeps none. One process at a time may use it.
        on_notice: told which files were damaged, and what follows; and what the training goes on
            with that it did not begin with, where that may change the last bits.
        cohort: whom the training shares its passes with, if it can.

    Attributes:
        trainer: as the newest good checkpoint has it; at its beginning, if there is none.

    Raises:
        InputError: the folder holds a checkpoint of another training.
    """

    def __init__(
        self,
        config: Config,
        cache_dir: Path,
        folder: Path | None,
        on_notice: Callable[[str], None] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        self._cohort = cohort
        self.trainer = Trainer(config, cache_dir, cohort=cohort)
        self._cache_dir = cache_dir
        self._folder = None if folder is None else Path(folder)
        self._unsaved_best: Snapshot | None = None
        self._saved_at = time.monotonic()
        self._cost = 0.0
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._identity = _identity(config, cache_dir)
            self._arithmetic = arithmetic(self.trainer.device, self.trainer.dtype)
            tidy(self._folder)
            self._resume(self._folder, on_notice)

    def _resume(self, folder: Path, on_notice: Callable[[str], None] | None) -> None:
        """Go on from the newest checkpoint that can be used; set aside those that cannot."""
        problems: list[str] = []
        files = [file for name in (LAST, PREVIOUS) if (file := folder / name).is_file()]
        used = next((file for file in files if self._go_on(file, problems)), None)
        notices = []
        if problems:
            follows = "the checkpoint before is used" if used else "the training begins anew"
            notices.append(f"{'; '.join(problems)}; {follows}")
        if used and (changed := difference(self._arithmetic_before, self._arithmetic)):
            notices.append(changed)
        for notice in notices:
            _log.warning(notice)
            if on_notice is not None:
                on_notice(notice)

    def _go_on(self, file: Path, problems: list[str]) -> bool:
        """Load a checkpoint; say whether that succeeded, and if not, note why."""
        try:
            snapshot = read_snapshot(file)
            self._check(snapshot, file)
            self._check_best(snapshot.state["numbers"]["best_epoch"], file)
            self._load(snapshot, file)
            self._arithmetic_before = _strings(snapshot.state.get("arithmetic"))
        except DamagedError as error:
            problems.append(str(error))
            set_aside(file)
            return False
        return True

    def _check(self, snapshot: Snapshot, file: Path) -> None:
        """Make sure that a checkpoint is one of this training."""
        identity, numbers = (snapshot.state.get(key) for key in ("identity", "numbers"))
        if not isinstance(identity, dict) or not isinstance(numbers, dict):
            raise DamagedError(f"{file}: not a checkpoint of a training")
        if identity != self._identity:
            raise InputError(
                f"{self._folder}: holds a checkpoint of another training "
                f"({_difference(identity, self._identity)}); "
                "give another folder or remove it"
            )
        if not all(type(numbers.get(key)) is int and numbers[key] >= 0 for key in _COUNTS):
            raise DamagedError(f"{file}: a damaged checkpoint, it does not say where it stands")

    def _check_best(self, best_epoch: int, checkpoint: Path) -> None:
        """Make sure that the best epoch that a checkpoint knows of is there: its training would
        end without anything to show."""
        if best_epoch == 0:
            return
        file = checkpoint.with_name(BEST)
        if not file.is_file():
            raise DamagedError(f"{checkpoint}: without its best epoch, {BEST} is gone")
        try:
            epoch = read_snapshot(file).state.get("epoch")
        except DamagedError:
            set_aside(file)
            raise
        # It is written before the checkpoint, so it may be of a later epoch: that one comes again.
        if not isinstance(epoch, int) or epoch < best_epoch:
            raise DamagedError(f"{checkpoint}: its best epoch was {best_epoch}, {BEST} has {epoch}")

    def _load(self, snapshot: Snapshot, file: Path) -> None:
        try:
            self.trainer.load(snapshot.tensors, snapshot.state["numbers"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            # Half of it is loaded.
            self.trainer = Trainer(self.trainer.config, self._cache_dir, cohort=self._cohort)
            reason = " ".join(str(error).split())[:200]
            raise DamagedError(
                f"{file}: not a checkpoint of this training ({type(error).__name__}: {reason})"
            ) from None

    def note(self, report: EpochReport) -> None:
        """Keep the weights of a best epoch, in memory until the next checkpoint."""
        if report.is_best and self._folder is not None:
            weights = {n: p.detach().cpu().clone() for n, p in self.trainer.trained.items()}
            self._unsaved_best = best_snapshot(report, weights)

    def save_if_due(self, seconds: float) -> None:
        """Write a checkpoint if the last is old enough, in seconds and against what one costs."""
        if time.monotonic() - self._saved_at >= max(seconds, _COST * self._cost):
            self.save()

    def save(self) -> None:
        """Write the best epoch if it is new, and a checkpoint."""
        if self._folder is None:
            return
        begin = time.monotonic()
        self.save_best()
        state = {
            "identity": self._identity,
            "numbers": self.trainer.numbers(),
            "arithmetic": self._arithmetic,
        }
        snapshot = Snapshot(self.trainer.tensors(), state)
        write_snapshot(snapshot, self._folder / LAST, keep=self._folder / PREVIOUS)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - begin

    def save_best(self) -> None:
        """Write the best epoch, if it is not yet on the disk."""
        if self._unsaved_best is not None and self._folder is not None:
            write_snapshot(self._unsaved_best, self._folder / BEST)
            self._unsaved_best = None


def _identity(config: Config, cache_dir: Path) -> dict:
    """What must be equal for a checkpoint to be of this training."""
    keys = {k: v for k, v in config.to_keys().items() if k not in ("train.device", "data.path")}
    return keys | {
        "data.path": data_digest(config.data.path, cache_dir),
        "backbone": backbone_digest(config.backbone, cache_dir),
    }


def _strings(found: object) -> dict[str, str]:
    """Return what a checkpoint says of its arithmetic; those of version 0.1.0 say nothing."""
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def _difference(theirs: dict, ours: dict) -> str:
    key = next(k for k in {**theirs, **ours} if theirs.get(k) != ours.get(k))
    if key in ("data.path", "backbone"):
        return f"the files of {key} have changed since"
    return f"{key} was {theirs.get(key)!r} and is {ours.get(key)!r}"

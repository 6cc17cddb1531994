"""What a study searches: one value type for each way to write a range in a study file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from minbert import InputError
from minbert.common.messages import short
from minbert.config import canonical, describe_keys

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

    from minbert import KeyInfo

_MOST_STEPS = 2**53  # above, neighbouring values are one and the same number
_RANGE_KEYS = ("low", "high", "log", "step")
_FLOATS = frozenset(info.key for info in describe_keys() if info.type == "float")


@dataclass(frozen=True)
class Choice:
    """One of several values, without order: ``"lora.rank" = [1, 2, 4]``."""

    values: tuple[Any, ...]

    @property
    def labels(self) -> list[Any]:
        """The values as Optuna stores them: scalars as they are, lists as JSON text."""
        return [json.dumps(v) if isinstance(v, list) else v for v in self.values]

    def encode(self, value: Any) -> Any:
        """Turn a configuration value into its Optuna label."""
        return json.dumps(value) if isinstance(value, list) else value

    def decode(self, label: Any) -> Any:
        """Turn an Optuna label back into the configuration value."""
        return self.values[self.labels.index(label)]

    def contains(self, value: Any) -> bool:
        return any(
            value == v and isinstance(value, bool) == isinstance(v, bool) for v in self.values
        )

    def corners(self) -> list[Any]:
        return list(self.values)

    @property
    def single(self) -> bool:
        """Whether there is but one value to try."""
        return len(self.values) == 1

    def grid_size(self) -> int | None:
        return len(self.values)

    def grid(self) -> list[Any] | None:
        return list(self.values)

    def suggest(self, trial: Trial, key: str) -> Any:
        """Ask Optuna for a value."""
        return self.decode(trial.suggest_categorical(key, self.labels))

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.labels)

    def describe(self) -> Any:
        """The range as plain values, for settings and tables."""
        return list(self.values)


@dataclass(frozen=True)
class _Range:
    low: Any
    high: Any
    log: bool = False
    step: Any = None

    def encode(self, value: Any) -> Any:
        return value

    @property
    def last(self) -> Any:
        """The largest value that there is: steps need not end at `high`."""
        raise NotImplementedError

    def corners(self) -> list[Any]:
        return [self.low, self.last]

    @property
    def single(self) -> bool:
        return self.low == self.last

    def describe(self) -> Any:
        optional = {"log": self.log, "step": self.step}
        return {
            "low": self.low,
            "high": self.high,
            **{key: value for key, value in optional.items() if value},
        }


class IntRange(_Range):
    """A whole number between low and high, both included."""

    def contains(self, value: Any) -> bool:
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (value - self.low) % (self.step or 1) == 0

    @property
    def last(self) -> int:
        return self.high - (self.high - self.low) % (self.step or 1)

    def grid_size(self) -> int | None:
        return (self.high - self.low) // (self.step or 1) + 1

    def grid(self) -> list[Any] | None:
        return list(range(self.low, self.high + 1, self.step or 1))

    def suggest(self, trial: Trial, key: str) -> int:
        return trial.suggest_int(key, self.low, self.last, log=self.log, step=self.step or 1)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.last, log=self.log, step=self.step or 1)


class FloatRange(_Range):
    """A number between low and high, both included."""

    def contains(self, value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-8

    @property
    def last(self) -> float:
        count = self.grid_size()
        return self.high if count is None else self._at(count - 1)

    def grid_size(self) -> int | None:
        if not self.step:
            return None
        low, high, step = (Decimal(str(value)) for value in (self.low, self.high, self.step))
        return int((high - low) // step) + 1

    def grid(self) -> list[Any] | None:
        count = self.grid_size()
        return None if count is None else [self._at(index) for index in range(count)]

    def _at(self, index: int) -> float:
        """The value after so many steps, in decimals as Optuna has it: 0.3 after two steps of 0.1
        from 0.1, and not a little more."""
        return float(Decimal(str(self.low)) + index * Decimal(str(self.step)))

    def suggest(self, trial: Trial, key: str) -> float:
        return trial.suggest_float(key, self.low, self.last, log=self.log, step=self.step)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.last, log=self.log, step=self.step)


Search = Choice | IntRange | FloatRange


def covering(info: KeyInfo, values: Sequence[Any]) -> Search | None:
    """Return what can hold these values of a key and, in the same study, others later.

    Optuna takes a parameter's numbers from ranges that may differ from trial to trial, but its
    choices may not: words are all that the key can be. None where no such list is complete: free
    text, and lists.
    """
    if info.type in ("int", "float"):
        return (IntRange if info.type == "int" else FloatRange)(min(values), max(values))
    return Choice(info.choices) if info.choices else None


def parse_search(key: str, raw: object) -> Search:
    """Read what stands behind a key of ``[search]``.

    Raises:
        InputError: the value is neither a list of choices nor a range, or the range is not one.
    """
    if isinstance(raw, list):
        return _parse_choice(key, raw)
    if isinstance(raw, Mapping):
        return _parse_range(key, raw)
    raise InputError(
        f"search.{key}: {short(raw)} is not a search; use a list of values, "
        "or { low = ..., high = ... } with log or step"
    )


def _parse_choice(key: str, raw: list) -> Choice:
    if not raw:
        raise InputError(f"search.{key}: the list is empty; give at least one value")
    values: list[Any] = []
    for given in raw:
        value = canonical(key, given)
        if value in values:
            raise InputError(
                f"search.{key}: {short(given)} stands twice in the list; write it once"
            )
        values.append(value)
    return Choice(tuple(values))


def _parse_range(key: str, raw: Mapping[str, object]) -> IntRange | FloatRange:
    where = f"search.{key}"
    for name in raw:
        if name not in _RANGE_KEYS:
            raise InputError(
                f"{where}: {short(name)} is not part of a range; use low, high, log, step"
            )
    for name in ("low", "high"):
        if name not in raw:
            raise InputError(f"{where}: a range needs both low and high; {name} is missing")
    low, high = (_number(f"{where}: {name}", raw[name]) for name in ("low", "high"))
    step = None if raw.get("step") is None else _number(f"{where}: step", raw["step"])
    log = raw.get("log")
    if not isinstance(log, bool | None):
        raise InputError(f"{where}: log = {short(log)} does not fit; use true or false")
    _check_bounds(where, low, high, bool(log), step)
    whole = isinstance(low, int) and isinstance(high, int) and not isinstance(step, float)
    if whole and key not in _FLOATS:
        return IntRange(low, high, bool(log), step)
    return FloatRange(float(low), float(high), bool(log), None if step is None else float(step))


def _number(where: str, value: object) -> float:
    """Return a number that arithmetic can be done with: whole ones stay so, NaN is none."""
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not abs(value) <= sys.float_info.max
    ):
        raise InputError(f"{where} = {short(value)} is not a number")
    return value


def _check_bounds(where: str, low: Any, high: Any, log: bool, step: Any) -> None:
    if low > high:
        raise InputError(f"{where}: low = {low} is above high = {high}; swap them")
    if log and low <= 0:
        raise InputError(f"{where}: a logarithmic range starts above 0, and low is {low}")
    if step is not None and step <= 0:
        raise InputError(f"{where}: step = {step} does not fit; use a number above 0")
    if step is not None and (high - low) / step > _MOST_STEPS:
        raise InputError(f"{where}: step = {step} is too small for a range of {low} to {high}")
    if log and step is not None:
        raise InputError(f"{where}: log and step exclude each other; leave one of them out")

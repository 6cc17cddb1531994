"""The table of `gpu.py`: what was measured, beside the figures that are to be reached on a card."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

_MOST_MS = {"full": 6.0, "lora": 4.5, "pals": 8.0}
_MOST_KERNELS = {"full": 600, "lora": 800}
_MOST_OPERATIONS = {"full": 450, "lora": 650}
_MOST_SMART = 3.0  # times the full model's step
_LEAST_RATE = 45_000  # dev examples a second
_LEAST_RATIO = {"transformers": 10.0, "transformers compiled": 3.0, "peft": 10.0}
_OURS = {"transformers": "full", "transformers compiled": "full", "peft": "lora"}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        target: the most that is wanted, or with ``least`` the least. It is one for a GPU, but for
            what is the same ``anywhere``.
        more: what else is said of it.
    """

    what: str
    value: float
    unit: str = ""
    target: float | None = None
    least: bool = False
    more: str = ""
    anywhere: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.least else self.value <= self.target


def rows(parts: dict[str, dict]) -> list[Row]:
    """Return the lines of what was measured, by part."""
    given = [_operations(parts.get("operations", {}).get("operations", {}))]
    given += [_steps(parts.get("steps", {})), _busy(parts.get("busy", {}))]
    given += [_evaluation(parts.get("evaluation", {}))]
    given += [_peers(parts.get("peers", {}), parts.get("steps", {}))]
    given += [_limit(parts.get("limit", {}))]
    return [row for each in given for row in each]


def _operations(counts: dict) -> Iterator[Row]:
    for name, count in counts.items():
        yield Row(f"operations of a step, {name}", count, "", _MOST_OPERATIONS[name],
                  anywhere=True)  # fmt: skip


def _steps(found: dict) -> Iterator[Row]:
    for recipe, given in found.items():
        for way, told in given.items():
            target = _MOST_MS.get(recipe) if way == "graphs" else None
            more = f"±{told['spread']:.0%}, {told['tokens']:.0f} tokens, {told['precision']}"
            more += _peak(told)
            if told["graphs"]:
                more += f", {told['graphs']} graphs in {told['capture_seconds']:.1f} s"
            yield Row(f"step, {recipe}, {way}", told["ms"], "ms", target, more=more)
        both = given.keys() & found.get("full", {}).keys()
        if recipe == "smart" and both:
            best = "graphs" if "graphs" in both else "without"
            ratio = given[best]["ms"] / found["full"][best]["ms"]
            yield Row(f"step, smart / full, {best}", ratio, "x", _MOST_SMART)


def _busy(found: dict) -> Iterator[Row]:
    for recipe, given in found.items():
        for way, told in given.items():
            yield Row(f"busy in a step, {recipe}, {way}", told["busy_ms"], "ms",
                      more=f"{told['copies']:.0f} copies")  # fmt: skip
            yield Row(f"kernels of a step, {recipe}, {way}", told["kernels"], "",
                      _MOST_KERNELS[recipe] if way == "graphs" else None)  # fmt: skip


def _evaluation(found: dict) -> Iterator[Row]:
    for recipe, told in found.items():
        more = f"±{told['spread']:.0%}, {told['examples']} examples" + _peak(told)
        yield Row(f"evaluation, {recipe}", told["examples_a_second"], "examples/s", _LEAST_RATE,
                  least=True, more=more)  # fmt: skip


def _peers(found: dict, steps: dict) -> Iterator[Row]:
    for name, told in found.items():
        new, again = told["new"], told["again"]
        ours = steps.get(_OURS[name], {})
        ours = ours.get("graphs", ours.get("without"))
        share = f"{new['new_shapes']} of {new['steps']} steps{_peak(told)}"
        for what, theirs, more in (
            ("a new shape", new["new_ms"], share),
            ("as batches come", new["mean_ms"], "mean"),
            ("repeated shapes", again["ms"], f"±{again['spread']:.0%}"),
        ):
            if theirs is None:
                continue
            yield Row(f"{name}, {what}", theirs, "ms", more=more)
            if ours is not None:
                target = _LEAST_RATIO[name] if what == "a new shape" else None
                yield Row("    / ours", theirs / ours["ms"], "x", target, least=True)


def _limit(told: dict) -> Iterator[Row]:
    if told:
        yield Row(f"a large product, {told['precision']}", told["tflops"], "TFLOP/s",
                  more=f"±{told['spread']:.0%}")  # fmt: skip
        yield Row("products alone, full-model step", told["step_ms"], "ms",
                  more=f"{told['step_tflop']:.3f} TFLOP")  # fmt: skip


def _peak(told: dict) -> str:
    if "peak_gb" not in told:
        return ""
    return f", {told['peak_gb']:.2f} GB at the peak, {told['reserved_gb']:.2f} reserved"


def print_rows(device: str, found: list[Row], on_gpu: bool) -> None:
    """Print a table; it says which figures are reached, on a GPU or where that is the same."""
    title = device if on_gpu else f"{device}: tried there, and nothing of a GPU"
    table = Table("what", "measured", "target", "", title=title)
    table.columns[1].justify = "right"
    for row in found:
        judged = row.target is not None and (on_gpu or row.anywhere)
        value = f"{_number(row.value)} {row.unit}".rstrip()
        table.add_row(row.what, value, _target(row) if judged else "", row.more)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _target(row: Row) -> str:
    mark = "[green]met[/]" if row.met else "[red]missed[/]"
    return f"{'at least' if row.least else 'at most'} {row.target:,.10g} {mark}"


def _number(value: float) -> str:
    if value == int(value) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 0.01 else f"{value:.2g}"

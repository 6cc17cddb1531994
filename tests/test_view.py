"""What the terminal shows of running trials."""

import io

import pytest
from rich.console import Console

from mtl.view.progress import RunningTrial, running_table
from mtl.view.words import sparkline

RUNNING = {
    3: RunningTrial("r=4 α=8", False, step=180, total_steps=300, epoch=2, scores=[0.4, 0.6, 0.7]),
    12: RunningTrial("PALs shared V^E/V^D", True),
}


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], ""), ([0.5], ""), ([0.1, 0.2], "▁█"), ([3, 1, 2], "█▁▅"), ([0.5, 0.5], "▁▁"),
     ([0.1, float("nan"), 0.2], "▁█"), (list(range(100)), "▁▂▂▃▄▄▅▅▆▇▇█")],
)  # fmt: skip
def test_a_sparkline_goes_from_the_lowest_to_the_highest(values, drawn):
    assert sparkline(values) == drawn


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_of_running_trials_fits_the_terminal(width):
    out = io.StringIO()
    Console(file=out, width=width).print(running_table(RUNNING, width))
    header, _, first, second = out.getvalue().splitlines()
    assert header.split()[:3] == ["trial", "parameters", "progress"]
    assert ("tokens/s" in header) == (width > 100)
    for word in ("3", "r=4 α=8", "180/300", "0.700", "▁▆█"):
        assert word in first
    assert "PALs shared V^E/V^D" in second and "starting" in second
    assert "…" not in out.getvalue()

"""What the terminal shows of running trials.

Room: mtl/terminal.
"""

import io
import os
import sys

import pytest
from rich.console import Console

from mtl.terminal.choose import choose_view
from mtl.terminal.console import busy
from mtl.terminal.leaderboard import leaderboard_table, replicates_table
from mtl.terminal.progress import RunningTrial, evaluated_table, running_table
from mtl.terminal.words import sparkline, states

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


def printed(width: int, table) -> list[str]:
    """The lines of a table on a screen of a width; ``table`` is given the screen."""
    out = io.StringIO()
    screen = Console(file=out, width=width)
    screen.print(table(screen))
    assert "…" not in out.getvalue()
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [50, 80, 120])
def test_the_table_of_running_trials_fits_the_terminal(width):
    header, _, first, second = printed(width, lambda screen: running_table(screen, RUNNING))
    assert header.split()[:2] == ["trial", "parameters"]
    assert ("tokens/s" in header) == (width > 100)
    assert ("▁▆█" in first) == (width > 50)
    for word in ("3", "r=4 α=8", "180/300", "0.700"):
        assert word in first
    assert "PALs shared V^E/V^D" in second and "starting" in second


def test_a_trial_that_evaluates_says_so():
    row = RunningTrial("r=4 α=8", False, step=100, total_steps=300, evaluating=True)
    assert "evaluating" in printed(80, lambda screen: running_table(screen, {0: row}))[2]


@pytest.mark.parametrize(
    ("waiting", "said"),
    [(lambda: busy("Predicting"), "Predicting ..."),
     (lambda: choose_view(stderr=True), "Looking at data, encoder and databases ...")],
)  # fmt: skip
def test_on_a_terminal_who_waits_is_told_for_what(waiting, said, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        with waiting():
            pass
        shown = ""
        while not shown.endswith("\x1b[2K"):  # it is gone afterwards
            shown += os.read(ours, 4096).decode()
    os.close(ours)
    assert said in shown
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with waiting():
        pass
    assert pipe.getvalue() == ""


def test_what_the_database_knows_of_running_trials_fits_too():
    rows = [{"number": 3, "setting": "r=16 α=11.1 c=0.123 λ=0.00123 lr=1e-05", "epoch": 2,
             "epochs": 12, "scores": [0.4, 0.5] * 6}]  # fmt: skip
    header, _, row = printed(80, lambda screen: evaluated_table(screen, rows))
    assert rows[0]["setting"] in row and "2/12" in row and "progress" in header


LABEL = "Multi-task, a random task each epoch"
COMMON = {"score_low": 0.8, "score_high": 0.9, "sst_accuracy": 0.725, "para_accuracy": 0.92,
          "sts_pearson": -0.054, "trainable_parameters": 1_509_219, "minutes": 12.3,
          "over": None, "reason": None}  # fmt: skip


def board(label: str | None) -> list[dict]:
    params = {"lora.rank": 16, "lora.alpha": 11.13}
    states = ("complete", "complete", "running")
    return [
        COMMON | {"rank": rank, "number": 9 + index, "state": state, "score": 0.85,
                  "label": label, "params": params}
        for index, (rank, state) in enumerate(zip((1, 2, None), states, strict=True))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "label", "gone"),
    [(120, None, ()), (98, None, ("minutes",)), (80, None, ("minutes", "trainable")),
     (120, LABEL, ("minutes",)), (114, LABEL, ("minutes", "trainable")),
     (98, LABEL, ("minutes", "trainable", "rank")),
     (85, LABEL, ("minutes", "trainable", "rank", "± 95 %")), (10_000, LABEL, ())],
)  # fmt: skip
def test_a_narrow_leaderboard_leaves_out_what_says_least(width, label, gone):
    lines = printed(width, lambda screen: leaderboard_table(screen, board(label)))
    header, _, *rows = lines
    assert len(rows) == 3 and all(len(line) <= width for line in lines)
    for title in ("rank", "trial", "parameters", "score", "± 95 %", "trainable", "minutes"):
        assert (title in header) == (title not in gone), title
    assert all((label or "r=16 α=11.1") in row for row in rows)
    assert (label or "r=16 α=11.1") + " (unfinished)" in rows[2]


def test_what_fits_nowhere_takes_lines_of_its_own_column():
    lines = printed(60, lambda screen: leaderboard_table(screen, board(3 * LABEL)))
    assert len(lines) > 5 and "(unfinished)" in " ".join(lines)
    assert sum("-0.054" in line for line in lines) == 3


def test_settings_over_seeds_fit_the_terminal():
    names = ("score", "sst_accuracy", "para_accuracy", "sts_pearson")
    group = {"setting": LABEL, "numbers": [0, 1], "minutes": (1.5, 0.1)}
    groups = [group | dict.fromkeys(names, (0.781, 0.004))]
    row = printed(80, lambda screen: replicates_table(screen, groups))[2]
    assert LABEL in row and row.count("±") == 1
    assert printed(200, lambda screen: replicates_table(screen, groups))[2].count("±") == 5


@pytest.mark.parametrize(
    ("counts", "total", "said"),
    [({"complete": 2, "failed": 0, "unfinished": 1}, 4, "2 complete, 1 unfinished of 4 trials"),
     ({"complete": 0}, 2, "none of 2 trials begun"), ({"complete": 1}, None, "1 complete"),
     ({}, None, "no trials"), ({"complete": 1}, 1, "1 complete of 1 trial")],
)  # fmt: skip
def test_how_many_trials_are_in_which_state(counts, total, said):
    assert states(counts, total) == said


def test_a_value_that_somebody_else_told_is_remarked():
    told = {**board(None)[0], "reason": "told in Optuna by somebody else"}
    shown = printed(200, lambda screen: leaderboard_table(screen, [told]))
    assert any("(told in Optuna by somebody else)" in line for line in shown), shown

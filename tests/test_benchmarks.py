"""What the benchmarks count, where a figure rests on it; that they run.

Room: minbert/model, minbert/training.
"""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nested import nested_tensor_from_jagged
from torch.utils.flop_counter import FlopCounterMode

from minbert.model.dropout import Dropout
from minbert.packing.pack import pack
from minbert.tasks.builtin import get_task
from minbert.training.build import prepare_model
from support import small
from support.paths import REPOSITORY

META = torch.device("meta")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    """The benchmarks' modules can be imported."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))


@pytest.mark.parametrize("lengths", [[7] * 4, [5, 5, 19]])
def test_operations_of_a_step_are_those_that_torch_counts(tmp_path, monkeypatch, lengths):
    """Where nothing is padded: filler in attention is ours to pay for."""
    monkeypatch.setattr("minbert.packing.blocks._BLOCK_COST", 0)  # a block for each length
    from products import forward_operations, step_operations

    folder = small.folder(tmp_path)
    model = prepare_model(small.config(folder), folder / "cache", torch.device("cpu"))
    batch = pack([np.arange(5, 5 + n) for n in lengths], lengths, ["sst"] * len(lengths))
    assert not batch.blocks.padded
    shape = model.encoder.shape
    head = 2 * len(lengths) * shape.hidden_size * 5
    with FlopCounterMode(display=False) as forward:
        outputs = model(batch, get_task("sst"), dropout=Dropout(0))
    assert forward.get_total_flops() == forward_operations(shape, np.array(lengths)) + head
    with FlopCounterMode(display=False) as backward:
        outputs.sum().backward()
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both == step_operations(shape, np.array(lengths)) + 3 * head


# ---- what a step dispatches


def test_operations_are_counted_but_for_views_and_questions():
    from gpu_operations import count_operations

    x = torch.empty(3, 4, device=META, requires_grad=True)
    weight = torch.empty(5, 4, device=META)

    def step():
        (x.view(4, 3).t() @ weight.t()).flatten()[:7].unsqueeze(0).sum().backward()
        torch._foreach_mul_([weight, weight.detach()], 2)  # one, however many tensors it takes
        torch.empty_like(weight)
        torch.ones(3) + 1  # elsewhere: that is the host's
        assert x.shape == (3, 4)

    counted = count_operations(step)
    wanted = {"mm": 2, "sum": 1, "ones_like": 1, "slice_backward": 1, "add_": 1, "_foreach_mul_": 1}
    assert counted.by_name == {f"aten.{name}": n for name, n in wanted.items()}
    assert counted.total == 7 and not counted.padded


def of_nested_tensors(rows, offsets):
    return nested_tensor_from_jagged(rows, offsets, min_seqlen=2, max_seqlen=3) * 2


def of_scaled_dot_products(rows, offsets):
    rows = rows.view(1, 1, 5, 8)
    return F.scaled_dot_product_attention(rows, rows, rows)


@pytest.mark.parametrize(
    "step, named",
    [(of_nested_tensors, "_nested_view_from_jagged"), (of_scaled_dot_products, "_safe_softmax")],
)
def test_what_pads_is_found_and_named(step, named):
    from gpu_operations import measure_operations

    rows, offsets = torch.empty(5, 8, device=META), torch.empty(3, dtype=torch.int64, device=META)
    told = measure_operations({"mine": lambda: step(rows, offsets)})
    (fault,) = told["faults"]
    assert "in a step (mine)" in fault and f"aten.{named} (1)" in fault
    if step is of_nested_tensors:  # and what it is made of is counted
        assert told["by_name"]["mine"] == {"aten.mul": 1}


def test_a_step_on_a_gpu_dispatches_little(tmp_path, capsys):
    """Forward and backward pass in bfloat16, twelve layers: nothing nested or padded is in it."""
    from gpu import main

    output = tmp_path / "gpu.json"
    code = main(["--parts", "operations", "-o", str(output)])
    told = capsys.readouterr()
    assert code == 0, told.err
    counts = json.loads(told.out.splitlines()[0])["operations"]
    assert counts["full"] <= 450 and counts["lora"] <= 650
    assert min(counts.values()) > 12 * 20  # it was a step
    record = json.loads(output.read_text())
    assert record["operations"] == counts
    assert record["parts"]["operations"]["by_name"]["full"]["aten._flash_attention_backward"] == 12


def test_what_pads_ends_it_with_exit_code_1(tmp_path, monkeypatch, capsys):
    from gpu import main

    monkeypatch.setattr("gpu_operations.RECIPES", {"full": {"mine": 1}})
    padded = partial(of_scaled_dot_products, torch.empty(5, 8, device=META), None)
    monkeypatch.setattr("gpu_operations.training_step", lambda keys: padded)
    assert main(["--parts", "operations", "-o", str(tmp_path / "gpu.json")]) == 1
    told = capsys.readouterr().err
    assert told == "gpu.py: operations of nested or padded tensors in a step (full): " \
        "aten._safe_softmax (1)\n"  # fmt: skip


# ---- benchmarks/gpu.py


def test_kernels_that_run_at_once_make_a_card_busy_once():
    from gpu_busy import summary

    spans = [(10, 30, "gemm"), (20, 25, "Memcpy HtoD"), (28, 40, "norm"), (100, 110, "gemm")]
    events = [
        SimpleNamespace(name=name, time_range=SimpleNamespace(start=start * 1e3, end=end * 1e3))
        for start, end, name in spans
    ]
    told = summary(events, steps=2)
    assert (told["busy_ms"], told["kernels"], told["copies"]) == (20, 1.5, 0.5)
    assert told["longest_ms"] == {"gemm": 15, "norm": 6, "Memcpy HtoD": 2.5}


def test_what_fails_or_has_no_time_ends_alone(capfd):
    from gpu_clock import Clock

    clock, late = Clock(60), Clock(0)
    assert clock.attempt("first", lambda: {"ms": 1}) == {"ms": 1}
    assert clock.attempt("broken", lambda: {}["ms"]) is None
    assert list(clock.rounds("first", 2)) == [0, 1]
    assert clock.faults == ["broken: KeyError: 'ms'"] and not clock.left_out
    assert "KeyError" in capfd.readouterr().err  # where, too
    assert late.attempt("second", dict) is None and list(late.rounds("third", 3)) == [0]
    assert late.left_out == ["second", "third: 2 of 3 rounds"] and not late.faults


def test_without_a_gpu_it_says_what_needs_one(tmp_path, monkeypatch, capsys):
    from gpu import main

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    output = tmp_path / "gpu.json"
    assert main(["--parts", "operations", "steps", "busy", "-o", str(output)]) == 2
    told = capsys.readouterr()
    assert told.err == "gpu.py: no CUDA device is here, and parts need one: steps, busy\n"
    assert not told.out and not output.exists()


def test_the_table_sets_ours_beside_the_others():
    from gpu_table import rows

    step = {"spread": 0.01, "tokens": 586, "precision": "bfloat16", "graphs": 9,
            "capture_seconds": 2.5, "peak_gb": 1.5, "reserved_gb": 2}  # fmt: skip
    given = {"full": (5.5, 30.0), "lora": (5.0, 40.0), "smart": (22.0, 90.0)}
    steps = {
        recipe: {"graphs": {**step, "ms": captured}, "without": {**step, "ms": without}}
        for recipe, (captured, without) in given.items()
    }
    new = {"steps": 70, "new_shapes": 40, "new_ms": 110.0, "mean_ms": 99.0}
    peer = {"new": new, "again": {"ms": 44.0, "spread": 0.02}, "peak_gb": 3, "reserved_gb": 4}
    missing = {**new, "new_ms": None}
    parts = {"steps": steps, "peers": {"transformers": peer, "peft": {**peer, "new": missing}}}
    found = [(row.what, row.value, row.met) for row in rows(parts)]
    assert ("step, full, graphs", 5.5, True) in found
    assert ("step, lora, graphs", 5.0, False) in found
    assert ("step, lora, without", 40.0, None) in found  # the figures to reach are of graphs
    assert ("step, smart / full, graphs", 4.0, False) in found
    at = found.index(("transformers, a new shape", 110.0, None))
    assert found[at + 1] == ("    / ours", 20.0, True)
    assert found[-2:] == [("peft, repeated shapes", 44.0, None), ("    / ours", 8.8, None)]
    assert not any(what == "peft, a new shape" for what, _, _ in found)


def test_every_part_of_ours_can_be_tried_on_a_cpu(tmp_path, capsys):
    """What a card is measured by runs, and all that it finds is in the table."""
    from gpu import main

    folder, output = small.folder(tmp_path), tmp_path / "gpu.json"
    parts = ["steps", "evaluation", "limit", "busy"]
    places = ["--data", str(folder / "data"), "--backbone", str(folder / "backbone")]
    few = ["--rounds", "2", "--steps", "4", "--device", "cpu", "-o", str(output)]
    assert main([*places, *few, "--parts", *parts]) == 0
    record, table = json.loads(output.read_text()), capsys.readouterr().out
    found = record["parts"]
    assert list(found) == parts and record["left_out"] == record["faults"] == []
    assert set(found["steps"]) == {"full", "lora", "pals", "smart"}
    for recipe, ways in found["steps"].items():
        assert len(ways["without"]["rounds"]) == 2 and f"step, {recipe}, without" in table
        assert ways["without"]["tokens"] > 16
    assert found["evaluation"]["lora"]["examples"] == 60
    assert found["busy"]["full"]["without"]["kernels"] > 100
    assert found["limit"]["step_ms"] > 0 and "met" not in table and "missed" not in table

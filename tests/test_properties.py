"""Bad input of every kind is refused in one line: never a traceback, never a hang.

Examples are mutations of what is valid, so that they reach deep, beside plain noise. All run in
this process, through the real command line where there is one.

Room: mtl/cli, minbert/training.
"""

import io
import json
import os
import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import save, save_file

from minbert import InputError, save_model, train
from minbert.config import KEYS
from minbert.training.checkpoint import Snapshot, load_best, read_snapshot, write_snapshot
from support import small
from support.commands import Outcome

EXAMPLES = int(os.environ.get("MTL_EXAMPLES", "1"))  # a factor: 20 for a long look


def examples(count: int):
    """As many examples, the same ones each time."""
    return settings(
        max_examples=count * EXAMPLES,
        deadline=None,
        derandomize=EXAMPLES == 1,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def mtl(*args: object) -> Outcome:
    """Run a command line in this process."""
    from mtl.cli import exits
    from mtl.cli.main import cli

    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = exits.run(cli, [str(arg) for arg in args])
    return Outcome(code, out.getvalue(), err.getvalue())


def good_or_refused(outcome: Outcome, *words: str) -> bool:
    """Assert that a command worked, or refused its input; return whether it worked."""
    if outcome.code == 0:
        return True
    outcome.refused(*words)
    assert len(outcome.err) < 4000, "a line is to be read"
    return False


# ---- values


scalars = st.one_of(
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.integers(-2, 5),
    st.sampled_from([10**400, -(2**63)]),
    st.floats(),
    st.sampled_from([1e-5, 1e308, 5e-324, -0.0]),
    st.text(max_size=8),
    st.sampled_from(["demo", "full-model", "tpe", "auto", "cuda:9", "sst", "", "\0", "~nobody/x"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["low", "high", "log", "step", "x"]), inner, max_size=4),
    max_leaves=6,
)


def toml(value: object) -> str:
    """Write a value as TOML, as far as that can be written."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("\\u007f", "\x7f").replace("\x7f", "\\u007f")


# ---- study files

SAMPLERS = ["tpe", "random", "grid", "gp", "cmaes", "points"]
LINES = [
    'description = "a study"',
    'sampler = "tpe"',
    'pruner = "none"',
    "trials = 16",
    "seed = 7",
    "replicates = 1",
    "[config]",
    '"train.mode" = "last-linear-layer"',
    "train.epochs = 2",
    "[search]",
    '"lora.rank" = [1, 2, 4]',
    '"lora.alpha" = { low = 1.0, high = 32.0, log = true }',
    '"train.batch_size" = { low = 4, high = 16, step = 4 }',
    "[limits]",
    "trainable_parameters = 1000000",
    "[[points]]",
    '"lora.rank" = 4',
    'label = "one"',
    "[[points]]",
    '"lora.rank" = 0',
    "[profiles.demo]",
    "trials = 5",
    '"train.epochs" = 3',
    "[profiles.demo.search]",
    '"train.lr" = { low = 1e-5, high = 1e-2, log = true }',
]
NAMES = [
    *("description", "sampler", "pruner", "trials", "seed", "replicates", "config", "search"),
    *("points", "profiles", "limits", "label", "low", "train", "trails", "", "a.b"),
]
SECTIONS = ["[config]", "[search]", "[limits]", "[[points]]", "[profiles.demo]", "[profiles.x.y]"]


@st.composite
def study_files(draw) -> str:
    """A valid study file with up to four things in it changed."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(lines) - 1))
        kinds = ["drop", "value", "insert", "section", "swap", "cut", "sampler"]
        kind = draw(st.sampled_from(kinds))
        if kind == "drop":
            del lines[place]
        elif kind == "value":
            lines[place] = f"{lines[place].partition(' = ')[0]} = {toml(draw(values))}"
        elif kind == "insert":
            key = draw(st.sampled_from([*KEYS, *NAMES]))
            lines.insert(place, f"{json.dumps(key)} = {toml(draw(values))}")
        elif kind == "sampler":
            lines = [line.replace("tpe", draw(st.sampled_from(SAMPLERS))) for line in lines]
        elif kind == "section":
            lines.insert(place, draw(st.sampled_from(SECTIONS)))
        elif kind == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[place], lines[other] = lines[other], lines[place]
        else:
            lines[place] = lines[place][: draw(st.integers(0, len(lines[place])))]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder for the whole module, with a home."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "home").mkdir()
    return folder


@pytest.fixture(autouse=True)
def at_the_desk(desk, monkeypatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("MTL_HOME", str(desk / "home"))


def test_the_unchanged_file_is_valid(desk):
    (desk / "s.toml").write_text("\n".join(LINES))
    assert mtl("study", "show", "./s.toml").code == 0


@given(study_files())
@examples(400)
def test_a_study_file_is_valid_or_refused(desk, text):
    file = desk / "s.toml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    outcome = mtl("study", "show", "./s.toml")
    if not good_or_refused(outcome, "s.toml"):
        return
    # What is shown is a study file that means the same.
    file.write_text(outcome.out, encoding="utf-8")
    again = mtl("study", "show", "./s.toml")
    assert again.code == 0, again
    assert again.out.partition("\n")[2] == outcome.out.partition("\n")[2]


@pytest.mark.parametrize(
    "search",
    [
        '"train.seed" = { low = 0, high = 4611686018427387904 }',
        '"train.lr" = { low = 0.1, high = 1.0, step = 1e-9 }',
        '"train.lr" = { low = 1e-300, high = 1.0, step = 1e-300 }',
    ],
)
def test_a_grid_without_end_is_refused_at_once(desk, search):
    (desk / "s.toml").write_text(f'sampler = "grid"\n[search]\n{search}\n')
    mtl("study", "show", "./s.toml").refused("s.toml")


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "ignore")))
@examples(150)
def test_noise_is_no_study_file(desk, noise):
    (desk / "s.toml").write_bytes(noise)
    good_or_refused(mtl("study", "show", "./s.toml"), "s.toml")


@given(st.sampled_from([*KEYS, "trian.lr", "", "train"]), values | st.text(max_size=20).map(str))
@examples(300)
def test_a_set_is_valid_or_refused(desk, key, value):
    text = value if isinstance(value, str) else toml(value)
    outcome = mtl("study", "show", "lora_sweep", "--set", f"{key}={text}")
    if not good_or_refused(outcome):
        assert "key" in outcome.err or key.strip("\"' ") in outcome.err or "text" in outcome.err


@given(st.text(max_size=30))
@examples(100)
def test_a_set_of_any_text_is_valid_or_refused(text):
    good_or_refused(mtl("params", "--set", text))


@pytest.mark.parametrize("command", [["study", "plan"], ["study", "run"]], ids=" ".join)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trials = 16", "trials = 99999999999999999999"),
        ("[1, 2, 4]", "[1, 2, [4]]"),
        ("trials = 16", f"trials = {'9' * 5000}"),
        ("low = 1.0", "low = nan"),
        ("low = 1.0, high = 32.0, log = true", f"low = 1, high = 1{'0' * 400}"),
        ("low = 1.0, high = 32.0, log = true", "low = 1, high = 32, step = 1e-320"),
        ('"tpe"', '"grid"'),
        ("trainable_parameters = 1000000", f"minutes = 1{'0' * 400}"),
        ('label = "one"', 'label = "\\u0000"'),
        ("train.epochs = 2", 'backbone = "\\u0000"'),
        ("train.epochs = 2", f'backbone = "{"x" * 300}"'),
        ("train.epochs = 2", '"data.path" = "~nobody/x"'),
        ("train.epochs = 2", '"data.path" = ""'),
        ("trainable_parameters = 1000000", "trainable_parameters = -1"),
    ],
)
def test_running_and_planning_refuse_what_showing_refuses(desk, command, old, new):
    (desk / "s.toml").write_text("\n".join(LINES).replace(old, new))
    mtl(*command, "./s.toml").refused()
    assert not (desk / "home" / "mlflow.db").exists(), "nothing was recorded"


# ---- data rows

CELLS = [
    *("", " ", '"', '""', '"a', "nan", "inf", "-1", "7", "1e400", "x\x00y", "\ufeff", "=1+1", "é")
]


@pytest.fixture(scope="module")
def data(desk) -> Path:
    return small.data(desk / "data", train=12, dev=6)


@st.composite
def mutated_files(draw, folder: Path) -> tuple[str, bytes]:
    """One of the data files with some cells, lines or bytes changed."""
    name = draw(st.sampled_from(sorted(path.name for path in folder.glob("*.csv"))))
    lines = (folder / name).read_text().split("\n")
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(lines) - 1))
        cells = lines[place].split("\t")
        kind = draw(st.sampled_from(["cell", "cell", "drop", "line", "add", "remove", "twice"]))
        if kind == "cell":
            cells[draw(st.integers(0, len(cells) - 1))] = draw(
                st.sampled_from(CELLS) | st.text(max_size=10)
            )
        elif kind == "drop":
            cells = cells[:-1]
        elif kind == "add":
            cells.append(draw(st.text(max_size=5)))
        lines[place] = "\t".join(cells)
        if kind == "line":
            lines[place] = draw(st.text(max_size=30))
        elif kind == "remove":
            del lines[place]
        elif kind == "twice":
            lines.insert(place, lines[place])
        lines = lines or [""]
    raw = "\n".join(lines).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0:
        start = draw(st.integers(0, len(raw)))
        raw = raw[:start] + draw(st.binary(max_size=6)) + raw[start + draw(st.integers(0, 6)) :]
    return name, raw


@given(st.data())
@examples(200)
def test_data_files_are_good_or_refused_by_line(desk, data, choose):
    name, raw = choose.draw(mutated_files(data))
    kept = (data / name).read_bytes()
    (data / name).write_bytes(raw)
    try:
        if not good_or_refused(outcome := mtl("data", "check", data, "--json"), name):
            assert re.search(r"line \d+|no rows below", outcome.err), outcome.err
    finally:
        (data / name).write_bytes(kept)


# ---- checkpoints

STATE = {"identity": {"a": 1}, "numbers": [1, 2.5, None], "text": "é"}
TENSORS = {
    "weights/a": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "weights/half": torch.ones(3, dtype=torch.bfloat16),
    "noise": torch.zeros(5, dtype=torch.uint8),
    "optimizer/step": torch.tensor(3.0),
}


@pytest.fixture(scope="module")
def checkpoint(desk) -> bytes:
    file = desk / "whole.safetensors"
    write_snapshot(Snapshot(TENSORS, STATE), file)
    return file.read_bytes()


def _is_whole(snapshot: Snapshot) -> None:
    assert snapshot.state == STATE
    assert snapshot.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        found = snapshot.tensors[name]
        assert found.dtype == tensor.dtype and torch.equal(found, tensor)


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """A checkpoint's bytes: cut, with bits turned, with a piece moved, doubled or replaced."""
    raw = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        if not raw:
            break
        kind = draw(st.sampled_from(["cut", "flip", "flip", "splice", "noise", "length"]))
        place = draw(st.integers(0, len(raw) - 1))
        if kind == "cut":
            raw = raw[:place]
        elif kind == "flip":
            raw[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "splice":
            piece = raw[place : place + draw(st.integers(0, 64))]
            other = draw(st.integers(0, len(raw)))
            raw[other:other] = piece
        elif kind == "noise":
            raw[place : place + draw(st.integers(0, 16))] = draw(st.binary(max_size=16))
        else:
            raw[:8] = draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little")
    return bytes(raw)


@given(st.data())
@examples(300)
def test_a_damaged_checkpoint_is_refused_or_right(desk, checkpoint, choose):
    file = desk / "damaged.safetensors"
    file.write_bytes(choose.draw(damaged(checkpoint)))
    try:
        _is_whole(read_snapshot(file))
    except InputError as error:
        assert file.name in str(error) and "\n" not in str(error)


@given(
    st.dictionaries(
        st.sampled_from(["state", "digest", "x"]),
        st.text(max_size=20) | st.sampled_from(["{}", "[]", "null", '{"identity": 1}', "[" * 9999]),
    ),
    st.booleans(),
)
@examples(100)
def test_a_checkpoint_with_a_hostile_description_is_refused(desk, metadata, signed):
    from minbert.training.checkpoint import _digest

    if signed:
        metadata["digest"] = _digest(TENSORS, metadata.get("state", ""))
    file = desk / "hostile.safetensors"
    file.write_bytes(save(TENSORS, metadata))
    try:
        assert isinstance(read_snapshot(file).state, dict)
    except InputError as error:
        assert file.name in str(error)


# ---- model folders


@pytest.fixture(scope="module")
def model(desk) -> Path:
    """A model folder with LoRA, as a training leaves it."""
    small.folder(desk / "base")
    config = small.config(
        desk / "base", **{"lora.rank": 2, "train.epochs": 1, "train.steps_per_epoch": 2,
                          "train.mode": "last-linear-layer"}
    )  # fmt: skip
    cache, folder = desk / "home" / "cache", desk / "base" / "checkpoints"
    assert len(list(train(config, cache_dir=cache, checkpoint_dir=folder))) == 1
    save_model(config, folder, desk / "model", cache)
    assert load_best(folder).epoch == 1
    return desk / "model"


def _edited(raw: bytes, draw) -> bytes:
    """A text file with a piece cut out, doubled or replaced."""
    start = draw(st.integers(0, len(raw)))
    end = min(len(raw), start + draw(st.integers(0, 40)))
    pieces = st.sampled_from([b"", b"null", b"{}", b"[]", b"-1", b'"x"', b"9" * 30, b"1e999"])
    piece = draw(pieces | st.binary(max_size=4) | st.just(raw[start:end] * 2))
    return raw[:start] + piece + raw[end:]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@st.composite
def broken_models(draw, model: Path) -> tuple[str, bytes | None]:
    """A file of a model folder, and what it shall hold; None if it shall be gone."""
    name = draw(st.sampled_from(sorted(path.name for path in model.iterdir())))
    raw = (model / name).read_bytes()
    if draw(st.integers(0, 9)) == 0:
        return name, None
    if name.endswith(".safetensors"):
        return name, draw(damaged(raw))
    if name.endswith(".json") and draw(st.booleans()):
        content = json.loads(raw)
        content[draw(st.sampled_from(sorted(content)))] = draw(JSON_VALUES)
        return name, json.dumps(draw(st.just(content) | JSON_VALUES)).encode()
    if name.endswith(".toml") and draw(st.booleans()):
        line = f"{json.dumps(draw(st.sampled_from([*KEYS, 'x'])))} = {toml(draw(values))}"
        lines = [*raw.decode().splitlines(), line]
        del lines[draw(st.integers(0, len(lines) - 2))]
        return name, "\n".join(lines).encode("utf-8", "surrogatepass")
    return name, _edited(raw, draw)


@given(st.data())
@examples(100)
def test_a_broken_model_folder_is_refused_or_used(desk, data, model, choose):
    name, raw = choose.draw(broken_models(model))
    copy = desk / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(model, copy)
    (copy / name).unlink()
    if raw is not None:
        (copy / name).write_bytes(raw)
    good_or_refused(mtl("predict", copy, "--data", data, "-o", desk / "out"))


def test_tensors_of_other_shapes_and_names_are_refused(desk, data, model):
    from safetensors.torch import load_file

    heads = load_file(model / "heads.safetensors")
    first = sorted(heads)[0]
    copy = desk / "shapes"
    shutil.copytree(model, copy)
    for changed in (
        {k: v for k, v in heads.items() if k != first},
        heads | {first: torch.zeros(7, 7)},
        heads | {first: torch.zeros(())},
    ):
        save_file(changed, copy / "heads.safetensors")
        mtl("predict", copy, "--data", data, "-o", desk / "out").refused("heads.safetensors")

"""`mtl study report` and `compare` on a real study: its numbers against its own CSV files.

Room: mtl/report.
"""

import csv
import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from support.study_runs import Study
from test_cli_study import drawn_in, mtl_in

LABEL = "<script>pwned()</script> & [bold]"
SENTENCE = "</script><img src=http://evil.example/x.png> [red]good[/red] film"
POINTS = f"""
[[points]]
label = '{LABEL}'
"lora.rank" = 0
"lora.alpha" = 1.0
[[points]]
"lora.rank" = 4
"lora.alpha" = 8.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home in which a study of two settings, each with two seeds, was run."""
    base = tmp_path_factory.mktemp("reported")
    study = Study(base / "files", base / "home", more=POINTS, trials=2, epochs=2)
    _spoil(base / "files" / "data")
    code, said = study.run_here("--jobs", "1", "--replicates", "2")
    assert code == 0, said
    return base


def _spoil(data: Path) -> None:
    """Put HTML and markup into the first sentence of every second row of the dev files."""
    for file in ("ids-sst-dev.csv", "quora-dev.csv", "sts-dev.csv"):
        lines = [line.split("\t") for line in (data / file).read_text().splitlines()]
        for line in lines[1::2]:
            line[2] = SENTENCE
        (data / file).write_text("\n".join("\t".join(line) for line in lines) + "\n")


@pytest.fixture(scope="module")
def written(folder: Path) -> tuple[dict, str]:
    """What the command said of the page, and the page."""
    outcome = mtl_in(folder, "study", "report", "tiny", "--json")
    assert outcome.code == 0, outcome
    assert outcome.json["file"] == "tiny-report.html"
    return outcome.json, (folder / "tiny-report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[int, dict]:
    """The trials by number, as `mtl study export --json` has them."""
    found = mtl_in(folder, "study", "export", "tiny", "--json").json["trials"]
    return {row["number"]: row for row in found}


def dev(folder: Path, run_id: str, task: str) -> list[dict]:
    (file,) = (folder / "home").rglob(f"{run_id}/artifacts/predictions/dev-{task}.csv")
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def numbers(rows: list[dict], column: str) -> np.ndarray:
    return np.array([float(row[column]) for row in rows])


def by_hand(folder: Path, run_id: str, picks=None) -> dict[str, float]:
    """The scores of a run, from its files, with nothing of ours; of a resample if one is given."""
    found = {}
    for task, name in (("sst", "sst_accuracy"), ("para", "para_accuracy"), ("sts", "sts_pearson")):
        table = dev(folder, run_id, task)
        label, guess = numbers(table, "label"), numbers(table, "prediction")
        if picks is not None:
            label, guess = label[picks[task]], guess[picks[task]]
        found[name] = (
            np.corrcoef(label, guess)[0, 1] if task == "sts" else np.mean(label == guess)
        )
    sst, para, sts = found.values()
    return found | {"score": (sst + para + (sts + 1) / 2) / 3}


class Page(HTMLParser):
    """Elements with their attributes; text by the element that it stands in."""

    VOID = frozenset({"meta", "br", "img", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"{tag} closes what is not open"

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_loads_nothing_from_anywhere(written):
    page = Page(written[1])
    for tag, attributes in page.tags:
        assert tag not in ("img", "iframe", "link", "object", "base"), (tag, attributes)
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        assert "url(" not in (attributes.get("style") or "")
        assert not [name for name in attributes if name.startswith("on")]
    style = re.findall(r"<style>(.*?)</style>", written[1], re.S)[0]
    assert "url(" not in style and "@import" not in style
    assert len(written[1].encode()) < 6_000_000


def test_what_users_wrote_stays_text(written):
    page = Page(written[1])
    assert LABEL in page.text
    assert SENTENCE in page.text
    assert "pwned()" in written[1] and "<script>pwned" not in written[1]
    assert "<img src=http" not in written[1]
    shown = [script for script in page.scripts if "&lt;img src" in script]
    assert len(shown) == 1, "the residuals' sentences, shown where one points"


def test_sections_come_in_their_order(written):
    titles = re.findall(r"<h2>(.*?)</h2>", written[1])
    assert titles == [
        *("Summary", "Leaderboard", "Beside the paper", "Figures"),
        *("The best trial's worst mistakes", "Skipped or missing", "How this was made"),
    ]


def test_the_gain_is_that_of_the_files(folder, written, rows):
    said = written[0]
    best, reference = rows[said["best"]], rows[said["compared_with"]]
    assert best["rank"] == 1
    if (best["replicate_of"] or best["number"]) != 0:
        assert reference["number"] == 0
    ours, theirs = by_hand(folder, best["run_id"]), by_hand(folder, reference["run_id"])
    for name, gain in said["gain"].items():
        assert gain["value"] == pytest.approx(ours[name] - theirs[name], abs=1e-5)
        assert gain["low"] <= gain["value"] <= gain["high"]
        assert gain["stands"] == (gain["low"] > 0 or gain["high"] < 0)
    assert f"{said['gain']['score']['value']:+.2f}".replace("-", "−")[:4] in written[1]


def test_the_interval_of_the_gain_is_that_of_pairs(folder, written, rows):
    """Resampled here with other random numbers: both trials on the same examples."""
    said, random = written[0], np.random.default_rng(1)
    runs = [rows[said[key]]["run_id"] for key in ("best", "compared_with")]
    gaps = []
    for _ in range(4000):
        picks = {task: random.integers(20, size=20) for task in ("sst", "para", "sts")}
        ours, theirs = (by_hand_cached(folder, run, picks) for run in runs)
        gaps.append(ours - theirs)
    low, high = np.percentile(gaps, [2.5, 97.5])
    assert said["gain"]["score"]["low"] == pytest.approx(low, abs=0.04)
    assert said["gain"]["score"]["high"] == pytest.approx(high, abs=0.04)


_FILES: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}


def by_hand_cached(folder: Path, run_id: str, picks: dict) -> float:
    parts = []
    for task in ("sst", "para", "sts"):
        if (run_id, task) not in _FILES:
            table = dev(folder, run_id, task)
            _FILES[run_id, task] = numbers(table, "label"), numbers(table, "prediction")
        label, guess = (values[picks[task]] for values in _FILES[run_id, task])
        if task == "sts":
            spread = label.std() * guess.std()
            r = np.corrcoef(label, guess)[0, 1] if spread > 0 else 0.0
            parts.append((r + 1) / 2)
        else:
            parts.append(np.mean(label == guess))
    return sum(parts) / 3


def test_the_page_names_what_was_searched_and_spent(written, rows):
    text = Page(written[1]).text
    assert "lora.rank one of 1, 2, 4" in text and "lora.alpha 1 to 32 (logarithmic)" in text
    assert "2 epochs × 8 steps = 16 steps; batch size 4, learning rate 0.01" in text
    assert "4 complete, 0 pruned, 0 failed" in text
    assert "SST 80 / 20, PARA 40 / 20, STS 40 / 20" in text
    minutes = sum(row["minutes"] for row in rows.values())
    assert f"{minutes:,.1f} of training and evaluation in 4 trials" in text
    assert "By setting, over seeds" in text
    assert "mtl study run FILE.toml --as tiny" in text
    assert "Demo scores" not in text


def test_confusion_matrices_count_the_files(folder, written, rows):
    best = rows[written[0]["best"]]
    table = dev(folder, best["run_id"], "para")
    counts = np.zeros((2, 2), int)
    for row in table:
        counts[int(row["label"]), int(row["prediction"])] += 1
    (matrix,) = re.findall(
        rf'<table class="matrix"><caption>trial {best["number"]}, the best</caption>(.*?)</table>',
        written[1].split("Paraphrase (Quora): confusion")[1],
        re.S,
    )
    assert [int(n) for n in re.findall(r"<small>(\d+)</small>", matrix)] == list(counts.flat)


def test_compare_is_best_against_baseline_by_itself(here, folder, written):
    found = here(folder, "study", "compare", "tiny", "--json").json
    numbers_ = [trial["number"] for trial in found["trials"]]
    assert numbers_ == [written[0]["compared_with"], written[0]["best"]]
    assert found["differences"] == [written[0]["gain"]]
    assert "study file" in found["reason"] or "second best" in found["reason"]


def test_compare_two_trials_is_signed_by_their_order(here, folder, rows):
    there = here(folder, "study", "compare", "tiny", "0", "1", "--json").json
    back = here(folder, "study", "compare", "tiny", "1", "0", "--json").json
    assert there["config"] == {"lora.rank": [0, 4], "lora.alpha": [1.0, 8.0]}
    assert back["config"] == {"lora.rank": [4, 0], "lora.alpha": [8.0, 1.0]}
    by_files = [by_hand(folder, rows[n]["run_id"])["score"] for n in (0, 1)]
    (one,), (two,) = there["differences"], back["differences"]
    assert one["score"]["value"] == pytest.approx(by_files[1] - by_files[0], abs=1e-5)
    assert two["score"]["value"] == pytest.approx(-one["score"]["value"])
    assert two["score"]["low"] == pytest.approx(-one["score"]["high"])


def test_disagreements_are_those_of_the_files(here, folder, rows):
    found = here(folder, "study", "compare", "tiny", "0", "1", "--json").json["disagreements"]
    for task in ("sst", "para"):
        one, two = (dev(folder, rows[n]["run_id"], task) for n in (0, 1))
        right = [(a["label"] == a["prediction"], b["label"] == b["prediction"])
                 for a, b in zip(one, two, strict=True)]  # fmt: skip
        assert found[task]["reference_right"] == right.count((True, False))
        assert found[task]["other_right"] == right.count((False, True))
        only = {a["id"] for a, (x, y) in zip(one, right, strict=True) if x != y}
        shown = [example["id"] for example in found[task]["examples"]]
        assert set(shown) <= only and len(shown) == min(10, len(only))
    one, two = (dev(folder, rows[n]["run_id"], "sts") for n in (0, 1))
    change = {a["id"]: abs(abs(float(a["error"])) - abs(float(b["error"])))
              for a, b in zip(one, two, strict=True)}  # fmt: skip
    wanted = sorted(change, key=change.get, reverse=True)[:10]
    assert [example["id"] for example in found["sts"]["examples"]] == wanted


def test_compare_prints_what_users_wrote_as_it_is(here, folder):
    out = here(folder, "study", "compare", "tiny", "0", "1").out
    assert SENTENCE in out
    assert "lora.rank" in out and "score" in out
    assert "significant" in out or "may be chance" in out
    several = here(folder, "study", "compare", "tiny", "0", "1", "2")
    assert LABEL in several.out and several.out.count("(") > 5
    assert "alone right" not in several.out


@pytest.mark.parametrize("trials", ["0 1", "0 1 2"])
def test_compare_fits_a_terminal_of_80_columns(folder, trials):
    args = ("study", "compare", "tiny", *trials.split())
    drawn = drawn_in(folder, *args, TERM="xterm", COLUMNS="80")
    lines = re.sub(r"\x1b\[[\d;]*m", "", drawn).splitlines()
    assert all(len(line) <= 80 for line in lines)
    gap = re.compile(r"[+-]\d\.\d{3} ± \d\.\d{3}  +(significant|may be chance)")
    assert sum(bool(gap.search(line)) for line in lines) == (4 if trials == "0 1" else 2)
    assert any(line.startswith("±: half the width") for line in lines)
    wide = mtl_in(folder, *args).out
    assert "In brackets: the 95 % interval" in wide and " to +" in wide and "±" not in wide


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        (["0", "99"], ["no trial 99", "0 to 3"]),
        (["0"], ["two or more"]),
        (["1", "1"], ["two or more different"]),
        (["--", "-1", "0"], ["no trial -1"]),
        (["x"], ["'x' is not a valid integer"]),
    ],
)
def test_trials_that_cannot_be_compared(here, folder, trials, words):
    here(folder, "study", "compare", "tiny", *trials).refused(*words)


def test_nothing_recorded_is_one_line(here, folder):
    for verb in ("compare", "report"):
        here(folder, "study", verb, "nothing").refused("nothing")
        here(folder, "study", verb, "pals").refused("not recorded here yet")


def test_a_page_that_cannot_be_written_is_one_line(here, folder):
    (folder / "file").write_text("")
    for out in ("file/x.html", "files"):
        here(folder, "study", "report", "tiny", "-o", out).refused(out, "cannot be written")
    assert not list(folder.glob(".*.part"))


# ---- what is missing ---------------------------------------------------------------------------


@pytest.fixture
def damaged(folder: Path, tmp_path: Path):
    """A copy of the two databases, to be damaged by SQL, beside the same artifacts."""

    def damage(*statements: str) -> Path:
        home = tmp_path / "home"
        home.mkdir()
        (home / "artifacts").symlink_to(folder / "home/artifacts")
        for name in ("mlflow.db", "optuna.db"):
            _copy(folder / "home" / name, home / name)
        for statement in statements:
            database, sql = statement.split(": ", 1)
            with sqlite3.connect(home / database) as connection:
                connection.execute(sql)
            connection.close()
        return tmp_path

    return damage


def _copy(source: Path, target: Path) -> None:
    one, two = sqlite3.connect(source), sqlite3.connect(target)
    one.backup(two)
    one.close()
    two.close()


def report_of(here, folder: Path) -> tuple[dict, str]:
    outcome = here(folder, "study", "report", "tiny", "-o", "out.html", "--json")
    assert outcome.code == 0, outcome
    return outcome.json, Page((folder / "out.html").read_text(encoding="utf-8")).text


def test_a_run_without_artifacts_is_said(here, damaged, written, rows):
    best = rows[written[0]["best"]]
    sql = f"update runs set artifact_uri = '/nowhere' where run_uuid = '{best['run_id']}'"
    base = damaged(f"mlflow.db: {sql}")
    said, text = report_of(here, base)
    assert said["gain"] is None and said["best"] == best["number"]
    assert any(f"dev predictions, trial {best['number']}" in line for line in said["missing"])
    assert "what an interval needs is missing" in text
    assert "Learning curves" in text  # those are metrics, which are still there
    number = str(best["number"])
    other = str(written[0]["compared_with"])
    here(base, "study", "compare", "tiny", other, number).refused(f"trial {number} has no pred")


def test_a_run_that_was_purged_is_said(here, damaged, written, rows):
    run = rows[written[0]["compared_with"]]["run_id"]
    said, text = report_of(here, damaged(f"mlflow.db: delete from runs where run_uuid = '{run}'"))
    lines = [line for line in said["missing"] if run in line]
    assert lines and all(line in text for line in lines)
    assert said["gain"] is None


def test_a_run_that_was_deleted_but_not_purged_is_still_read(here, damaged, written, rows):
    run = rows[written[0]["best"]]["run_id"]
    sql = f"update runs set lifecycle_stage = 'deleted' where run_uuid = '{run}'"
    said, _ = report_of(here, damaged(f"mlflow.db: {sql}"))
    assert said["gain"] == written[0]["gain"] and not said["missing"]


def test_a_store_that_is_gone_leaves_what_optuna_knows(here, damaged, written):
    base = damaged()
    (base / "home" / "mlflow.db").unlink()
    said, text = report_of(here, base)
    assert not (base / "home" / "mlflow.db").exists(), "reading makes no store"
    assert any("no MLflow store" in line for line in said["missing"])
    assert len(said["missing"]) < 6
    assert said["best"] == written[0]["best"] and "Score of each trial" in text


def test_a_server_that_is_away_is_said_at_once(here, folder):
    outcome = here(
        folder, "study", "report", "tiny", "-o", "away.html", "--json",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )  # fmt: skip
    assert outcome.code == 0
    assert any("http://127.0.0.1:9 cannot be reached" in line for line in outcome.json["missing"])


FAIL_0 = (
    "optuna.db: update trials set state = 'FAIL' where number = 0",
    "optuna.db: delete from trial_values where trial_id = "
    "(select trial_id from trials where number = 0)",
)
RUN_2 = (
    "optuna.db: update trials set state = 'RUNNING' where number = 2",
    "optuna.db: delete from trial_values where trial_id = "
    "(select trial_id from trials where number = 2)",
    "optuna.db: delete from trial_system_attributes where key = 'mtl:estimates' and trial_id = "
    "(select trial_id from trials where number = 2)",
)


def test_trial_0_that_failed_is_no_baseline(here, damaged):
    said, text = report_of(here, damaged(*FAIL_0))
    assert {said["best"], said["compared_with"]} in ({1, 2}, {2, 3})  # two settings, without 0
    assert "the second best setting, because" in text and "3 complete, 0 pruned, 1 failed" in text
    assert any(line.startswith("failed, trial 0: ") for line in said["missing"])


def test_while_a_study_runs(here, damaged):
    base = damaged(*FAIL_0, *RUN_2)
    said, text = report_of(here, base)
    assert said["best"] in (1, 3) and said["compared_with"] is None and said["gain"] is None
    assert "compared with nothing: no other setting is complete" in text
    assert "It has not ended (1 unfinished)" in text
    assert "not ended, trial 2: it is unfinished" in said["missing"]
    assert "2 complete, 0 pruned, 1 failed, 1 unfinished" in text
    here(base, "study", "compare", "tiny", "1", "2").refused("trial 2 has no pred", "not ended")
    alone = here(base, "study", "compare", "tiny")
    assert alone.code == 1 and "nothing to compare yet, no other setting is complete" in alone.out

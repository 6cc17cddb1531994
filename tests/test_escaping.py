"""What people and data files say is shown as it is: in CSV, HTML, Markdown, pictures, terminals.

Room: mtl/common, mtl/artifacts.
"""

import csv
import io
import json
import re
import sqlite3
import threading
from contextlib import closing, redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from urllib.request import urlopen

import optuna
import pytest
from hypothesis import given, settings, strategies as st
from markdown_it import MarkdownIt

from minbert.common.csv_cells import cell_text, plain_cell
from mtl.artifacts.study import describe_study
from mtl.common.text import markdown, paragraph
from mtl.storage.home import Home
from mtl.storage.optuna import read_storage
from mtl.trials.leaderboard import leaderboard
from support.commands import Outcome
from support.study_runs import write_study

NAME = "🌞 $x^{ 'q' <b>&amp; #?%2e; [y](z) [red]"
SCRIPT = "<script>alert(1)</script>"
LABEL = f"{SCRIPT} [link](javascript:alert(2)) | `code` [/b] [red] :bug:"
PICTURE = "<img src=x onerror=alert(3)> ![i](http://evil.example/i.png)"
DESCRIPTION = f"# {PICTURE} {SCRIPT} $$x^$$ **b**"
SENTENCES = (
    "=HYPERLINK(\"http://evil.example\")", " @SUM(A1)", "＝1+1", "-2+3",
    "\"' onmouseover=alert(4) '\"", f"</script>{SCRIPT}", "\x1b[31mred",
    "[/bold] good", "--> <!-- ]]>",
)  # fmt: skip


class Tags(HTMLParser):
    """The elements of a page, its text, and what its attributes say."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data

    def assert_tame(self) -> None:
        """Assert that nothing in it runs or fetches something that was not put there by us."""
        assert not {"img", "iframe", "object", "base", "link"} & set(self.tags)
        assert not [name for name, _ in self.attributes if name.startswith("on")]
        targets = [value or "" for name, value in self.attributes if name in ("href", "src")]
        assert not [t for t in targets if re.match(r"\s*(javascript|data):|.*evil", t, re.I)]


def render(markdown: str) -> Tags:
    """Render Markdown with HTML let through, as Optuna dashboard does."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Tags(parser.render(markdown))


words = st.text(st.sampled_from("ab1 \\`*_{}[]()<>#+-.!|~$&;:'\"=\n\t/@é🌞"), max_size=25)


@given(words)
@settings(max_examples=500, deadline=None, derandomize=True)
def test_markdown_shows_a_text_as_it_is(text):
    shown = render(paragraph(text))
    said = " ".join(text.split())
    assert shown.tags == (["p"] if said else [])
    assert shown.text.strip("\n") == said


@given(words)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_cell_of_a_markdown_table_stays_one_cell(text):
    shown = render(f"| a | b |\n| --- | --- |\n| {markdown(text)} | 1 |\n")
    assert shown.tags.count("td") == 2 and set(shown.tags) <= {
        "table", "thead", "tbody", "tr", "th", "td"
    }  # fmt: skip
    assert " ".join(text.split()) in shown.text


@given(st.text(st.sampled_from("=+-@'\t\r\n a1＝＠\"") | st.characters(), max_size=12))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_no_cell_is_a_formula_and_each_reads_back(text):
    cell = plain_cell(text)
    assert cell_text(cell) == text
    assert not re.match(r"\s*[=+@＝＋－＠-]|[\t\r\n]", cell)


# ---- one study in which everything that can be named is hostile


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> tuple[Path, Outcome, Outcome]:
    """A folder with the home of that study, what its run said, and what `best` says of it."""
    folder = tmp_path_factory.mktemp("hostile")
    search = '"lora.rank" = [1, 2]'
    label = f"label = {json.dumps(LABEL)}"
    points = "".join(f'[[points]]\n"lora.rank" = {rank}\n{label}\n' for rank in (1, 2))
    study = write_study(
        folder, trials=2, epochs=1, sampler="points", search=search, more=points
    )
    text = study.read_text().replace('"a tiny study"', json.dumps(DESCRIPTION))
    study.write_text(text)
    for file in (folder / "data").iterdir():
        file.write_text(_with_sentences(file.read_text()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_HOME", str(folder / "home"))
        run = _mtl("study", "run", study, "--as", NAME, "--jobs", "1")
        assert run.code == 0, run
        return folder, run, _mtl("study", "best", NAME, "--json")


def _mtl(*args: object) -> Outcome:
    from mtl.cli import exits
    from mtl.cli.main import cli

    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = exits.run(cli, [str(arg) for arg in args])
    return Outcome(code, out.getvalue(), err.getvalue())


def _with_sentences(text: str) -> str:
    """Put the sentences and ids of that kind into a data file's rows."""
    lines = text.splitlines()
    columns = lines[0].split("\t")
    for number in range(1, len(lines)):
        cells = lines[number].split("\t")
        hostile = SENTENCES[number % len(SENTENCES)]
        cells[1] = f"={cells[1]}"
        for place, column in enumerate(columns):
            if column.startswith("sentence"):
                cells[place] = '"' + hostile.replace('"', '""') + '"'
        lines[number] = "\t".join(cells)
    return "\n".join(lines) + "\n"


def _study(folder: Path) -> optuna.Study:
    home = Home(folder / "home", "", f"sqlite:///{folder / 'home' / 'optuna.db'}")
    return optuna.load_study(study_name=NAME, storage=read_storage(home))


def test_such_a_name_is_one_study_everywhere(hostile, here):
    folder, run, best = hostile
    assert LABEL in run.out and "Traceback" not in run.err and "Warning" not in run.err
    assert "mtl study report '🌞 $x^" in run.out, "what to type next can be typed"
    home = folder / "home"
    assert not list((home / "checkpoints").iterdir())
    with sqlite3.connect(home / "mlflow.db") as store:
        rows = store.execute("select name, artifact_location from experiments").fetchall()
    location = Path(dict(rows)[NAME].removeprefix("file://"))
    assert location.parent == home / "artifacts" / "mlflow" and location.is_dir()
    assert best.json["study"] == NAME
    for verb in ("status", "list", "best", "compare"):
        outcome = here(folder, "study", verb, *([] if verb == "list" else [NAME]))
        assert outcome.code == 0 and NAME in outcome.out, outcome
        assert "\x1b" not in outcome.out
    again = here(folder, "study", "run", folder / "tiny.toml", "--as", NAME.upper())
    again.refused("too like")
    promoted = here(folder, "study", "promote", NAME, "--json")
    assert promoted.code == 0 and promoted.json["name"] == NAME, promoted


def test_no_table_holds_a_formula(hostile, here, tmp_path):
    folder, _, best = hostile
    assert here(folder, "study", "export", NAME, "-o", tmp_path / "trials.csv").code == 0
    run = best.json["best"]["run_id"]
    predicted = here(folder, "predict", run, "--data", folder / "data", "-o", tmp_path / "out")
    assert predicted.code == 0, predicted
    artifacts = folder / "home" / "artifacts" / "mlflow"
    files = [*artifacts.rglob("*.csv"), *tmp_path.rglob("*.csv")]
    assert len(files) > 10
    for file in files:
        delimiter = "," if "output" not in file.name else "\0"
        with file.open(encoding="utf-8", newline="") as stream:
            cells = [cell for row in csv.reader(stream, delimiter=delimiter) for cell in row]
        risky = [cell for cell in cells if re.match(r"\s*[=+@＝＋－＠-]", cell)]
        assert not [cell for cell in risky if not _is_number(cell)], file


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_no_page_runs_what_was_said(hostile, here, tmp_path):
    folder = hostile[0]
    out = tmp_path / "page of 🌞.html"
    written = here(folder, "study", "report", NAME, "-o", out, "--json")
    assert written.json["missing"] == [], written
    here(folder, "study", "report", NAME)
    assert len(list(folder.glob("*.html"))) == 1, "its name is safe in this folder"
    pages = [out, *(folder / "home" / "artifacts" / "mlflow").rglob("*.html")]
    assert len(pages) == 1 + 1 + 2 * 3
    for page in pages:
        text = page.read_text(encoding="utf-8")
        Tags(text).assert_tame()
        for bad in (SCRIPT, "<img src=x", "</script><script>alert"):
            assert bad not in text, page
    assert LABEL in Tags(out.read_text(encoding="utf-8")).text
    assert DESCRIPTION in Tags(out.read_text(encoding="utf-8")).text


def test_no_note_runs_or_fetches_what_was_said(hostile):
    folder = hostile[0]
    with sqlite3.connect(folder / "home" / "mlflow.db") as store:
        rows = store.execute("select value from tags where key = 'mlflow.note.content'").fetchall()
    assert len(rows) == 1
    study = _study(folder)
    notes = [rows[0][0], describe_study(leaderboard(study), study)]
    known = study._storage.get_study_system_attrs(study._study_id)
    notes += [value for key, value in known.items() if "note_str" in key]
    assert len(notes) == 2 + 1 + 2
    for note in notes:
        shown = render(note)
        shown.assert_tame()
        assert not {"script", "h1", "h2", "del"} & set(shown.tags)
        assert LABEL in shown.text or DESCRIPTION in shown.text
        assert SCRIPT not in note
    (board,) = (folder / "home" / "artifacts" / "mlflow").rglob("leaderboard.md")
    shown = render(board.read_text(encoding="utf-8"))
    shown.assert_tame()
    assert NAME in shown.text and shown.tags.count("td") % shown.tags.count("th") == 0


def test_a_note_before_the_end_is_tame_too(hostile, tmp_path):
    """While a study runs, its note is the description alone."""
    from mlflow import MlflowClient

    from mtl.tracking.study_tracker import StudyTracker
    from support.tracking_samples import new_store

    home = Home.resolve()
    uri = new_store(home.path / "mlflow.db")
    with closing(StudyTracker(home)) as tracker:
        box = tracker.study_box("key")
        for _ in range(2):  # created, and opened again
            tracker.open_study(box, NAME, DESCRIPTION, {})
            assert tracker.drain([box], lambda: False)
            tags = MlflowClient(uri).get_run(box.run.run_id).data.tags
            shown = render(tags["mlflow.note.content"])
            assert shown.tags == ["p"] and shown.text.strip() == DESCRIPTION


def test_the_dashboard_knows_the_study(hostile, monkeypatch):
    from mtl.ui.addresses import Address
    from mtl.ui.dashboard import make_dashboard

    monkeypatch.setenv("MTL_HOME", str(hostile[0] / "home"))
    address = Address.resolve("127.0.0.1")
    server = make_dashboard(Home.resolve(create=False), address, 0, allow_edit=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/api/studies"
        studies = json.load(urlopen(address, timeout=60))["study_summaries"]
        assert [study["study_name"] for study in studies] == [NAME]
    finally:
        server.shutdown()
        server.server_close()

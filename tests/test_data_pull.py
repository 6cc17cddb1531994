"""The paper's data files, pulled from a GitHub on loopback that serves the embedded corpus.

Room: minbert/data.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from minbert import InputError, check_data, data_digest, pull_data
from minbert.data.pull import NEEDED, OTHERS, SOURCE
from minbert.demo.corpus import write_corpus
from support.disks import Disk
from support.loopback import Replies, serving
from support.network_trap import Trap

COMMIT, OLDER = "0123456789abcdef0123456789abcdef01234567", "f" * 40
REVISIONS = {"main": COMMIT, "release/2023": OLDER, COMMIT: COMMIT, OLDER: OLDER}
NAMES = {*NEEDED, *OTHERS}


class Source:
    """A repository: its files, and what is wrong with the servers before it.

    Attributes:
        answers: of a path's end: status, headers and body to give instead.
        short: files of which only so many bytes are sent, with the header of all of them.
        asked: every path that was asked for, with the request's headers.
        gate: while it is set, files are sent; else half of each, and then nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.answers, self.short, self.asked = folder, {}, {}, []
        self.gate = threading.Event()
        self.gate.set()
        self.paused = threading.Event()

    def tree(self) -> dict:
        entries = [{"path": "data", "type": "tree", "sha": "0" * 40}]
        for file in sorted(self.folder.iterdir()):
            content = file.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            path = f"data/{file.name}"
            entries.append({"path": path, "type": "blob", "sha": git, "size": len(content)})
        entries.append({"path": "README.md", "type": "blob", "sha": "1" * 40, "size": 9})
        return {"sha": COMMIT, "tree": entries, "truncated": False}


class GitHub(Replies):
    """As much of GitHub's REST API and of its raw files as is asked for."""

    def __init__(self, source: Source, *args) -> None:
        self.source = source
        super().__init__(*args)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.source.asked.append((path, dict(self.headers)))
        for end, (code, headers, body) in self.source.answers.items():
            if path.endswith(end):
                return self.reply(body, code, headers)
        api = f"/repos/{SOURCE}"
        if path == api:
            return self.reply(json.dumps({"default_branch": "main"}).encode())
        if path.startswith(f"{api}/commits/"):
            return self.reply_commit(path.removeprefix(f"{api}/commits/"))
        if path in (f"{api}/git/trees/{COMMIT}", f"{api}/git/trees/{OLDER}"):
            return self.reply(json.dumps(self.source.tree()).encode())
        if path.startswith((f"/raw/{SOURCE}/{COMMIT}/data/", f"/raw/{SOURCE}/{OLDER}/data/")):
            return self.reply_file(path.rpartition("/")[2])
        return self.reply(b'{"message": "Not Found"}', 404)

    def reply_commit(self, revision: str) -> None:
        if revision in REVISIONS:
            self.reply(json.dumps({"sha": REVISIONS[revision]}).encode())
        else:
            self.reply(b'{"message": "No commit found for SHA: x"}', 422)

    def reply_file(self, name: str) -> None:
        content = (self.source.folder / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        if not self.source.gate.is_set():
            self.wfile.flush()
            self.source.paused.set()
            self.source.gate.wait(60)
        self.wfile.write(content[half : self.source.short.get(name, len(content))])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture
def source(corpus, tmp_path, monkeypatch):
    """The repository; both its addresses stand in the environment."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    made = Source(shutil.copytree(corpus, tmp_path / "upstream"))
    with serving(partial(GitHub, made)) as address:
        monkeypatch.setenv("MTL_GITHUB_API", address)
        monkeypatch.setenv("MTL_GITHUB_RAW", f"{address}/raw/")
        yield made
        made.gate.set()


@pytest.fixture
def pull(here, tmp_path):
    """Run `mtl data pull` in a folder of its own; returns its Outcome."""
    (tmp_path / "work").mkdir()
    return partial(here, tmp_path / "work", "data", "pull")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_was_pulled_is_the_source_and_can_be_trained_on(source, pull, here, tmp_path):
    done = pull()
    assert done.code == 0, done
    work = tmp_path / "work"
    found = contents(work / "data")
    note = json.loads(found.pop("pulled.json"))
    assert found == contents(source.folder) and found.keys() == NAMES
    assert (note["repository"], note["revision"]) == (SOURCE, COMMIT)
    assert note["sha256"] == {n: hashlib.sha256(c).hexdigest() for n, c in found.items()}
    assert os.listdir(work) == ["data"]
    assert (work / "data").stat().st_mode == work.stat().st_mode
    assert "ids-sst-train.csv" in done.out and "2,400" in done.out and COMMIT in done.out
    (command,) = [line for line in done.out.splitlines() if "mtl study run" in line]
    assert "--set data.path=data " in command
    tiny = ("train.epochs=1", "train.steps_per_epoch=1", "data.path=data")
    trained = here(work, "train", *(word for pair in tiny for word in ("--set", pair)))
    assert trained.code == 0, trained


def test_json_says_what_was_brought(source, pull, tmp_path):
    said = pull("own folder", "--json").json
    folder = tmp_path / "work" / "own folder"
    assert (said["data"], said["folder"]) == ("own folder", str(folder))
    assert (said["repository"], said["revision"], said["missing"]) == (SOURCE, COMMIT, [])
    assert said["sha256"] == json.loads((folder / "pulled.json").read_text())["sha256"]
    assert [f["file"] for f in said["files"]] == [r.file for r in check_data(str(folder))]
    assert "--set 'data.path=own folder'" in pull("own folder").out


def test_a_revision_is_resolved_and_nothing_secret_is_sent(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hush-hush-hush")
    address = os.environ["MTL_GITHUB_API"]
    for revision, commit in {"release/2023": OLDER, OLDER: OLDER, None: COMMIT}.items():
        pulled = pull_data(tmp_path / "data", revision=revision, api=address, raw=f"{address}/raw")
        assert pulled.revision == commit and pulled.missing == ()
    assert {headers["User-Agent"] for _, headers in source.asked} == {"mtl"}
    assert not [h for _, h in source.asked if "Authorization" in h or "hush" in str(h)]


def test_nobody_else_is_asked(source, tmp_path):
    trap = Trap(tmp_path / "trap")
    done = subprocess.run(
        [sys.executable, "-m", "mtl", "data", "pull"],
        env=trap.environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("socket.connect", "127.0.0.1") in trap.seen and trap.outside == set()


def test_missing_test_files_are_said(source, pull, tmp_path):
    for name in OTHERS:
        (source.folder / name).unlink()
    done = pull()
    assert done.code == 0 and f"not in the source: {', '.join(OTHERS)}" in done.out
    assert set(os.listdir(tmp_path / "work" / "data")) == {*NEEDED, "pulled.json"}


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_training_or_dev_file_is_refused(source, pull, tmp_path, name):
    (source.folder / name).unlink()
    pull().refused(SOURCE, f"no data/{name}", COMMIT)
    assert not (tmp_path / "work" / "data").exists()


# ---- what arrives is not what the commit has ----------------------------------------------------


def flipped(content: bytes) -> bytes:
    return content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]


def a_proxys_page(source: Source) -> str:
    body = b"<html>Please log in</html>"
    source.answers["/quora-dev.csv"] = (200, {"Content-Type": "text/html"}, body)
    return "26 of "


def another_bit(source: Source) -> str:
    body = flipped((source.folder / "quora-dev.csv").read_bytes())
    source.answers["/quora-dev.csv"] = (200, {}, body)
    return "its git hash differs"


def more_bytes(source: Source) -> str:
    body = (source.folder / "quora-dev.csv").read_bytes() + b"\n"
    source.answers["/quora-dev.csv"] = (200, {}, body)
    return "more than "


def fewer_bytes(source: Source) -> str:
    source.short["quora-dev.csv"] = 3000
    return "quora-dev.csv: peer closed connection"


def a_file_in_lfs(source: Source) -> str:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
    (source.folder / "quora-dev.csv").write_bytes(pointer)
    return "kept in Git LFS"


def a_wrong_label(source: Source) -> str:
    file = source.folder / "quora-dev.csv"
    file.write_text(file.read_text().replace("\t1.0\n", "\t7\n", 1))
    return "is_duplicate 7 is outside its range"


@pytest.mark.parametrize(
    "damage",
    [a_proxys_page, another_bit, more_bytes, fewer_bytes, a_file_in_lfs, a_wrong_label],
)
def test_a_bad_file_is_refused_by_name_and_the_old_ones_stay(source, pull, tmp_path, damage):
    assert pull().code == 0
    before = contents(tmp_path / "work" / "data")
    reason = damage(source)
    done = pull()
    done.refused("quora-dev.csv", reason, SOURCE)
    assert str(tmp_path) not in done.err
    assert contents(tmp_path / "work" / "data") == before
    pull("deep/down/data").refused("quora-dev.csv", reason)
    assert os.listdir(tmp_path / "work") == ["data"]


# ---- what GitHub answers, or whoever does -------------------------------------------------------

HTML = ({"Content-Type": "text/html; charset=utf-8"}, b"<html>Please log in</html>")
SPENT = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 86_000)}


@pytest.mark.parametrize(
    ("end", "answer", "words"),
    [
        (SOURCE, (404, {}, b"{}"), ["no such repository", "not public"]),
        ("/commits/main", (409, {}, b"{}"), ["no revision 'main'"]),
        (SOURCE, (403, SPENT, b"{}"), ["takes no more requests", "try again in 14"]),
        (SOURCE, (403, {"Retry-After": "61"}, b"{}"), ["no more", "in 2 minutes"]),
        ("sts-dev.csv", (429, {}, b""), ["takes no more requests", "try again later"]),
        (SOURCE, (403, {}, b"{}"), ["answered 403"]),
        (SOURCE, (502, {}, b"<html>"), ["answered 502"]),
        ("sts-dev.csv", (404, {}, b""), ["there is no data/sts-dev.csv"]),
        ("sts-dev.csv", (500, {}, b""), ["sts-dev.csv answered 500"]),
        (SOURCE, (200, *HTML), ["else than JSON (text/html)", "proxy"]),
        ("/commits/main", (200, {}, b"\xff\xfe"), ["else than JSON"]),
        (SOURCE, (200, {}, b"[]"), ["not as GitHub does", "default_branch"]),
        ("/commits/main", (200, {}, b'{"sha": "../x"}'), ["not as GitHub does"]),
        (f"/trees/{COMMIT}", (200, {}, b'{"tree": [{"type": "blob"}]}'), ["not as GitHub"]),
        (f"/trees/{COMMIT}", (200, {}, b"[]"), ["not as GitHub does"]),
        (f"/trees/{COMMIT}", (200, {}, b'{"tree": [], "truncated": true}'), ["more files than"]),
        (f"/trees/{COMMIT}", (200, {}, b'{"tree": []}'), ["no data/ids-sst-train.csv"]),
        (SOURCE, (302, {"Location": "http://127.0.0.1:9/x"}, b""), ["see that this machine"]),
    ],
)
def test_an_answer_that_is_no_help_is_one_line(source, pull, tmp_path, end, answer, words):
    source.answers[end] = answer
    pull().refused(SOURCE, *words)
    assert os.listdir(tmp_path / "work") == []


def test_what_was_typed_wrong_is_said(source, pull):
    pull("--repository", "someone/else").refused("someone/else", "no such repository")
    pull("--repository", "https://github.com/a/b").refused("OWNER/REPO")
    pull("--revision", "no such/ö").refused("no revision 'no such/ö'")
    pull("demo").refused("demo", "embedded corpus")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("MTL_GITHUB_API", "http://127.0.0.1:9", ["127.0.0.1:9", "see that this machine"]),
        ("MTL_GITHUB_API", "http://nobody.invalid", ["nobody.invalid", "see that this machine"]),
        ("MTL_GITHUB_RAW", "http://127.0.0.1:9", ["127.0.0.1:9", "see that this machine"]),
        ("MTL_GITHUB_API", "api.github.com", ["api.github.com", "should be an address"]),
        ("MTL_GITHUB_RAW", "http://[x", ["should be an address"]),
        ("HTTPS_PROXY", "nonsense://x", ["proxy"]),
        ("HF_HUB_OFFLINE", "1", ["HF_HUB_OFFLINE"]),
    ],
)
def test_a_network_that_is_away_is_one_line(source, mtl, tmp_path, variable, value, words):
    mtl("data", "pull", **{variable: value}).refused(*words)
    assert not (tmp_path / "data").exists()


def test_a_server_that_says_no_more_is_one_line(source, pull, tmp_path, monkeypatch):
    monkeypatch.setattr("minbert.data.github._TIMEOUT", 0.5)
    source.gate.clear()
    pull().refused("data/ids-sst-train.csv: ", "timed out")
    assert os.listdir(tmp_path / "work") == []


# ---- the folder ---------------------------------------------------------------------------------


def test_a_second_pull_replaces_the_first(source, pull, tmp_path):
    data = tmp_path / "work" / "data"
    data.mkdir()
    assert pull().code == 0
    before = data_digest(str(data))
    file = source.folder / "sts-dev.csv"
    file.write_text(file.read_text().replace("doctor", "nurse"))
    (data / "quora-train.csv").unlink()  # a pull brings back what was removed
    (source.folder / "sts-test-student.csv").unlink()
    assert pull().code == 0
    assert data_digest(str(data)) != before
    found = contents(data)
    found.pop("pulled.json")
    assert found == contents(source.folder)
    assert os.listdir(data.parent) == ["data"]


def test_a_linked_folder_stays_a_link(source, pull, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work" / "data").symlink_to(tmp_path / "elsewhere")
    assert pull().code == 0 and pull().code == 0
    assert (tmp_path / "work" / "data").is_symlink()
    assert set(os.listdir(tmp_path / "elsewhere")) == {*NAMES, "pulled.json"}


def test_what_somebody_made_is_never_replaced(source, pull, here, tmp_path):
    work = tmp_path / "work"
    data = work / "data"
    assert pull().code == 0

    def kept(*words: str) -> None:
        before, asked = contents(data), len(source.asked)
        pull().refused("data: ", *words)
        assert contents(data) == before and len(source.asked) == asked

    (data / "notes.txt").write_text("mine")
    kept("it holds notes.txt")
    (data / "notes.txt").unlink()
    with (data / "sts-dev.csv").open("a") as file:
        file.write("\n")
    kept("sts-dev.csv was changed")
    (data / "pulled.json").write_text("[]")
    kept("it holds ids-cfimdb-dev.csv")
    (data / "pulled.json").unlink()
    kept("it holds ids-cfimdb-dev.csv")
    pull("data/sts-dev.csv").refused("sts-dev.csv: is not a folder")
    pull("data/sts-dev.csv/deeper").refused("sts-dev.csv/deeper", "cannot be written")
    pull("x" * 300).refused("cannot be written")
    pull(".").refused(".: a folder that is in use", "./data")
    here(data, "data", "pull", "..").refused("..: a folder that is in use")


@pytest.mark.parametrize("half", [False, True], ids=["at the start", "within a file"])
def test_a_full_disk_is_one_line_and_leaves_nothing(source, pull, tmp_path, half):
    disk = Disk(tmp_path / "disk", 4)
    try:
        disk.fill(300_000 if half else 0)
        before = sorted(os.listdir(disk.path))
        pull(disk.path / "data").refused(f"{disk.path / 'data'}: ", "No space left on device")
        assert sorted(os.listdir(disk.path)) == before
        pull(disk.path).refused("a folder that is in use", str(disk.path / "data"))
    finally:
        disk.close()


def test_an_interrupt_leaves_the_old_files(source, mtl, tmp_path):
    assert mtl("data", "pull").code == 0
    before = contents(tmp_path / "data")
    places = set(os.listdir(tmp_path))
    for number in (signal.SIGINT, signal.SIGTERM):
        source.gate.clear()
        source.paused.clear()
        process = subprocess.Popen(
            [sys.executable, "-m", "mtl", "data", "pull"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert source.paused.wait(60)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        source.gate.set()
        assert (process.returncode, out, err.strip()) == (130, "", "mtl: interrupted")
        assert set(os.listdir(tmp_path)) == places
        assert contents(tmp_path / "data") == before


def test_a_replacement_that_fails_puts_the_old_folder_back(source, tmp_path, monkeypatch):
    address = os.environ["MTL_GITHUB_API"]
    where = {"folder": tmp_path / "data", "api": address, "raw": f"{address}/raw"}
    pull_data(**where)
    before, rename = contents(tmp_path / "data"), Path.rename

    def refused(self: Path, target: Path):
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(InputError, match=r"data: .*Input/output error"):
        pull_data(**where)
    assert contents(tmp_path / "data") == before
    assert not list(tmp_path.glob(".data.pull-*"))

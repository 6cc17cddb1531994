"""Reading files as they are, naming what cannot be used, tokenising once.

Room: minbert/data.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from transformers import AutoTokenizer

from minbert import InputError, check_data, data_digest
from minbert.backbone.weights import find_backbone
from minbert.data.datasets import load_corpus
from minbert.data.files import read_file
from minbert.tasks.builtin import TASKS
from support import small

SST, PARA, STS = TASKS


@pytest.fixture
def folder(tmp_path):
    return small.data(tmp_path / "data", train=300, dev=200)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return str(small.backbone(tmp_path_factory.mktemp("backbone") / "b"))


def edit(file, line, change):
    """Change one line of a file; lines count from 1."""
    lines = file.read_text().split("\n")
    lines[line - 1] = change(lines[line - 1])
    file.write_text("\n".join(lines))


def column(index, value):
    def change(line):
        cells = line.split("\t")
        cells[index] = value
        return "\t".join(cells)

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (column(4, ""), "is_duplicate is blank"),
        (column(4, "maybe"), "is_duplicate 'maybe' is not a number"),
        (column(3, "  "), "sentence2 is blank"),
        (lambda line: line.replace("\t", " ", 1), "4 columns instead of 5"),
        (column(2, '"the quote that never ends'), "a quote that is not closed?"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(folder, change, why):
    edit(folder / "quora-train.csv", 12, change)
    reading = read_file(folder, PARA, PARA.train[0])
    assert len(reading.examples) == 299 and len(reading.rows) == 300
    (skipped,) = reading.skipped
    assert (skipped.file, skipped.line) == ("quora-train.csv", 12)
    assert why in skipped.why


def test_more_than_one_percent_of_such_rows_is_an_error(folder):
    for line in (5, 9, 100):
        edit(folder / "quora-train.csv", line, column(4, ""))
    assert len(read_file(folder, PARA, PARA.train[0]).skipped) == 3
    edit(folder / "quora-train.csv", 200, column(4, ""))
    with pytest.raises(InputError, match=r"quora-train\.csv, line 5: .*4 of 300 rows"):
        read_file(folder, PARA, PARA.train[0])


@pytest.mark.parametrize(
    ("name", "task", "place", "value", "right"),
    [
        ("ids-sst-train.csv", SST, 3, "5", "a whole number from 0 to 4"),
        ("ids-sst-train.csv", SST, 3, "2.5", "a whole number from 0 to 4"),
        ("ids-cfimdb-train.csv", SST, 3, "2", "a whole number from 0 to 1"),
        ("quora-train.csv", PARA, 4, "-1", "a whole number from 0 to 1"),
        ("sts-train.csv", STS, 4, "5.1", "a number from 0 to 5"),
        ("sts-train.csv", STS, 4, "nan", "a number from 0 to 5"),
    ],
)
def test_a_label_outside_its_range_is_an_error(folder, name, task, place, value, right):
    edit(folder / name, 7, column(place, value))
    source = next(f for f in task.train if f.name == name)
    with pytest.raises(InputError, match=f"{name}, line 7: .*{value}.*{right}"):
        read_file(folder, task, source)


def test_a_missing_column_is_named_with_what_would_be_right(folder):
    edit(folder / "sts-dev.csv", 1, lambda line: line.replace("similarity", "score"))
    with pytest.raises(InputError, match=r"sts-dev\.csv, line 1: no column 'similarity'"):
        read_file(folder, STS, STS.dev)


def test_a_missing_file_and_folder_are_named(folder, tmp_path, backbone):
    (folder / "ids-cfimdb-train.csv").unlink()
    with pytest.raises(InputError, match=r"ids-cfimdb-train\.csv"):
        load_corpus(str(folder), backbone, tmp_path / "cache")
    with pytest.raises(InputError, match="'nowhere' is not a folder"):
        check_data("nowhere")


def test_text_that_is_not_utf8_is_named(folder):
    file = folder / "ids-sst-dev.csv"
    lines = file.read_bytes().split(b"\n")
    lines[4] = lines[4].replace(b"\t", b"\t\xff", 2)
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=r"ids-sst-dev\.csv, line 5: not UTF-8"):
        read_file(folder, SST, SST.dev)


def test_a_cell_that_no_reader_takes_is_named(folder):
    edit(folder / "sts-dev.csv", 5, column(2, "a" * ((1 << 24) + 1)))
    with pytest.raises(InputError, match=r"sts-dev\.csv, line 5: field larger than field limit"):
        read_file(folder, STS, STS.dev)


def test_quotes_and_line_ends_are_undone(folder):
    file = folder / "ids-sst-dev.csv"
    edit(file, 3, column(2, '" a ""film"" "'))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    reading = read_file(folder, SST, SST.dev)
    assert reading.examples[1].texts == ('a "film"',)
    assert reading.examples[5].id == "ids-sst-dev.csv5"


def test_reviews_join_the_sentiment_data_at_its_ends(folder, tmp_path, backbone):
    train = load_corpus(str(folder), backbone, tmp_path).train["sst"]
    assert len(train) == 600
    assert set(np.unique(train.labels[:300])) == {0, 1, 2, 3, 4}
    assert set(np.unique(train.labels[300:])) == {0, 4}


def test_tokens_equal_transformers(folder, tmp_path, backbone):
    corpus = load_corpus(str(folder), backbone, tmp_path)
    oracle = AutoTokenizer.from_pretrained(backbone)
    for name, dataset in corpus.dev.items():
        for index in (0, 17, 199):
            wanted = oracle(*dataset.texts[index], truncation=True, max_length=32)
            batch, labels = dataset.batch(np.array([index]))
            assert batch.token_ids.tolist() == wanted["input_ids"], name
            assert batch.segments.tolist() == wanted["token_type_ids"]
            assert labels[0] == dataset.labels[index]


def test_long_texts_are_cut_to_what_the_encoder_holds(folder, tmp_path, backbone):
    edit(folder / "quora-dev.csv", 2, column(2, "good " * 100))
    dataset = load_corpus(str(folder), backbone, tmp_path).dev["para"]
    assert dataset.lengths.max() == 32
    assert dataset.segment_starts[0] < 32


def test_labels_follow_their_sequences_into_the_batch(folder, tmp_path, backbone):
    dataset = load_corpus(str(folder), backbone, tmp_path).train["sts"]
    indices = np.array([5, 250, 17, 3, 99])
    batch, labels = dataset.batch(indices)
    ends = [*batch.cls_positions.tolist()[1:], batch.tokens]
    for place, (start, end) in enumerate(zip(batch.cls_positions.tolist(), ends, strict=True)):
        index = indices[batch.order[place]]
        begin, stop = dataset.offsets[index], dataset.offsets[index + 1]
        assert batch.token_ids[start:end].tolist() == dataset.tokens[begin:stop].tolist()
        assert labels[place] == dataset.labels[index]


def test_data_is_tokenised_once_and_again_when_it_changes(folder, tmp_path, backbone):
    cache = tmp_path / "cache"
    load_corpus(str(folder), backbone, cache)
    first = {p.name: p.stat().st_mtime_ns for p in (cache / "tokens").iterdir() if p.is_dir()}
    load_corpus(str(folder), backbone, cache)
    again = {p.name: p.stat().st_mtime_ns for p in (cache / "tokens").iterdir() if p.is_dir()}
    assert len(first) == 6 and again == first
    edit(folder / "sts-dev.csv", 4, column(2, "good cat"))
    corpus = load_corpus(str(folder), backbone, cache)
    assert corpus.dev["sts"].texts[2][0] == "good cat"
    assert sum(p.is_dir() for p in (cache / "tokens").iterdir()) == 7


def test_it_is_tokenised_again_when_the_tokenizer_changes(folder, tmp_path):
    """A vocabulary alone does not say whether letters are lowered."""
    edit(folder / "ids-sst-dev.csv", 2, column(2, "GOOD film"))
    backbone, found = small.backbone(tmp_path / "b"), []
    for lower in (True, False):
        (backbone / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
        dev = load_corpus(str(folder), str(backbone), tmp_path / "cache").dev["sst"]
        found.append(dev.tokens[1])
    good, unknown = 5, 1
    assert found == [good, unknown]


def test_processes_that_start_together_share_one_cache(folder, tmp_path, backbone):
    code = (
        "import sys; from pathlib import Path; from minbert.data.datasets import load_corpus;"
        "c = load_corpus(sys.argv[1], sys.argv[2], Path(sys.argv[3]));"
        "print(sum(int(d.tokens.sum()) for d in c.train.values()))"
    )
    arguments = [sys.executable, "-c", code, str(folder), backbone, str(tmp_path / "cache")]
    started = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, env=os.environ) for _ in range(2)
    ]
    sums = {process.communicate(timeout=120)[0] for process in started}
    assert len(sums) == 1 and sums != {b""}
    assert sum(p.is_dir() for p in (tmp_path / "cache" / "tokens").iterdir()) == 6


def test_the_digest_follows_the_content(folder):
    before = data_digest(str(folder))
    edit(folder / "sts-dev.csv", 4, column(2, "good cat"))
    assert data_digest(str(folder)) != before


# ---- the paper's own files

REAL = {  # rows, usable
    "ids-sst-train.csv": (8544, 8544),
    "ids-cfimdb-train.csv": (1707, 1707),
    "ids-sst-dev.csv": (1101, 1101),
    "ids-sst-test-student.csv": (2210, 2210),
    "quora-train.csv": (15_213, 15_212),
    "quora-dev.csv": (3001, 3000),
    "quora-test-student.csv": (2000, 2000),
    "sts-train.csv": (5640, 5640),
    "sts-dev.csv": (863, 863),
    "sts-test-student.csv": (400, 400),
}


def test_the_paper_s_files_are_read_as_they_are(real_data):
    reports = {r.file: r for r in check_data(str(real_data))}
    assert {name: (r.rows, r.used) for name, r in reports.items()} == REAL
    skipped = [row for r in reports.values() for row in r.skipped]
    assert [(s.file, s.why) for s in skipped] == [
        ("quora-train.csv", "is_duplicate is blank"),
        ("quora-dev.csv", "is_duplicate is blank"),
    ]


def test_real_text_tokenises_as_transformers_does(real_data, real_backbone, tmp_path):
    corpus = load_corpus(str(real_data), str(real_backbone), tmp_path)
    oracle = AutoTokenizer.from_pretrained(find_backbone(str(real_backbone)))
    for name in (task.name for task in TASKS):
        dataset = corpus.dev[name]
        texts = dataset.texts[:200]
        wanted = oracle(*map(list, zip(*texts, strict=True)), truncation=True, max_length=512)
        for index, ids in enumerate(wanted["input_ids"]):
            begin, end = dataset.offsets[index], dataset.offsets[index + 1]
            assert dataset.tokens[begin:end].tolist() == ids

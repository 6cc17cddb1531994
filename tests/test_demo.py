"""The embedded default: its corpus, its encoder, and that LoRA matters on them.

Room: minbert/demo.
"""

import csv
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minbert.demo import (
    corpus as demo,
    events as demo_events,
    reviews as demo_reviews,
    words as demo_words,
)
from minbert.demo.corpus import COLUMNS, FOLDER, SIZES


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return demo.ensure_corpus(tmp_path_factory.mktemp("cache"))


def read(corpus: Path, name: str) -> list[dict[str, str]]:
    with (corpus / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def texts(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[c] for c in ("sentence", "sentence1", "sentence2") if c in row)


def words(text: str) -> list[str]:
    return text.lower().replace(",", "").rstrip(".").split()


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


# The corpus


def test_has_the_papers_files_and_columns(corpus):
    for dataset, columns in COLUMNS.items():
        for split, size in SIZES[dataset].items():
            rows = read(corpus, f"{dataset}-{split}.csv")
            shown = columns[:-1] if split == "test-student" else columns
            assert len(rows) == size
            assert list(rows[0]) == ["", "id", *shown]
            assert len({row["id"] for row in rows}) == size
    assert len(list(corpus.iterdir())) == 12


def test_same_seed_same_bytes_and_another_seed_another_corpus(corpus, tmp_path):
    script = "import sys, pathlib; from minbert.demo.corpus import write_corpus as w;"
    for name, seed in (("again", demo.SEED), ("other", 5)):
        (tmp_path / name).mkdir()
        call = f"{script} w(pathlib.Path({str(tmp_path / name)!r}), {seed})"
        subprocess.run(  # another process: another hash seed
            [sys.executable, "-c", call], check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
        )
    assert digests(tmp_path / "again") == digests(corpus)
    assert digests(tmp_path / "other").keys() == digests(corpus).keys()
    assert not set(digests(tmp_path / "other").values()) & set(digests(corpus).values())


def test_a_corpus_is_written_once(tmp_path):
    folder = demo.ensure_corpus(tmp_path)
    file = folder / "quora-dev.csv"
    before = file.stat().st_mtime_ns
    assert demo.ensure_corpus(tmp_path) == folder
    assert file.stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_processes_that_start_together_get_one_whole_corpus(tmp_path, corpus):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        folders = pool.map(demo.ensure_corpus, [tmp_path] * 3, chunksize=1)
    assert len(set(folders)) == 1
    assert digests(folders[0]) == digests(corpus)


def test_labels_are_in_range_and_balanced(corpus):
    grades = Counter(row["sentiment"] for row in read(corpus, "ids-sst-dev.csv"))
    assert set(grades) == set("01234")
    assert max(grades.values()) < 0.32 * SIZES["ids-sst"]["dev"]
    assert min(grades.values()) > 0.1 * SIZES["ids-sst"]["dev"]
    sides = Counter(row["sentiment"] for row in read(corpus, "ids-cfimdb-train.csv"))
    assert set(sides) == {"0", "1"} and min(sides.values()) > 70
    same = [float(row["is_duplicate"]) for row in read(corpus, "quora-train.csv")]
    assert set(same) == {0.0, 1.0} and 0.35 < np.mean(same) < 0.5
    similar = [float(row["similarity"]) for row in read(corpus, "sts-train.csv")]
    assert min(similar) == 0 and max(similar) == 5
    assert all(np.histogram(similar, 5, (0, 5))[0] > 150)


def test_no_row_of_dev_or_test_comes_in_train(corpus):
    for dataset in SIZES:
        train = {frozenset(texts(row)) for row in read(corpus, f"{dataset}-train.csv")}
        for split in ("dev", "test-student"):
            for row in read(corpus, f"{dataset}-{split}.csv"):
                assert frozenset(texts(row)) not in train


def test_near_misses_overlap_as_much_as_paraphrases(corpus):
    shares = {"0.0": [], "1.0": []}
    for row in read(corpus, "quora-train.csv"):
        a, b = (set(words(text)) for text in texts(row))
        shares[row["is_duplicate"]].append(len(a & b) / len(a | b))
    assert np.mean(np.array(shares["0.0"]) > 0.5) > 0.4  # many misses share most words
    assert abs(np.mean(shares["0.0"]) - np.mean(shares["1.0"])) < 0.15


def test_a_pair_is_never_a_sentence_beside_itself_and_called_different(corpus):
    for row in read(corpus, "quora-train.csv"):
        assert row["sentence1"] != row["sentence2"]


def test_no_word_names_two_concepts():
    names = Counter(word for entry in demo_words.SYNONYMS.values() for word in entry)
    assert [word for word, count in names.items() if count > 1] == []
    assert all(demo_words.SYNONYMS[concept][0] == concept for concept in demo_words.SYNONYMS)


EVENT = demo_events.Event("doctor", "help", "lawyer", None, None, "on the hill", None)
BARE = demo_events.Style("active", False, 0)


def test_an_event_is_said_in_every_voice():
    event = demo_events.Event("nurse", "paint", "chair", "three", "famous", None, "yesterday")
    said = {
        voice: words(demo_events.say(event, demo_events.Style(voice, False, 0)))
        for voice in demo_events.VOICES
    }
    assert said["active"][:3] == ["the", "nurse", "painted"]
    assert said["passive"][:7] == ["three", "famous", "chairs", "were", "painted", "by", "the"]
    assert said["cleft"][:5] == ["it", "was", "the", "nurse", "who"]
    denied = demo_events.say(demo_events.negate(event), BARE)
    assert denied.startswith("The nurse did not paint three famous chairs")


def test_similarity_is_the_weighted_share_of_parts():
    assert demo_events.similarity(EVENT, EVENT) == 5.0
    swapped = demo_events.swap_roles(EVENT)
    assert demo_events.similarity(EVENT, swapped) == 2.3  # verb 1.5 and place 0.25 of 3.75
    assert demo_events.similarity(EVENT, demo_events.negate(EVENT)) == 3.0
    other = demo_events.Event("nurse", "sell", "cat", "two", None, None, "at noon")
    assert demo_events.similarity(EVENT, other) == 0.0


@pytest.mark.parametrize(
    "value, grade", [(-2.0, 0), (-1.0, 1), (0.0, 2), (0.3, 2), (1.0, 3), (2.0, 4)]
)
def test_values_become_grades(value, grade):
    assert demo_reviews.grade(value) == grade


# The encoder


def test_weights_are_a_bert_and_small():
    transformers = pytest.importorskip("transformers")
    from safetensors.numpy import load_file

    file = FOLDER / "model.safetensors"
    assert file.stat().st_size < 4_000_000
    weights = load_file(file)
    config = transformers.BertConfig.from_pretrained(FOLDER)
    wanted = transformers.BertModel(config).state_dict()
    assert {k: tuple(v.shape) for k, v in weights.items()} == {
        k: tuple(v.shape) for k, v in wanted.items() if k != "embeddings.position_ids"
    }
    assert all(w.dtype == np.float32 and np.isfinite(w).all() for w in weights.values())


def test_weights_load_into_our_encoder():
    from minbert.backbone.weights import load_encoder_state, read_shape
    from minbert.model.encoder import Encoder

    Encoder(read_shape(FOLDER)).load_state_dict(load_encoder_state(FOLDER), strict=True)


def test_the_vocabulary_covers_the_corpus(corpus):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    unknown, pieces, count = tokenizer.token_to_id("[UNK]"), 0, 0
    for file in corpus.iterdir():
        for row in read(corpus, file.name):
            encoded = tokenizer.encode(*texts(row))
            assert unknown not in encoded.ids, row
            assert len(encoded.ids) <= 128
            pieces += sum(token.startswith("##") for token in encoded.tokens)
            count += len(encoded.ids)
    assert pieces < 0.01 * count  # whole words, nearly all


def test_the_tokenizer_is_berts():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    lines = (FOLDER / "vocab.txt").read_text(encoding="utf-8").splitlines()
    config = json.loads((FOLDER / "config.json").read_text())
    assert lines[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {word: i for i, word in enumerate(lines)} == tokenizer.get_vocab()
    assert len(lines) == config["vocab_size"]
    encoded = tokenizer.encode("The DOCTOR sold 7 hats!", "It's so.")
    assert encoded.tokens[0] == "[CLS]" and encoded.tokens.count("[SEP]") == 2
    assert "doctor" in encoded.tokens and tokenizer.token_to_id("[UNK]") not in encoded.ids
    assert encoded.type_ids[0] == 0 and encoded.type_ids[-1] == 1


def test_pretraining_never_reads_the_corpus_and_draws_from_other_seeds(corpus):
    from minbert.demo.texts import pretraining_texts

    drawn = pretraining_texts(3000, seed=1)
    assert drawn == pretraining_texts(3000, seed=1)
    pairs = {frozenset(pair) for pair in drawn if pair[1]}
    for name in ("quora-dev.csv", "sts-dev.csv"):
        assert not pairs & {frozenset(texts(row)) for row in read(corpus, name)}


def test_a_lesson_hides_words_and_compares_sentences():
    from minbert.demo import texts as pretraining
    from minbert.demo.pretrain import Teacher
    from minbert.packing.pack import pack

    rows = [
        ("The doctor phoned the nurse at noon.", "At midday, the boss called the nurse."),
        ("The plot was awful. All in all, a fiasco.", None),
        *pretraining.pretraining_texts(300, seed=3),
    ]
    tokenizer = pretraining.train_vocabulary(rows)
    data = pretraining.encode(tokenizer, rows)
    batch = pack(data.ids, data.segment_starts)
    before = batch.token_ids.clone()
    lesson = Teacher(tokenizer).lesson(batch, np.random.default_rng(0))

    hidden = lesson.masked.numpy()
    assert (batch.token_ids[hidden] == pretraining.MASK).all()
    assert (lesson.truth == before[hidden]).all()
    rest = np.setdiff1d(np.arange(batch.tokens), hidden)
    assert (batch.token_ids[rest] == before[rest]).all()
    assert 0.03 < len(hidden) / batch.tokens < 0.2
    assert len(np.intersect1d(lesson.words, hidden)) == 0

    place = list(batch.order).index(0)  # the pair above, wherever it was packed
    start = int(batch.cls_positions[place])
    ours = range(start, start + len(data.ids[0]))
    asked = dict(zip(lesson.words.tolist(), lesson.alone.tolist(), strict=True))
    names = {tokenizer.id_to_token(int(before[i])): asked[i] for i in ours if i in asked}
    expected = {"doctor": 1, "phoned": 0, "nurse": 0, "noon": 0, "midday": 0, "boss": 1}
    assert len(names) >= 4
    assert all(expected[word] == alone for word, alone in names.items() if word in expected)


def test_the_pretraining_command_writes_a_backbone(tmp_path):
    command = [sys.executable, "-m", "minbert.demo.pretrain", "-o", str(tmp_path / "out")]
    options = ["--save-texts", "--texts", "500", "--steps", "4", "--batch-size", "8"]
    subprocess.run([*command, *options], check=True, timeout=120)
    from minbert import check_backbone

    check_backbone(str(tmp_path / "out"))
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "vocab.txt", "tokenizer.json"} <= names
    assert len((tmp_path / "out" / "pretraining.txt").read_text().splitlines()) == 500


# The recipe


def train_demo(cache: Path, enough: float = 1.0, **keys) -> float:
    """The best score of a training by the shipped study's demo recipe, or of its first epochs if
    they are enough already: the best only rises."""
    from minbert import Config, train
    from mtl.study.load import load_study

    recipe = load_study("lora_sweep", profile="demo").config
    config = Config.from_keys({**recipe, **{k.replace("_", "."): v for k, v in keys.items()}})
    for report in train(config, cache_dir=cache):
        if report.best_score > enough:
            break
    return report.best_score


def test_lora_beats_heads_only_training_and_rank_and_alpha_matter(corpus):
    cache = corpus.parent
    heads = train_demo(cache, lora_rank=0)
    small = train_demo(cache, lora_rank=1, lora_alpha=1.0)
    wanted = max(heads + 0.15, small + 0.04)
    assert heads < 0.65
    assert train_demo(cache, wanted, lora_rank=8, lora_alpha=8.0) > wanted

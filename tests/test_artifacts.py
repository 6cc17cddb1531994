"""Confusion matrices, residuals and predictions of a training, as files.

Room: mtl/artifacts.
"""

import csv
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minbert.evaluation.metrics import confusion_matrix
from minbert.evaluation.predictions import TaskPredictions
from mtl.artifacts.colours import TASK_COLOURS, ink_on, tint
from mtl.artifacts.interactive import residuals_page
from mtl.artifacts.training import write_config, write_report
from support.tracking_samples import NASTY, epoch_report, predictions

PAGES = ("confusion_matrix/sst.html", "confusion_matrix/para.html", "residuals/sts.html")


@pytest.fixture(scope="module")
def report():
    return epoch_report(3)


@pytest.fixture(scope="module")
def folder(report, tmp_path_factory):
    out = tmp_path_factory.mktemp("artifacts")
    write_report(report, out)
    return out


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


class Page(HTMLParser):
    """What a browser would find in a page: tags with their attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.data = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.data.append(data)


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_every_file_is_where_it_is_expected(folder):
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert found == {
        *(f"confusion_matrix/{t}.{kind}" for t in ("sst", "para") for kind in KINDS),
        *(f"residuals/sts.{kind}" for kind in KINDS),
        *(f"predictions/{w}-{t}.csv" for w in ("dev", "worst") for t in ("sst", "para", "sts")),
    }


def test_pictures_are_returned_in_the_order_of_the_tasks(report, tmp_path):
    pictures = write_report(report, tmp_path)
    assert [str(picture.relative_to(tmp_path)) for picture in pictures] == [
        "confusion_matrix/sst.png",
        "confusion_matrix/para.png",
        "residuals/sts.png",
    ]


@pytest.mark.parametrize("task", ["sst", "para"])
def test_confusion_csv_has_true_rows_and_predicted_columns(folder, report, task):
    rows = table(folder / f"confusion_matrix/{task}.csv")
    classes = [row["true \\ predicted"] for row in rows]
    assert list(rows[0]) == ["true \\ predicted", *classes]
    counts = np.array([[int(row[name]) for name in classes] for row in rows])
    matrix = confusion_matrix(report.predictions[task])
    assert (counts == matrix).all()
    assert (counts.sum(axis=1) != counts.sum(axis=0)).any()  # else a transposed one would pass


@pytest.mark.parametrize("task", ["sst", "para"])
def test_confusion_page_shows_every_count_and_its_examples(folder, report, task):
    cells = [
        attributes["data-tip"]
        for tag, attributes in page(folder / f"confusion_matrix/{task}.html").tags
        if tag == "td" and "data-tip" in attributes
    ]
    matrix = confusion_matrix(report.predictions[task])
    assert len(cells) == matrix.size
    said = [f"\n{count} of {row.sum()} " for row in matrix for count in row]
    assert all(part in cell for part, cell in zip(said, cells, strict=True))
    assert f"text 5 of {task}" in "".join(cells)


def test_residuals(folder, report):
    sts = report.predictions["sts"]
    rows = table(folder / "residuals/sts.csv")
    assert list(rows[0]) == ["id", "label", "prediction", "residual"]
    assert [row["id"] for row in rows] == sts.ids
    residuals = np.array([float(row["residual"]) for row in rows])
    assert residuals == pytest.approx(sts.values - sts.labels, abs=1e-4)
    dots = [tag for tag, _ in page(folder / "residuals/sts.html").tags if tag == "circle"]
    assert len(dots) == len(rows)


def test_predictions_hold_every_row_in_the_order_of_the_file(folder, report):
    for task, expected in report.predictions.items():
        rows = table(folder / f"predictions/dev-{task}.csv")
        assert [row["id"] for row in rows] == expected.ids
        labels = [float(row["label"]) for row in rows]
        assert labels == pytest.approx(expected.labels)
        assert rows[3]["sentence" if task == "sst" else "sentence2"] == f"text 3 of {task}"
        errors = np.array([float(row["prediction"]) - float(row["label"]) for row in rows])
        assert [float(row["error"]) for row in rows] == pytest.approx(errors, abs=1e-4)


def test_probabilities(folder, report):
    sst = report.predictions["sst"].outputs
    shares = np.exp(sst) / np.exp(sst).sum(axis=1, keepdims=True)
    rows = table(folder / "predictions/dev-sst.csv")
    assert [float(r["probability"]) for r in rows] == pytest.approx(shares.max(axis=1), rel=1e-4)
    rows = table(folder / "predictions/dev-para.csv")
    assert all((float(r["probability"]) > 0.5) == (r["prediction"] == "1") for r in rows)
    assert "probability" not in table(folder / "predictions/dev-sts.csv")[0]


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_worst_mistakes_come_first_and_nothing_right_is_among_them(folder, task):
    rows = table(folder / f"predictions/worst-{task}.csv")
    errors = [abs(float(row["error"])) for row in rows]
    assert errors and errors == sorted(errors, reverse=True)
    assert min(errors) > 0
    if task == "para":  # all are off by one: the surest is the worst
        confidence = [abs(float(row["probability"]) - float(row["label"])) for row in rows]
        assert confidence == sorted(confidence, reverse=True)


def test_sentences_cannot_run_in_a_spreadsheet_or_a_page(folder):
    for task in ("sst", "para", "sts"):
        row = table(folder / f"predictions/dev-{task}.csv")[0]
        assert row["sentence" if task == "sst" else "sentence1"] == "'" + NASTY
    for name in PAGES:
        found = page(folder / name)
        assert [tag for tag, _ in found.tags].count("script") == 1  # our own
        tips = [attributes.get("data-tip", "") for _, attributes in found.tags]
        assert any(NASTY in tip for tip in tips)


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_small_and_need_nothing_else(folder, name):
    text = (folder / name).read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not {"src", "href"} & {key for _, attributes in Page(text).tags for key in attributes}
    assert "url(" not in text and "import " not in text


def test_a_large_dev_set_keeps_the_residuals_page_small():
    large = predictions("sts", 3000)
    long = [("it's " * 100, "other " * 100)] * 3000
    page_of_large = residuals_page(
        TaskPredictions("sts", large.ids, long, large.labels, large.outputs, large.values)
    )
    assert len(page_of_large) < 300_000
    found = Page(page_of_large)
    assert "".join(found.data).count("3000 pairs") == 1
    drawn = [tag for tag, _ in found.tags].count("circle")
    assert f"the {drawn} largest residuals" in "".join(found.data)


@pytest.mark.parametrize("name", ["confusion_matrix/sst", "confusion_matrix/para", "residuals/sts"])
def test_pictures_use_the_colour_of_their_task(folder, name):
    with Image.open(folder / f"{name}.png") as picture:
        assert min(picture.size) >= 350
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    task = name.rpartition("/")[2]
    red, green, blue = (int(TASK_COLOURS[task][i : i + 2], 16) for i in (1, 3, 5))
    # Tints lie between white and the colour: their channels stand in the colour's order.
    order = np.argsort([red, green, blue])
    coloured = colours[np.ptp(colours, axis=1) > 60]
    assert len(coloured) > 1000
    assert (np.diff(coloured[:, order], axis=1) >= -2).mean() > 0.95


def test_one_class_and_one_guess_still_make_a_report(tmp_path):
    lone = epoch_report(1, count=1)
    write_report(lone, tmp_path)
    for task in ("sst", "para"):
        rows = table(tmp_path / f"confusion_matrix/{task}.csv")
        assert sum(int(v) for row in rows for k, v in row.items() if "\\" not in k) == 1


@pytest.mark.parametrize("colour", ["#000000", "#ffffff", *TASK_COLOURS.values()])
def test_text_stands_out_from_its_cell(colour):
    for share in (0, 0.25, 0.5, 0.75, 1):
        shade = tint(colour, share)
        light, dark = sorted((_luminance(shade), _luminance(ink_on(shade))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4  # WCAG asks 3 of large text


def _luminance(colour):
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_written_configuration_is_a_study_files_config_table(tmp_path):
    from minbert import Config

    config = Config.from_keys({"train.lr": 1e-5, "lora.alpha": 8.0, "data.path": 'a "b" \\ é'})
    write_config(config.to_keys(), tmp_path / "config.toml")
    text = (tmp_path / "config.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["config"] == config.to_keys()
    assert Config.from_keys(tomllib.loads(text)["config"]) == config


KINDS = ("html", "png", "csv")

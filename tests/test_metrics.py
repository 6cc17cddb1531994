"""Scores against scikit-learn and scipy, and intervals that mean something.

Room: minbert/evaluation.
"""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn import metrics as scikit

from minbert.errors import InputError
from minbert.evaluation.intervals import differences, estimate, estimates, regression_estimates
from minbert.evaluation.metrics import accuracy, all_scores, confusion_matrix, pearson, score
from minbert.evaluation.predictions import TaskPredictions


def predictions(task, labels, values) -> TaskPredictions:
    labels, values = np.asarray(labels, np.float32), np.asarray(values, np.float32)
    ids = [str(i) for i in range(len(labels))]
    return TaskPredictions(task, ids, [("a",)] * len(ids), labels, values[:, None], values)


@pytest.fixture
def sts():
    rng = np.random.default_rng(0)
    labels = rng.uniform(0, 5, 400)
    return predictions("sts", labels, labels + rng.normal(0, 1, 400))


@pytest.fixture
def sst():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, 500)
    return predictions("sst", labels, np.where(rng.random(500) < 0.6, labels, 2))


def test_the_score_is_the_paper_s():
    assert round(score(0.496, 0.886, 0.851), 3) == 0.769


def test_metrics_equal_their_libraries(sst, sts):
    assert accuracy(sst) == pytest.approx(scikit.accuracy_score(sst.labels, sst.classes))
    assert pearson(sts) == pytest.approx(pearsonr(sts.labels, sts.values).statistic)
    counts = scikit.confusion_matrix(sst.labels, sst.classes, labels=range(5))
    assert confusion_matrix(sst).tolist() == counts.tolist()
    wanted = {
        "mse": scikit.mean_squared_error,
        "rmse": scikit.root_mean_squared_error,
        "mae": scikit.mean_absolute_error,
        "r2": scikit.r2_score,
    }
    for name, given in regression_estimates(sts).items():
        assert given.value == pytest.approx(wanted[name](sts.labels, sts.values), rel=1e-5)
        assert given.low < given.value < given.high


def test_a_paraphrase_is_a_probability_above_a_half():
    given = predictions("para", [0, 1, 1, 0], [0.5, 0.51, 0.2, 0.9])
    assert given.classes.tolist() == [0, 1, 0, 1]
    assert confusion_matrix(given).tolist() == [[1, 1], [1, 1]]


def test_confusion_has_labels_in_rows_and_every_class():
    given = confusion_matrix(predictions("sst", [4, 4, 0], [3, 4, 0]))
    assert given.shape == (5, 5) and given[4].tolist() == [0, 0, 0, 1, 1]


def test_a_constant_prediction_has_no_correlation(recwarn):
    constant = predictions("sts", [1, 2, 3], [2, 2, 2])
    assert pearson(constant) == 0.0 == estimate(constant).value
    assert not recwarn.list


def test_intervals_cover_as_often_as_they_say():
    """Of 200 samples with a true accuracy of 0.6, about 95 % have it in their interval."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        right = rng.random(300) < 0.6
        given = estimate(predictions("sst", np.full(300, 3), np.where(right, 3, 1)))
        hits += given.low <= 0.6 <= given.high
    assert 178 <= hits <= 199


def test_the_deviation_is_the_standard_error(sst):
    p = accuracy(sst)
    assert estimate(sst).deviation == pytest.approx(np.sqrt(p * (1 - p) / 500), rel=0.1)


def test_all_scores_carry_their_names(sst, sts):
    para = predictions("para", [0, 1], [0.1, 0.9])
    scores = all_scores({"sst": sst, "para": para, "sts": sts})
    assert list(scores) == ["sst_accuracy", "para_accuracy", "sts_pearson", "score"]
    assert scores["para_accuracy"] == 1.0


def test_estimates_have_every_metric_and_a_score_as_sure_as_its_parts(sst, sts):
    rng = np.random.default_rng(5)
    truth = rng.integers(2, size=400)
    para = predictions("para", truth, np.where(rng.random(400) < 0.8, truth, 1 - truth))
    given = {"sst": sst, "para": para, "sts": sts}
    found = estimates(given)
    assert {n: e.value for n, e in found.items() if n in all_scores(given)} == all_scores(given)
    assert set(found) - set(all_scores(given)) == {"sts_mse", "sts_rmse", "sts_mae", "sts_r2"}
    parts = [found[n].deviation for n in ("sst_accuracy", "para_accuracy", "sts_pearson")]
    expected = np.sqrt(parts[0] ** 2 + parts[1] ** 2 + (parts[2] / 2) ** 2) / 3
    assert found["score"].deviation == pytest.approx(expected, rel=0.1)


def test_differences_are_paired(sst, sts):
    """Two models that err on almost the same examples differ surely, though each is unsure."""
    para = predictions("para", [0, 1] * 50, [0.1, 0.9] * 50)
    better = sst.values.copy()
    wrong = np.flatnonzero(sst.values != sst.labels)[:12]
    better[wrong] = sst.labels[wrong]
    ours = {"sst": predictions("sst", sst.labels, better), "para": para, "sts": sts}
    theirs = {"sst": sst, "para": para, "sts": sts}
    found = differences(ours, theirs)
    gain = len(wrong) / len(sst.labels)
    assert found["sst_accuracy"].value == pytest.approx(gain)
    assert found["sst_accuracy"].low > 0
    # McNemar: the deviation of the share of 12 examples that one model alone has right.
    deviation = np.sqrt(gain * (1 - gain) / len(sst.labels))
    assert found["sst_accuracy"].deviation == pytest.approx(deviation, rel=0.1)
    assert estimate(sst).deviation > 2 * deviation
    assert found["para_accuracy"].value == found["sts_pearson"].high == 0.0
    assert found["score"].value == pytest.approx(gain / 3)
    assert found["score"].low == pytest.approx(found["sst_accuracy"].low / 3)


def test_differences_need_the_same_examples(sst, sts):
    para = predictions("para", [0, 1], [0.1, 0.9])
    given = {"sst": sst, "para": para, "sts": sts}
    fewer = {**given, "para": predictions("para", [0, 1, 1], [0.1, 0.9, 0.9])}
    with pytest.raises(InputError, match="dev examples differ"):
        differences(given, fewer)

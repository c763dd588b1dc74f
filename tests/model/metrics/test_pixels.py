"""Counts and scores: laws of addition, and scikit-learn as the oracle."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from thawmap.errors import DataError
from thawmap.model.metrics.pixels import (
    PLATEAU,
    SCORES,
    Counts,
    Histogram,
    best_threshold,
    calibration_error,
    counts,
    histogram,
    mean_scores,
    plateau_threshold,
    reliability,
    scores,
)

PIXELS = 60
targets = hnp.arrays(np.uint8, PIXELS, elements=st.sampled_from([0, 0, 1, 1, 255]))
masks = hnp.arrays(np.bool_, PIXELS)
hundredths = hnp.arrays(np.uint8, PIXELS, elements=st.integers(0, 100))
floats = hnp.arrays(np.float32, PIXELS, elements=st.floats(0, 1, width=32) | st.just(np.float32(np.nan)))
some_counts = st.builds(Counts, *[st.integers(0, 10**12)] * 4)


def slow_counts(prediction, target, valid):
    """One pixel after the other."""
    names = {(1, 1): "tp", (1, 0): "fp", (0, 1): "fn", (0, 0): "tn"}
    number = dict.fromkeys(names.values(), 0)
    for predicted, label, usable in zip(prediction.tolist(), target.tolist(), valid.tolist(), strict=True):
        if usable and label != 255:
            number[names[int(predicted), label]] += 1
    return Counts(**number)


@given(masks, targets, masks)
def test_counts_agree_with_one_pixel_after_the_other(prediction, target, valid):
    assert counts(prediction, target, valid) == slow_counts(prediction, target, valid)


@given(masks, targets, masks)
def test_tensors_count_as_arrays_do(prediction, target, valid):
    tensors = (torch.from_numpy(prediction), torch.from_numpy(target), torch.from_numpy(valid))
    assert counts(*tensors) == counts(prediction, target, valid)


def test_a_bool_target_counts_as_zero_and_one():
    prediction, target = np.array([True, False, True, False]), np.array([True, True, False, False])
    assert counts(prediction, target, np.ones(4, bool)) == Counts(1, 1, 1, 1)


@given(st.lists(some_counts, max_size=5))
def test_counts_add_in_any_order(several):
    assert sum(several, Counts()) == sum(reversed(several), Counts())
    assert sum(several, Counts()).total == sum(item.total for item in several)


def test_sums_may_begin_at_nothing():
    assert sum([Counts(1, 2, 3, 4), Counts(1, 0, 0, 0)]) == Counts(2, 2, 3, 4)
    assert sum([Histogram.empty(), Histogram.empty()]).total == 0


@given(masks, targets, masks)
def test_scores_agree_with_scikit_learn_wherever_they_are_defined(prediction, target, valid):
    used = valid & (target != 255)
    truth, predicted = target[used], prediction[used].astype(np.uint8)
    scored = scores(counts(prediction, target, valid))
    expected = oracle_scores(truth, predicted) if len(truth) else {}
    for name in SCORES:
        if not math.isnan(scored[name]):
            assert scored[name] == pytest.approx(expected[name], abs=1e-12)


def oracle_scores(truth, predicted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "overall_accuracy": oracle.accuracy_score(truth, predicted),
            "kappa": oracle.cohen_kappa_score(truth, predicted, labels=[0, 1]),
            "iou": oracle.jaccard_score(truth, predicted),
            "precision": oracle.precision_score(truth, predicted),
            "recall": oracle.recall_score(truth, predicted),
            "f1": oracle.f1_score(truth, predicted),
        }


@pytest.mark.parametrize(
    ("counted", "undefined"),
    [
        (Counts(), set(SCORES)),
        (Counts(tn=9), {"kappa", "iou", "precision", "recall", "f1"}),  # empty against empty
        (Counts(fn=3, tn=6), {"precision"}),
        (Counts(fp=3, tn=6), {"recall"}),
        (Counts(tp=9), {"kappa"}),
        (Counts(tp=1, tn=8), set()),
    ],
)
def test_exactly_these_scores_are_undefined(counted, undefined):
    assert {name for name, value in scores(counted).items() if math.isnan(value)} == undefined


def test_counts_beyond_what_floats_hold_still_score():
    assert scores(Counts(10**15, 10**15, 10**15, 10**18))["iou"] == pytest.approx(1 / 3)
    assert 0 < scores(Counts(10**15, 10**15, 10**15, 10**18))["kappa"] < 1


def test_the_mean_leaves_out_what_is_not_defined():
    mean = mean_scores([scores(Counts(tp=1, fp=1, tn=1)), scores(Counts(tn=5)), scores(Counts(tp=2, tn=2))])
    assert mean["iou"] == pytest.approx((0.5 + 1.0) / 2)
    assert math.isnan(mean_scores([])["iou"])


@given(hundredths, targets, masks, st.integers(0, 100))
def test_a_histogram_is_exact_at_every_threshold_for_stored_hundredths(stored, target, valid, step):
    threshold = step / 100
    counted = histogram(stored / np.float32(100), target, valid).counts(threshold)
    assert counted == counts(stored / 100 > threshold, target, valid)
    assert counted == counts(stored > step, target, valid)


@given(floats, targets, masks)
def test_a_histogram_of_floats_equals_that_of_the_map_made_from_them(probability, target, valid):
    stored = np.where(np.isnan(probability), 255, np.rint(probability * 100)).astype(np.uint8)
    of_map = histogram(stored / np.float32(100), target, valid & (stored != 255))
    of_floats = histogram(probability, target, valid)
    np.testing.assert_array_equal(of_floats.positive, of_map.positive)
    np.testing.assert_array_equal(of_floats.negative, of_map.negative)


@given(floats, targets, masks)
def test_a_histogram_of_tensors_equals_that_of_arrays(probability, target, valid):
    of_arrays = histogram(probability, target, valid)
    of_tensors = histogram(torch.from_numpy(probability), torch.from_numpy(target), torch.from_numpy(valid))
    np.testing.assert_array_equal(of_tensors.positive, of_arrays.positive)
    np.testing.assert_array_equal(of_tensors.negative, of_arrays.negative)
    assert of_tensors.positive.dtype == np.int64


@given(hundredths, targets, masks, st.integers(0, PIXELS))
def test_histograms_of_parts_add_to_that_of_the_whole(stored, target, valid, cut):
    probability = stored / 100
    halves = [histogram(probability[rows], target[rows], valid[rows]) for rows in (slice(cut), slice(cut, None))]
    together = histogram(probability, target, valid)
    np.testing.assert_array_equal(sum(halves, Histogram.empty()).positive, together.positive)
    np.testing.assert_array_equal(sum(halves, Histogram.empty()).negative, together.negative)
    assert together.total == int((valid & (target != 255)).sum())


@given(hundredths, targets)
def test_precision_and_recall_over_all_thresholds_are_those_of_scikit_learn(stored, target):
    used = target != 255
    if not (target == 1).any():
        return
    counted = histogram(stored / 100, target, np.ones(PIXELS, bool))
    precision, recall, thresholds = oracle.precision_recall_curve(target[used], stored[used])
    for step, *expected in zip(thresholds, precision, recall, strict=False):
        above = scores(counted.counts((step - 0.5) / 100))
        assert [above["precision"], above["recall"]] == pytest.approx(expected)


def test_the_mean_can_be_of_other_scores():
    assert mean_scores([{"mine": 1.0, "iou": 0.0}, {"mine": math.nan}, {"mine": 0.5}], ["mine"]) == {"mine": 0.75}


@given(hundredths, targets, st.sampled_from(["iou", "f1", "kappa"]))
def test_no_threshold_is_better_than_the_best(stored, target, metric):
    counted = histogram(stored / 100, target, np.ones(PIXELS, bool))
    best = best_threshold(counted, metric)
    if not (target == 1).any():
        assert math.isnan(best)
        return
    tried = [scores(counts(stored / 100 > step / 100, target, target != 255))[metric] for step in range(101)]
    if not np.isnan(tried).all():
        assert scores(counted.counts(best))[metric] == np.nanmax(tried)


def test_the_best_of_equals_is_the_middle_one():
    counted = histogram(np.array([0.2, 0.6]), np.array([0, 1]), np.ones(2, bool))
    assert best_threshold(counted) == 0.4


@pytest.mark.parametrize("as_type", [np.asarray, torch.as_tensor])
def test_logits_are_refused_and_not_counted(as_type):
    logits = as_type(np.array([-3.0, 0.5], np.float32))
    with pytest.raises(DataError, match=r"-3 cannot be counted.*sigmoid"):
        histogram(logits, as_type(np.array([0, 1])), as_type(np.ones(2, bool)))


@given(hundredths, targets, st.sampled_from([1, 4, 5, 10, 20, 50, 100]))
def test_reliability_agrees_with_scikit_learn(stored, target, steps):
    used = target != 255
    diagram = reliability(histogram(stored / 100, target, np.ones(PIXELS, bool)), steps=steps)
    assert diagram.pixels.sum() == used.sum()
    if not used.any():
        assert np.isnan(diagram.observed).all()
        return
    # A hair less: 0.3 stays in the third tenth, however its tenths are rounded.
    observed, predicted = calibration_curve(target[used], np.maximum(stored[used] / 100 - 1e-9, 0), n_bins=steps)
    np.testing.assert_allclose(diagram.observed[diagram.pixels > 0], observed)
    np.testing.assert_allclose(diagram.predicted[diagram.pixels > 0], predicted, atol=1e-8)
    assert np.isnan(diagram.predicted[diagram.pixels == 0]).all()


@given(hundredths, targets, st.integers(1, 100))
def test_the_calibration_error_agrees_with_one_step_after_the_other(stored, target, steps):
    counted = histogram(stored / 100, target, np.ones(PIXELS, bool))
    values, labels = stored[target != 255].astype(int), target[target != 255]
    expected = 0.0
    for step in range(steps):
        inside = (values * steps > 100 * step) & (values * steps <= 100 * (step + 1))
        inside |= (values == 0) & (step == 0)
        if inside.any():
            expected += abs(values[inside].mean() / 100 - labels[inside].mean()) * inside.sum() / len(values)
    assert calibration_error(counted, steps=steps) == (
        pytest.approx(expected, abs=1e-12) if len(values) else pytest.approx(math.nan, nan_ok=True)
    )


@pytest.mark.parametrize("steps", range(1, 101))
def test_each_hundredth_is_in_the_step_that_ends_at_or_above_it(steps):
    once = Histogram(negative=np.ones(101, np.int64), positive=np.zeros(101, np.int64))
    ends = [100 * (step + 1) // steps for step in range(steps)]  # the last whole hundredth of each
    assert np.cumsum(reliability(once, steps=steps).pixels).tolist() == [end + 1 for end in ends]


def test_what_keeps_its_promise_has_no_calibration_error():
    calibrated = Histogram(negative=100 - np.arange(101), positive=np.arange(101))
    assert calibration_error(calibrated, steps=100) == pytest.approx(0)
    assert calibration_error(
        Histogram(negative=calibrated.positive, positive=calibrated.negative), steps=1
    ) == pytest.approx(0)
    always = Histogram(negative=np.eye(101, dtype=np.int64)[100] * 3, positive=np.eye(101, dtype=np.int64)[100])
    assert calibration_error(always) == pytest.approx(0.75)
    assert math.isnan(calibration_error(Histogram.empty()))


@pytest.mark.parametrize("steps", [0, 101])
def test_steps_finer_than_hundredths_are_refused(steps):
    with pytest.raises(DataError, match=rf"parted into {steps} steps; allowed is 1 .. 100"):
        reliability(Histogram.empty(), steps=steps)


@given(
    stored=hnp.arrays(np.uint8, 60, elements=st.integers(0, 100)),
    target=hnp.arrays(np.uint8, 60, elements=st.integers(0, 1)),
)
def test_every_threshold_between_plateau_and_peak_is_as_good_as_the_peak_but_for_its_tolerance(stored, target):
    counted = histogram(stored / 100, target, np.ones(60, bool))
    chosen = plateau_threshold([counted])
    if not target.any():
        assert np.isnan(chosen)
        return
    reached = [np.nan_to_num(scores(counted.counts(step / 100))["iou"]) for step in range(101)]
    assert chosen == round(chosen * 100) / 100
    peak = min(np.flatnonzero(np.equal(reached, max(reached))), key=lambda step: abs(step - chosen * 100))
    first, last = sorted((peak, round(chosen * 100)))
    assert min(reached[first : last + 1]) >= (1 - PLATEAU) * max(reached)


def test_the_threshold_lies_in_the_middle_of_a_plateau_and_not_on_a_narrow_peak():
    """The score has a narrow peak at 0.89 and 0.90 alone.

    It comes of three false pixels at 0.89 and two true ones at 0.91 among a thousand.
    """
    negative, positive = np.zeros(101, np.int64), np.zeros(101, np.int64)
    negative[0], positive[100], negative[89], positive[91] = 1000, 1000, 3, 2
    assert best_threshold(Histogram(negative, positive)) in {0.89, 0.9}
    assert plateau_threshold([Histogram(negative, positive)]) == pytest.approx(0.5, abs=0.02)


def test_regions_count_alike_whatever_their_size():
    """A large region counts as much as each of three small ones.

    The large one is best at 0.2, the small ones at 0.8.
    """

    def region(step, pixels):
        negative, positive = np.zeros(101, np.int64), np.zeros(101, np.int64)
        negative[step - 10], positive[step + 10] = pixels, pixels
        return Histogram(negative, positive)

    large, small = region(20, 10**6), [region(80, 10) for _ in range(3)]
    assert plateau_threshold([large]) == pytest.approx(0.2, abs=0.1)
    assert plateau_threshold([large, *small]) == pytest.approx(0.8, abs=0.1)
    assert plateau_threshold([sum([large, *small], Histogram.empty())]) == pytest.approx(0.2, abs=0.1)

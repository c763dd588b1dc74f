"""Objects: sets of pixels, shapely, scikit-image and scikit-learn as the oracles."""

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment
from skimage import measure
from sklearn.metrics import average_precision_score

from thawmap.errors import DataError
from thawmap.model.metrics.objects import Comparison, Detections, average_precision, detections, object_counts
from thawmap.model.metrics.pixels import Counts, scores

SHAPE = (7, 8)
predictions = hnp.arrays(np.bool_, SHAPE)
targets = hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 0, 1, 1, 255]))
masks = hnp.arrays(np.bool_, SHAPE, elements=st.sampled_from([True, True, True, False]))
probabilities = hnp.arrays(np.float32, SHAPE, elements=st.sampled_from([0, 0.25, 0.625, 0.75, 0.875, np.nan]))
everywhere = np.ones(SHAPE, np.bool_)


def flooded(mask):
    """Objects as sets of (row, column), in the order of their first pixels."""
    left, objects = {tuple(map(int, pixel)) for pixel in np.argwhere(mask)}, []
    for pixel in sorted(left):
        reached = {pixel} & left
        front = set(reached)
        while front:
            front = {
                (r + dr, c + dc) for r, c in front for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))
            } & left - reached
            reached |= front
        if reached:
            objects.append(reached)
            left -= reached
    return objects


def usable_set(target, valid):
    return {tuple(map(int, pixel)) for pixel in np.argwhere(valid & (target != 255))}


def slow_iou(first, second, usable):
    return len(first & second & usable) / max(len((first | second) & usable), 1)


def centre(pixels):
    """The pixel that is nearest to the centroid."""
    row, col = (sum(axis) / len(pixels) for axis in zip(*pixels, strict=True))
    return min(sorted(pixels), key=lambda pixel: (pixel[0] - row) ** 2 + (pixel[1] - col) ** 2)


def judged(objects, usable):
    return np.array([2 * len(pixels & usable) >= len(pixels) for pixels in objects], bool)


def slow_counts(prediction, target, valid, matches):
    """Try all pairs; take the assignment with most matches and fewest alarms."""
    usable = usable_set(target, valid)
    predicted, labelled = flooded(prediction & valid), flooded((target == 1) & valid)
    able = np.array([[matches(first, second, usable) for second in labelled] for first in predicted], bool)
    alarm, able = judged(predicted, usable), able.reshape(len(predicted), len(labelled))
    worth = able * (1000.0 + alarm[:, None])
    rows, cols = linear_sum_assignment(worth, maximize=True)
    matched = [row for row, col in zip(rows, cols, strict=True) if able[row, col]]
    alarm[matched] = False
    return Counts(tp=len(matched), fp=int(alarm.sum()), fn=len(labelled) - len(matched))


def slow_match(min_iou):
    return lambda first, second, usable: bool(first & second & usable) and slow_iou(first, second, usable) >= min_iou


@given(predictions, targets, masks, st.sampled_from([0.0, 0.2, 0.5, 0.6, 1.0]))
@settings(deadline=None)
def test_counts_by_iou_agree_with_sets_of_pixels(prediction, target, valid, min_iou):
    counted = object_counts(prediction, target, valid, min_iou=min_iou)
    assert counted == slow_counts(prediction, target, valid, slow_match(min_iou))


@given(predictions, targets, masks)
@settings(deadline=None)
def test_counts_by_centroid_agree_with_sets_of_pixels(prediction, target, valid):
    assert object_counts(prediction, target, valid, match="centroid") == slow_counts(
        prediction, target, valid, lambda first, second, _: centre(first) in second or centre(second) in first
    )


@given(predictions, predictions)
@settings(deadline=None, max_examples=50)
def test_counts_by_iou_agree_with_scikit_image_and_shapely(prediction, labelled):
    def polygons(mask):
        labels = measure.label(mask, connectivity=1)
        return [
            shapely.union_all([shapely.box(c, r, c + 1, r + 1) for r, c in np.argwhere(labels == index)])
            for index in range(1, labels.max() + 1)
        ]

    predicted, truth = polygons(prediction), polygons(labelled)
    tp = sum(
        first.intersection(second).area / first.union(second).area > 0.55 for first in predicted for second in truth
    )
    counted = object_counts(prediction, labelled.astype(np.uint8), everywhere, min_iou=0.55)
    assert counted == Counts(tp=tp, fp=len(predicted) - tp, fn=len(truth) - tp)


@given(predictions, probabilities)
@settings(deadline=None, max_examples=50)
def test_sizes_and_confidences_are_those_of_scikit_image(prediction, probability):
    probability = np.nan_to_num(probability)
    comparison = Comparison.of(prediction, np.zeros(SHAPE, np.uint8), everywhere)
    regions = measure.regionprops(measure.label(prediction, connectivity=1), intensity_image=probability)
    assert comparison.predicted.pixels.tolist() == [region.area for region in regions]
    confidence = comparison.detections(probability).confidence
    np.testing.assert_allclose(confidence, [region.intensity_mean for region in regions], rtol=1e-6)
    for row, col, region in zip(*comparison.predicted.centres(), regions, strict=True):
        apart = np.linalg.norm(region.coords - region.centroid, axis=1)
        assert math.dist((row, col), region.centroid) == pytest.approx(apart.min(), abs=1e-9)
        assert [row, col] in region.coords.tolist()


@given(targets, masks)
def test_a_perfect_prediction_has_no_fault_whatever_is_missing_or_ignored(target, valid):
    perfect = Counts(tp=len(flooded((target == 1) & valid)))
    for prediction in (target == 1, (target == 1) | ~valid):
        assert object_counts(prediction, target, valid, min_iou=1.0) == perfect
        assert object_counts(prediction, target, valid, match="centroid") == perfect


@given(hnp.arrays(np.bool_, (3, *SHAPE)), hnp.arrays(np.uint8, (3, *SHAPE), elements=st.sampled_from([0, 1, 255])))
@settings(deadline=None, max_examples=50)
def test_a_stack_of_rasters_counts_as_each_by_itself(prediction, target):
    valid = np.ones(prediction.shape, np.bool_)
    for match in ("iou", "centroid"):
        counted = [object_counts(*raster, match=match) for raster in zip(prediction, target, valid, strict=True)]
        assert object_counts(prediction, target, valid, match=match) == sum(counted, Counts())
    probability = np.where(prediction, 0.75, 0.25)
    detected = [detections(*raster, threshold=0.5) for raster in zip(probability, target, valid, strict=True)]
    stacked, summed = detections(probability, target, valid, threshold=0.5), sum(detected, Detections.empty())
    np.testing.assert_array_equal(stacked.correct, summed.correct)
    np.testing.assert_array_equal(stacked.confidence, summed.confidence)
    assert stacked.labelled == summed.labelled


@pytest.mark.parametrize("match", ["iou", "centroid"])
def test_thousands_of_objects_are_each_counted(match):
    """One object in every cell of 8 px is counted.

    2500 are labelled, of which every fifth is missed, every third of others moved.
    """
    across, cell = 50, 8
    target, prediction = np.zeros((2, across * cell, across * cell), np.uint8)
    for index in range(across**2):
        row, col = (cell * cells for cells in divmod(index, across))
        target[row : row + 3, col : col + 4] = 1
        down = 4 if index % 3 == 0 else 0
        prediction[row + down : row + down + 3, col : col + 4] = index % 5 > 0
    counted = object_counts(prediction == 1, target, np.ones_like(target, np.bool_), match=match)
    matched = sum(index % 5 > 0 and index % 3 > 0 for index in range(2500))
    assert counted == Counts(tp=matched, fp=2000 - matched, fn=2500 - matched)
    ranked = detections(prediction * 0.9, target, np.ones_like(target, np.bool_), threshold=0.5)
    assert (ranked.correct.sum(), len(ranked.correct), ranked.labelled) == (matched, 2000, 2500)
    assert average_precision(ranked) == pytest.approx(matched / 2000 * matched / 2500)


def test_empty_against_empty_has_no_object_and_no_score():
    empty = object_counts(~everywhere, np.zeros(SHAPE, np.uint8), everywhere)
    assert empty == Counts()
    assert math.isnan(scores(empty)["f1"])
    assert object_counts(~everywhere, np.zeros(SHAPE, np.uint8), everywhere, match="centroid") == Counts()
    assert object_counts(everywhere, np.zeros(SHAPE, np.uint8), everywhere) == Counts(fp=1)
    assert object_counts(~everywhere, np.ones(SHAPE, np.uint8), everywhere) == Counts(fn=1)
    assert scores(Counts(fn=1))["f1"] == 0


def test_all_ignored_counts_nothing():
    for target, valid in (
        (np.full(SHAPE, 255, np.uint8), everywhere),
        (np.ones(SHAPE, np.uint8), ~everywhere),
    ):
        assert object_counts(everywhere, target, valid) == Counts()
        detected = detections(everywhere.astype(float), target, valid, threshold=0.5)
        assert (len(detected.confidence), detected.labelled) == (0, 0)


def test_a_detection_of_what_the_labels_ignore_is_no_false_alarm_even_by_its_rim():
    target, prediction = np.zeros((12, 12), np.uint8), np.zeros((12, 12), np.bool_)
    target[3:9, 3:9] = 255
    prediction[2:9, 3:9] = True  # a row beyond what is ignored
    valid = np.ones_like(prediction)
    assert object_counts(prediction, target, valid) == Counts()
    prediction[:, 3:9] = True  # as much beyond it as in it
    assert object_counts(prediction, target, valid) == Counts(fp=1)


def test_an_object_that_spans_a_labelled_and_an_ignored_one_is_found():
    target, prediction = np.zeros((12, 12), np.uint8), np.zeros((12, 12), np.bool_)
    target[2:5, 2:5] = 1
    target[5:10, 2:10] = 255
    prediction[2:10, 2:10] = target[2:10, 2:10] > 0
    assert object_counts(prediction, target, np.ones_like(prediction)) == Counts(tp=1)
    assert detections(prediction * 0.9, target, np.ones_like(prediction), threshold=0.5).correct.tolist() == [True]


def test_a_labelled_object_counts_as_what_can_be_seen_of_it():
    target, valid = np.zeros(SHAPE, np.uint8), everywhere.copy()
    target[2:4, 0:6] = 1
    valid[:, 2:4] = False
    assert object_counts(~everywhere, target, valid) == Counts(fn=2)
    assert object_counts(target == 1, target, valid) == Counts(tp=2)
    valid[:] = False
    assert object_counts(target == 1, target, valid) == Counts()


def test_corners_do_not_join():
    target = np.eye(5, dtype=np.uint8)
    assert object_counts(target == 1, target, np.ones((5, 5), np.bool_)) == Counts(tp=5)


def test_each_object_is_matched_once_and_as_many_as_can_be():
    """One prediction over two labels; a greedy choice would lose a match."""
    target, prediction = np.zeros((1, 9), np.uint8), np.zeros((1, 9), np.bool_)
    target[0, [0, 1, 3, 4]], prediction[0, 0:5] = 1, True
    assert object_counts(prediction, target, np.ones_like(prediction), min_iou=0.3) == Counts(tp=1, fn=1)
    assert object_counts(prediction, target, np.ones_like(prediction), min_iou=0.5) == Counts(fp=1, fn=2)


def test_of_two_labelled_objects_a_detection_takes_the_one_that_it_fits_best():
    """The weaker detection fits only the worse of the stronger one's two candidates."""
    target, probability = np.zeros((3, 12), np.uint8), np.zeros((3, 12))
    target[0, 0:4], target[2, 0:6] = 1, 1
    probability[:, 0] = 0.9
    probability[2, 0:5] = 0.9  # 1 of 9 px above, 5 of 8 px below
    probability[0, 2:6] = 0.6  # 2 of 6 px above
    detected = detections(probability, target, np.ones_like(target, np.bool_), threshold=0.5, min_iou=0.1)
    assert detected.correct.tolist() == [True, True]


def test_a_horseshoe_is_found_by_its_pixel_that_is_nearest_to_its_centroid():
    horseshoe, valid = np.zeros((9, 9), np.bool_), np.ones((9, 9), np.bool_)
    horseshoe[1:8, 1:8] = True
    horseshoe[1:6, 3:6] = False  # open to the north; its centroid, in row 4.4 and column 4, is not on it
    assert object_counts(horseshoe, horseshoe.astype(np.uint8), valid, match="centroid") == Counts(tp=1)
    down, across = np.zeros((2, 9, 9), np.uint8)
    down[0:7, 4] = 1  # ends on the nearest pixel, in row 6 and column 4; its own centre is in the opening
    across[4, 2:7] = 1  # ends on the sides of the opening
    assert object_counts(horseshoe, down, valid, match="centroid") == Counts(tp=1)
    assert object_counts(horseshoe, across, valid, match="centroid") == Counts(fp=1, fn=1)


def test_a_fragment_that_is_on_neither_centre_is_another_object():
    """The end of a long label is predicted.

    The label's centre is not on the fragment; the fragment's is on the label.
    """
    target, prediction = np.zeros((5, 12), np.uint8), np.zeros((5, 12), np.bool_)
    target[2, 0:12] = 1
    prediction[0:3, 10:12] = True  # its centre is in row 1, above the label
    counted = object_counts(prediction, target, np.ones_like(prediction), match="centroid")
    assert counted == Counts(fp=1, fn=1)
    prediction[0] = False
    prediction[2:4, 10:12] = True  # now in row 2, on the label
    assert object_counts(prediction, target, np.ones_like(prediction), match="centroid") == Counts(tp=1)


@pytest.mark.parametrize("min_iou", [-0.1, 1.1, math.nan])
def test_an_impossible_iou_is_refused(min_iou):
    with pytest.raises(DataError, match=r"cannot be asked of a match; allowed is 0 .. 1"):
        object_counts(everywhere, np.ones(SHAPE, np.uint8), everywhere, min_iou=min_iou)
    with pytest.raises(DataError, match="allowed is 0"):
        detections(everywhere.astype(float), np.ones(SHAPE, np.uint8), everywhere, threshold=0.5, min_iou=min_iou)


def slow_detections(probability, target, valid, threshold, min_iou):
    """The most confident first; each takes the best that is left."""
    usable, matches = usable_set(target, valid), slow_match(min_iou)
    predicted, left = flooded((probability > threshold) & valid), flooded((target == 1) & valid)
    confident = [float(np.mean([np.float64(probability[pixel]) for pixel in pixels])) for pixels in predicted]
    labelled, rows = len(left), []
    for index in sorted(range(len(predicted)), key=lambda number: -confident[number]):
        taker = predicted[index]
        best = max(left, key=lambda other: slow_iou(taker, other, usable), default=None)
        right = best is not None and matches(taker, best, usable)
        if right:
            left.remove(best)
        if right or judged([taker], usable)[0]:
            rows.append((confident[index], right))
    return sorted(rows), labelled


@given(probabilities, targets, masks, st.sampled_from([0.0, 0.3, 0.5, 0.75]))
@settings(deadline=None)
def test_detections_agree_with_sets_of_pixels(probability, target, valid, min_iou):
    detected = detections(probability, target, valid, threshold=0.5, min_iou=min_iou)
    rows, labelled = slow_detections(probability, target, valid, 0.5, min_iou)
    assert detected.labelled == labelled
    np.testing.assert_allclose(np.sort(detected.confidence), [confidence for confidence, _ in rows], rtol=1e-12)
    assert detected.correct.sum() == sum(right for _, right in rows)
    assert average_precision(detected) == pytest.approx(slow_average_precision(rows, labelled), nan_ok=True)


def slow_average_precision(rows, labelled):
    """Each rise in recall times the precision there, at every confidence that occurs."""
    if not labelled:
        return math.nan
    area, before = 0.0, 0
    for confidence in sorted({value for value, _ in rows}, reverse=True):
        above = [right for value, right in rows if value >= confidence]
        area += (sum(above) - before) / labelled * sum(above) / len(above)
        before = sum(above)
    return area


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1), st.integers(0, 10))
def test_average_precision_agrees_with_scikit_learn(rows, missed):
    confidence, correct = np.array([rank / 20 for rank, _ in rows]), np.array([right for _, right in rows])
    labelled = int(correct.sum()) + missed
    area = average_precision(Detections(confidence=confidence, correct=correct, labelled=labelled))
    if not correct.any():
        assert area == 0 if labelled else math.isnan(area)
        return
    assert area == pytest.approx(average_precision_score(correct, confidence) * correct.sum() / labelled)


def test_average_precision_without_objects():
    assert math.isnan(average_precision(Detections.empty()))
    assert average_precision(Detections(confidence=np.zeros(0), correct=np.zeros(0, bool), labelled=3)) == 0
    assert math.isnan(average_precision(Detections(confidence=np.ones(1), correct=np.zeros(1, bool), labelled=0)))

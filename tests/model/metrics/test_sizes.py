"""Objects by size: sets of pixels as the oracle, and what swapping map and labels must do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import measure

from thawmap.model.metrics.objects import Comparison
from thawmap.model.metrics.sizes import ALL_SIZES, LIMITS_M2, SIZES, SizeCounts

SHAPE = (9, 10)
predictions = hnp.arrays(np.bool_, SHAPE)
targets = hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 0, 1, 1, 255]))
masks = hnp.arrays(np.bool_, SHAPE, elements=st.sampled_from([True, True, True, False]))
areas = st.sampled_from([100.0, 900.0, 2500.0, 10_000.0])


def sized(prediction, target, valid, pixel_m2):
    return SizeCounts.of(Comparison.of(prediction, target, valid), pixel_m2=pixel_m2)


def numbers(counts):
    return [getattr(counts, name).tolist() for name in ("labelled", "found", "mapped", "false")]


def objects_of(mask):
    labels = measure.label(mask, connectivity=1)
    return [labels == number for number in range(1, labels.max() + 1)]


def slow(prediction, target, valid, pixel_m2):
    """All four counts, an object at a time."""
    usable = valid & (target != 255)
    counts = np.zeros((4, 3), int)

    def size(pixels):
        area = pixels.sum() * pixel_m2
        return sum(area >= limit for limit in LIMITS_M2)

    for pixels in objects_of((target == 1) & valid):
        counts[0, size(pixels)] += 1
        counts[1, size(pixels)] += (pixels & prediction).sum() / pixels.sum() >= 0.1
    for pixels in objects_of(prediction & valid):
        known = (pixels & usable).sum()
        right = known > 0 and (pixels & usable & (target == 1)).sum() / known >= 0.1
        counts[2, size(pixels)] += right or known >= pixels.sum() / 2
        counts[3, size(pixels)] += not right and known >= pixels.sum() / 2
    return counts.tolist()


@given(prediction=predictions, target=targets, valid=masks, pixel_m2=areas)
@settings(max_examples=200, deadline=None)
def test_objects_are_counted_as_one_at_a_time(prediction, target, valid, pixel_m2):
    assert numbers(sized(prediction, target, valid, pixel_m2)) == slow(prediction, target, valid, pixel_m2)


@given(prediction=predictions, labelled=predictions, pixel_m2=areas)
@settings(max_examples=100, deadline=None)
def test_what_is_missed_one_way_is_false_the_other(prediction, labelled, pixel_m2):
    everywhere = np.ones(SHAPE, np.bool_)
    there = sized(prediction, labelled.astype(np.uint8), everywhere, pixel_m2)
    back = sized(labelled, prediction.astype(np.uint8), everywhere, pixel_m2)
    assert (there.labelled - there.found).tolist() == back.false.tolist()
    assert there.mapped.tolist() == back.labelled.tolist()


@given(target=targets, valid=masks, pixel_m2=areas)
@settings(max_examples=50, deadline=None)
def test_a_perfect_map_finds_all_and_an_empty_one_nothing(target, valid, pixel_m2):
    perfect = sized(target == 1, target, valid, pixel_m2)
    assert perfect.found.tolist() == perfect.labelled.tolist() == perfect.mapped.tolist()
    empty = sized(np.zeros(SHAPE, np.bool_), target, valid, pixel_m2)
    assert not perfect.false.any()
    assert not empty.found.any()
    assert not empty.mapped.any()


@pytest.mark.parametrize(("pixels", "size"), [(49, 0), (50, 1), (99, 1), (100, 2), (400, 2)])
def test_sizes_begin_at_half_a_hectare_and_at_one(pixels, size):
    line = np.zeros((1, 401), np.uint8)
    line[0, :pixels] = 1
    counted = sized(line == 1, line, np.ones(line.shape, np.bool_), 100.0)
    assert counted.labelled.tolist() == counted.mapped.tolist() == [int(size == number) for number in range(3)]


def test_a_tenth_is_enough():
    target, everywhere = np.ones((1, 20), np.uint8), np.ones((1, 20), np.bool_)
    for mapped, found in ((1, 0), (2, 1)):
        prediction = np.arange(20)[None] < mapped
        assert sized(prediction, target, everywhere, 10_000.0).found.sum() == found


def test_rates_are_of_sums_and_unknown_where_nothing_decides_them():
    target = np.array([[1, 1, 0, 0, 1, 0, 0, 0]], np.uint8)
    prediction = np.array([[1, 0, 0, 0, 0, 0, 1, 1]], np.bool_)
    counted = sized(prediction, target, np.ones(target.shape, np.bool_), 6_000.0)
    rows = {row["size"]: row for row in sum([counted, counted], SizeCounts.empty()).rows(ground_m2=2e8)}
    assert list(rows) == [ALL_SIZES, *SIZES]
    both = rows[ALL_SIZES]
    assert (both["labelled"], both["found"], both["hit_rate"], both["mapped"], both["false"]) == (4, 2, 0.5, 4, 2)
    assert both["false_per_100km2"] == 1.0
    assert rows["1 ha and more"]["false"] == 2
    assert rows["0.5 to 1 ha"]["hit_rate"] == 0.0
    assert np.isnan(rows["under 0.5 ha"]["hit_rate"])
    assert np.isnan(SizeCounts.empty().rows(ground_m2=0.0)[0]["false_per_100km2"])

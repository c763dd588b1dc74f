"""Boundary counts; oracles are loops over pixels, and repeated erosion."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from thawmap.errors import DataError
from thawmap.model.metrics.boundaries import boundary_counts
from thawmap.model.metrics.pixels import Counts, counts, scores

SHAPE = (7, 8)
predictions = hnp.arrays(np.bool_, SHAPE)
targets = hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 1, 1, 255]))
masks = hnp.arrays(np.bool_, SHAPE, elements=st.sampled_from([True, True, True, False]))
widths = st.integers(1, 9)
everywhere = np.ones(SHAPE, np.bool_)


def slow_band(mask, usable, width):
    """Each usable pixel of the mask that sees a usable one beyond it."""
    band = np.zeros_like(mask)
    for row, col in np.argwhere(mask & usable):
        rows, cols = (slice(max(0, index - width), index + width + 1) for index in (row, col))
        band[row, col] = (usable[rows, cols] & ~mask[rows, cols]).any()
    return band


@given(predictions, targets, masks, widths)
@settings(deadline=None)
def test_counts_agree_with_one_pixel_after_the_other(prediction, target, valid, width):
    usable = valid & (target != 255)
    bands = [slow_band(mask, usable, width) for mask in (prediction, target == 1)]
    assert boundary_counts(prediction, target, valid, width=width) == counts(*bands, usable)


@given(predictions, predictions, widths)
@settings(deadline=None)
def test_where_all_is_known_a_band_is_what_repeated_erosion_takes_away(prediction, labelled, width):
    bands = [
        mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=1)
        for mask in (prediction, labelled)
    ]
    counted = boundary_counts(prediction, labelled.astype(np.uint8), everywhere, width=width)
    assert counted == counts(bands[0], bands[1], everywhere)


@given(predictions, predictions, targets, masks, widths)
def test_what_is_ignored_changes_nothing(prediction, other, target, valid, width):
    usable = valid & (target != 255)
    changed = np.where(usable, prediction, other)
    assert boundary_counts(changed, target, valid, width=width) == boundary_counts(
        prediction, target, valid, width=width
    )


@given(targets, masks, widths)
def test_a_perfect_prediction_has_no_mistake(target, valid, width):
    counted = boundary_counts(target == 1, target, valid, width=width)
    assert (counted.fp, counted.fn) == (0, 0)


@given(
    hnp.arrays(np.bool_, (3, *SHAPE)), hnp.arrays(np.uint8, (3, *SHAPE), elements=st.sampled_from([0, 1, 255])), widths
)
@settings(deadline=None, max_examples=50)
def test_a_stack_of_rasters_counts_as_each_by_itself(prediction, target, width):
    valid = np.ones(prediction.shape, np.bool_)
    rasters = [boundary_counts(*raster, width=width) for raster in zip(prediction, target, valid, strict=True)]
    assert boundary_counts(prediction, target, valid, width=width) == sum(rasters, Counts())


def test_empty_against_empty_has_no_boundary_and_no_score():
    empty = np.zeros((256, 256), np.uint8)
    valid = np.ones_like(empty, np.bool_)
    counted = boundary_counts(empty == 1, empty, valid, width=7)
    assert counted == Counts(tn=256 * 256)
    assert math.isnan(scores(counted)["iou"])


def test_a_small_object_against_nothing_scores_0():
    target = np.zeros((256, 256), np.uint8)
    target[100:105, 100:102] = 1
    nothing, valid = np.zeros_like(target, np.bool_), np.ones_like(target, np.bool_)
    counted = boundary_counts(nothing, target, valid, width=7)
    assert (counted.fn, counted.tp, counted.fp) == (10, 0, 0)
    assert scores(counted)["iou"] == 0


def test_a_wide_band_of_a_large_object_is_exact():
    target = np.zeros((1024, 1024), np.uint8)
    target[200:820, 200:820] = 1
    counted = boundary_counts(target == 1, target, np.ones_like(target, np.bool_), width=29)
    assert counted.tp == 620**2 - (620 - 2 * 29) ** 2


def test_a_frame_around_a_large_object_costs_more_by_boundary_than_by_area():
    target, prediction = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.bool_)
    target[10:54, 10:54], prediction[12:52, 12:52] = 1, True
    valid = np.ones_like(prediction)
    by_area = scores(counts(prediction, target, valid))["iou"]
    by_boundary = scores(boundary_counts(prediction, target, valid, width=2))["iou"]
    assert by_boundary == 0
    assert by_area > 0.8


def test_the_edge_of_the_raster_is_no_outline():
    target = np.ones(SHAPE, np.uint8)
    assert boundary_counts(target == 1, target, everywhere, width=2) == Counts(tn=target.size)


def test_a_band_without_width_is_refused():
    with pytest.raises(DataError, match="0 px has no pixels; allowed is 1 or more"):
        boundary_counts(everywhere, np.ones(SHAPE, np.uint8), everywhere, width=0)


@given(predictions, targets, masks, st.integers(1, 3), st.integers(1, 6), st.integers(1, 7))
@settings(deadline=None)
def test_windows_with_a_halo_add_up_to_the_raster(prediction, target, valid, width, row, col):
    halo = [(width, width)] * 2
    padded = [np.pad(array, halo, constant_values=fill) for array, fill in ((prediction, 0), (target, 255), (valid, 0))]
    windows = []
    for rows in (slice(0, row), slice(row, SHAPE[0])):
        for cols in (slice(0, col), slice(col, SHAPE[1])):
            window = tuple(slice(axis.start, axis.stop + 2 * width) for axis in (rows, cols))
            within = np.pad(np.ones((rows.stop - rows.start, cols.stop - cols.start), np.bool_), halo)
            windows.append(boundary_counts(*(array[window] for array in padded), width=width, within=within))
    assert sum(windows, Counts()) == boundary_counts(prediction, target, valid, width=width)

"""Smoothing in a stream of rows: the same as of the whole array, however the rows are cut."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thawmap.maps.rows import Rows
from thawmap.maps.smooth import reach, smooth, smoothed

elements = st.sampled_from([0.0, 0.1, 0.35, 0.8, 1.0, np.nan])
rasters = st.tuples(st.integers(1, 24), st.integers(1, 9)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=elements)
)


def rows_of(values, cuts):
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(values)}), len(values)]
    for first, end in pairwise(edges):
        numbers = np.repeat(np.arange(first, end, dtype=np.float32)[:, None], values.shape[1], axis=1)
        further = {"count": numbers.astype(np.uint16)}
        yield Rows(
            first_row=first, probability=values[first:end], spread=numbers, layers={"ndvi": numbers}, further=further
        )


@given(
    values=rasters, cuts=st.lists(st.integers(1, 23), max_size=8), deviation_px=st.sampled_from([0.0, 0.5, 1.0, 2.0])
)
@settings(max_examples=150, deadline=None)
def test_strips_do_not_matter_and_all_else_goes_along(values, cuts, deviation_px):
    parts = list(smoothed(rows_of(values, cuts), deviation_px))
    assert [part.first_row for part in parts] == list(np.cumsum([0, *(len(part.probability) for part in parts[:-1])]))
    together = np.concatenate([part.probability for part in parts])
    np.testing.assert_allclose(together, smooth(values, deviation_px), rtol=1e-6)
    for part in parts:
        own = np.arange(part.first_row, part.first_row + len(part.probability))[:, None]
        for beside in (part.spread, part.layers["ndvi"], part.further["count"]):
            np.testing.assert_array_equal(beside, np.broadcast_to(own, part.probability.shape))


@given(values=rasters)
@settings(max_examples=60, deadline=None)
def test_what_is_missing_stays_so_and_values_stay_between_their_neighbours(values):
    result = smooth(values, 1.0)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(values))
    if np.isfinite(values).any():
        assert np.nanmin(result) >= np.nanmin(values) - 1e-6
        assert np.nanmax(result) <= np.nanmax(values) + 1e-6


def test_a_pixel_is_known_no_further_than_the_reach():
    values = np.zeros((21, 21), np.float32)
    values[10, 10] = 1
    there = smooth(values, 1.0) > 0
    assert there.sum() == (2 * reach(1.0) + 1) ** 2
    assert smooth(values, 1.0).sum() == pytest.approx(1, rel=1e-4)

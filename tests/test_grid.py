"""Windows and weights: what holds for every axis, tile and overlap."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from thawmap.grid import Window, cheapest_tile, ramp, starts, windows

LENGTHS = st.integers(1, 400)


@st.composite
def cuts(draw) -> tuple[int, int]:
    """A tile and an overlap that is smaller."""
    tile = draw(st.integers(1, 120))
    return tile, draw(st.integers(0, tile - 1))


@given(length=LENGTHS, cut=cuts())
def test_tiles_cover_the_axis_and_overlap_at_least_as_asked(length, cut):
    tile, overlap = cut
    firsts = starts(length, tile=tile, overlap=overlap)
    assert set(range(length)) <= {pixel for first in firsts for pixel in range(first, first + tile)}
    assert all(first + tile - following >= overlap for first, following in pairwise(firsts))
    assert firsts == sorted(set(firsts))
    assert firsts[0] == 0


@given(length=LENGTHS, cut=cuts())
def test_the_last_tile_ends_at_the_border_and_none_is_too_many(length, cut):
    tile, overlap = cut
    firsts = starts(length, tile=tile, overlap=overlap)
    if length <= tile:
        assert firsts == [0]
        return
    assert firsts[-1] + tile == length
    fewer = tile + (len(firsts) - 2) * (tile - overlap)  # what one tile less could reach
    assert fewer < length


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(0, 4, 1), (10, 0, 0), (10, 4, 4), (10, 4, 5), (10, 4, -1), (-3, 4, 1)]
)
def test_a_cut_that_is_none_is_refused(length, tile, overlap):
    with pytest.raises(ValueError, match="cannot cover"):
        starts(length, tile=tile, overlap=overlap)


@given(shape=st.tuples(st.integers(1, 60), st.integers(1, 60)), tile=st.tuples(st.integers(1, 40), st.integers(1, 40)),
       overlap=st.integers(0, 20))  # fmt: skip
def test_windows_cover_every_pixel_row_of_tiles_by_row_of_tiles(shape, tile, overlap):
    seen = np.zeros((max(shape[0], tile[0]), max(shape[1], tile[1])), int)
    order = []
    for window in windows(shape, tile=tile, overlap=overlap):
        assert (window.height, window.width) == tile
        seen[window.rows, window.cols] += 1
        order.append((window.row, window.col))
    assert seen.min() >= 1
    assert order == sorted(set(order))


def test_an_empty_window_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Window(row=0, col=0, height=0, width=3)


def test_a_window_may_begin_outside_its_raster():
    window = Window(row=-2, col=3, height=4, width=5)
    assert (window.rows, window.cols) == (slice(-2, 2), slice(3, 8))


def cost(length: int, tile: int, overlap: int) -> int:
    """Pixels that a cut computes on an axis."""
    return len(starts(length, tile=tile, overlap=overlap)) * tile


@given(length=st.integers(1, 3000), overlap=st.integers(0, 200), stride=st.sampled_from([1, 8, 16, 32]),
       largest=st.integers(32, 1100))  # fmt: skip
def test_no_other_multiple_is_cheaper_than_the_cheapest_tile(length, overlap, stride, largest):
    possible = [tile for tile in range(stride, largest + 1, stride) if tile >= length or tile > overlap]
    assume(possible)
    found = cheapest_tile(length, overlap=overlap, stride=stride, largest=largest)
    assert found in possible
    costs = {tile: cost(length, tile, overlap if tile > overlap else 0) for tile in possible}
    assert costs[found] == min(costs.values())
    assert found == max(tile for tile in possible if costs[tile] == costs[found])


def test_a_limit_below_the_overlap_is_refused():
    with pytest.raises(ValueError, match="overlap 128"):
        cheapest_tile(1000, overlap=128, stride=32, largest=128)


@given(length=LENGTHS, overlap=st.integers(0, 200))
def test_weights_are_positive_whole_in_the_middle_and_the_same_from_both_ends(length, overlap):
    weights = ramp(length, overlap=overlap)
    assert weights.shape == (length,)
    assert weights.dtype == np.float32
    assert weights.min() > 0
    assert weights.max() <= 1
    np.testing.assert_array_equal(weights, weights[::-1])
    assert (weights[overlap : length - overlap] == 1).all()


@given(overlap=st.integers(0, 100), more=st.integers(0, 100), tiles=st.integers(2, 5))
def test_weights_of_neighbours_add_to_one_where_they_share_what_was_asked(overlap, more, tiles):
    tile = max(2 * overlap + more, 1)
    length = tile + (tiles - 1) * (tile - overlap)
    total = np.zeros(length)
    for first in starts(length, tile=tile, overlap=overlap):
        total[first : first + tile] += ramp(tile, overlap=overlap)
    np.testing.assert_allclose(total[overlap : length - overlap], 1, atol=1e-6)


@given(length=st.integers(1, 200), cut=cuts())
def test_blending_gives_an_axis_back(length, cut):
    """Law 1 on one axis: whatever the overlap, the weighted mean of the values is the values."""
    tile, overlap = cut
    values = np.random.default_rng(length).normal(size=max(length, tile))
    total, weights = np.zeros_like(values), np.zeros_like(values)
    for first in starts(length, tile=tile, overlap=overlap):
        weight = ramp(tile, overlap=overlap)
        total[first : first + tile] += weight * values[first : first + tile]
        weights[first : first + tile] += weight
    np.testing.assert_allclose((total / weights)[:length], values[:length], rtol=1e-12)

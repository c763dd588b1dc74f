"""Windows and weights: what holds for every axis, tile and overlap."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thawmap.grid import Window, ramp, starts

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


def test_an_empty_window_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Window(row=0, col=0, height=0, width=3)


def test_a_window_may_begin_outside_its_raster():
    window = Window(row=-2, col=3, height=4, width=5)
    assert (window.rows, window.cols) == (slice(-2, 2), slice(3, 8))


@st.composite
def windows(draw) -> Window:
    """A small window that may begin before its raster."""
    row, col = draw(st.integers(-9, 9)), draw(st.integers(-9, 9))
    return Window(row=row, col=col, height=draw(st.integers(1, 9)), width=draw(st.integers(1, 9)))


def pixels(window: Window | None) -> set[tuple[int, int]]:
    """Every pixel of a window by its row and column; none for None."""
    if window is None:
        return set()
    rows, cols = (range(axis.start, axis.stop) for axis in (window.rows, window.cols))
    return {(row, col) for row in rows for col in cols}


@given(first=windows(), second=windows())
def test_two_windows_share_the_pixels_that_both_have(first, second):
    shared = first.intersect(second)
    assert pixels(shared) == pixels(first) & pixels(second)
    assert shared == second.intersect(first)
    assert first.intersect(first) == first


@given(window=windows(), height=st.integers(0, 9), width=st.integers(0, 9))
def test_a_clipped_window_has_the_pixels_of_the_raster(window, height, width):
    raster = {(row, col) for row in range(height) for col in range(width)}
    assert pixels(window.clip((height, width))) == pixels(window) & raster


@given(window=windows(), rows=st.integers(0, 9), cols=st.integers(0, 9))
def test_padding_is_undone_by_cutting_the_window_out(window, rows, cols):
    padded = window.pad(rows, cols)
    assert padded.intersect(window) == window
    assert window.within(padded) == (slice(rows, rows + window.height), slice(cols, cols + window.width))
    assert padded.size == (window.height + 2 * rows) * (window.width + 2 * cols)
    assert window.pad(rows) == window.pad(rows, rows)


@given(window=windows(), rows=st.integers(-9, 9), cols=st.integers(-9, 9))
def test_a_shift_moves_every_pixel_and_can_be_undone(window, rows, cols):
    moved = window.shift(rows, cols)
    assert pixels(moved) == {(row + rows, col + cols) for row, col in pixels(window)}
    assert moved.shift(-rows, -cols) == window


@given(window=windows(), other=windows())
def test_slices_within_another_window_cut_its_pixels_out(window, other):
    whole = Window.around([window, other])
    number = np.arange(whole.size).reshape(whole.shape)
    assert pixels(whole) >= pixels(window) | pixels(other)
    assert whole.intersect(window) == window
    inside = number[window.within(whole)]
    assert inside.shape == window.shape
    assert inside[0, 0] == (window.row - whole.row) * whole.width + window.col - whole.col


@given(window=windows(), side=st.integers(1, 5))
def test_blocks_hold_the_pixels_that_they_are_scaled_to(window, side):
    assert window.scale(side).coarsen(side) == window
    assert window.scale(side) == window.scale(side, side)
    touched = window.coarsen(side)
    assert pixels(touched) == {(row // side, col // side) for row, col in pixels(window)}


@given(window=windows(), height=st.integers(1, 9))
def test_strips_follow_each_other_and_make_up_the_window(window, height):
    strips = list(window.strips(height))
    assert Window.around(strips) == window
    assert sum(strip.size for strip in strips) == window.size
    assert all(strip.height == height for strip in strips[:-1])


@given(window=windows(), height=st.integers(1, 9), width=st.integers(1, 9))
def test_blocks_hold_every_pixel_of_a_window_once(window, height, width):
    blocks = list(window.blocks(height, width))
    assert set().union(*map(pixels, blocks)) == pixels(window)
    assert sum(block.size for block in blocks) == window.size
    assert list(window.blocks(height)) == list(window.blocks(height, height))


@given(window=windows())
def test_a_window_is_made_again_from_its_edges_and_shape(window):
    left, top, right, bottom = window.bounds
    assert Window.from_edges(top=top, left=left, bottom=bottom, right=right) == window
    assert Window.of_shape(window.shape).shift(window.row, window.col) == window


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

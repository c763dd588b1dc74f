"""Filled gaps: values stay, constants stay, arrays and tensors are the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thawmap.model.gaps import REACH_PX, fill_gaps


@st.composite
def images(draw):
    """Layers (N, C, H, W) with gaps, each of its own."""
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.uniform(-1, 1, shape).astype(np.float32)
    values[random.random(shape) < draw(st.sampled_from([0, 0.1, 0.5, 0.99, 1]))] = np.nan
    return values


def slow(plane):
    """Fill one plane, pixel by pixel.

    With the mean of means of the smallest square of the pyramid that has a value.
    """
    levels = [plane.astype(np.float64)]
    while max(levels[-1].shape) > 1:
        fine = levels[-1]
        rows, cols = (-(-side // 2) for side in fine.shape)
        coarse = np.full((rows, cols), np.nan)
        for row in range(rows):
            for col in range(cols):
                square = fine[2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
                if np.isfinite(square).any():
                    coarse[row, col] = square[np.isfinite(square)].mean()
        levels.append(coarse)
    filled = plane.astype(np.float64)
    for row, col in np.argwhere(np.isnan(plane)):
        squares = (level[row >> step, col >> step] for step, level in enumerate(levels))
        filled[row, col] = next((value for value in squares if np.isfinite(value)), np.nan)
    return filled


@pytest.mark.slow
@given(values=images())
@settings(deadline=None, max_examples=40)
def test_gaps_are_filled_as_the_slow_version_does_by_arrays_and_tensors_alike(values):
    filled = fill_gaps(values)
    assert filled.dtype == np.float32
    np.testing.assert_array_equal(filled[np.isfinite(values)], values[np.isfinite(values)])
    expected = np.stack([[slow(plane) for plane in image] for image in values])
    np.testing.assert_allclose(filled, expected, atol=1e-5)
    np.testing.assert_array_equal(fill_gaps(torch.from_numpy(values)).numpy(), filled)


@given(values=images(), constant=st.floats(-100, 100, width=32))
@settings(deadline=None, max_examples=40)
def test_a_constant_layer_stays_constant(values, constant):
    holed = np.where(np.isnan(values), values, np.float32(constant))
    filled = fill_gaps(holed)
    for plane, before in zip(filled.reshape(-1, *filled.shape[2:]), holed.reshape(-1, *holed.shape[2:]), strict=True):
        if np.isfinite(before).any():
            np.testing.assert_allclose(plane, constant, rtol=1e-6)
        else:
            assert np.isnan(plane).all()


def test_what_is_farther_away_than_the_reach_changes_nothing():
    values = np.full((1, 1, 3 * REACH_PX, 3 * REACH_PX), np.nan, np.float32)
    values[0, 0, 300, 300] = 1
    filled = np.isfinite(fill_gaps(values)[0, 0])
    rows, cols = np.nonzero(filled)
    assert filled.sum() == REACH_PX**2
    assert max(np.abs(rows - 300).max(), np.abs(cols - 300).max()) < REACH_PX


def test_images_without_a_gap_are_not_even_copied():
    values = np.zeros((1, 1, 4, 4), np.float32)
    assert fill_gaps(values) is values


@pytest.mark.parametrize("shape", [(5, 1), (1, 7), (8, 8), (9, 6)])
def test_a_gap_along_a_border_makes_no_edge(shape):
    """Filled values lie between the least and the greatest near ones."""
    values = np.random.default_rng(1).uniform(0.2, 0.3, (1, 1, *shape)).astype(np.float32)
    values[..., : shape[0] // 2, :] = np.nan
    filled = fill_gaps(values)
    assert filled.min() >= np.nanmin(values)
    assert filled.max() <= np.nanmax(values)

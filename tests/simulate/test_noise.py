"""Random fields without edges: a window's numbers are the whole's, of mean 0 and deviation 1, another for each seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from thawmap.simulate.noise import Lattice, Plane, upsample

PLANE = Plane((3, 1))
WHOLE = Lattice(row=-70, col=-40, height=150, width=170)
windows = st.tuples(st.integers(0, 140), st.integers(0, 160), st.integers(1, 150), st.integers(1, 170))


def cut(window: tuple[int, int, int, int], step: int = 1) -> tuple[Lattice, tuple[slice, slice]]:
    top, left, height, width = window
    height, width = min(height, WHOLE.height - top), min(width, WHOLE.width - left)
    part = Lattice(
        row=WHOLE.row + step * top, col=WHOLE.col + step * left, height=height, width=width, step=step
    )  # fmt: skip
    return part, (slice(top, top + height), slice(left, left + width))


@pytest.mark.parametrize("kind", ["noise", "forms"])
@pytest.mark.parametrize("step", [1, 4])
@given(window=windows)
def test_a_window_has_the_numbers_of_the_whole_bit_for_bit(kind, step, window):
    field = getattr(PLANE, kind)
    whole = Lattice(row=WHOLE.row, col=WHOLE.col, height=WHOLE.height, width=WHOLE.width, step=step)
    part, view = cut(window, step)
    expected = field("hills", whole, longest_m=300, shortest_m=12)[view]
    assert np.array_equal(field("hills", part, longest_m=300, shortest_m=12), expected)


@given(window=windows)
def test_a_window_of_white_noise_is_the_wholes(window):
    part, view = cut(window)
    assert np.array_equal(PLANE.white("sensor", part), PLANE.white("sensor", WHOLE)[view])


@pytest.mark.parametrize("kind", ["noise", "forms"])
@pytest.mark.parametrize("roughness", [1.2, 2.0, 2.6])
def test_the_mean_is_zero_and_the_deviation_one(kind, roughness):
    lattice = Lattice(row=-10_000, col=77_000, height=700, width=700)
    field = getattr(PLANE, kind)("x", lattice, longest_m=60, roughness=roughness)
    assert field.dtype == np.float32
    assert field.mean() == pytest.approx(0, abs=0.03)
    assert field.std() == pytest.approx(1, abs=0.03)
    white = PLANE.white("x", lattice)
    assert (white.mean(), white.std()) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))


def test_other_names_and_seeds_are_independent():
    lattice = Lattice(row=0, col=0, height=400, width=400)
    fields = [
        plane.noise(name, lattice, longest_m=30).ravel()
        for plane in (PLANE, Plane((3, 2)), Plane((4, 1)))
        for name in ("a", "b")
    ]
    assert np.abs(np.corrcoef(fields) - np.eye(6)).max() < 0.05
    assert PLANE.rng("a", -1, 2).random() != PLANE.rng("a", 2, -1).random()
    assert PLANE.rng("a", -1, 2).random() == PLANE.rng("a", -1, 2).random()


def test_waves_are_as_long_as_asked():
    lattice = Lattice(row=0, col=0, height=600, width=600)
    smooth = PLANE.noise("x", lattice, longest_m=120, shortest_m=60)
    rough = PLANE.noise("x", lattice, longest_m=120, shortest_m=9)
    assert np.abs(np.diff(smooth)).mean() < 0.7 * np.abs(np.diff(rough)).mean()
    far = {wave: PLANE.noise("y", lattice, longest_m=wave, shortest_m=wave) for wave in (30, 120)}
    alike = {wave: np.corrcoef(field[:, :-10].ravel(), field[:, 10:].ravel())[0, 1] for wave, field in far.items()}
    assert alike[30] < 0.1  # 30 m apart
    assert alike[120] > 0.5


@given(
    row=st.integers(-500, 500), col=st.integers(-500, 500), step=st.sampled_from([1, 3]),
    height=st.integers(1, 40), width=st.integers(1, 40), slope=st.floats(-2, 2),
)  # fmt: skip
def test_upsampling_keeps_planes_and_lies_where_it_says(row, col, step, height, width, slope):
    fine = Lattice(row=row, col=col, height=height, width=width, step=step)
    coarse = fine.coarse(4)
    plane = (coarse.y[:, None] + slope * coarse.x[None, :]).astype(np.float32)
    expected = fine.y[:, None] + slope * fine.x[None, :]
    np.testing.assert_allclose(upsample(plane, coarse, fine), expected, atol=2e-3)


def test_upsampling_equals_scipys_splines():
    fine = Lattice(row=5, col=-9, height=30, width=44)
    coarse = fine.coarse(4)
    values = np.random.default_rng(0).normal(size=coarse.shape).astype(np.float32)
    at = np.meshgrid((fine.y - coarse.row) / 4, (fine.x - coarse.col) / 4, indexing="ij")
    expected = ndimage.map_coordinates(values, at, order=3, prefilter=False)
    np.testing.assert_allclose(upsample(values, coarse, fine), expected, atol=1e-6)

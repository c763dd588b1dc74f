"""Relief: circles against scipy's convolution, slopes against planes and GDAL's formulas, and the law of windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from thawmap.data import terrain
from thawmap.errors import DataError

PIXELS = [2.0, (2.0, 3.0), (5.0, 1.0)]


def ground(shape=(60, 70), *, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    height = ndimage.gaussian_filter(rng.normal(0, 30, shape), 2) + 200 + rng.normal(0, 0.1, shape)
    height = height.astype(np.float32)
    height[rng.random(shape) < missing] = np.nan
    return height


def circle(pixel_m, diameter_m):
    tall, wide = pixel_m if isinstance(pixel_m, tuple) else (pixel_m, pixel_m)
    rows, cols = int(diameter_m / 2 / tall), int(diameter_m / 2 / wide)
    y, x = np.mgrid[-rows : rows + 1, -cols : cols + 1]
    return ((y * tall) ** 2 + (x * wide) ** 2 <= (diameter_m / 2) ** 2).astype(np.float64)


def plane(*, east, north, shape=(9, 11), pixel_m=(2.0, 2.0)):
    """Heights that rise by so many metres on a metre to the east and to the north."""
    row, col = np.indices(shape)
    return (10 + east * col * pixel_m[1] - north * row * pixel_m[0]).astype(np.float32)


def by_convolution(height, pixel_m, diameter_m):
    """The definition, by scipy: the mean of what is known in the circle, if at least half of it is."""
    kernel, known = circle(pixel_m, diameter_m), np.isfinite(height)
    total = ndimage.convolve(np.where(known, height, 0).astype(np.float64), kernel, mode="constant")
    count = np.rint(ndimage.convolve(known.astype(np.float64), kernel, mode="constant"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(known & (2 * count >= kernel.sum()), height - total / count, np.nan)


@pytest.mark.parametrize("pixel_m", PIXELS)
@pytest.mark.parametrize("diameter_m", [10, 31, 50])
@pytest.mark.parametrize("missing", [0.0, 0.02, 0.5])
def test_relative_elevation_is_height_less_the_mean_of_a_circle(pixel_m, diameter_m, missing):
    height = ground(missing=missing)
    height[20:40, 30:50] = np.nan if missing else height[20:40, 30:50]
    made = terrain.relative_elevation(height, pixel_m=pixel_m, diameter_m=diameter_m)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, by_convolution(height, pixel_m, diameter_m), rtol=0, atol=1.1e-3)


@pytest.mark.parametrize("relief_m", [10, 5000, 60_000])
@given(data=st.data())
def test_a_window_with_its_halo_has_the_values_of_the_whole_bit_for_bit(relief_m, data):
    whole = ground((90, 80), seed=data.draw(st.integers(0, 9)), missing=data.draw(st.sampled_from([0, 0.1])))
    whole[10:14, 10:14] += relief_m  # high steps need larger whole numbers, in some of the windows
    expected = terrain.relative_elevation(whole, pixel_m=(2.0, 1.5), diameter_m=61)
    rows, cols = terrain.reach((2.0, 1.5), 61)
    top, left = data.draw(st.integers(0, 80)), data.draw(st.integers(0, 70))
    bottom, right = top + data.draw(st.integers(1, 40)), left + data.draw(st.integers(1, 40))
    first = (max(top - rows, 0), max(left - cols, 0))
    part = np.ascontiguousarray(whole[first[0] : bottom + rows, first[1] : right + cols])
    made = terrain.relative_elevation(part, pixel_m=(2.0, 1.5), diameter_m=61)
    inner = made[top - first[0] : bottom - first[0], left - first[1] : right - first[1]]
    np.testing.assert_array_equal(inner, expected[top:bottom, left:right])


@pytest.mark.parametrize("name", ["slope", "aspect", "hillshade", "curvature"])
@given(data=st.data())
def test_what_looks_at_neighbours_only_is_the_same_in_every_window(name, data):
    whole = ground((50, 61), missing=0.03)
    recipe = getattr(terrain, name)
    expected = recipe(whole, pixel_m=2.0)
    top, left = data.draw(st.integers(1, 45)), data.draw(st.integers(1, 55))
    bottom, right = data.draw(st.integers(top + 1, 49)), data.draw(st.integers(left + 1, 60))
    made = recipe(np.ascontiguousarray(whole[top - 1 : bottom + 1, left - 1 : right + 1]), pixel_m=2.0)
    np.testing.assert_array_equal(made[1:-1, 1:-1], expected[top:bottom, left:right])


@pytest.mark.parametrize("cliff_m", [1500, 7000, 60_000])
def test_high_cliffs_do_not_overflow(cliff_m):
    """Sums that fit into 32 bits, that fit by parts of the circle, and that do not."""
    height = ground()
    height[20:30, 20:30] += cliff_m
    made = terrain.relative_elevation(height, pixel_m=2.0, diameter_m=60)
    np.testing.assert_allclose(made, by_convolution(height, 2.0, 60), rtol=1e-6, atol=2e-3)


def test_blocks_do_not_show():
    height = ground((70, 90), missing=0.01)
    expected = terrain.relative_elevation(height, pixel_m=2.0, diameter_m=30)
    made = terrain.relative_elevation(height, pixel_m=2.0, diameter_m=30, block=(13, 17))
    np.testing.assert_array_equal(made, expected)


def test_gaps_stay_gaps_and_little_known_ground_has_no_mean():
    height = np.full((41, 41), 7.0, np.float32)
    height[:, :20] = np.nan
    height[5, 30] = np.nan
    made = terrain.relative_elevation(height, pixel_m=1.0, diameter_m=20)
    np.testing.assert_array_equal(made[20, 20:], 0)  # column 20 sees its own half, just more than half of its circle
    assert np.isnan(made[0, 20])  # a quarter
    np.testing.assert_array_equal(np.isnan(made[10:30, 20:]), np.isnan(height[10:30, 20:]))
    assert np.isnan(made[5, 30])
    assert np.isnan(terrain.relative_elevation(np.full((5, 5), np.nan, np.float32), pixel_m=1, diameter_m=4)).all()


def test_a_plane_has_no_relative_elevation_and_a_step_has():
    made = terrain.relative_elevation(plane(east=0.3, north=0.1, shape=(60, 60)), pixel_m=2.0, diameter_m=40)
    assert np.abs(made[10:-10, 10:-10]).max() < 2e-3


def test_where_pixels_narrow_from_row_to_row_each_row_has_its_own_circle():
    height = ground((40, 50), seed=3)
    widths = np.linspace(1.0, 3.0, 40)
    made = terrain.relative_elevation(height, pixel_m=(2.0, widths), diameter_m=24)
    for row in range(40):
        alone = terrain.relative_elevation(height, pixel_m=(2.0, float(widths[row])), diameter_m=24)
        np.testing.assert_array_equal(made[row], alone[row])
    steep = terrain.slope(height, pixel_m=(2.0, widths))
    assert steep[20, 20] == terrain.slope(height, pixel_m=(2.0, float(widths[20])))[20, 20]


@pytest.mark.parametrize("wrong", [1e30, -np.inf, -3.4e38])
def test_numbers_that_are_no_heights_are_refused(wrong):
    height = ground()
    height[3, 4] = wrong
    with pytest.raises(DataError, match="none of Earth's; name the number that means missing"):
        terrain.relative_elevation(height, pixel_m=2.0, diameter_m=20)


@pytest.mark.parametrize("method", ["neighbours", "horn"])
@pytest.mark.parametrize("pixel_m", [(2.0, 2.0), (2.0, 5.0)])
@given(east=st.floats(-3, 3), north=st.floats(-3, 3))
def test_a_plane_has_its_slope(method, pixel_m, east, north):
    made = terrain.slope(plane(east=east, north=north, pixel_m=pixel_m), pixel_m=pixel_m, method=method)
    np.testing.assert_allclose(made[1:-1, 1:-1], np.degrees(np.arctan(np.hypot(east, north))), atol=2e-3)
    assert np.isnan(made[[0, -1]]).all()
    assert np.isnan(made[:, [0, -1]]).all()


def horn_slowly(height, pixel_m):
    """Rise to the east and to the south as the GDAL manual writes Horn's formula, pixel by pixel."""
    tall, wide = pixel_m
    east, south = np.full((2, *height.shape), np.nan)
    for y in range(1, height.shape[0] - 1):
        for x in range(1, height.shape[1] - 1):
            (a, b, c), (d, _, f), (g, h, i) = height[y - 1 : y + 2, x - 1 : x + 2].astype(np.float64)
            east[y, x] = ((c + 2 * f + i) - (a + 2 * d + g)) / (8 * wide)
            south[y, x] = ((g + 2 * h + i) - (a + 2 * b + c)) / (8 * tall)
    return east, south


@pytest.mark.parametrize("pixel_m", [(2.0, 2.0), (3.0, 1.5)])
def test_horn_is_gdals(pixel_m):
    height = ground((20, 23), missing=0.02)
    east, south = horn_slowly(height, pixel_m)
    hole = np.isnan(height)
    east[hole] = south[hole] = np.nan
    made = terrain.slope(height, pixel_m=pixel_m, method="horn")
    np.testing.assert_allclose(made, np.degrees(np.arctan(np.hypot(east, south))), atol=1e-3)
    fall = np.degrees(np.arctan2(-east, south)) % 360
    turn = (terrain.aspect(height, pixel_m=pixel_m) - fall + 180) % 360 - 180
    assert np.nanmax(np.abs(turn)) < 0.01
    light_from, above = np.radians(315), np.radians(45)
    steep, facing = np.arctan(np.hypot(east, south)), np.radians(fall)
    light = np.sin(above) * np.cos(steep) + np.cos(above) * np.sin(steep) * np.cos(light_from - facing)
    np.testing.assert_allclose(terrain.hillshade(height, pixel_m=pixel_m), light.clip(0), atol=1e-5)


def test_four_neighbours_are_earth_engines():
    height = ground((12, 14))
    east = ndimage.correlate1d(height.astype(np.float64), [-1, 0, 1], axis=1) / 4
    south = ndimage.correlate1d(height.astype(np.float64), [-1, 0, 1], axis=0) / 4
    expected = np.degrees(np.arctan(np.hypot(east, south)))[1:-1, 1:-1]
    np.testing.assert_allclose(terrain.slope(height, pixel_m=2.0)[1:-1, 1:-1], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("east", "north", "falls"),
    [(0, -1, 0), (-1, 0, 90), (0, 1, 180), (1, 0, 270), (-1, -1, 45), (0, 0, 0)],
)
def test_aspect_is_where_the_ground_falls(east, north, falls):
    made = terrain.aspect(plane(east=east, north=north), pixel_m=2.0)[1:-1, 1:-1]
    np.testing.assert_allclose(made % 360, falls, atol=1e-3)


def test_a_turned_grid_has_the_directions_of_the_ground():
    """On a grid whose columns run north, the same plane falls to the same side."""
    straight, turned = plane(east=0.2, north=0.5), plane(east=0.2, north=0.5, shape=(11, 11)).T[::-1]
    for name in ("aspect", "hillshade"):
        recipe = getattr(terrain, name)
        expected = recipe(straight, pixel_m=2.0)[4, 4]
        # rows of the transposed, flipped grid run west, its columns south
        made = recipe(np.ascontiguousarray(turned), pixel_m=2.0, north=(-1.0, 0.0))
        assert made[4, 4] == pytest.approx(expected, rel=1e-4)
        assert recipe(np.ascontiguousarray(turned), pixel_m=2.0)[4, 4] != pytest.approx(expected, rel=1e-2)


def test_light_is_flat_on_flat_ground_and_brightest_towards_the_sun():
    assert terrain.hillshade(plane(east=0, north=0), pixel_m=2.0)[4, 4] == pytest.approx(np.sin(np.radians(45)))
    facing = np.sqrt(0.5)  # falls by one metre on a metre to the north-west, at 45 degrees
    assert terrain.hillshade(plane(east=facing, north=-facing), pixel_m=2.0)[4, 4] == pytest.approx(1, abs=1e-5)
    assert terrain.hillshade(plane(east=-3, north=3), pixel_m=2.0)[4, 4] == 0


@pytest.mark.parametrize("pixel_m", [2.0, (2.0, 3.0)])
def test_curvature_of_a_paraboloid_is_minus_its_second_derivatives(pixel_m):
    tall, wide = pixel_m if isinstance(pixel_m, tuple) else (pixel_m, pixel_m)
    row, col = np.indices((9, 9)) - 4.0
    made = terrain.curvature((-0.03 * (col * wide) ** 2 + 0.01 * (row * tall) ** 2).astype(np.float32), pixel_m=pixel_m)
    np.testing.assert_allclose(made[1:-1, 1:-1], 0.06 - 0.02, atol=1e-5)
    assert np.isnan(made[0]).all()


def test_beside_a_gap_nothing_is_known_of_neighbours():
    height = plane(east=0.1, north=0.2)
    height[4, 5] = np.nan
    for recipe in (terrain.slope, terrain.curvature):
        missing = np.isnan(recipe(height, pixel_m=2.0))[1:-1, 1:-1]
        np.testing.assert_array_equal(np.argwhere(missing) + 1, [(3, 5), (4, 4), (4, 5), (4, 6), (5, 5)])
    for recipe in (terrain.aspect, terrain.hillshade):
        assert np.isnan(recipe(height, pixel_m=2.0))[3:6, 4:7].all()
        assert np.isnan(recipe(height, pixel_m=2.0)[1:-1, 1:-1]).sum() == 9


def test_an_array_too_small_for_neighbours_is_missing():
    for name in ("slope", "aspect", "hillshade", "curvature"):
        assert np.isnan(getattr(terrain, name)(np.ones((2, 1), np.float32), pixel_m=2.0)).all()

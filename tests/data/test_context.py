"""Context layers: exact for any window, against slow obvious versions, and never made up where a pixel is missing."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from thawmap.data.context import Surroundings, reach_px
from thawmap.data.derive import halo, plan_layers
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.data.stack import assemble, check_ranges, preview
from thawmap.errors import ConfigError, DataError
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.layers import CODES, LAYERS, context_of, layer

GRID = GeoBox((37, 41), Affine(10, 0, 570_000, 0, -10, 7_720_000), "EPSG:32608")
SCENE = Scene(id="s1", sensor="test", geobox=GRID, files={})
NAMES = (
    "ndvi_mean_15m", "red_minus_mean_40m", "ndvi_deviation_30m", "slope_gradient_44m", "visible_mean_100m",
    "water_share_50m", "water_distance_46m",
)  # fmt: skip
REACH = 10  # pixels, of the widest


def field(seed, *, low=0.0, high=0.4, missing=0.1):
    rng = np.random.default_rng(seed)
    values = rng.uniform(low, high, GRID.shape).astype(np.float32)
    values[rng.random(GRID.shape) < missing] = np.nan
    return values


def sources(*, missing=0.1, clear=None):
    bands = {name: field(seed, missing=missing) for seed, name in enumerate(("blue", "green", "red", "nir"))}
    return [ArraySource({**bands, "slope": field(9, high=60, missing=missing)}, GRID, valid=clear)]


def surroundings(values, base="slope", pixel_m=10.0):
    return Surroundings(values, np.ones(values.shape, bool), base=base, pixel_m=pixel_m)


def around(values, row, col, reach):
    """The known values in the square around a pixel."""
    square = values[max(row - reach, 0) : row + reach + 1, max(col - reach, 0) : col + reach + 1]
    return square[np.isfinite(square)].astype(float)


windows = st.builds(
    Window, row=st.integers(-3, 34), col=st.integers(-3, 38), height=st.integers(1, 30), width=st.integers(1, 30)
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(window=windows, missing=st.sampled_from([0.0, 0.1, 0.9]))
def test_a_window_has_the_numbers_of_the_whole_bit_for_bit(window, missing):
    clear = np.random.default_rng(2).random(GRID.shape) > 0.2
    layers = sources(missing=missing, clear=clear)
    whole = assemble(SCENE, NAMES, GRID.pad(40), layers)
    windowed = assemble(SCENE, NAMES, window_geobox(GRID, window), layers)
    rows = slice(40 + window.row, 40 + window.row + window.height)
    cols = slice(40 + window.col, 40 + window.col + window.width)
    for name in (*NAMES, "valid"):
        np.testing.assert_array_equal(windowed[name], whole[name][rows, cols], err_msg=name)


@pytest.mark.parametrize("reach", [1, 4, 60])
def test_mean_difference_and_deviation_are_those_of_the_known_pixels_around(reach):
    values, scale = field(3, high=60), reach * 10
    made = {name: surroundings(values).values(context_of(f"slope_{name}_{scale}m")) for name in (
        "mean", "minus_mean", "deviation",
    )}  # fmt: skip
    for row, col in [(0, 0), (5, 7), (36, 40), (20, 0), (18, 33)]:
        known = around(values, row, col, reach)
        if np.isnan(values[row, col]):
            assert np.isnan([layer[row, col] for layer in made.values()]).all()
            continue
        assert made["mean"][row, col] == pytest.approx(known.mean(), abs=2e-3)
        assert made["minus_mean"][row, col] == pytest.approx(values[row, col] - known.mean(), abs=4e-3)
        assert made["deviation"][row, col] == pytest.approx(known.std(), abs=4e-3)


def test_a_gap_stays_a_gap_and_clouds_are_nobodys_surroundings():
    values = np.full(GRID.shape, 0.2, np.float32)
    values[10:14, 10:14] = 0.9  # a cloud
    clear = values < 0.5
    stack = assemble(SCENE, ["red_mean_40m", "red"], GRID, [ArraySource({"red": values}, GRID, valid=clear)])
    np.testing.assert_array_equal(np.isnan(stack["red_mean_40m"]), ~clear)
    np.testing.assert_array_equal(stack["valid"], clear)
    np.testing.assert_allclose(stack["red_mean_40m"][clear], 0.2, atol=2e-5)


def test_a_constant_scene_has_no_frame():
    values = {name: np.full(GRID.shape, 0.25, np.float32) for name in ("blue", "green", "red", "nir")}
    names = ["red_mean_100m", "red_minus_mean_100m", "nir_deviation_40m", "visible_gradient_20m"]
    stack = assemble(SCENE, names, GRID, [ArraySource(values, GRID)])
    assert stack["valid"].all()
    np.testing.assert_allclose(stack["red_mean_100m"], 0.25, atol=2e-5)
    for name in names[1:]:
        assert not stack[name].any(), name


@pytest.mark.parametrize("reach", [1, 3])
def test_the_gradient_of_a_plane_is_its_steepness_whatever_its_direction(reach):
    row, col = np.mgrid[: GRID.height, : GRID.width] * 10.0
    for across, along in [(0.02, 0.0), (0.0, -0.03), (0.03, 0.04)]:
        made = surroundings((30 + across * col + along * row).astype(np.float32)).values(
            context_of(f"slope_gradient_{reach * 10}m")
        )
        inside = made[reach:-reach, reach:-reach]
        np.testing.assert_allclose(inside, np.hypot(across, along), rtol=0.05)


def test_water_is_counted_and_its_distance_measured_up_to_the_scale():
    ndwi = np.full(GRID.shape, -0.5, np.float32)
    ndwi[3, 4] = ndwi[30, 35] = 0.4
    ndwi[20, 20] = np.nan
    of_water = surroundings(ndwi, base="ndwi")
    distance = of_water.values(context_of("water_distance_100m"))
    rows, cols = np.mgrid[: GRID.height, : GRID.width]
    truth = np.minimum(np.hypot(rows - 3, cols - 4), np.hypot(rows - 30, cols - 35)) * 10
    truth = np.where(np.isnan(ndwi), np.nan, np.minimum(truth, 100))
    np.testing.assert_allclose(distance, truth, rtol=1e-6)
    share = of_water.values(context_of("water_share_20m"))
    assert share[3, 4] == pytest.approx(1 / 25)
    assert share[10, 10] == 0


@pytest.mark.parametrize(("pixel_m", "reach"), [(10, 25), (3, 83), (1000, 1)])
def test_scales_are_metres_and_so_is_the_halo(pixel_m, reach):
    assert reach_px(context_of("ndvi_mean_250m"), pixel_m) == reach
    assert reach_px(context_of("ndvi_mean_46m"), 10) == 5
    _, makes = plan_layers(["ndvi_mean_250m", "nir_mean_10m"], available=frozenset({"nir", "red"}))
    assert halo(makes, pixel_m=pixel_m) == reach
    assert makes == ["ndvi", "ndvi_mean_250m", "nir_mean_10m"]


def test_pixels_of_degrees_have_no_surroundings_in_metres():
    grid = GeoBox((5, 6), Affine(1e-4, 0, -130, 0, -1e-4, 69), "EPSG:4326")
    scene = Scene(id="degrees", sensor="test", geobox=grid, files={})
    with pytest.raises(DataError, match=r"red_mean_40m looks around by metres.*warp the scene"):
        assemble(scene, ["red_mean_40m"], grid, [ArraySource({"red": np.zeros(grid.shape, np.float32)}, grid)])


@pytest.mark.parametrize("name", NAMES)
def test_every_context_layer_has_units_a_range_and_codes_that_hold_it(name):
    described, base = layer(name), LAYERS[context_of(name).base]
    assert described.name == name
    assert described.units in (base.units, f"{base.units}/m", "1/m", "m", "1")
    assert described.code_low - described.code_step <= described.low
    assert described.high <= described.code_low + (CODES + 1) * described.code_step
    assert not described.optical  # it is what it is made of that augmentation changes


@pytest.mark.parametrize(
    "name", ["ndvi_mean_0m", "ndvi_mean_m", "ndvi_mean_1001m", "aspect_mean_40m", "fog_mean_40m", "ndvi_median_40m",
             "ndvi_mean_40m_mean_40m", "water_mean_40m", "NDVI_mean_40m"]
)  # fmt: skip
def test_what_is_no_context_layer_is_refused_by_name(name):
    assert context_of(name) is None
    with pytest.raises(ConfigError, match=f"layer '{name}' is not known"):
        layer(name)


def test_an_overview_of_a_whole_scene_is_within_the_ranges():
    stack = preview(SCENE, NAMES, sources(missing=0), size=9)
    check_ranges(stack, [layer(name) for name in NAMES], scene_id="s1")

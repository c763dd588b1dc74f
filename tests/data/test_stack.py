"""Stacks: one grid, one mask, derived layers whole at every window's border, and refusal of other units."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage

from thawmap.data import derive
from thawmap.data.derive import RECIPES, Recipe
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.bands import BandSource
from thawmap.data.sources.base import Mask, Reading, Scene
from thawmap.data.stack import as_array, assemble, check_ranges, preview
from thawmap.errors import DataError
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.layers import layer

GRID = GeoBox((23, 31), Affine(3, 0, 570_000, 0, -3, 7_720_000), "EPSG:32608")
SCENE = Scene(id="s1", sensor="test", geobox=GRID, files={})

law = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def field(seed, *, missing=0.1, shape=GRID.shape):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 0.4, shape).astype(np.float32)
    values[rng.random(shape) < missing] = np.nan
    return values


def windows():
    return st.builds(
        Window,
        row=st.integers(-9, 25),
        col=st.integers(-9, 33),
        height=st.integers(1, 20),
        width=st.integers(1, 20),
    )


def test_a_stack_has_the_layers_asked_for_in_units_and_one_mask():
    nir, red = field(0), field(1)
    clear = np.random.default_rng(2).random(GRID.shape) > 0.2
    sources = [ArraySource({"nir": nir, "red": red, "blue": field(3)}, GRID, valid=clear)]
    assembled = assemble(SCENE, ["ndvi", "red"], GRID, sources)
    assert list(assembled) == ["ndvi", "red", "valid"]
    assert assembled.geobox == GRID
    assert {name: str(assembled[name].dtype) for name in assembled} == {
        "ndvi": "float32",
        "red": "float32",
        "valid": "bool",
    }
    np.testing.assert_allclose(assembled["ndvi"], (nir - red) / (nir + red), rtol=1e-5)
    np.testing.assert_array_equal(assembled["valid"], clear & np.isfinite(nir) & np.isfinite(red))


def test_where_an_index_has_no_value_nothing_is_usable():
    dark = np.zeros(GRID.shape, np.float32)
    assembled = assemble(SCENE, ["red", "ndvi"], GRID, [ArraySource({"nir": dark, "red": dark - 0.01}, GRID)])
    assert np.isnan(assembled["ndvi"]).all()
    assert not assembled["valid"].any()


def test_what_is_not_finite_is_missing_in_every_layer_and_in_what_is_made_of_it(monkeypatch):
    ratio = Recipe(needs=("red", "nir"), function=lambda red, nir: red / nir)
    monkeypatch.setattr(derive, "RECIPES", {"ratio": ratio})
    nir, red = field(0, missing=0), field(1, missing=0)
    nir[0, :4], red[1, :4], nir[2, :4] = np.inf, -np.inf, 0
    assembled = assemble(SCENE, ["red", "nir", "ratio"], GRID, [ArraySource({"nir": nir, "red": red}, GRID)])
    expected = np.ones(GRID.shape, bool)
    expected[:3, :4] = False
    np.testing.assert_array_equal(assembled["valid"], expected)
    for name, row in (("nir", [0]), ("red", [1]), ("ratio", [0, 1, 2])):
        missing = np.zeros(GRID.shape, bool)
        missing[row, :4] = True
        np.testing.assert_array_equal(np.isnan(assembled[name]), missing)
        assert not np.isinf(assembled[name]).any()


def test_layers_that_can_be_done_without_do_not_touch_the_mask():
    values = {"nir": field(0), "slope": field(1, missing=0.6)}
    source = ArraySource(values, GRID)
    needed = assemble(SCENE, ["nir", "slope"], GRID, [source])
    optional = assemble(SCENE, ["nir", "slope"], GRID, [source], optional=frozenset({"slope"}))
    np.testing.assert_array_equal(optional["valid"], np.isfinite(values["nir"]))
    np.testing.assert_array_equal(needed["valid"], np.isfinite(values["nir"]) & np.isfinite(values["slope"]))
    np.testing.assert_array_equal(optional["slope"], values["slope"])


def test_the_first_source_that_has_a_layer_gives_it_and_every_sensors_mask_counts():
    ones, twos = np.full(GRID.shape, 1.0), np.full(GRID.shape, 2.0)
    left, top = (np.indices(GRID.shape)[axis] > 9 for axis in (1, 0))
    sources = [ArraySource({"red": ones}, GRID, valid=left), ArraySource({"red": twos, "nir": twos}, GRID, valid=top)]
    assembled = assemble(SCENE, ["red", "nir"], GRID, sources)
    assert (assembled["red"] == 1).all()
    assert (assembled["nir"] == 2).all()
    np.testing.assert_array_equal(assembled["valid"], left & top)
    alone = assemble(SCENE, ["red"], GRID, sources)
    np.testing.assert_array_equal(alone["valid"], left)


def mean_of(size):
    """The mean of size x size pixels, missing where one of them is."""

    def smooth(values):
        kernel = np.full((size, size), 1 / size**2)
        return ndimage.convolve(values.astype(float), kernel, mode="constant", cval=np.nan)

    return smooth


CHAIN = {
    "near": Recipe(needs=("red",), function=mean_of(3), halo=1),
    "far": Recipe(needs=("near", "nir"), function=lambda near, nir: mean_of(5)(near) - nir, halo=2),
    **RECIPES,
}


@law
@given(window=windows())
def test_a_window_of_the_whole_is_the_whole_of_the_window(monkeypatch, window):
    """Recipes that look around see beyond the window; beyond the scene nothing is known."""
    monkeypatch.setattr(derive, "RECIPES", CHAIN)
    sources = [ArraySource({"red": field(0, missing=0.02), "nir": field(1, missing=0.02)}, GRID)]
    layers = ["far", "ndvi", "near", "red"]
    expected = assemble(SCENE, layers, GRID.pad(40), sources)
    windowed = assemble(SCENE, layers, window_geobox(GRID, window), sources)
    assert {values.shape for values in windowed.values()} == {(window.height, window.width)}
    assert windowed.geobox == window_geobox(GRID, window)
    rows = slice(40 + window.row, 40 + window.row + window.height)
    cols = slice(40 + window.col, 40 + window.col + window.width)
    inside = {name: values[rows, cols] for name, values in expected.items()}
    for name in layers:
        np.testing.assert_allclose(windowed[name], inside[name], atol=1e-6)
    np.testing.assert_array_equal(windowed["valid"], inside["valid"])


@pytest.fixture(scope="module")
def delivery(tmp_path_factory):
    """A scene of files: two bands of its own, a mask of 10 m, and slope of 2 m on a turned grid, with gaps."""
    folder, rng = tmp_path_factory.mktemp("delivery"), np.random.default_rng(5)
    middle = GRID.affine * (GRID.width / 2, GRID.height / 2)
    east, north = GRID.crs.transformer_to_crs("EPSG:3413")(*middle)
    polar = GeoBox((62, 66), Affine(2, 0, east - 66, 0, -2, north + 62), "EPSG:3413")
    coarse = GeoBox((5, 7), Affine(10, 0, 570_020, 0, -10, 7_719_990), "EPSG:32608")
    optical = rng.integers(1, 9000, (2, *GRID.shape), dtype=np.uint16)
    optical[:, rng.random(GRID.shape) < 0.1] = 0
    slope = ndimage.gaussian_filter(rng.uniform(0, 9000, (1, *polar.shape)), (0, 1, 1)).astype(np.uint16)
    slope[:, 20:29, 30:37] = 65535
    clear = (rng.random((1, *coarse.shape)) < 0.7).astype(np.uint8)
    places = {"optical": (optical, GRID, 0), "slope": (slope, polar, 65535), "clear": (clear, coarse, None)}
    for name, (values, geobox, nodata) in places.items():
        with rasterio.open(
            folder / name, "w", driver="GTiff", count=len(values), dtype=values.dtype, nodata=nodata,
            height=geobox.height, width=geobox.width, transform=geobox.affine, crs=str(geobox.crs),
        ) as file:  # fmt: skip
            file.write(values)
    readings = {"red": Reading(file="optical", band=1, scale=1e-4), "nir": Reading(file="optical", band=2, scale=1e-4)}
    readings["slope"] = Reading(file="slope", band=1, scale=0.01)
    masks = (Mask(file="clear", bands=(1,), usable=(1,)),)
    files = {name: folder / name for name in places}
    return Scene(id="s1", sensor="test", geobox=GRID, files=files, readings=readings, masks=masks)


@pytest.mark.slow
@settings(law, max_examples=20)
@given(window=windows())
def test_a_window_of_files_is_the_window_of_the_whole(delivery, window):
    """Own bands and masks bit for bit; what was warped to a thousandth of a pixel, its gaps where they are."""
    sources, layers = [BandSource(frozenset(delivery.readings))], ["nir", "red", "ndvi", "slope"]
    expected = assemble(delivery, layers, GRID.pad(60), sources)
    windowed = assemble(delivery, layers, window_geobox(GRID, window), sources)
    assert windowed.geobox == window_geobox(GRID, window)
    rows, cols = (slice(60 + side.start, 60 + side.stop) for side in (window.rows, window.cols))
    inside = {name: values[rows, cols] for name, values in expected.items()}
    for name in ("nir", "red", "ndvi"):
        np.testing.assert_array_equal(windowed[name], inside[name])
    gap = np.isnan(inside["slope"])
    assert np.sum(gap != np.isnan(windowed["slope"])) <= 1  # where an edge lies on a centre
    np.testing.assert_allclose(windowed["slope"][~gap], inside["slope"][~gap], atol=0.05)
    assert np.sum(windowed["valid"] != inside["valid"]) <= 1


def test_only_what_the_mask_calls_usable_and_every_layer_knows_is_valid(delivery):
    sources = [BandSource(frozenset(delivery.readings))]
    assembled = assemble(delivery, ["red", "slope"], GRID, sources)
    with rasterio.open(delivery.files["clear"]) as file:
        rows, cols = np.indices(GRID.shape) + 0.5
        x, y = GRID.affine * (cols, rows)
        col, row = ~file.transform * (x, y)
        clear = file.read(1)
    covered = (row > 0) & (col > 0) & (row < 5) & (col < 7)
    usable = covered & (clear[row.astype(int).clip(0, 4), col.astype(int).clip(0, 6)] == 1)
    expected = usable & np.isfinite(assembled["red"]) & np.isfinite(assembled["slope"])
    assert 0 < expected.mean() < usable.mean() < covered.mean() < 1
    np.testing.assert_array_equal(assembled["valid"], expected)


def test_the_whole_scene_of_a_recipe_is_its_function(monkeypatch):
    monkeypatch.setattr(derive, "RECIPES", CHAIN)
    red, nir = field(0, missing=0), field(1, missing=0)
    far = assemble(SCENE, ["far"], GRID, [ArraySource({"red": red, "nir": nir}, GRID)])["far"]
    for row, col in ((3, 3), (11, 20), (19, 27)):
        means = [
            red[r - 1 : r + 2, c - 1 : c + 2].mean() for r in range(row - 2, row + 3) for c in range(col - 2, col + 3)
        ]
        assert far[row, col] == pytest.approx(np.mean(means) - nir[row, col], abs=1e-6)
    assert np.isnan(far[2]).all()
    assert np.isnan(far[:, 28]).all()


@given(window=windows())
def test_a_windows_grid_lies_where_its_pixels_lie(window):
    window_grid = window_geobox(GRID, window)
    assert window_grid.shape == (window.height, window.width)
    assert window_grid.affine * (0, 0) == GRID.affine * (window.col, window.row)
    assert window_grid.affine * (1, 1) == GRID.affine * (window.col + 1, window.row + 1)


def test_a_preview_has_at_most_its_size_and_never_more_pixels_than_the_scene():
    values = np.indices(GRID.shape)[1].astype(np.float32)
    source = ArraySource({"red": values}, GRID)
    assert preview(SCENE, ["red"], [source]).geobox == GRID
    small = preview(SCENE, ["red"], [source], size=10)
    assert small["red"].shape == (6, 8)
    assert small.geobox.extent.contains(GRID.extent.buffer(-1e-3))


def test_an_array_has_the_asked_order():
    assembled = assemble(SCENE, ["red", "nir"], GRID, [ArraySource({"red": field(0), "nir": field(1)}, GRID)])
    array = as_array(assembled, ["nir", "red"])
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [field(1), field(0)])


def stack_of(values, name="red", **options):
    return assemble(SCENE, [name], GRID, [ArraySource({name: values}, GRID, **options)])


@pytest.mark.parametrize(
    ("name", "median", "fits"),
    [
        ("red", 0.6, True), ("red", 0.66, False), ("red", -0.24, True), ("red", -0.26, False), ("red", 1200, False),
        ("relative_elevation", 74, True), ("relative_elevation", 15_000, False),
        ("ndvi", 1, True), ("ndvi", 12_000, False), ("tc_wetness", 130, False),
    ],
)  # fmt: skip
def test_numbers_in_other_units_are_refused_by_name(name, median, fits):
    assembled = stack_of(np.full(GRID.shape, float(median)), name)
    if fits:
        check_ranges(assembled, [layer(name)], scene_id="s1")
        return
    with pytest.raises(DataError, match=f"scene s1: the median of {name} is {median:g}, .*'scale' and 'offset'"):
        check_ranges(assembled, [layer(name)], scene_id="s1")


@pytest.mark.parametrize(
    ("name", "setting"),
    [("red", "scenes.offset"), ("slope", "sources.elevation"), ("tc_wetness", "sources.trends"), ("ndvi", "'scale'")],
)
def test_the_refusal_names_the_settings_that_tell_how_a_layer_is_read(name, setting):
    with pytest.raises(DataError, match=f"correct how it is read .*{setting}.*, or leave the scene out"):
        check_ranges(stack_of(np.full(GRID.shape, 9e4), name), [layer(name)], scene_id="s1")


@pytest.mark.parametrize(("scale", "fits"), [(1, True), (1e-2, True), (1e-3, False), (1e-4, False), (0, False)])
def test_reflectance_that_was_scaled_twice_is_refused(scale, fits):
    """Water alone in one band is no reason, nor are indices, which no scale changes."""
    water = np.abs(field(1)) * 1e-4
    source = ArraySource({"red": field(0, missing=0.3) * scale, "nir": water, "slope": water}, GRID)
    layers = [layer(name) for name in ("nir", "ndvi", "red", "slope")]
    assembled = assemble(SCENE, [wanted.name for wanted in layers], GRID, [source])
    if fits:
        check_ranges(assembled, layers, scene_id="s1")
        return
    with pytest.raises(DataError, match=r"scene s1: nir, red hardly exceed .*'scale'"):
        check_ranges(assembled, layers, scene_id="s1")


def test_only_usable_pixels_tell_the_units():
    values, clear = np.full(GRID.shape, 3000.0), np.zeros(GRID.shape, bool)
    values[:3], clear[:3] = 0.1, True
    check_ranges(stack_of(values, valid=clear), [layer("red")], scene_id="s1")
    check_ranges(stack_of(values, valid=np.zeros(GRID.shape, bool)), [layer("red")], scene_id="s1")
    with pytest.raises(DataError, match="median of red"):
        check_ranges(stack_of(values, valid=~clear), [layer("red")], scene_id="s1")


def test_an_optional_layer_may_be_missing_altogether():
    source = ArraySource({"red": field(0), "slope": np.full(GRID.shape, np.nan)}, GRID)
    assembled = assemble(SCENE, ["red", "slope"], GRID, [source], optional=frozenset({"slope"}))
    assert assembled["valid"].any()
    check_ranges(assembled, [layer("red"), layer("slope")], scene_id="s1")


def test_an_optional_layer_that_nobody_has_is_missing_everywhere():
    source = ArraySource({"red": field(0)}, GRID)
    without = frozenset({"slope", "nir", "ndvi"})
    assembled = assemble(SCENE, ["red", "slope", "ndvi"], GRID, [source], optional=without)
    assert np.isnan(assembled["slope"]).all()
    assert np.isnan(assembled["ndvi"]).all()
    np.testing.assert_array_equal(assembled["valid"], np.isfinite(assembled["red"]))
    with pytest.raises(DataError, match="'nir' is in no source"):
        assemble(SCENE, ["red", "slope", "ndvi"], GRID, [source], optional=frozenset({"slope"}))


def test_a_layer_that_nobody_has_is_named():
    with pytest.raises(DataError, match="'slope' is in no source"):
        assemble(SCENE, ["slope"], GRID, [ArraySource({"red": field(0)}, GRID)])


def test_a_layer_that_one_scene_lacks_is_missing_where_it_may_be_and_named_where_not(tmp_path):
    with rasterio.open(
        tmp_path / "red.tif", "w", driver="GTiff", height=23, width=31, count=1, dtype="float32", crs="EPSG:32608",
        transform=GRID.affine,
    ) as file:  # fmt: skip
        file.write(np.full((23, 31), 0.1, np.float32), 1)
    readings = {"red": Reading(file="red", band=1)}
    scene = Scene(id="s1", sensor="test", geobox=GRID, files={"red": tmp_path / "red.tif"}, readings=readings)
    sources = [BandSource(frozenset({"red", "swir1"}))]
    with pytest.raises(DataError, match="scene s1 has no swir1, which others have; leave the scene out"):
        assemble(scene, ["red", "swir1"], GRID, sources)
    assembled = assemble(scene, ["red", "swir1"], GRID, sources, optional=frozenset({"swir1"}))
    assert assembled["valid"].all()
    assert np.isnan(assembled["swir1"]).all()

"""Elevation: the shape of known ground on a scene's grid, the law of windows, previews, and DEMs that are wrong."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy import ndimage

from thawmap.config import ElevationSettings, Precomputed
from thawmap.data import terrain
from thawmap.data.raster import mosaic
from thawmap.data.sources.base import Scene, Source
from thawmap.data.sources.elevation import ElevationSource
from thawmap.data.stack import assemble, preview
from thawmap.errors import ConfigError, DataError
from thawmap.geo.geobox import window_geobox
from thawmap.geo.metres import north_of, pixel_metres
from thawmap.grid import Window

POLAR = "EPSG:3413"
UTM = "EPSG:32607"
EAST, NORTH = 500_000, 7_766_000  # on the zone's central meridian, where grid north is true north; 70 degrees north
SCENE = Scene(id="s1", sensor="test", geobox=GeoBox((60, 80), Affine(3, 0, EAST, 0, -3, NORTH), UTM), files={})
TO_UTM = Transformer.from_crs(POLAR, UTM, always_xy=True)
TO_POLAR = Transformer.from_crs(UTM, POLAR, always_xy=True)


def dem_grid(geobox=SCENE.geobox, *, margin=150, side=2.0):
    """A polar grid that covers a scene."""
    rows, cols = geobox.shape
    x, y = TO_POLAR.transform(*(geobox.affine * (np.array([0, cols, cols, 0]), np.array([0, 0, rows, rows]))))
    west, top = np.floor(x.min() / side) * side - margin, np.ceil(y.max() / side) * side + margin
    shape = (int((top - y.min() + margin) / side), int((x.max() + margin - west) / side))
    return GeoBox(shape, Affine(side, 0, west, 0, -side, top), POLAR)


def places(grid, to_utm=TO_UTM):
    """East and north in UTM of a grid's pixel centres."""
    row, col = np.indices(grid.shape)
    return to_utm.transform(*(grid.affine * (col + 0.5, row + 0.5)))


def hills(east, north):
    """Smooth heights at places in UTM."""
    x, y = east - EAST, north - NORTH
    return 120 + 0.05 * x + 6 * np.sin(x / 40) * np.cos(y / 55) + 3 * np.sin(y / 30)


def rough(shape, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    values = (ndimage.gaussian_filter(rng.normal(0, 60, shape), 3) + 150).astype(np.float32)
    values[rng.random(shape) < missing] = np.nan
    return values


def write(path, values, grid, *, nodata=-9999, crs=None, unit=None, scale=(1, 0), count=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.where(np.isnan(values), nodata, values) if nodata is not None else values
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=grid.height, width=grid.width, dtype=values.dtype, tiled=True,
        crs=crs or str(grid.crs), transform=grid.affine, nodata=nodata, blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        for band in range(1, count + 1):
            file.write(stored.astype(values.dtype), band)
        if unit is not None:
            file.units = [unit]
        file.scales, file.offsets = [scale[0]] * count, [scale[1]] * count
    return path


def write_tiles(folder, values, grid, side=100, overlap=0):
    """Cut heights into tiles that share ``overlap`` pixels."""
    for row in range(0, grid.height, side):
        for col in range(0, grid.width, side):
            bottom, right = min(row + side, grid.height), min(col + side, grid.width)
            tile = np.s_[max(row - overlap, 0) : bottom, max(col - overlap, 0) : right]
            write(folder / f"{row:04}_{col:04}_dem.tif", values[tile], grid[tile])
    return folder


@pytest.fixture(scope="module")
def hills_dem(tmp_path_factory):
    """A DEM of `hills`, in tiles."""
    grid = dem_grid()
    return write_tiles(tmp_path_factory.mktemp("dem"), hills(*places(grid)).astype(np.float32), grid, overlap=5)


def source(path, **more):
    return ElevationSource(ElevationSettings(path=path, **more))


def read(path, layers, geobox=SCENE.geobox, scene=SCENE, **more):
    stack = source(path, **more).read(scene, geobox, layers)
    return np.stack([stack[name] for name in layers])


# What it is


def test_it_is_a_source_with_the_layers_that_its_settings_can_give(tmp_path):
    all_of_it: Source = source(tmp_path)
    of_dem = {"elevation", "relative_elevation", "slope", "aspect", "hillshade", "curvature"}
    assert all_of_it.layers == of_dem
    before = Precomputed(path=tmp_path)
    assert ElevationSource(ElevationSettings(slope_degrees=before)).layers == {"slope"}
    assert ElevationSource(ElevationSettings(relative_elevation=before)).layers == {"relative_elevation"}
    assert ElevationSource(ElevationSettings(path=tmp_path, slope_degrees=before)).layers == of_dem


def test_heights_lie_where_they_belong_to_a_twentieth_of_a_pixel(hills_dem):
    """The DEM and the scene are turned against each other by a right angle; half a pixel off would be 0.3 m."""
    heights = read(hills_dem, ["elevation"])[0]
    rows, cols = np.indices(SCENE.geobox.shape)
    east, north = SCENE.geobox.affine * (cols + 0.5, rows + 0.5)
    right = np.abs(heights - hills(east, north)).max()
    half_a_pixel_off = np.abs(heights - hills(east + 1.5, north)).max()
    assert right < 0.03
    assert half_a_pixel_off > 10 * right


def test_layers_are_those_of_the_ground_whatever_the_dems_grid(hills_dem):
    """Every layer of the polar DEM is the one of the same ground on the scene's own grid."""
    names = ["slope", "aspect", "hillshade", "curvature"]
    values = dict(zip(names, read(hills_dem, names, slope="horn"), strict=True))
    rows, cols = np.mgrid[-30 : 60 * 3 + 30, -30 : 80 * 3 + 30]  # metre by metre
    east, north = EAST + cols + 0.5, NORTH - rows - 0.5
    height = hills(east, north).astype(np.float32)

    def on_scene(values):
        return values[30:-30, 30:-30].reshape(60, 3, 80, 3).mean(axis=(1, 3))

    assert np.abs(values["slope"] - on_scene(terrain.slope(height, pixel_m=1.0))).max() < 0.3
    assert np.abs(values["hillshade"] - on_scene(terrain.hillshade(height, pixel_m=1.0))).max() < 0.01
    assert np.abs(values["curvature"] - on_scene(terrain.curvature(height, pixel_m=1.0))).max() < 2e-3
    steep = values["slope"] > 3
    turn = (values["aspect"] - on_scene_bearing(height, on_scene) + 180) % 360 - 180
    assert np.abs(turn[steep]).max() < 4


def on_scene_bearing(height, on_scene):
    right, down = terrain.gradient(height, pixel_m=1.0, method="horn")
    return terrain.bearing(on_scene(right), on_scene(-down))


def test_relative_elevation_is_height_less_the_mean_of_a_hundred_metres(hills_dem):
    relative = read(hills_dem, ["relative_elevation"])[0]
    for row, col in ((5, 7), (30, 40), (55, 71)):
        east, north = SCENE.geobox.affine * (col + 0.5, row + 0.5)
        off_east, off_north = np.meshgrid(np.arange(-50, 51.0), np.arange(-50, 51.0))
        circle = np.hypot(off_east, off_north) <= 50
        mean = hills(east + off_east, north + off_north)[circle].mean()
        assert relative[row, col] == pytest.approx(hills(east, north) - mean, abs=0.06)


def test_the_circle_is_as_wide_as_the_settings_say(hills_dem):
    narrow, wide = (
        read(hills_dem, ["relative_elevation"], window_m=20),
        read(hills_dem, ["relative_elevation"], window_m=150),
    )
    assert np.abs(wide).mean() > 5 * np.abs(narrow).mean()


@pytest.mark.parametrize(("to_east", "to_north", "falls"), [(0.2, 0, 270), (0, -0.2, 0), (-0.1, 0.1, 135)])
@pytest.mark.parametrize("crs", [POLAR, "EPSG:3572", UTM, "EPSG:4326"])
def test_directions_are_against_true_north(tmp_path, to_east, to_north, falls, crs):
    """A polar grid's columns are turned by a right angle here; whatever the DEM's CRS, the ground falls as it does."""
    x, y = Transformer.from_crs(UTM, crs, always_xy=True).transform(EAST + 60, NORTH - 45)
    wide, tall = (2.0, 2.0) if crs != "EPSG:4326" else (2 / 38_000, 2 / 111_500)
    grid = GeoBox((160, 160), Affine(wide, 0, x - 80 * wide, 0, -tall, y + 80 * tall), crs)
    east, north = places(grid, Transformer.from_crs(crs, UTM, always_xy=True))
    write(tmp_path / "plane.tif", (100 + to_east * (east - EAST) + to_north * (north - NORTH)).astype(np.float32), grid)
    scene_grid = SCENE.geobox[10:20, 10:30]
    aspect, light, slope, flat = read(tmp_path, ["aspect", "hillshade", "slope", "curvature"], scene_grid)
    assert np.abs((aspect - falls + 180) % 360 - 180).max() < 1.5
    steep, above = np.arctan(np.hypot(to_east, to_north)), np.radians(45)
    lit = np.sin(above) * np.cos(steep) + np.cos(above) * np.sin(steep) * np.cos(np.radians(315 - falls))
    np.testing.assert_allclose(light, lit, atol=0.01)
    np.testing.assert_allclose(slope, np.degrees(steep), rtol=0.02)  # an equal-area projection stretches
    np.testing.assert_allclose(flat, 0, atol=2e-3)


def test_bearings_are_not_averaged_as_numbers(tmp_path):
    """Ground that falls to the north, a little to the left here, a little to the right there: never to the south."""
    grid = GeoBox((200, 200), Affine(2, 0, EAST - 80, 0, -2, NORTH + 80), UTM)
    east, north = places(grid, Transformer.from_crs(UTM, UTM, always_xy=True))
    write(tmp_path / "a.tif", (500 - 0.2 * (north - NORTH) + 0.3 * np.sin(east / 3)).astype(np.float32), grid)
    aspect = read(tmp_path, ["aspect"])[0]
    assert ((aspect < 60) | (aspect > 300)).all()


# The law of windows


@pytest.fixture(scope="module")
def holed(tmp_path_factory):
    """A rough DEM in tiles, with gaps; and a scene on its own grid."""
    grid = dem_grid()
    values = rough(grid.shape, missing=0.003)
    values[100:130, 90:150] = np.nan
    folder = write_tiles(tmp_path_factory.mktemp("holed"), values, grid, side=90)
    return folder, Scene(id="own", sensor="test", geobox=grid[40:-40, 40:-40], files={}), values


ALL = ["elevation", "relative_elevation", "slope", "hillshade", "curvature", "aspect"]


@pytest.mark.slow
@settings(max_examples=20)
@given(data=st.data())
def test_on_the_dems_grid_a_window_is_the_whole_bit_for_bit(holed, data):
    folder, scene, _ = holed
    rows, cols = scene.geobox.shape
    top, left = data.draw(st.integers(-45, rows - 1)), data.draw(st.integers(-45, cols - 1))
    window = Window(row=top, col=left, height=data.draw(st.integers(1, 90)), width=data.draw(st.integers(1, 90)))
    expected = np.pad(whole_of(folder, scene), ((0, 0), (100, 100), (100, 100)), constant_values=np.nan)
    values = read(folder, ALL, window_geobox(scene.geobox, window), scene)
    inside = expected[:, 100 + top :, 100 + left :][:, : window.height, : window.width]
    covered = np.zeros(expected.shape[1:], bool)
    covered[100:-100, 100:-100] = True
    covered = covered[100 + top :, 100 + left :][: window.height, : window.width]
    np.testing.assert_array_equal(values[:, covered], inside[:, covered])


_wholes = {}


def whole_of(folder, scene):
    if folder not in _wholes:
        _wholes[folder] = read(folder, ALL, scene.geobox, scene)
    return _wholes[folder]


def test_on_the_dems_grid_values_are_those_of_the_recipes(holed):
    folder, scene, values = holed
    layers = dict(zip(ALL, whole_of(folder, scene), strict=True))
    inner = np.s_[40:-40, 40:-40]
    pixel_m = pixel_metres(dem_grid(), slice(0, 1))
    assert pixel_m == (2, 2)
    np.testing.assert_array_equal(layers["elevation"], values[inner])
    np.testing.assert_array_equal(layers["slope"], terrain.slope(values, pixel_m=2.0)[inner])
    np.testing.assert_array_equal(layers["curvature"], terrain.curvature(values, pixel_m=2.0)[inner])
    expected = terrain.relative_elevation(values, pixel_m=2.0, diameter_m=100)[inner]
    np.testing.assert_array_equal(layers["relative_elevation"], expected)
    shade = terrain.hillshade(
        values,
        pixel_m=2.0,
        north=north_of(dem_grid(), Window(row=0, col=0, height=values.shape[0], width=values.shape[1])),
    )
    np.testing.assert_allclose(layers["hillshade"], shade[inner], atol=1e-6)


@pytest.mark.slow
@settings(max_examples=15)
@given(data=st.data())
def test_on_a_scenes_grid_a_window_is_the_whole_to_a_thousandth_of_a_pixel(holed, data):
    folder = holed[0]
    names = ["relative_elevation", "slope"]
    top, left = data.draw(st.integers(0, 55)), data.draw(st.integers(0, 75))
    window = Window(
        row=top, col=left, height=data.draw(st.integers(1, 60 - top)), width=data.draw(st.integers(1, 80 - left))
    )
    expected = read(folder, names)[:, window.rows, window.cols]
    values = read(folder, names, window_geobox(SCENE.geobox, window))
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    np.testing.assert_allclose(values, expected, atol=0.02)


@pytest.mark.slow
def test_what_is_too_much_for_the_memory_is_read_in_parts(holed, monkeypatch):
    folder, scene, _ = holed
    expected = whole_of(folder, scene)
    monkeypatch.setattr(mosaic, "_MAX_NUMBERS", 20_000)
    np.testing.assert_array_equal(read(folder, ALL, scene.geobox, scene), expected)


def test_gaps_stay_gaps(holed):
    folder, scene, values = holed
    layers = dict(zip(ALL, whole_of(folder, scene), strict=True))
    gap = np.isnan(values[40:-40, 40:-40])
    for name in ALL:
        assert np.isnan(layers[name][gap]).all()
    np.testing.assert_array_equal(np.isnan(layers["elevation"]), gap)
    for name in ("slope", "curvature"):
        beside = ndimage.binary_dilation(gap, ndimage.generate_binary_structure(2, 1))
        np.testing.assert_array_equal(np.isnan(layers[name])[1:-1, 1:-1], beside[1:-1, 1:-1])


# Previews


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A scene of 2.4 km, and a DEM of it that has overviews."""
    scene = Scene(id="large", sensor="test", geobox=GeoBox((800, 800), SCENE.geobox.affine, UTM), files={})
    grid = dem_grid(scene.geobox)
    path = tmp_path_factory.mktemp("large") / "a_dem.tif"
    write(path, hills(*places(grid)).astype(np.float32), grid)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    return path, scene


@pytest.mark.slow
def test_a_preview_shows_nearly_the_means_of_what_it_previews(large):
    path, scene = large
    names = ["elevation", "relative_elevation", "slope", "hillshade", "curvature"]
    stack = preview(scene, names, [source(path)], size=50)
    full = read(path, names, scene=scene, geobox=scene.geobox)
    tolerances = {"elevation": 0.25, "relative_elevation": 0.25, "slope": 1.0, "hillshade": 0.02, "curvature": 2e-3}
    for name, values in zip(names, full, strict=True):
        means = values.reshape(50, 16, 50, 16).mean(axis=(1, 3))
        assert np.abs(stack[name] - means).max() < tolerances[name], name
        assert np.corrcoef(stack[name].flat, means.flat)[0, 1] > 0.97, name


@pytest.mark.slow
def test_a_preview_reads_a_coarser_dem_and_a_coarse_scene_does_not(large, monkeypatch):
    path, scene = large
    steps = []
    monkeypatch.setattr(
        mosaic.View, "read", lambda self, window, _read=mosaic.View.read: steps.append(self.step) or _read(self, window)
    )
    preview(scene, ["slope"], [source(path)], size=50)
    assert set(steps) == {6}  # 12 m, an eighth of the circle's 100 m
    steps.clear()
    coarse = Scene(id="landsat", sensor="test", geobox=scene.geobox.zoom_out(10), files={})
    read(path, ["slope"], coarse.geobox, coarse)
    assert set(steps) == {1}


# Bad input


def test_a_dem_that_covers_half_of_the_scene_leaves_the_other_missing(tmp_path):
    grid = dem_grid()
    east, north = places(grid)
    values = np.where(east < EAST + 120, hills(east, north), np.nan).astype(np.float32)
    write(tmp_path / "half.tif", values, grid)
    layers = read(tmp_path, ["elevation", "relative_elevation", "slope"])
    assert np.isfinite(layers[:, :, :38]).all()
    assert np.isnan(layers[:, :, 42:]).all()
    only_right = read(tmp_path, ["slope"], SCENE.geobox[:, 60:])
    assert np.isnan(only_right).all()


def test_a_dem_mostly_void_gives_what_it_has(tmp_path):
    grid = dem_grid()
    values = np.full(grid.shape, np.nan, np.float32)
    middle = tuple(side // 2 for side in grid.shape)
    values[middle[0] - 20 : middle[0] + 20, middle[1] - 20 : middle[1] + 20] = 42
    write(tmp_path / "void.tif", values, grid)
    stack = assemble(SCENE, ["elevation", "slope"], SCENE.geobox, [source(tmp_path)])
    assert 0 < stack["valid"].mean() < 0.4
    np.testing.assert_allclose(stack["elevation"][stack["valid"]], 42, atol=1e-4)


def test_no_dem_under_the_scene_is_said_with_scene_and_folder(tmp_path):
    far = GeoBox((50, 50), Affine(2, 0, 1_000_000, 0, -2, 1_000_000), POLAR)
    write(tmp_path / "far.tif", rough(far.shape), far)
    with pytest.raises(
        DataError, match=rf"scene s1: no raster of {tmp_path} lies under it; .*sources\.elevation\.path"
    ):
        read(tmp_path, ["slope"])
    with pytest.raises(DataError, match="scene s1: no raster"):
        source(tmp_path).files(SCENE)
    with pytest.raises(ConfigError, match=r"correct 'sources\.elevation\.path'"):
        read(tmp_path / "nowhere", ["slope"])


def test_two_crs_in_a_folder_are_two_dems(tmp_path):
    grid = dem_grid()
    east, north = places(grid)
    values = np.where(east < EAST + 120, hills(east, north), np.nan).astype(np.float32)
    write(tmp_path / "polar.tif", values, grid)
    other = GeoBox((200, 200), Affine(5, 0, EAST - 300, 0, -5, NORTH + 300), UTM)
    write(tmp_path / "utm.tif", hills(*places(other, Transformer.from_crs(UTM, UTM))).astype(np.float32), other)
    layers = read(tmp_path, ["elevation", "slope"])
    rows, cols = np.indices(SCENE.geobox.shape)
    expected = hills(*(SCENE.geobox.affine * (cols + 0.5, rows + 0.5)))
    off = np.abs(layers[0] - expected)
    assert off[:, :37].max() < 0.05
    assert off[:, 43:].max() < 0.05
    assert off.max() < 1  # where the one's resampling ends
    assert np.isfinite(layers).all()
    assert [file.name for file in source(tmp_path).files(SCENE)] == ["polar.tif", "utm.tif"]


@pytest.mark.parametrize(
    ("ending", "content", "says"), [("", b"", "is empty"), (".part", b"II", "still being written")]
)
def test_a_tile_half_written_is_named(tmp_path, hills_dem, ending, content, says):
    for file in hills_dem.glob("*.tif"):
        (tmp_path / file.name).symlink_to(file)
    victim = tmp_path / source(hills_dem).files(SCENE)[0].name
    victim.unlink()
    victim.with_name(victim.name + ending).write_bytes(content)
    with pytest.raises(DataError, match=rf"{victim.name}.*{says}"):
        read(tmp_path, ["slope"])


@pytest.mark.parametrize("wrong", [-9999, -32768, 1e30])
def test_impossible_heights_are_refused_with_the_number_and_the_remedy(tmp_path, wrong):
    grid = dem_grid()
    values = hills(*places(grid)).astype(np.float32)
    middle = tuple(side // 2 for side in grid.shape)
    values[middle[0] - 9 : middle[0] + 9, middle[1] - 9 : middle[1] + 9] = wrong
    write(tmp_path / "a.tif", values, grid, nodata=None)
    message = r"a\.tif holds (\S+), a height in metres of .* -500 to 9000 .*'sources\.elevation\.nodata: "
    for geobox in (SCENE.geobox, SCENE.geobox.zoom_to((10, 10))):
        with pytest.raises(DataError, match=message) as error:
            read(tmp_path, ["slope"], geobox)
        number = float(str(error.value).split("'sources.elevation.nodata: ")[1].rstrip("'"))
        assert number == np.float32(wrong)
    heights = read(tmp_path, ["elevation"], nodata=number)
    assert np.isfinite(heights).mean() > 0.9
    assert heights[np.isfinite(heights)].min() > 50


def feet(path, unit, crs=None, stored=0.3048):
    grid = dem_grid()
    write(path, (hills(*places(grid)) / stored).astype(np.float32), grid, unit=unit, crs=crs)


@pytest.mark.parametrize(
    ("unit", "stated", "metres"),
    [("ft", "foot", 0.3048), ("US survey foot", "us_survey_foot", 1200 / 3937), ("Foot", "foot", 0.3048)],
)
def test_heights_in_feet_are_refused_and_converted_when_told(tmp_path, hills_dem, unit, stated, metres):
    feet(tmp_path / "a.tif", unit, stored=metres)
    with pytest.raises(DataError, match=rf"a\.tif holds heights in '{unit}'; .*'sources\.elevation\.unit: {stated}'"):
        read(tmp_path, ["elevation"])
    np.testing.assert_allclose(read(tmp_path, ["elevation"], unit=stated), read(hills_dem, ["elevation"]), atol=0.01)


def test_a_vertical_crs_in_feet_is_heard(tmp_path):
    feet(tmp_path / "a.tif", None, crs=f"{POLAR}+6360")
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.units == ("US survey foot",)  # GDAL tells the band as well, where the format has units
    with pytest.raises(DataError, match=r"sources\.elevation\.unit: us_survey_foot"):
        read(tmp_path, ["elevation"])
    feet(tmp_path / "a.tif", None, crs=f"{POLAR}+5703", stored=1)
    assert np.isfinite(read(tmp_path, ["elevation", "slope", "aspect"])).all()


def test_metres_by_any_name_are_metres_and_other_units_are_refused(tmp_path, hills_dem):
    for unit in ("m", "metre", "Meters"):
        feet(tmp_path / "a.tif", unit, stored=1)
        np.testing.assert_allclose(read(tmp_path, ["elevation"]), read(hills_dem, ["elevation"]), atol=0.01)
    feet(tmp_path / "a.tif", "fathom", stored=1)
    with pytest.raises(
        DataError, match=r"'fathom'; say so by 'sources\.elevation\.unit' \(metre, foot, us_survey_foot"
    ):
        read(tmp_path, ["elevation"])
    assert np.isfinite(read(tmp_path, ["elevation"], unit="metre")).all()


def test_a_scale_in_the_file_is_honoured(tmp_path, hills_dem):
    grid = dem_grid()
    decimetres = np.round(10 * (hills(*places(grid)) - 100)).astype(np.int16)
    write(tmp_path / "a.tif", decimetres, grid, nodata=-9999, scale=(0.1, 100))
    np.testing.assert_allclose(read(tmp_path, ["elevation"]), read(hills_dem, ["elevation"]), atol=0.06)


@pytest.mark.parametrize("coarser", [1, 8])
def test_infinite_heights_are_gaps_as_nan_is(tmp_path, coarser):
    grid, layers = dem_grid(), ["elevation", "slope", "relative_elevation", "aspect"]
    for name, number in (("inf", np.inf), ("nan", np.nan)):
        heights = rough(grid.shape)
        heights[grid.height // 2 :: 40, ::3] = number
        write(tmp_path / name / "a.tif", heights, grid, nodata=None)
    values = [read(tmp_path / name, layers, SCENE.geobox.zoom_out(coarser)) for name in ("inf", "nan")]
    assert np.isfinite(values[0]).any()
    np.testing.assert_array_equal(*values)


@pytest.mark.parametrize("scale", [(0.0, 5.0), (np.nan, 0.0), (1.0, np.inf)])
def test_a_scale_that_makes_no_heights_is_refused(tmp_path, scale):
    grid = dem_grid()
    write(tmp_path / "a.tif", rough(grid.shape), grid, scale=scale)
    with pytest.raises(DataError, match=r"a\.tif says scale .* which make its numbers no height in metres"):
        read(tmp_path, ["elevation"])


def test_a_circle_of_more_pixels_than_memory_holds_is_refused(tmp_path):
    grid = GeoBox((8, 8), Affine(0.001, 0, EAST + 100, 0, -0.001, NORTH - 100), UTM)
    write(tmp_path / "a.tif", rough(grid.shape), grid)
    with pytest.raises(DataError, match=r"'sources\.elevation\.window_m' is 100 m, 100000 pixels .* warp it to pixels"):
        read(tmp_path, ["relative_elevation"])


def test_a_picture_is_no_dem(tmp_path):
    grid = dem_grid()
    write(tmp_path / "a.tif", np.full(grid.shape, 200, np.uint8), grid, nodata=None, count=3)
    with pytest.raises(DataError, match=r"a\.tif has 3 bands, and a DEM has one"):
        read(tmp_path, ["slope"])


def test_metres_of_web_mercator_are_refused_in_the_arctic(tmp_path):
    x, y = Transformer.from_crs(UTM, "EPSG:3857", always_xy=True).transform(EAST + 100, NORTH - 100)
    grid = GeoBox((200, 200), Affine(6, 0, x - 600, 0, -6, y + 600), "EPSG:3857")
    write(tmp_path / "a.tif", rough(grid.shape), grid)
    with pytest.raises(DataError, match=r"EPSG:3857, where a metre is 0\.34 m on the ground"):
        read(tmp_path, ["slope"])


def test_a_circle_no_wider_than_a_pixel_is_refused(hills_dem):
    with pytest.raises(DataError, match=r"'sources\.elevation\.window_m' is 3 m, .* make it at least 4"):
        read(hills_dem, ["relative_elevation"], window_m=3)
    assert np.isfinite(read(hills_dem, ["slope"], window_m=3)).all()


def test_what_comes_beside_a_dem_of_the_polar_geospatial_center_is_left_aside(tmp_path):
    grid = dem_grid()
    values = hills(*places(grid)).astype(np.float32)
    tile = "10_21_1_1_2m_v4.1"
    write(tmp_path / f"{tile}_dem.tif", values, grid)
    for beside in ("count", "mad", "dem_browse", "datamask"):
        write(tmp_path / f"{tile}_{beside}.tif", np.full(grid.shape, 7, np.float32), grid)
    write(tmp_path / "own_2019.tif", values, grid)
    assert [file.name for file in source(tmp_path).files(SCENE)] == [f"{tile}_dem.tif", "own_2019.tif"]


# Made before


@pytest.mark.parametrize(
    ("name", "key", "dtype", "encode", "tolerance"),
    [
        ("relative_elevation", "relative_elevation", "uint16", lambda m: (m + 50) * 300, 0.01),
        ("relative_elevation", "relative_elevation", "int16", lambda m: (m + 50) * 300, 0.01),
        ("relative_elevation", "relative_elevation", "float32", lambda m: m, 0.001),
        ("slope", "slope_degrees", "float32", lambda degrees: degrees, 0.001),
        ("slope", "slope_degrees", "uint8", lambda degrees: degrees, 0.51),
    ],
)
def test_the_published_encodings_are_read_as_they_are(tmp_path, name, key, dtype, encode, tolerance):
    grid = dem_grid()
    values = 20 + 15 * np.sin(np.indices(grid.shape)[1] / 60)
    stored = encode(values)
    write(tmp_path / "a.tif", (np.round(stored) if dtype[0] != "f" else stored).astype(dtype), grid, nodata=None)
    reader = ElevationSource(ElevationSettings(**{key: Precomputed(path=tmp_path)}))
    on_own = Scene(id="own", sensor="test", geobox=grid, files={})
    read_back = reader.read(on_own, grid, [name])[name]
    np.testing.assert_allclose(read_back, values, atol=tolerance)
    assert reader.files(on_own) == [tmp_path / "a.tif"]


def hundredths(path, **more):
    grid = dem_grid()
    return write(path, np.full(grid.shape, 4150, np.uint16), grid, nodata=None, **more)


def test_hundredths_of_degrees_need_a_scale_from_the_file_or_the_settings(tmp_path):
    def slope(**more):
        before = Precomputed(path=tmp_path / "a.tif", **more)
        return ElevationSource(ElevationSettings(slope_degrees=before)).read(SCENE, SCENE.geobox, ["slope"])["slope"]

    hundredths(tmp_path / "a.tif")
    with pytest.raises(
        DataError, match=r"slope as uint16 without a scale, .* set 'sources\.elevation\.slope_degrees\.scale'"
    ):
        slope()
    with pytest.raises(DataError, match=r"holds 4150, a slope of 415 where 0 to 90 are possible"):
        slope(scale=0.1)
    np.testing.assert_allclose(slope(scale=0.01), 41.5, rtol=1e-5)
    np.testing.assert_allclose(slope(scale=0.01, offset=1), 42.5, rtol=1e-5)
    assert np.isnan(slope(scale=0.01, nodata=4150)).all()
    with pytest.raises(
        DataError, match=r"has no band 2; it has 1 to 1, correct 'sources\.elevation\.slope_degrees\.band'"
    ):
        slope(band=2)
    hundredths(tmp_path / "a.tif", scale=(0.01, 2))
    np.testing.assert_allclose(slope(), 43.5, rtol=1e-5)


def test_a_layer_made_before_goes_before_the_dem(tmp_path, hills_dem):
    hundredths(tmp_path / "a.tif")
    before = Precomputed(path=tmp_path, scale=0.01)
    reader = ElevationSource(ElevationSettings(path=hills_dem, slope_degrees=before))
    stack = reader.read(SCENE, SCENE.geobox, ["slope", "elevation"])
    assert list(stack) == ["slope", "elevation"]
    np.testing.assert_allclose(stack["slope"], 41.5, rtol=1e-5)
    np.testing.assert_array_equal(stack["elevation"], read(hills_dem, ["elevation"])[0])
    assert {file.name for file in reader.files(SCENE)} > {"a.tif"}

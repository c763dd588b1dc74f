"""Reading onto any grid, and writing whole files: rasterio, arithmetic and analytic surfaces as oracles."""

import tracemalloc
import warnings
from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from PIL import Image
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.vrt import WarpedVRT

from thawmap.data.raster import io, resample
from thawmap.data.raster.io import Encoding, raster_info, raster_writer, read_raster, write_png, write_raster
from thawmap.data.raster.resample import footprint, warp
from thawmap.data.vector.io import write_vector
from thawmap.errors import DataError
from thawmap.files.atomic import atomic, write_text

law = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])

UTM, POLAR, DEGREES = "EPSG:32608", "EPSG:3413", "EPSG:4326"
LON, LAT = -139.1, 69.6  # Herschel Island
NORTH_UP = Affine(10, 0, 570_000, 0, -10, 7_720_000)


def save(path, values, *, transform=NORTH_UP, crs=UTM, **options):
    """Write (band, y, x) with rasterio alone."""
    profile = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    with rasterio.open(path, "w", **profile, dtype=values.dtype, transform=transform, crs=crs, **options) as file:
        file.write(values)
    return path


def grid(shape, transform=NORTH_UP, crs=UTM):
    return GeoBox(shape, transform, crs)


def centres(geobox):
    """Map coordinates (x, y) of the pixels' centres."""
    rows, cols = geobox.shape
    return geobox.affine * tuple(np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5))


def positions(geobox, own):
    """Column and row in the grid ``own``, from its corner, of the centres of ``geobox``."""
    x, y = Transformer.from_crs(str(geobox.crs), str(own.crs), always_xy=True).transform(*centres(geobox))
    return ~own.affine * (x, y)


def around(crs, *, shape, pixel, turn=0.0, shift=(0.0, 0.0)):
    """A grid of ``pixel`` units, turned by degrees, whose middle is Herschel Island, shifted by parts of a pixel."""
    x, y = Transformer.from_crs(DEGREES, crs, always_xy=True).transform(LON, LAT)
    width, height = (pixel, pixel) if np.isscalar(pixel) else pixel
    affine = Affine.translation(x, y) * Affine.rotation(turn) * Affine.scale(width, -height)
    return GeoBox(shape, affine * Affine.translation(shift[0] - shape[1] / 2, shift[1] - shape[0] / 2), crs)


def same(first, second):
    np.testing.assert_array_equal(first, second)


# Reading a part of the file's own grid


@law
@given(
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    nodata=st.sampled_from([None, 0, 7]),
    extra=st.sampled_from([None, 3, 7]),
    corner=st.tuples(st.integers(-8, 14), st.integers(-8, 14)),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_a_window_holds_the_files_own_pixels_and_nan_where_missing_or_outside(
    tmp_path, seed, dtype, nodata, extra, corner, shape
):
    row, col = corner
    values = np.random.default_rng(seed).integers(0, 9, (2, 11, 13)).astype(dtype)
    path = save(tmp_path / "a.tif", values, nodata=nodata)
    window = grid(shape, NORTH_UP * Affine.translation(col, row))
    read = read_raster(path, window, bands=[2, 1], nodata=extra)
    padded = np.full((2, 60, 60), np.nan)
    padded[:, 20:31, 20:33] = np.where(np.isin(values, [v for v in (nodata, extra) if v is not None]), np.nan, values)
    same(read, padded[::-1, 20 + row : 20 + row + shape[0], 20 + col : 20 + col + shape[1]])
    assert read.dtype == np.float32


@law
@given(row=st.integers(0, 10), col=st.integers(0, 12), height=st.integers(1, 11), width=st.integers(1, 13))
def test_a_window_equals_rasterios_own_masked_read(tmp_path, row, col, height, width):
    height, width = min(height, 11 - row), min(width, 13 - col)
    values = np.random.default_rng(3).normal(0, 9, (1, 11, 13)).astype(np.float32)
    values[values > 9], values[0, 4, 4] = -9999, np.nan
    path = save(tmp_path / "a.tif", values, nodata=-9999)
    with rasterio.open(path) as file:
        window = rasterio.windows.Window(col, row, width, height)
        expected = file.read(masked=True, window=window).filled(np.nan)
        geobox = grid((height, width), file.window_transform(window))
    same(read_raster(path, geobox, bands=[1]), expected)


def test_a_mask_band_and_an_alpha_band_say_what_is_missing(tmp_path):
    values = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    hidden = values[0] % 3 == 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        masked = save(tmp_path / "mask.tif", values)
        with rasterio.open(masked, "r+") as file:
            file.write_mask(~hidden)
    pair = np.stack([values[0], np.where(hidden, 0, 255).astype(np.uint8)])
    alpha = save(tmp_path / "alpha.tif", pair, photometric="MINISBLACK", alpha="YES")
    expected = np.where(hidden, np.nan, values[0])
    for path in (masked, alpha):
        same(read_raster(path, grid((3, 4)), bands=[1])[0], expected)


def test_the_same_grid_in_other_words_is_read_without_resampling(tmp_path):
    values = np.random.default_rng(0).normal(size=(1, 300, 300)).astype(np.float32)
    with_wkt = rasterio.crs.CRS.from_string(UTM).to_wkt()
    path = save(tmp_path / "a.tif", values, crs=with_wkt)
    rounded = NORTH_UP * Affine.translation(1e-6, -1e-6) * Affine.scale(1 + 1e-9)
    same(read_raster(path, grid((300, 300), rounded), bands=[1], resampling="cubic"), values)


# Reading onto another grid


def plane(own, geobox):
    """Columns plus twice the rows of ``own`` at the centres of ``geobox``: 1 px of error shows as 1 or 2."""
    col, row = positions(geobox, own)
    return col + 2 * row


GRIDS = st.one_of(
    st.builds(
        around,
        st.sampled_from([UTM, POLAR, "EPSG:3338", "EPSG:6931"]),
        shape=st.just((30, 40)),
        pixel=st.floats(5, 9),
        turn=st.floats(-180, 180),
        shift=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    ),
    st.builds(around, st.just(DEGREES), shape=st.just((30, 40)), pixel=st.just((2.2e-4, 8e-5))),
)


@pytest.mark.slow
@law
@given(
    source=st.sampled_from(
        [
            around(UTM, shape=(160, 170), pixel=10, turn=30),
            around(POLAR, shape=(160, 170), pixel=10),
            around(DEGREES, shape=(160, 170), pixel=(2.6e-4, 9e-5)),
        ]
    ),
    geobox=GRIDS,
)
def test_values_lie_where_they_belong_to_a_hundredth_of_a_pixel(tmp_path, source, geobox):
    values = plane(source, source)[None].astype(np.float32)
    path = save(tmp_path / "a.tif", values, transform=source.affine, crs=str(source.crs))
    read = read_raster(path, geobox, bands=[1], resampling="cubic")[0]
    assert np.abs(read - plane(source, geobox)).max() < 0.01


def test_positions_are_as_exact_across_a_wide_scene(tmp_path):
    """Where GDAL's usual transformer is off by up to an eighth of a pixel, more in one cut than in another."""
    source = around(POLAR, shape=(3300, 600), pixel=10)
    path = save(tmp_path / "a.tif", plane(source, source)[None].astype(np.float32), transform=source.affine, crs=POLAR)
    geobox = around(UTM, shape=(8, 3000), pixel=10)
    read = read_raster(path, geobox, bands=[1], resampling="bilinear")[0]
    assert np.abs(read - plane(source, geobox)).max() < 0.005


def test_half_a_pixel_of_shift_would_be_seen(tmp_path):
    """The test above fails when pixel corners are taken for centres."""
    source = around(POLAR, shape=(160, 170), pixel=10)
    values = plane(source, source)[None].astype(np.float32)
    path = save(tmp_path / "a.tif", values, crs=POLAR, transform=source.affine * Affine.translation(0.5, 0))
    geobox = around(UTM, shape=(30, 40), pixel=9)
    error = read_raster(path, geobox, bands=[1])[0] - plane(source, geobox)
    np.testing.assert_allclose(error, -0.5, atol=0.01)


def test_a_wave_of_twenty_pixels_keeps_its_height_and_place(tmp_path):
    def wave(col, row):
        return np.sin(2 * np.pi * col / 20) * np.cos(2 * np.pi * row / 20)

    source = around(POLAR, shape=(300, 300), pixel=2)
    path = save(tmp_path / "a.tif", wave(*positions(source, source))[None], transform=source.affine, crs=POLAR)
    geobox = around(UTM, shape=(90, 80), pixel=2.3, shift=(0.3, 0.6))
    read = read_raster(path, geobox, bands=[1])[0]
    assert np.abs(read - wave(*positions(geobox, source))).max() < 0.02


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
def test_resampling_is_gdals_own(tmp_path, method):
    """As a WarpedVRT of the file in one piece; positions may differ by a thousandth of a pixel.

    Only the rims of gaps, which GDAL fills where it reads two bands, stay gaps here.
    """
    values = np.random.default_rng(1).normal(0, 1, (2, 120, 130)).astype(np.float32)
    values[1, 40:60, 50:70] = -9999
    source = around(POLAR, shape=(120, 130), pixel=10)
    path = save(tmp_path / "a.tif", values, transform=source.affine, crs=POLAR, nodata=-9999)
    geobox = around(UTM, shape=(50, 60), pixel=9)
    target = {"crs": UTM, "transform": geobox.affine, "width": 60, "height": 50, "XSCALE": 1, "YSCALE": 1}

    def gdals(name):
        with (
            rasterio.open(path) as file,
            WarpedVRT(file, **target, resampling=Resampling[name], tolerance=1e-5, UNIFIED_SRC_NODATA="NO") as warped,
        ):
            return np.where(warped.read() == -9999, np.nan, warped.read())

    expected = np.where(np.isnan(gdals("nearest")), np.nan, gdals(method))
    read = read_raster(path, geobox, bands=[1, 2], resampling=method)
    close = np.isclose(read, expected, atol=0.01, equal_nan=True)
    assert close.mean() > 0.999
    assert 0 < np.isnan(read[1]).mean() < 0.2
    assert np.isfinite(read[0]).all()


@law
@given(geobox=GRIDS)
def test_nearest_gives_the_pixel_that_lies_under_the_centre(tmp_path, geobox):
    values = np.random.default_rng(2).integers(0, 255, (1, 80, 90), dtype=np.uint8)
    source = around(POLAR, shape=(80, 90), pixel=12)
    path = save(tmp_path / "a.tif", values, transform=source.affine, crs=POLAR, nodata=255)
    col, row = positions(geobox, source)
    inside = (col > 0) & (row > 0) & (col < 90) & (row < 80)
    expected = values[0, np.floor(row).clip(0, 79).astype(int), np.floor(col).clip(0, 89).astype(int)]
    clear = (np.abs(col - np.round(col)) > 0.005) & (np.abs(row - np.round(row)) > 0.005)  # not on a pixel's edge
    read = read_raster(path, geobox, bands=[1], resampling="nearest")[0]
    same(read[clear], np.where(inside & (expected != 255), expected, np.nan)[clear])


def interpolated(values, col, row, method):
    """Values (y, x) at places, by the definition: a weight for each of the nearest 2 x 2 or 4 x 4 pixels."""

    def tent(distance):
        return np.clip(1 - np.abs(distance), 0, None)

    def keys(distance):
        t = np.abs(distance)
        inner, outer = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        return np.where(t < 1, inner, np.where(t < 2, outer, 0))

    weight = {"bilinear": tent, "cubic": keys}[method]
    total = np.zeros(col.shape)
    first_row, first_col = np.floor(row - 0.5).astype(int), np.floor(col - 0.5).astype(int)
    for i in range(-1, 3):
        for j in range(-1, 3):
            r, c = first_row + i, first_col + j
            total += weight(row - 0.5 - r) * weight(col - 0.5 - c) * values[r, c]
    return total


WARPS = settings(law, max_examples=10)


@WARPS
@given(geobox=GRIDS, method=st.sampled_from(["bilinear", "cubic"]))
def test_interpolations_are_what_their_names_say(geobox, method):
    """Positions by pyproj, weights by definition (Keys 1981 for cubic); nothing of GDAL's."""
    source = around(POLAR, shape=(100, 100), pixel=10)
    values = np.random.default_rng(7).uniform(0, 1, (1, 100, 100)).astype(np.float32)
    assert max(resample._pixels_in_one(source, geobox)) <= 1  # kernels grow where a grid is coarser
    col, row = positions(geobox, source)
    expected = interpolated(values[0], col, row, method)
    np.testing.assert_allclose(warp(values, source, geobox, resampling=method)[0], expected, atol=0.004)


@WARPS
@given(geobox=GRIDS, method=st.sampled_from(["nearest", "bilinear", "cubic", "average", None]))
def test_gaps_change_nothing_beyond_the_reach_of_a_kernel(geobox, method):
    """A window with a gap and one without go other ways through GDAL, and agree."""
    source = around(POLAR, shape=(100, 100), pixel=10)
    values = np.random.default_rng(8).uniform(0, 1, (2, 100, 100)).astype(np.float32)
    gaps = values.copy()
    gaps[0, 45:52, 40:49] = np.nan
    without_gaps, with_gaps = (warp(given, source, geobox, resampling=method) for given in (values, gaps))
    same(without_gaps[1], with_gaps[1])
    col, row = positions(geobox, source)
    far = (np.abs(row - 48.5) > 3.5 + 4) | (np.abs(col - 44.5) > 4.5 + 4)
    np.testing.assert_allclose(with_gaps[0][far], without_gaps[0][far], atol=1e-5)
    if method not in ("average", None):
        inside = (np.abs(row - 48.5) < 3.5 - 0.01) & (np.abs(col - 44.5) < 4.5 - 0.01)
        outside = (np.abs(row - 48.5) > 3.5 + 0.01) | (np.abs(col - 44.5) > 4.5 + 0.01)
        assert np.isnan(with_gaps[0][inside]).all()
        assert np.isfinite(with_gaps[0][outside]).all()


@WARPS
@given(geobox=GRIDS, method=st.sampled_from(["nearest", "bilinear", "cubic", "average", None]))
def test_a_footprint_is_all_that_a_warp_needs(geobox, method):
    source = around(POLAR, shape=(200, 200), pixel=10)
    values = np.random.default_rng(9).uniform(0, 1, (1, 200, 200)).astype(np.float32)
    under = footprint(source, geobox)
    window_grid = GeoBox((under.height, under.width), source.affine * Affine.translation(under.col, under.row), POLAR)
    assert window_grid.height * window_grid.width < 200 * 200
    read = warp(values[:, under.rows, under.cols], window_grid, geobox, resampling=method)
    np.testing.assert_allclose(read, warp(values, source, geobox, resampling=method), atol=2e-3)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize("gap", [False, True])
def test_beyond_the_values_nothing_is_known(method, gap):
    source = around(POLAR, shape=(30, 30), pixel=10)
    values = np.full((1, 30, 30), 5, np.float32)
    values[0, 0, 0] = np.nan if gap else 5
    geobox = around(UTM, shape=(90, 90), pixel=8)
    read = warp(values, source, geobox, resampling=method)[0]
    col, row = positions(geobox, source)
    margin = 0.6 if method == "average" else 0.01
    inside = (np.abs(row - 15) < 15 - margin) & (np.abs(col - 15) < 15 - margin) & ((row > 2) | (col > 2))
    outside = (np.abs(row - 15) > 15 + margin) | (np.abs(col - 15) > 15 + margin)
    np.testing.assert_allclose(read[inside], 5, atol=1e-5)
    assert np.isnan(read[outside]).all()


def mean_under(values, corners):
    """The mean of ``values`` in a polygon of (column, row), each weighed by its area inside, and the polygon's."""
    rows, cols = np.indices(values.shape)
    inside = shapely.area(shapely.intersection(shapely.box(cols, rows, cols + 1, rows + 1), shapely.Polygon(corners)))
    weights = np.where(np.isnan(values), 0, inside)
    total = weights.sum()
    return (np.nansum(weights * values) / total if total else np.nan), total / shapely.Polygon(corners).area


@pytest.mark.slow
@law
@given(factor=st.floats(1.3, 7), turn=st.floats(-180, 180), shift=st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
@example(factor=4, turn=0, shift=(0, 0))
@example(factor=3, turn=45, shift=(0, 0))
def test_a_coarser_pixel_is_the_mean_of_what_it_covers_however_grids_are_turned(tmp_path, factor, turn, shift):
    """Missing pixels do not count; areas by shapely."""
    values = np.random.default_rng(4).normal(5, 1, (40, 42)).astype(np.float32)
    values[13:19, 14:19] = np.nan
    path = save(tmp_path / "a.tif", values[None])
    transform = Affine.translation(20 + shift[0], 20 + shift[1]) * Affine.rotation(turn) * Affine.scale(factor)
    geobox = grid((3, 3), NORTH_UP * transform * Affine.translation(-1.5, -1.5))
    errors = []
    for (row, col), got in np.ndenumerate(read_raster(path, geobox, bands=[1])[0]):
        corners = [~NORTH_UP * geobox.affine * (col + i, row + j) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
        mean, share = mean_under(values, corners)
        if share > 0.99:
            errors.append(got - mean)
        elif share == 0:
            assert np.isnan(got)
    assert np.sqrt(np.mean(np.square([0, *errors]))) < 0.3 / factor  # the mean of n by n values varies by 1 / n
    assert not errors or turn or factor != 4 or np.abs(errors).max() < 1e-5


CUTS = st.tuples(st.integers(0, 25), st.integers(1, 5))


@pytest.mark.slow
@law
@given(geobox=GRIDS, rows=CUTS, cols=CUTS)
def test_a_window_equals_the_whole_whatever_the_cut(tmp_path, geobox, rows, cols):
    """To two thousandths of a pixel; values here differ by up to 1 from one pixel to the next."""
    values = np.random.default_rng(5).uniform(0, 1, (1, 70, 70)).astype(np.float32)
    values[0, 30:40, 30:36] = np.nan
    source = around(POLAR, shape=(70, 70), pixel=10)
    path = save(tmp_path / "a.tif", values, transform=source.affine, crs=POLAR)
    cut = np.s_[rows[0] : rows[0] + rows[1], cols[0] : cols[0] + cols[1]]
    expected = read_raster(path, geobox, bands=[1])[0][cut]
    windowed = read_raster(path, geobox[cut], bands=[1])[0]
    assert np.sum(np.isnan(windowed) != np.isnan(expected)) <= 1  # where an edge lies on a centre
    both = np.isfinite(windowed) & np.isfinite(expected)
    np.testing.assert_allclose(windowed[both], expected[both], atol=0.01)


@pytest.mark.parametrize("method", ["nearest", "cubic", "average"])
def test_what_is_read_in_parts_for_want_of_memory_is_the_same(tmp_path, monkeypatch, method):
    values = np.random.default_rng(6).uniform(0, 1, (2, 300, 300)).astype(np.float32)
    source = around(POLAR, shape=(300, 300), pixel=10)
    path = save(tmp_path / "a.tif", values, transform=source.affine, crs=POLAR)
    geobox = around(UTM, shape=(61, 47), pixel=25)
    at_once = read_raster(path, geobox, bands=[1, 2], resampling=method)
    monkeypatch.setattr("thawmap.data.raster.resample._MAX_NUMBERS", 20_000)
    by_halves = read_raster(path, geobox, bands=[1, 2], resampling=method)
    assert np.isclose(by_halves, at_once, atol=0.01).mean() > 0.999


def test_missing_pixels_spread_no_further_than_the_pixel_and_reveal_nothing(tmp_path):
    values = np.full((1, 40, 40), 3, np.int16)
    values[0, 10:20, 10:20] = -32768
    path = save(tmp_path / "a.tif", values, nodata=-32768)
    geobox = grid((36, 36), NORTH_UP * Affine.translation(1.3, 1.4))
    read = read_raster(path, geobox, bands=[1])[0]
    col, row = positions(geobox, grid((40, 40)))
    same(np.isnan(read), (col > 10) & (col < 20) & (row > 10) & (row < 20))
    np.testing.assert_allclose(read[np.isfinite(read)], 3, atol=1e-5)


@pytest.mark.parametrize("method", [None, "nearest", "average", "cubic"])
@pytest.mark.parametrize("geobox", [grid((4, 4), NORTH_UP * Affine.translation(500, 0) * Affine.scale(0.7))])
def test_a_grid_beside_the_file_is_missing_altogether(tmp_path, method, geobox):
    path = save(tmp_path / "a.tif", np.ones((1, 9, 9), np.float32))
    assert np.isnan(read_raster(path, geobox, bands=[1], resampling=method)).all()


def test_a_grid_that_the_files_crs_does_not_know_is_missing_there(tmp_path):
    beyond = GeoBox((40, 20), Affine(0.01, 0, LON, 0, -0.02, 90.4), DEGREES)  # the first 20 rows lie beyond the Pole
    source = GeoBox((50, 50), Affine(3000, 0, -75_000, 0, -3000, 75_000), POLAR)
    path = save(tmp_path / "a.tif", np.ones((1, 50, 50), np.float32), transform=source.affine, crs=POLAR)
    read = read_raster(path, beyond, bands=[1])[0]
    assert np.isfinite(read[21:]).all()


# Reading onto a much coarser grid


@pytest.mark.parametrize("extra", [None, 99])
@pytest.mark.parametrize("overviews", [False, True])
def test_an_overview_is_the_mean_of_the_scene(tmp_path, extra, overviews):
    rows, cols = np.indices((640, 800))
    values = (rows + 2 * cols + 200).astype(np.uint16)
    hole = (rows < 160) & (cols < 160)
    path = save(tmp_path / "a.tif", np.where(hole, extra or 0, values)[None].astype(np.uint16), nodata=0)
    if overviews and extra is None:
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4, 8], Resampling.average)
    read = read_raster(path, grid((640, 800)).zoom_to((20, 25)), bands=[1], nodata=extra)[0]
    expected = np.where(hole, np.nan, values).reshape(20, 32, 25, 32).mean(axis=(1, 3))
    np.testing.assert_allclose(read, expected, atol=0.6)


def test_an_overview_of_classes_has_no_class_of_its_own(tmp_path):
    values = np.where(np.indices((400, 400)).sum(0) % 37 < 9, 255, 0).astype(np.uint8)
    path = save(tmp_path / "a.tif", values[None])
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8, 16], Resampling.average)
    read = read_raster(path, grid((400, 400)).zoom_to((25, 25)), bands=[1], resampling="nearest")
    assert set(np.unique(read)) == {0, 255}


def test_an_overview_holds_no_whole_scene(tmp_path):
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 6000, "width": 3000, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", **profile, transform=NORTH_UP, crs=UTM, sparse_ok=True):
        pass
    tracemalloc.start()
    for options in ({"nodata": 5}, {"resampling": "nearest"}, {}):
        read = read_raster(path, grid((6000, 3000)).zoom_to((60, 30)), bands=[1], **options)
        assert read.max() == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 3000 * 4 / 4


def test_a_strip_of_few_pixels_is_read_coarsely_too(tmp_path):
    path = save(tmp_path / "a.tif", np.full((1, 3000, 3), 4, np.uint8))
    read = read_raster(path, grid((3000, 3)).zoom_to((30, 1)), bands=[1])
    same(read, np.full((1, 30, 1), 4))


# What a file says of itself


def test_a_file_says_its_grid_bands_and_names(tmp_path):
    path = save(tmp_path / "a.tif", np.zeros((2, 5, 6), np.int16), nodata=-1)
    with rasterio.open(path, "r+") as file:
        file.set_band_description(2, "slope")
    info = raster_info(path)
    assert info.geobox == grid((5, 6))
    assert (info.count, info.dtype, info.nodata, info.descriptions) == (2, "int16", -1, ("", "slope"))


def test_a_crs_without_a_number_is_kept(tmp_path):
    crs = "+proj=laea +lat_0=71 +lon_0=-150 +datum=WGS84 +units=m"
    path = save(tmp_path / "a.tif", np.ones((1, 20, 20), np.float32), crs=crs, transform=Affine(9, 0, 0, 0, -9, 0))
    geobox = raster_info(path).geobox
    assert geobox.crs.proj.is_exact_same(rasterio.crs.CRS.from_string(crs).to_wkt())
    assert np.isfinite(read_raster(path, geobox.pad(-5).zoom_out(0.5), bands=[1])).all()
    write_raster(tmp_path / "b.tif", np.ones(geobox.shape, np.uint8), geobox, encoding=Encoding(dtype="uint8"))
    assert raster_info(tmp_path / "b.tif").geobox == geobox


def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path):
    geobox = grid((90, 90))
    save(tmp_path / "bare.tif", np.zeros((1, 9, 9), np.uint8), crs=None)
    (tmp_path / "text.tif").write_text("no raster")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        save(tmp_path / "adrift.tif", np.zeros((1, 9, 9), np.uint8), transform=Affine.identity())
    (tmp_path / "empty.tif").touch()
    sound = save(tmp_path / "whole.tif", np.random.default_rng(0).normal(size=(1, 90, 90)))
    (tmp_path / "cut.tif").write_bytes(sound.read_bytes()[:9000])
    for name, message in {
        "absent.tif": "does not exist",
        "bare.tif": "no CRS",
        "adrift.tif": "no transform",
        "text.tif": "not a raster",
        "empty.tif": "not a raster",
        "cut.tif": "read",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            read_raster(tmp_path / name, geobox, bands=[1])
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="has no band 3; it has 1 to 1"):
        read_raster(sound, geobox, bands=[1, 3])


# Writing rasters


def test_a_written_raster_is_a_cog_that_gives_everything_back(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (2, 1100, 700), dtype=np.uint8)
    encoding = Encoding(dtype="uint8", bands=2, nodata=255, scale=0.01, offset=-1.0, descriptions=("mean", "spread"))
    path = tmp_path / "new" / "folder" / "p.tif"
    write_raster(path, values, grid((1100, 700)), encoding=encoding)
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1) == [2, 4]
        assert file.block_shapes == [(512, 512)] * 2
        assert file.scales == (0.01, 0.01)
        assert file.offsets == (-1.0, -1.0)
        assert file.descriptions == ("mean", "spread")
        assert file.nodata == 255
        assert file.crs == UTM
        assert file.transform == NORTH_UP
        same(file.read(), values)
    assert [child.name for child in path.parent.iterdir()] == ["p.tif"]


@law
@given(
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    cuts=st.lists(st.integers(1, 39), max_size=4),
    seed=st.integers(0, 99),
)
def test_rows_written_in_any_order_come_back(tmp_path, dtype, shape, cuts, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 200, shape).astype(dtype)
    ends = sorted({0, shape[0], *(cut for cut in cuts if cut < shape[0])})
    strips = list(pairwise(ends))
    rng.shuffle(strips)
    with raster_writer(tmp_path / "a.tif", grid(shape), Encoding(dtype=dtype)) as writer:
        for first, end in strips:
            writer.write(int(first), values[first:end])
    same(read_raster(tmp_path / "a.tif", grid(shape), bands=[1])[0], values.astype(np.float32))


def test_nan_is_written_and_read_as_missing(tmp_path):
    values = np.array([[0.5, np.nan], [np.nan, 1]], np.float32)
    write_raster(tmp_path / "a.tif", values, grid((2, 2)), encoding=Encoding(dtype="float32", nodata=np.nan))
    same(read_raster(tmp_path / "a.tif", grid((2, 2)), bands=[1])[0], values)


def test_coarser_copies_of_classes_have_no_class_of_their_own(tmp_path):
    values = np.tile(np.array([[0, 255], [1, 0]], np.uint8), (400, 400))
    colours = {0: (0, 0, 0, 0), 1: (200, 30, 30, 255), 255: (9, 9, 9, 255)}
    encoding = Encoding(dtype="uint8", nodata=255, colours=colours, overviews="nearest")
    write_raster(tmp_path / "a.tif", values, grid((800, 800)), encoding=encoding)
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as file:
        assert set(np.unique(file.read())) <= {0, 1, 255}
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.colormap(1)[1] == (200, 30, 30, 255)
    averaged = Encoding(dtype="float32", overviews="average")
    write_raster(tmp_path / "b.tif", values.astype(np.float32), grid((800, 800)), encoding=averaged)
    with rasterio.open(tmp_path / "b.tif", overview_level=0) as file:
        np.testing.assert_allclose(file.read(), 64)


def test_values_must_have_the_grids_shape(tmp_path):
    with pytest.raises(DataError, match=r"\(2, 3\)"):
        write_raster(tmp_path / "a.tif", np.zeros((2, 3)), grid((3, 2)), encoding=Encoding(dtype="uint8"))
    assert list(tmp_path.iterdir()) == []


# Whole or not at all


def leave_behind(folder):
    return sorted(path.name for path in folder.rglob("*"))


def break_off(context, action, failure):
    """Do something in a context, then fail."""
    with context as given:
        action(given)
        raise failure


def test_a_raster_that_fails_half_way_leaves_the_old_one(tmp_path):
    write_raster(tmp_path / "a.tif", np.ones((600, 4)), grid((600, 4)), encoding=Encoding(dtype="uint8"))
    before = (tmp_path / "a.tif").read_bytes()
    for failure in (RuntimeError, KeyboardInterrupt):
        writer = raster_writer(tmp_path / "a.tif", grid((600, 4)), Encoding(dtype="uint8"))
        with pytest.raises(failure):
            break_off(writer, lambda writer: writer.write(0, np.zeros((5, 4))), failure)
    with pytest.raises(DataError), raster_writer(tmp_path / "a.tif", grid((6, 4)), Encoding(dtype="uint8")) as writer:
        writer.write(4, np.zeros((5, 4)))
    assert (tmp_path / "a.tif").read_bytes() == before
    assert leave_behind(tmp_path) == ["a.tif"]


def test_nothing_stands_under_the_name_before_the_end(tmp_path):
    with raster_writer(tmp_path / "a.tif", grid((6, 4)), Encoding(dtype="uint8")) as writer:
        writer.write(0, np.zeros((6, 4)))
        assert not (tmp_path / "a.tif").exists()
    assert leave_behind(tmp_path) == ["a.tif"]


def test_a_folder_takes_its_name_whole(tmp_path):
    path = tmp_path / "maps"

    def fill(draft, name="2.txt"):
        draft.mkdir()
        (draft / name).write_text("x")

    for number in range(2):
        with atomic(path, replacing=lambda *_: None) as draft:
            fill(draft, f"{number}.txt")
    assert leave_behind(tmp_path) == ["1.txt", "maps"]
    with pytest.raises(ValueError, match="half"):
        break_off(atomic(path), fill, ValueError("half"))
    assert leave_behind(tmp_path) == ["1.txt", "maps"]


def test_a_folder_is_replaced_only_where_that_is_asked_for(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    (tmp_path / "file").touch()
    for name in ("folder", "file"):
        with pytest.raises(DataError, match=f"{name} exists, and nothing"), atomic(tmp_path / name) as draft:
            draft.mkdir()
    assert leave_behind(tmp_path) == ["file", "folder", "mine"]


@pytest.mark.parametrize("target_exists", [True, False])
def test_a_link_stays_and_where_it_leads_is_written(tmp_path, target_exists):
    (tmp_path / "far").mkdir()
    if target_exists:
        (tmp_path / "far" / "a.txt").write_text("old")
    (tmp_path / "a.txt").symlink_to(Path("far") / "a.txt")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "far" / "a.txt").read_text() == "new"


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    frame = gpd.GeoDataFrame({"a": [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs=UTM)
    folder = tmp_path / "file" / "below"
    for write in (
        lambda: write_text(folder / "a.txt", "x"),
        lambda: write_png(folder / "a.png", np.zeros((2, 2, 3), np.uint8)),
        lambda: write_raster(folder / "a.tif", np.zeros((2, 2)), grid((2, 2)), encoding=Encoding(dtype="uint8")),
        lambda: write_vector(folder / "a.gpkg", frame),
    ):
        with pytest.raises(DataError, match="cannot be written"):
            write()
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be written"):
        write_text(tmp_path / "taken", "x")
    assert leave_behind(tmp_path) == ["file", "inside", "taken"]


def test_a_full_disk_is_one_sentence(tmp_path):

    def overflow(draft):
        draft.symlink_to("/dev/full")
        draft.write_text("x" * 99999)

    with pytest.raises(DataError, match="No space left"):
        break_off(atomic(tmp_path / "a.txt"), overflow, AssertionError)
    assert leave_behind(tmp_path) == []


def test_texts_and_pictures(tmp_path):
    write_text(tmp_path / "a.txt", "Üß½\n")
    assert (tmp_path / "a.txt").read_bytes() == "Üß½\n".encode()
    picture = np.random.default_rng(0).integers(0, 255, (7, 5, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as file:
        same(np.asarray(file), picture)


def test_the_block_cache_holds_blocks(tmp_path):
    """GDAL's own option counts small numbers as megabytes, rasterio's as bytes: then every block is decoded anew."""
    path = tmp_path / "big.tif"
    values = np.random.default_rng(0).integers(0, 60000, (2048, 2048), dtype=np.uint16)
    profile = {"driver": "GTiff", "height": 2048, "width": 2048, "count": 1, "dtype": "uint16", "tiled": True,
               "blockxsize": 1024, "blockysize": 1024, "compress": "deflate", "crs": "EPSG:32608",
               "transform": Affine(3, 0, 5e5, 0, -3, 7e6)}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
    with io._open(path) as opened:
        file = opened.file
        file.read(1, window=((0, 128), (0, 2048)))
        path.write_bytes(b"")  # from here on only what is kept can be read
        np.testing.assert_array_equal(file.read(1, window=((512, 640), (0, 2048))), values[512:640])

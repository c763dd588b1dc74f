"""Trends: codes of TCVIS tiles to trends per decade against GDAL's warp, and files that are something else."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT

from thawmap.config import TrendSettings
from thawmap.data.sources.base import Scene, Source
from thawmap.data.sources.trends import TrendSource
from thawmap.data.stack import preview
from thawmap.errors import ConfigError, DataError
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window

UTM = "EPSG:32608"
NAMES = ["tc_brightness", "tc_greenness", "tc_wetness"]
SCENE = Scene(id="s1", sensor="test", geobox=GeoBox((90, 110), Affine(3, 0, 6e5, 0, -3, 7.7e6), UTM), files={})
DEGREE = 1 / 3600


def tile_grid(shape=(60, 90), *, crs="EPSG:4326"):
    """A grid of about 30 m around the scene."""
    x, y = Transformer.from_crs(UTM, crs, always_xy=True).transform(6e5 + 165, 7.7e6 - 135)
    wide, tall = (DEGREE, DEGREE / 2) if crs == "EPSG:4326" else (30, 30)
    return GeoBox(shape, Affine(wide, 0, x - shape[1] / 2 * wide, 0, -tall, y + shape[0] / 2 * tall), crs)


def codes(shape, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (3, *shape)).astype(np.uint8)


def write(path, values, grid, *, alpha=False, nodata=None, scales=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, crs=str(grid.crs), transform=grid.affine, nodata=nodata, photometric="MINISBLACK",
    ) as file:  # fmt: skip
        colours = [ColorInterp.gray] * len(values)
        file.colorinterp = [*colours[:-1], ColorInterp.alpha] if alpha else colours
        file.write(values)
    return path


def read(path, geobox=SCENE.geobox, names=NAMES, **more):
    stack = TrendSource(TrendSettings(path=path, **more)).read(SCENE, geobox, names)
    return np.stack([stack[name] for name in names])


def test_it_is_a_source_of_three_layers_in_units(tmp_path):
    source: Source = TrendSource(TrendSettings(path=tmp_path))
    assert source.layers == set(NAMES)
    write(tmp_path / "a.tif", codes((60, 90)), tile_grid())
    stack = source.read(SCENE, SCENE.geobox, ["tc_wetness", "tc_brightness"])
    assert list(stack) == ["tc_wetness", "tc_brightness"]
    assert {str(stack[name].dtype) for name in stack} == {"float32"}
    assert source.files(SCENE) == [tmp_path / "a.tif"]


@pytest.mark.parametrize(("code", "trend"), [(0, -0.12), (255, 0.12), (51, -0.072)])
def test_a_code_is_low_and_its_share_of_the_range(tmp_path, code, trend):
    write(tmp_path / "a.tif", np.full((3, 60, 90), code, np.uint8), tile_grid())
    np.testing.assert_allclose(read(tmp_path), trend, atol=1e-6)
    np.testing.assert_allclose(read(tmp_path, low=0, high=51)[0], code / 5, atol=1e-5)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3413", "EPSG:32607", UTM])
def test_trends_in_any_crs_are_gdals_warp(tmp_path, crs):
    grid = tile_grid(crs=crs)
    path = write(tmp_path / "a.tif", 80 + codes(grid.shape) // 3, grid)
    profile = {"height": 90, "width": 110, "transform": SCENE.geobox.affine, "crs": UTM}
    with (
        rasterio.open(path) as file,
        WarpedVRT(file, **profile, resampling=Resampling.cubic, tolerance=0.001) as warped,
    ):
        expected = warped.read()
    np.testing.assert_allclose(read(tmp_path), -0.12 + expected / 255 * 0.24, atol=1e-3)


def test_each_band_is_its_own_index(tmp_path):
    values = np.stack([np.full((60, 90), code, np.uint8) for code in (10, 100, 200)])
    write(tmp_path / "a.tif", values, tile_grid())
    wetness, brightness, greenness = read(tmp_path, names=["tc_wetness", "tc_brightness", "tc_greenness"])
    assert wetness.mean() > greenness.mean() > brightness.mean()


def test_tiles_join_without_a_seam_and_where_none_is_nothing_is_known(tmp_path):
    grid, values = tile_grid(), codes((60, 90))
    write(tmp_path / "whole" / "a.tif", values, grid)
    for number, columns in enumerate((np.s_[:, :45], np.s_[:, 45:])):
        write(tmp_path / "cut" / f"{number}.tif", values[:, *columns], grid[columns])
    np.testing.assert_array_equal(read(tmp_path / "cut"), read(tmp_path / "whole"))
    half = read(tmp_path / "cut" / "0.tif")
    assert np.isnan(half).any()
    assert np.isfinite(half).any()


@settings(max_examples=15)
@given(data=st.data())
def test_a_window_is_the_whole(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "trends"
    if not folder.exists():
        write(folder / "a.tif", codes((60, 90)), tile_grid())
    row, col = data.draw(st.integers(0, 80)), data.draw(st.integers(0, 100))
    window = Window(
        row=row, col=col, height=data.draw(st.integers(1, 90 - row)), width=data.draw(st.integers(1, 110 - col))
    )
    expected = read(folder)[:, window.rows, window.cols]
    np.testing.assert_allclose(read(folder, window_geobox(SCENE.geobox, window)), expected, atol=2e-4)


@pytest.mark.parametrize("how", ["nodata", "setting", "alpha"])
def test_what_is_missing_is_missing_however_it_is_said(tmp_path, how):
    values, grid = codes((60, 90)), tile_grid(crs=UTM)
    values[:, 20:40] = 0
    alpha = np.where(values[:1] > 0, 255, 0).astype(np.uint8)
    if how == "alpha":
        write(tmp_path / "a.tif", np.concatenate([values, alpha]), grid, alpha=True)
    else:
        write(tmp_path / "a.tif", values, grid, nodata=0 if how == "nodata" else None)
    values_read = read(tmp_path, grid, **({"nodata": 0} if how == "setting" else {}))
    np.testing.assert_array_equal(np.isnan(values_read), values == 0)
    np.testing.assert_allclose(values_read[:, 40:], -0.12 + values[:, 40:] / 255 * 0.24, atol=1e-6)


def test_floats_are_trends_already(tmp_path):
    trends = np.random.default_rng(0).uniform(-0.1, 0.1, (3, 60, 90)).astype(np.float32)
    grid = tile_grid(crs=UTM)
    write(tmp_path / "a.tif", trends, grid)
    np.testing.assert_array_equal(read(tmp_path, grid), trends)


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_other_numbers_of_bands_are_refused_by_name(tmp_path, count):
    write(tmp_path / "wrong.tif", np.ones((count, 60, 90), np.uint8), tile_grid())
    with pytest.raises(DataError, match=rf"wrong\.tif has {count} bands?, and trends have three"):
        read(tmp_path)


def test_other_whole_numbers_are_refused_by_name(tmp_path):
    write(tmp_path / "wrong.tif", np.ones((3, 60, 90), np.int16), tile_grid())
    with pytest.raises(DataError, match=r"wrong\.tif holds int16, and trends are bytes of TCVIS, or floats"):
        read(tmp_path)


def test_no_trends_under_the_scene_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"correct 'sources\.trends\.path'"):
        read(tmp_path)
    write(tmp_path / "far.tif", codes((9, 9)), GeoBox((9, 9), Affine(30, 0, 0, 0, -30, 0), "EPSG:3413"))
    with pytest.raises(DataError, match=rf"scene s1: no raster of {tmp_path} lies under it"):
        read(tmp_path)


def test_a_preview_is_the_mean_of_what_it_previews(tmp_path):
    large = Scene(id="s1", sensor="test", geobox=GeoBox((1800, 1800), SCENE.geobox.affine, UTM), files={})
    row, col = np.indices((250, 250))
    values = np.stack([128 + 100 * np.sin(row / 30) * np.cos(col / 50)] * 3).round().astype(np.uint8)
    write(tmp_path / "a.tif", values, GeoBox((250, 250), Affine(30, 0, 6e5 - 900, 0, -30, 7.7e6 + 900), UTM))
    source = TrendSource(TrendSettings(path=tmp_path))
    previewed = preview(large, NAMES[:1], [source], size=6)["tc_brightness"]
    means = (-0.12 + values[0, 30:210, 30:210] / 255 * 0.24).reshape(6, 30, 6, 30).mean(axis=(1, 3))
    np.testing.assert_allclose(previewed, means, atol=2e-3)

"""Rasters in every order of rows and columns: read as the north-up picture that they show, value for value."""

from itertools import product

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.config import Config, ElevationSettings, LabelSettings, RasterScenes
from thawmap.data.labels.polygons import open_labels
from thawmap.data.project import Project
from thawmap.data.raster.io import raster_info, read_means, read_raster
from thawmap.data.sources.base import Scene
from thawmap.data.sources.elevation import ElevationSource
from thawmap.data.stack import assemble
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window

GRID = GeoBox((24, 36), Affine(3, 0, 570_000, 0, -3, 7_720_000), "EPSG:32608")
ORDERS = list(product((False, True), repeat=3))
ids = pytest.mark.parametrize(
    "order", ORDERS, ids=["".join("srm"[i] if on else "-" for i, on in enumerate(o)) for o in ORDERS]
)


def stored(values, order, grid=GRID):
    """The same picture (band, y, x) as another program may store it, and its transform."""
    swapped, rows, cols = order
    height, width = values.shape[1:]
    affine = grid.affine
    if rows:
        values, affine = values[:, ::-1], affine * Affine.translation(0, height) * Affine.scale(1, -1)
    if cols:
        values, affine = values[:, :, ::-1], affine * Affine.translation(width, 0) * Affine.scale(-1, 1)
    if swapped:
        values, affine = values.swapaxes(1, 2), affine * Affine(0, 1, 0, 1, 0, 0)
    return values, affine


def write(path, values, order=(False, False, False), grid=GRID, **profile):
    values, affine = stored(np.asarray(values), order, grid)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, crs=str(grid.crs), transform=affine, **profile,
    ) as file:  # fmt: skip
        file.write(values)
    return path


def numbers(bands=2, seed=0, shape=GRID.shape):
    return np.random.default_rng(seed).integers(0, 4000, (bands, *shape)).astype(np.uint16)


@ids
def test_a_turned_file_is_read_as_its_north_up_copy(tmp_path, order):
    values = numbers()
    turned, plain = write(tmp_path / "a.tif", values, order, nodata=7), write(tmp_path / "b.tif", values, nodata=7)
    assert raster_info(turned).geobox == GRID
    assert "-0.0" not in repr(tuple(raster_info(turned).geobox.affine))
    places = [
        GRID,
        window_geobox(GRID, Window(row=-3, col=5, height=20, width=40)),
        GRID.zoom_out(4),  # whole blocks
        GeoBox((9, 9), GRID.affine * Affine.translation(2, 3) * Affine.scale(2.5), GRID.crs),
        GeoBox((30, 30), Affine(3, 0, -2233779 - 60, 0, -3, -70117 + 60), "EPSG:3413"),
        GeoBox((15, 18), Affine(2e-4, 0, -133.2021, 0, -5e-5, 69.5794), "EPSG:4326"),
    ]
    for geobox in places:
        for how in (None, "nearest"):
            read = [read_raster(path, geobox, bands=[2, 1], resampling=how) for path in (turned, plain)]
            assert np.isfinite(read[0]).any()
            np.testing.assert_array_equal(*read)
    means = [read_means(path, Window(row=4, col=8, height=20, width=16), (5, 8), bands=[1]) for path in (turned, plain)]
    np.testing.assert_array_equal(*means)


@pytest.mark.parametrize("degrees", [0, 20, 44, 46, 90, 135, 200, 300])
@pytest.mark.parametrize("mirror", [1, -1])
@pytest.mark.parametrize("skew", [0, 25])
def test_every_pixel_lies_where_gdal_finds_it_and_north_is_above(tmp_path, degrees, mirror, skew):
    affine = GRID.affine * Affine.rotation(degrees) * Affine.shear(skew) * Affine.scale(1, mirror)
    path = write(tmp_path / "a.tif", numbers(1), grid=GeoBox(GRID.shape, affine, GRID.crs))
    geobox = raster_info(path).geobox
    read = read_raster(path, geobox, bands=[1])[0]
    col, row = np.meshgrid(np.arange(geobox.width) + 0.5, np.arange(geobox.height) + 0.5)
    with rasterio.open(path) as file:
        there = [value for (value,) in file.sample(zip(*(geobox.affine * (col.ravel(), row.ravel())), strict=True))]
    np.testing.assert_array_equal(read.ravel(), there)
    assert sorted(geobox.shape) == sorted(GRID.shape)
    assert geobox.affine.a > 0 > geobox.affine.e
    assert geobox.affine.determinant < 0


@ids
def test_bands_masks_and_labels_of_a_scene_may_each_be_stored_in_another_order(tmp_path, order):
    bands, usable, labels = numbers(), numbers(1, 1) % 3, numbers(1, 2) % 2
    for name, values, way in (("image", bands, order), ("usable", usable, order[::-1]), ("labels", labels, order)):
        write(tmp_path / "s" / f"{name}.tif", values, way)
    scenes = RasterScenes(
        kind="rasters",
        path=tmp_path / "s",
        files={"image.tif": {"red": {}, "nir": {"band": 2}}},
        valid={"file": "usable.tif", "usable": [1, 2]},
    )
    settings = LabelSettings(raster="labels.tif")
    project = Project(Config(scenes=scenes, layers=["red", "nir"], labels=settings))
    scene = project.open(project.candidates()[0])
    assert scene.geobox == GRID
    stack = assemble(scene, ["red", "nir"], scene.geobox, project.sources)
    np.testing.assert_array_equal([stack["red"], stack["nir"]], bands)
    np.testing.assert_array_equal(stack["valid"], usable[0] > 0)
    np.testing.assert_array_equal(open_labels(settings).burn(scene, scene.geobox), labels[0])


@ids
def test_tiles_of_a_dem_in_any_order_are_one_dem(tmp_path, order):
    heights = np.random.default_rng(0).uniform(0, 90, (1, *GRID.shape)).astype(np.float32)
    for name, tile, way in (("west", slice(0, 16), (False, False, False)), ("east", slice(16, 36), order)):
        write(tmp_path / "turned" / f"{name}.tif", heights[:, :, tile], way, GRID[:, tile])
    write(tmp_path / "plain" / "dem.tif", heights)
    scene = Scene(id="s", sensor="test", geobox=GRID, files={})
    layers = ["elevation", "slope", "hillshade"]
    turned, plain = (
        ElevationSource(ElevationSettings(path=tmp_path / name)).read(scene, GRID, layers)
        for name in ("turned", "plain")
    )
    for name in layers:
        np.testing.assert_array_equal(turned[name], plain[name])

"""A scene's folder: whole or not there, its files in agreement, readable by everyone else's tools."""

import json
from datetime import UTC, datetime

import geopandas as gpd
import numpy as np
import pyogrio
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from PIL import Image
from rasterio.features import rasterize

from thawmap.config import OutputSettings, PolygonSettings
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.data.stack import preview
from thawmap.maps.caption import STRIP_PX
from thawmap.maps.job import MapJob, Provenance
from thawmap.maps.layout import SHAPEFILE_NAMES, SLUMP_COLUMNS, probability_raster
from thawmap.maps.polygons.threshold import above
from thawmap.maps.quicklook import quicklook
from thawmap.maps.replacing import is_finished
from thawmap.maps.rows import Rows
from thawmap.maps.write import write_map

KINDS = ("gpkg", "shp", "parquet")


def scene_of(shape, acquired=None, origin=(500_000.0, 7_700_000.0), crs="EPSG:32608", step=10.0):
    geobox = GeoBox(shape, Affine(step, 0, origin[0], 0, -step, origin[1]), crs)
    return Scene(id="s1", sensor="test", geobox=geobox, files={}, acquired=acquired, region="Yukon")


def picture_of(scene, names=("green", "red", "nir")):
    values = np.random.default_rng(0).uniform(0.1, 0.4, scene.geobox.shape).astype(np.float32)
    return preview(scene, names, [ArraySource(dict.fromkeys(names, values), scene.geobox)])


def rows_of(probability, height=5):
    for row in range(0, len(probability), height):
        yield Rows(first_row=row, probability=probability[row : row + height].astype(np.float32))


def job_of(scene, *, threshold=0.5, storage="uint8", bundle="b1", config=None, inputs=(), **settings):
    """A job; settings of polygons and outputs by their names."""
    of_polygons = {name: value for name, value in settings.items() if name in PolygonSettings.model_fields}
    of_outputs = {name: value for name, value in settings.items() if name in OutputSettings.model_fields}
    assert of_polygons | of_outputs == settings
    return MapJob(
        scene=scene,
        polygons=PolygonSettings(threshold=threshold, **of_polygons),
        outputs=OutputSettings(probability=storage, **of_outputs),
        provenance=Provenance(bundle=bundle, config=config or {"inference": {"overlap": 2}}, inputs=inputs),
    )


def made(folder, probability, scene=None, **settings):
    """The folder of a scene's map, and what was written there."""
    scene = scene or scene_of(probability.shape)
    job = job_of(scene, **{"vectors": ("gpkg",), "min_area_m2": 0} | settings)
    written = write_map(job, rows_of(probability), folder, picture=picture_of(scene))
    return written.folder, written


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def burnt(path, shape, scene):
    polygons = gpd.read_file(path).geometry
    pairs = [(polygon, 1) for polygon in polygons] or [(shapely.Polygon(), 1)]
    if polygons.empty:
        return np.zeros(shape, np.uint8)
    return rasterize(pairs, out_shape=shape, transform=scene.geobox.transform, dtype="uint8")


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    hundredths=st.integers(0, 100),
    storage=st.sampled_from(["uint8", "float32"]),
)
def test_the_files_agree(tmp_path_factory, seed, shape, hundredths, storage):
    random = np.random.default_rng(seed)
    near = (hundredths + random.choice([-7, -0.6, -0.4, 0, 0.4, 0.6, 7], shape)) / 100
    probability = np.where(random.random(shape) < 0.1, np.nan, near.clip(0, 1))
    folder, done = made(tmp_path_factory.mktemp("maps"), probability, threshold=hundredths / 100, storage=storage)
    stored, mask = read(folder / "probability.tif"), read(folder / "mask.tif")
    missing = np.isnan(probability)
    if storage == "uint8":
        positive = stored > hundredths
        assert np.array_equal(stored == 255, missing)
        assert np.abs(stored / 100 - probability)[~missing].max(initial=0) <= 0.005 + 1e-6
    else:
        positive = stored.astype(np.float64) > hundredths / 100
        np.testing.assert_array_equal(stored, probability.astype(np.float32))
    assert np.array_equal(mask == 255, missing)
    assert np.array_equal(mask == 1, positive & ~missing)
    assert np.array_equal(burnt(folder / "slumps.gpkg", shape, scene_of(shape)) == 1, mask == 1)
    assert (done.valid_pixels, done.slump_pixels) == ((~missing).sum(), (mask == 1).sum())


@pytest.mark.parametrize("hundredths", range(101))
def test_a_byte_at_the_threshold_is_not_above_it(hundredths):
    raster = probability_raster("probability.tif", "uint8")
    stored = raster.stored(np.full((1, 1), hundredths / 100, np.float32))
    probability = raster.values(stored)
    assert stored[0, 0] == hundredths
    assert not above(probability, hundredths / 100).any()
    assert above(probability, (hundredths - 1) / 100).all()


def test_rasters_are_cogs_that_say_what_their_numbers_mean(tmp_path):
    probability = np.full((600, 1100), 0.25)
    probability[100:200, 100:300] = 0.875
    probability[:50] = np.nan
    folder, _ = made(tmp_path, probability)
    for name in ("probability.tif", "mask.tif"):
        with rasterio.open(folder / name) as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.overviews(1)
            assert file.dtypes == ("uint8",)
            assert file.nodata == 255
            assert file.crs == "EPSG:32608"
            assert file.transform == scene_of((600, 1100)).geobox.transform
    with rasterio.open(folder / "probability.tif") as file:
        assert file.scales == (0.01,)
        assert set(np.unique(file.read(1))) == {25, 88, 255}
    with rasterio.open(folder / "mask.tif") as file:
        assert file.colormap(1)[1] == (215, 48, 39, 255)
        small = file.read(1, out_shape=(300, 550))
        assert set(np.unique(small)) == {0, 1, 255}


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1), (7, 23)])
def test_small_and_thin_scenes(tmp_path, shape):
    folder, done = made(tmp_path, np.ones(shape), vectors=KINDS)
    assert done.slumps == 1
    assert read(folder / "mask.tif").shape == shape
    assert done.slump_area_m2 == pytest.approx(100 * shape[0] * shape[1], rel=0.01)


def test_a_scene_without_a_valid_pixel_has_files_without_slumps(tmp_path):
    folder, done = made(tmp_path, np.full((6, 7), np.nan), vectors=KINDS)
    assert (done.valid_pixels, done.slumps, done.slump_area_m2) == (0, 0, 0.0)
    assert (read(folder / "probability.tif") == 255).all()
    assert gpd.read_file(folder / "slumps.gpkg").empty
    assert gpd.read_file(folder / "slumps.shp").empty
    assert list(gpd.read_parquet(folder / "slumps.parquet").columns) == [*SLUMP_COLUMNS, "geometry"]


def test_polygons_are_the_same_in_every_format(tmp_path):
    probability = np.zeros((20, 20))
    probability[2:6, 3:9] = 0.75
    probability[10:14, 0:3] = 0.9
    scene = scene_of((20, 20), acquired=datetime(2021, 7, 1, 3, 4, 5, tzinfo=UTC))
    folder, _ = made(tmp_path, probability, scene, vectors=KINDS)
    parquet = gpd.read_parquet(folder / "slumps.parquet")
    package = gpd.read_file(folder / "slumps.gpkg")
    shapes = gpd.read_file(folder / "slumps.shp")
    assert len(parquet) == 2
    for frame in (package, shapes):
        assert shapely.equals(frame.geometry.to_numpy(), parquet.geometry.to_numpy()).all()
        assert frame.crs == parquet.crs == "EPSG:32608"
    assert list(package.columns) == list(parquet.columns)
    assert list(shapes.columns) == [*SHAPEFILE_NAMES.values(), "geometry"]
    assert package["acquired"].equals(parquet["acquired"].astype(package["acquired"].dtype))
    assert shapes["acquired"].tolist() == ["2021-07-01T03:04:05Z"] * 2
    assert package["touches_edge"].tolist() == [False, True]
    assert shapes["edge"].tolist() == [0, 1]
    assert shapes["prob_mean"].to_numpy() == pytest.approx(parquet["probability_mean"].to_numpy())
    assert package["reviewer"].isna().all()


def test_shapefile_names_are_short_unique_and_complete():
    assert list(SHAPEFILE_NAMES) == list(SLUMP_COLUMNS)
    assert len(set(SHAPEFILE_NAMES.values())) == len(SLUMP_COLUMNS)
    assert max(len(name) for name in SHAPEFILE_NAMES.values()) <= 10


class BoomError(Exception):
    pass


def broken_rows(probability, after):
    for number, rows in enumerate(rows_of(probability)):
        if number == after:
            raise BoomError
        yield rows


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_broken_scene_leaves_nothing_and_spares_what_was_there(tmp_path, after):
    probability = np.full((20, 20), 0.75)
    scene = scene_of((20, 20))
    job = job_of(scene, bundle="b2")

    def breaking():
        write_map(job, broken_rows(probability, after), tmp_path, picture=picture_of(scene))

    with pytest.raises(BoomError):
        breaking()
    assert not list(tmp_path.iterdir())
    assert not is_finished(job, tmp_path / scene.id)
    folder, _ = made(tmp_path, probability, scene)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(BoomError):
        breaking()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["s1"]


def test_rows_that_end_early_are_not_a_scene(tmp_path):
    with pytest.raises(AssertionError, match="all rows"):
        made(tmp_path, np.ones((10, 10)), scene_of((20, 10)))
    assert not list(tmp_path.iterdir())


def test_a_rerun_replaces_the_folder(tmp_path):
    made(tmp_path, np.ones((10, 10)), vectors=KINDS)
    folder, _ = made(tmp_path, np.zeros((10, 10)))
    assert not read(folder / "mask.tif").any()
    styles = {"probability.qml", "mask.qml", "slumps.qml"}
    names = {"probability.tif", "mask.tif", "slumps.gpkg", "quicklook.png", "item.json"}
    assert {path.name for path in folder.iterdir()} == names | styles


def test_finished_is_what_was_made_from_the_same(tmp_path):
    scene = scene_of((10, 10))
    folder, _ = made(tmp_path, np.ones((10, 10)), scene)
    same = job_of(scene)
    assert is_finished(same, folder)
    others = (
        job_of(scene, bundle="b2"),
        job_of(scene, threshold=0.4),
        job_of(scene, config={"inference": {"overlap": 3}}),
        job_of(scene, inputs=[{"name": "s2.tif"}]),
    )
    assert len({job.fingerprint for job in others}) == 4
    assert not any(is_finished(job, folder) for job in others)
    (folder / "item.json").write_text("{", encoding="utf-8")
    assert not is_finished(same, folder)


def test_small_slumps_lie_in_a_layer_of_their_own_and_in_no_mask(tmp_path):
    probability = np.zeros((10, 10))
    probability[1, 1] = probability[4:8, 4:8] = 1
    folder, done = made(tmp_path, probability, min_area_m2=500, vectors=KINDS)
    assert (done.slumps, done.left_out, done.slump_pixels) == (1, 1, 16)
    assert (read(folder / "mask.tif") == 1).sum() == 16
    assert pyogrio.list_layers(folder / "slumps.gpkg")[:, 0].tolist() == ["slumps", "left_out"]
    item = json.loads((folder / "item.json").read_text(encoding="utf-8"))
    assert item["properties"]["thawmap:left_out"] == {"below 500 m2": 1}
    for kind in KINDS:
        if kind == "gpkg":
            small = gpd.read_file(folder / "slumps.gpkg", layer="left_out")
        else:
            file = folder / item["assets"][f"left_out_{kind}"]["href"]
            small = gpd.read_parquet(file) if kind == "parquet" else gpd.read_file(file)
        assert small["pixels"].tolist() == [1]
        assert small["reason"].tolist() == ["below 500 m2"]


def test_the_item_is_stac_and_says_what_it_was_made_from(tmp_path):
    taken = datetime(2021, 7, 1, 3, 4, 5, tzinfo=UTC)
    folder, _ = made(tmp_path, np.ones((10, 10)), scene_of((10, 10), acquired=taken), vectors=KINDS)
    item = pystac.Item.from_file(folder / "item.json")
    assert item.datetime == taken
    assert item.properties["proj:code"] == "EPSG:32608"
    assert item.properties["proj:shape"] == [10, 10]
    assert item.properties["thawmap:bundle"] == "b1"
    assert item.properties["thawmap:config"] == {"inference": {"overlap": 2}}
    assert item.properties["thawmap:inputs"] == []
    assert item.properties["thawmap:slumps"] == 1
    beside = (".json", ".qml", ".dbf", ".shx", ".prj", ".cpg")
    assert {(folder / asset.href).name for asset in item.assets.values()} == {
        path.name for path in folder.iterdir() if path.suffix not in beside
    }
    for asset in item.assets.values():
        assert (folder / asset.href).exists()
        assert asset.roles
        assert asset.media_type
    outline = shapely.geometry.shape(item.geometry)
    assert item.bbox == pytest.approx(outline.bounds)
    assert outline.exterior.is_ccw
    assert outline.centroid.x == pytest.approx(-135, abs=0.01)


def test_a_time_that_is_not_known_is_not_invented(tmp_path):
    folder, _ = made(tmp_path, np.ones((10, 10)))
    properties = json.loads((folder / "item.json").read_text())["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "1858-01-01T00:00:00Z"
    assert properties["end_datetime"] == properties["created"]
    assert pystac.Item.from_file(folder / "item.json").datetime is None
    assert gpd.read_file(folder / "slumps.gpkg")["acquired"].isna().all()


def test_a_footprint_across_the_antimeridian_is_cut_there(tmp_path):
    scene = scene_of((10, 10), crs="EPSG:32660", origin=(600_000.0, 7_700_000.0), step=5000.0)
    folder, _ = made(tmp_path, np.ones((10, 10)), scene)
    item = json.loads((folder / "item.json").read_text())
    outline = shapely.geometry.shape(item["geometry"])
    assert outline.geom_type == "MultiPolygon"
    assert outline.is_valid
    assert all(part.bounds[2] - part.bounds[0] < 10 for part in outline.geoms)
    west, _, east, _ = item["bbox"]
    assert west > 170
    assert east < -170


@pytest.mark.parametrize("lon", [180.0, -180.0, 179.9999, -180.0001])
def test_a_footprint_of_degrees_beyond_180_is_cut_too(tmp_path, lon):
    scene = scene_of((10, 10), crs="EPSG:4326", origin=(lon - 0.0005, 69.0), step=0.0001)
    folder, _ = made(tmp_path, np.ones((10, 10)), scene)
    item = json.loads((folder / "item.json").read_text())
    outline = shapely.geometry.shape(item["geometry"])
    assert outline.geom_type == "MultiPolygon"
    assert outline.area == pytest.approx(scene.geobox.extent.geom.area)
    west, _, east, _ = item["bbox"]
    assert 179 < west < 180
    assert -180 < east < -179


def test_the_quicklook_shows_the_outlines_where_the_slumps_are(tmp_path):
    probability = np.zeros((100, 200))
    probability[40:60, 50:100] = 1
    folder, _ = made(tmp_path, probability)
    picture = np.asarray(Image.open(folder / "quicklook.png")).astype(int)
    assert picture.shape == (512 + STRIP_PX, 1024, 3)
    sky = (abs(picture - (0x56, 0xB4, 0xE9)) < 12).all(axis=-1)
    rows, cols = np.nonzero(sky)
    scale = 1024 / 200
    assert [rows.min(), rows.max(), cols.min(), cols.max()] == pytest.approx(
        [40 * scale, 60 * scale, 50 * scale, 100 * scale], abs=3
    )


def test_the_quicklook_is_grey_without_colours_and_dark_where_missing():
    scene = scene_of((40, 40))
    values = np.random.default_rng(0).uniform(0, 40, (40, 40)).astype(np.float32)
    values[:20] = np.nan
    stack = preview(scene, ["slope"], [ArraySource({"slope": values}, scene.geobox)])
    nothing = gpd.GeoDataFrame(geometry=[], crs="EPSG:32608")
    picture = quicklook(stack, nothing)
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (picture[..., 1] == picture[..., 2]).all()
    assert np.ptp(picture[:500]) == 0
    assert picture[520:].std() > 50
    stack["slope"][:] = np.nan
    assert np.ptp(quicklook(stack, nothing)) == 0

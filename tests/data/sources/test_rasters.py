"""Scenes of any raster files: how they are found, and how their layers come onto the scene's grid."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from thawmap.config import Config, LabelSettings, RasterScenes
from thawmap.data.project import Project
from thawmap.data.raster.io import Encoding, write_raster
from thawmap.data.sources.bands import BandSource
from thawmap.data.sources.finding import parse_time
from thawmap.data.sources.rasters import candidates
from thawmap.data.stack import preview
from thawmap.errors import ConfigError, DataError
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.pipeline.scenes import notes

GRID = GeoBox((12, 10), Affine(3, 0, 570_000, 0, -3, 7_720_000), "EPSG:32608")


def save(path, values, geobox=GRID, nodata=None):
    values = np.asarray(values)
    bands = 1 if values.ndim == 2 else len(values)
    write_raster(path, values, geobox, encoding=Encoding(dtype=str(values.dtype), bands=bands, nodata=nodata))
    return path


def blank(path):
    return save(path, np.zeros(GRID.shape, np.uint8))


def mapped(files=None, **options):
    return RasterScenes(kind="rasters", files=files or {"a.tif": {"red": {"band": 1}}}, **options)


def open_scene(candidate, settings, *, labels=None):
    labelled = None if labels is None else LabelSettings(raster=labels)
    return Project(Config(scenes=settings, labels=labelled)).open(candidate)


def open_all(settings, **options):
    return [open_scene(candidate, settings, **options) for candidate in candidates(settings)]


# Finding scenes


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2019-07-14", datetime(2019, 7, 14, tzinfo=UTC)),
        ("2019-07-14T01:00:00+03:00", datetime(2019, 7, 13, 22, tzinfo=UTC)),
        ("20190714T120000", datetime(2019, 7, 14, 12, tzinfo=UTC)),
        *[(text, None) for text in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "0000-01-01", "NaT", "")],
        *[(text, None) for text in ("2019-02-30", "43660.0", "20190714.0", "1 days", "1563062400000", "²019-07-14")],
    ],
)
def test_a_time_is_one_of_an_image_or_unknown(text, time):
    assert parse_time(text) == time


def test_folders_are_found_by_pattern_in_order_with_the_region_above_them(tmp_path):
    for folder in ("Lena/s2", "Lena/s10", "Horton/b"):
        blank(tmp_path / folder / "a.tif")
    (tmp_path / "Lena" / "notes.txt").touch()
    scenes = open_all(mapped(path=tmp_path / "*" / "[bs]*", region="{parent}"))
    assert [(scene.id, scene.region) for scene in scenes] == [("b", "Horton"), ("s10", "Lena"), ("s2", "Lena")]
    assert scenes[0].files == {"a.tif": tmp_path / "Horton" / "b" / "a.tif"}
    assert scenes[0].geobox == GRID
    assert scenes[0].acquired is None


def test_the_region_is_the_folder_that_the_user_sees(tmp_path):
    blank(tmp_path / "archive" / "x" / "a.tif")
    (tmp_path / "Lena").mkdir()
    (tmp_path / "Lena" / "s1").symlink_to(tmp_path / "archive" / "x")
    assert [scene.region for scene in open_all(mapped(path=tmp_path / "Lena" / "*", region="{parent}"))] == ["Lena"]


def test_names_in_capitals_are_found_where_no_other_is(tmp_path):
    blank(tmp_path / "A1.TIF")
    blank(tmp_path / "A1_Mask.Tif")
    settings = mapped({"{name}.tif": {"red": {}}, "{name}_m[ab]sk.tif": {"nir": {}}}, path=tmp_path / "a[!x].tif")
    (scene,) = open_all(settings)
    assert [file.name for file in scene.files.values()] == ["A1.TIF", "A1_Mask.Tif"]
    blank(tmp_path / "a2.tif")
    blank(tmp_path / "a2_mask.tif")
    assert [scene.id for scene in open_all(settings)] == ["a2"]  # as in a shell


def test_what_a_file_says_of_its_numbers_is_noted_where_the_settings_differ(tmp_path):
    for number in range(3):
        path = tmp_path / f"s{number}" / "a.tif"
        path.parent.mkdir()
        profile = {"driver": "GTiff", "count": 3, "height": 12, "width": 10, "dtype": "uint16"}
        with rasterio.open(path, "w", **profile, crs="EPSG:32608", transform=GRID.affine) as file:
            file.scales, file.offsets = [1e-4, 1e-4, 0.5], [-0.1, 0, 3]
    bands = {"red": {"scale": 1e-4}, "nir": {"band": 2, "scale": 1e-4}, "slope": {"band": 3, "nodata": -9999}}
    settings = mapped({"a.tif": bands}, path=tmp_path / "s*")
    about_red, about_slope, about_nodata = open_all(settings)[0].notes
    assert about_red.startswith(
        "a.tif itself says scale 0.0001 and offset -0.1 for red, and 'scenes.files' 0.0001 and 0"
    )
    assert about_slope.startswith("a.tif itself says scale 0.5 and offset 3 for slope, and 'scenes.files' 1 and 0")
    assert about_nodata.startswith("'nodata: -9999' is never met in a.tif, whose numbers are uint16")
    sound = {"red": {"scale": 1e-4, "offset": -0.1, "nodata": 0}, "nir": {"band": 2, "scale": 1e-4}}
    assert open_all(mapped({"a.tif": sound}, path=tmp_path / "s*"))[0].notes == ()
    lines = notes({scene.id: scene.notes for scene in open_all(settings)})
    assert [line.partition(":")[0] for line in lines] == ["3 scenes, such as s0"] * 3


def test_notes_that_differ_in_numbers_alone_are_one_line():
    by_scene = {f"s{n}": [f"its metadata tell {n}% cloud cover", "it has no mask", "a.tif is odd"] for n in range(100)}
    by_scene["s7"].append("a.tif is odd")
    assert notes(by_scene) == (
        "100 scenes, each with its own numbers, such as s0: its metadata tell 0% cloud cover",
        "100 scenes, such as s0: it has no mask",
        "100 scenes, such as s0: a.tif is odd",
        "s7: a.tif is odd",
    )


def test_one_file_can_be_a_scene(tmp_path, monkeypatch):
    for name in ("one.v2", "two"):
        blank(tmp_path / f"{name}.tif")
        blank(tmp_path / "masks" / f"{name}_udm.tif")
    files = {"{name}.tif": {"red": {}}, "masks/{name}_*.tif": {"nir": {}}}
    settings = mapped(files, path=tmp_path / "*.tif")
    assert [scene.id for scene in open_all(settings)] == ["one.v2", "two"]
    assert open_all(settings)[0].files["masks/{name}_*.tif"].name == "one.v2_udm.tif"
    monkeypatch.chdir(tmp_path)
    assert [candidate.id for candidate in candidates(settings, paths=[Path("two.tif")])] == ["two"]


def test_a_name_with_the_signs_of_a_pattern_means_itself(tmp_path):
    blank(tmp_path / "a[1]" / "b1.tif")
    settings = mapped({"b1.tif": {"red": {}}}, table=tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("id,path\nx,a[1]\n")
    assert open_all(settings)[0].files["b1.tif"] == tmp_path / "a[1]" / "b1.tif"


def test_the_folder_one_stands_in_is_a_scene(tmp_path, monkeypatch):
    blank(tmp_path / "s1" / "a.tif")
    monkeypatch.chdir(tmp_path / "s1")
    settings = mapped(path=tmp_path / "*", region="{parent}")
    (candidate,) = candidates(settings, paths=[Path()])
    assert (candidate.id, candidate.region) == ("s1", tmp_path.name)
    assert open_scene(candidate, settings).geobox == GRID


def test_a_table_names_ids_regions_places_and_times(tmp_path, caplog):
    for name in "abcd":
        blank(tmp_path / "data" / name / "a.tif")
    table = tmp_path / "scenes.csv"
    table.write_text(
        "\ufeffid,region,path,acquired,who\n"
        "s1,Lena,data/a,2019-07-14T23:10:09Z,me\n"
        "s2,,data/b,2019-07-14 12:00:00+02:00,\n"
        f"s3,Horton,{tmp_path / 'data' / 'c'},summer 2019,you\n"
        "s4,Horton,data/d\n",
        encoding="utf-8",
    )
    with caplog.at_level(logging.WARNING):
        scenes = open_all(mapped(table=table))
    assert [(scene.id, scene.region) for scene in scenes] == [
        ("s1", "Lena"), ("s2", None), ("s3", "Horton"), ("s4", "Horton"),
    ]  # fmt: skip
    assert [scene.acquired for scene in scenes] == [
        datetime(2019, 7, 14, 23, 10, 9, tzinfo=UTC), datetime(2019, 7, 14, 10, tzinfo=UTC), None, None,
    ]  # fmt: skip
    (record,) = caplog.records
    assert "scenes.csv:4" in record.getMessage()
    assert "'summer 2019'" in record.getMessage()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id;path\ns1;a\n", "no column 'id'.*commas"),
        ("id,place\ns1,a\n", "no column 'path'"),
        ("", "no column 'id'"),
        ("id,path\n", "t.csv lists no scene; give each a row"),
        ("id,path\n,a\n", "t.csv:2: scene id ''"),
        ("id,path\n../b,a\n", r"t.csv:2: scene id '\.\./b'"),
        ("id,path\ns1,\n", "t.csv:2: scene 's1' has no path"),
        ("id,path\ns1,a\ns2,b\ns1,c\n", "two scenes have the id 's1'"),
        ("id,path\nsé,a\n".encode("latin-1"), "UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_a_faulty_table_is_refused_with_its_line(tmp_path, text, message):
    table = tmp_path / "t.csv"
    if text is not None:
        table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        candidates(mapped(table=table))


def test_no_scene_and_two_of_one_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no scene matches"):
        candidates(mapped(path=tmp_path / "*"))
    for folder in ("x/s1", "y/s1"):
        blank(tmp_path / folder / "a.tif")
    with pytest.raises(ConfigError, match="two scenes have the id 's1'"):
        candidates(mapped(path=tmp_path / "[xy]" / "*"))


def test_a_name_that_is_no_folder_is_the_fault_of_one_scene(tmp_path):
    for name in ("s1", "s 2", "s3 (1)"):
        blank(tmp_path / f"{name}.tif")
    settings = mapped({"{name}.tif": {"red": {}}}, path=tmp_path / "*.tif")
    scenes = candidates(settings)
    assert [candidate.fault is None for candidate in scenes] == [True, False, False]
    for candidate, message in zip(scenes[1:], (r"rename it to s3\.tif", "'s 2' cannot name a folder"), strict=True):
        with pytest.raises(DataError, match=f"scene {candidate.id}: .*{message}"):
            open_scene(candidate, settings)
    other = mapped({"s3.tif": {"red": {}}}, path=tmp_path.parent / tmp_path.name)
    with pytest.raises(DataError, match=r"s3 \(1\)\.tif has a name .* rename it to s3\.tif"):
        open_all(other)


# Opening scenes


def one(tmp_path, settings_files=None, **options):
    settings = mapped(settings_files, path=tmp_path / "s*", **options)
    return settings, candidates(settings)[0]


def test_what_a_scene_lacks_is_said_with_its_id(tmp_path):
    blank(tmp_path / "s1" / "a.tif")
    blank(tmp_path / "s1" / "b.tif")
    for files, options, message in (
        ({"c.tif": {"red": {}}}, {}, "scene s1: file 'c.tif' is not there"),
        ({"*.tif": {"red": {}}}, {}, r"scene s1: file '\*.tif' matches 2 files, such as a.tif, b.tif"),
        ({"a.tif": {"red": {"band": 2}}}, {}, "scene s1: a.tif has no band 2 for layer 'red'; it has 1 to 1"),
        (None, {"valid": {"file": "m.tif"}}, "scene s1: file 'm.tif' is not there"),
        (None, {"valid": {"file": "b.tif", "band": 3}}, "scene s1: b.tif has no band 3"),
    ):
        settings, candidate = one(tmp_path, files, **options)
        with pytest.raises(DataError, match=message):
            open_scene(candidate, settings)
    settings, candidate = one(tmp_path)
    with pytest.raises(DataError, match=r"scene s1: file 'labels\.tif' is not there"):
        open_scene(candidate, settings, labels="labels.tif")
    assert open_scene(candidate, settings, labels="b.tif").files["labels"].name == "b.tif"


def test_a_place_in_the_table_that_does_not_exist_is_not_read_elsewhere(tmp_path):
    blank(tmp_path / "a.tif")
    (tmp_path / "t.csv").write_text("id,path\ns1,gone\n")
    with pytest.raises(DataError, match=r"scene s1: .*gone does not exist"):
        open_all(mapped(table=tmp_path / "t.csv"))


def test_the_grid_is_the_first_files_or_the_named_ones(tmp_path):
    coarse = GRID.zoom_out(2)
    blank(tmp_path / "s1" / "a.tif")
    save(tmp_path / "s1" / "b.tif", np.zeros(coarse.shape, np.uint8), coarse)
    files = {"a.tif": {"red": {}}, "b.tif": {"nir": {}}}
    assert open_scene(one(tmp_path, files)[1], one(tmp_path, files)[0]).geobox == GRID
    settings, candidate = one(tmp_path, files, grid="b.tif")
    assert open_scene(candidate, settings).geobox == coarse


# Reading layers


def test_layers_are_scaled_offset_and_masked_each_as_told(tmp_path):
    stored = np.arange(2 * 12 * 10, dtype=np.uint16).reshape(2, 12, 10)
    save(tmp_path / "s1" / "a.tif", stored, nodata=0)
    usable = (np.indices(GRID.shape).sum(0) % 5).astype(np.uint8)
    save(tmp_path / "s1" / "m.tif", usable)
    files = {"a.tif": {"nir": {"band": 2, "scale": 0.5}, "red": {"scale": 0.1, "offset": -2, "nodata": 7}}}
    settings, candidate = one(tmp_path, files, valid={"file": "m.tif", "usable": [1, 3]})
    scene = open_scene(candidate, settings)
    source = BandSource(frozenset(scene.readings))
    assert source.layers == {"nir", "red"}
    stack = source.read(scene, scene.geobox, ["red", "nir"])
    red = np.where(np.isin(stored[0], [0, 7]), np.nan, stored[0] * 0.1 - 2)
    np.testing.assert_allclose(stack["red"], red, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(stack["nir"], stored[1] * 0.5)
    np.testing.assert_array_equal(stack["valid"], np.isin(usable, [1, 3]))
    assert {str(variable.dtype) for variable in stack.values()} == {"float32", "bool"}
    only = source.read(scene, scene.geobox, ["nir"])
    assert set(only) == {"nir", "valid"}


def test_beyond_the_scene_nothing_is_known_and_nothing_usable(tmp_path):
    save(tmp_path / "s1" / "a.tif", np.ones(GRID.shape, np.uint8))
    save(tmp_path / "s1" / "m.tif", np.ones(GRID.shape, np.uint8))
    settings, candidate = one(tmp_path, valid={"file": "m.tif", "usable": [0, 1]})
    scene = open_scene(candidate, settings)
    window = window_geobox(GRID, Window(row=-2, col=-3, height=20, width=20))
    stack = BandSource(frozenset(scene.readings)).read(scene, window, ["red"])
    inside = np.zeros((20, 20), bool)
    inside[2:14, 3:13] = True
    np.testing.assert_array_equal(np.isfinite(stack["red"]), inside)
    np.testing.assert_array_equal(stack["valid"], inside)


def hills(x, y):
    """A surface of hills 900 m apart and up to 40 m high, in map coordinates of EPSG:3413."""
    return 20 + 20 * np.sin(2 * np.pi * x / 900) * np.cos(2 * np.pi * y / 900)


def centres(geobox, crs):
    rows, cols = geobox.shape
    points = geobox.affine * tuple(np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5))
    return Transformer.from_crs(str(geobox.crs), crs, always_xy=True).transform(*points)


def around(crs, pixel, shape):
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(-139.1, 69.6)
    width, height = (pixel, pixel) if np.isscalar(pixel) else pixel
    return GeoBox(shape, Affine(width, 0, x - shape[1] / 2 * width, 0, -height, y + shape[0] / 2 * height), crs)


@pytest.mark.parametrize(
    "grid",
    [
        around("EPSG:32608", 3, (110, 100)),
        around("EPSG:32608", 10, (50, 40)),
        around("EPSG:4326", (8e-5, 2.7e-5), (100, 90)),
    ],
    ids=["planetscope", "sentinel2", "degrees"],
)
def test_dem_and_trends_on_grids_of_their_own_land_on_the_scenes(tmp_path, grid):
    """A 2 m DEM in polar stereographic and 30 m trends, onto scenes of 3 m, 10 m and in degrees."""
    dem, trends = around("EPSG:3413", 2, (500, 500)), around("EPSG:32608", 30, (40, 40))
    save(tmp_path / "s1" / "a.tif", np.ones(grid.shape, np.uint16), grid)
    save(tmp_path / "s1" / "dem.tif", hills(*centres(dem, "EPSG:3413")).astype(np.float32), dem)
    save(tmp_path / "s1" / "tc.tif", hills(*centres(trends, "EPSG:3413")).astype(np.float32), trends)
    files = {"a.tif": {"red": {}}, "dem.tif": {"elevation": {}}, "tc.tif": {"tc_wetness": {}}}
    settings, candidate = one(tmp_path, files)
    scene = open_scene(candidate, settings)
    stack = BandSource(frozenset(scene.readings)).read(scene, scene.geobox, ["red", "elevation", "tc_wetness"])
    expected = hills(*centres(grid, "EPSG:3413"))
    assert stack["red"].min() == 1
    steepest = 20 * 2 * np.pi / 900  # metres a metre
    assert np.abs(stack["elevation"] - expected).max() < steepest * 0.5
    assert np.abs(stack["tc_wetness"] - expected).max() < steepest * 3
    tile = Window(row=20, col=15, height=30, width=25)
    windowed = BandSource(frozenset(scene.readings)).read(scene, window_geobox(grid, tile), ["elevation", "tc_wetness"])
    for name in ("elevation", "tc_wetness"):
        np.testing.assert_allclose(windowed[name], stack[name][tile.rows, tile.cols], atol=0.002)


def test_a_preview_is_the_whole_scene_in_small(tmp_path):
    grid = around("EPSG:4326", (8e-5, 2.7e-5), (300, 210))
    rows, cols = np.indices(grid.shape)
    save(tmp_path / "s1" / "a.tif", (rows * 3 + cols).astype(np.uint16), grid)
    save(tmp_path / "s1" / "m.tif", (rows >= 150).astype(np.uint8), grid)
    settings, candidate = one(tmp_path, valid={"file": "m.tif"})
    small = preview(open_scene(candidate, settings), ["red"], [BandSource(frozenset({"red"}))], size=30)
    assert small["red"].shape == (30, 21)
    expected = (rows * 3 + cols).reshape(30, 10, 21, 10).mean(axis=(1, 3))
    np.testing.assert_allclose(small["red"], expected, atol=0.6)
    np.testing.assert_array_equal(small["valid"], np.indices((30, 21))[0] >= 15)

"""A catalogue is a valid STAC catalogue and GeoParquet table, says what is read, and changes only with the scenes."""

import json
import os
import shutil
import stat
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from deliveries import planet_scene, raster, reflectance, sentinel_scene
from pystac.validation import JsonSchemaSTACValidator, validate_dict

from conftest import real_data
from thawmap.config import PlanetScopeScenes, RasterScenes, Sentinel2Scenes
from thawmap.data.catalogue.layout import CATALOG, INDEX, ITEMS
from thawmap.data.catalogue.write import write_catalogue
from thawmap.data.sources import scenes as scene_files
from thawmap.errors import ConfigError, DataError
from thawmap.files.hashes import file_sha256

FIRST, SECOND, THIRD = "20190701_042959_08_1057", "20190702_042959_08_1057", "20200703_042959_08_1057"


def planet(data: Path) -> PlanetScopeScenes:
    return PlanetScopeScenes(kind="planetscope", path=data / "scenes", region="{folder}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three scenes of two sites and two years."""
    for site, name in (("Peel", FIRST), ("Peel", THIRD), ("Lena", SECOND)):
        planet_scene(tmp_path / "data" / "scenes" / site / "order" / "PSScene", name)
    return tmp_path / "data"


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file of a catalogue, with its inode, time and bytes."""
    files = [folder / CATALOG, folder / INDEX, *(path for path in (folder / ITEMS).rglob("*") if path.is_file())]
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in files
    }


def items(folder: Path) -> dict[str, pystac.Item]:
    return {item.id: item for item in pystac.Catalog.from_file(str(folder / CATALOG)).get_items(recursive=True)}


def test_pystac_finds_every_scene_and_every_file(data):
    write_catalogue(data, planet(data))
    found = items(data)
    assert found.keys() == {FIRST, SECOND, THIRD}
    for candidate in scene_files.candidates(planet(data)):
        scene, item = scene_files.open_scene(candidate, planet(data)), found[candidate.id]
        paths = {key: Path(asset.get_absolute_href()) for key, asset in item.assets.items()}
        assert paths == scene.files
        assert all(item.assets[key].extra_fields["file:size"] == path.stat().st_size for key, path in paths.items())
        assert item.datetime == scene.acquired
        assert item.properties["thawmap:region"] == scene.region
        assert item.properties["proj:shape"] == list(scene.geobox.shape)
        assert item.properties["proj:transform"] == list(scene.geobox.affine)[:6]
        assert item.properties["proj:code"] == str(scene.geobox.crs)
        outline = gpd.GeoSeries([scene.geobox.extent.geom], crs=scene.geobox.crs).to_crs(4326)[0]
        assert shapely.geometry.shape(item.geometry).symmetric_difference(outline).area < 1e-3 * outline.area


@pytest.mark.realdata
def test_items_and_catalogues_follow_the_schemas(data):
    raster(data / "scenes" / "Peel" / "order" / "PSScene" / f"{FIRST}_3B_Analytic_clip.tif", reflectance(4))
    write_catalogue(data, planet(data))
    validator = JsonSchemaSTACValidator()
    schemas = [json.loads(path.read_text()) for path in (real_data() / "stac-schemas").glob("*.json")]
    validator.schema_cache |= {schema["$id"].rstrip("#"): schema for schema in schemas}
    validator.schema_cache["https://proj.org/schemas/v0.7/projjson.schema.json"] = {"$schema": schemas[0]["$schema"]}
    for path in (data / CATALOG, *(data / ITEMS).rglob("*.json")):
        validate_dict(json.loads(path.read_text(encoding="utf-8")), validator=validator)
    wrong = json.loads(next((data / ITEMS).rglob("*.item.json")).read_text(encoding="utf-8"))
    wrong["assets"]["image"]["file:checksum"] = 3
    with pytest.raises(pystac.STACValidationError):
        validate_dict(wrong, validator=validator)


def test_no_catalogue_has_links_to_more_than_a_year_of_a_site(data):
    write_catalogue(data, planet(data))
    links = {path: json.loads(path.read_text())["links"] for path in (data / ITEMS).rglob(CATALOG)}
    by_year = {path.parent.relative_to(data / ITEMS).as_posix(): links for path, links in links.items()}
    assert by_year.keys() == {"Peel", "Peel/2019", "Peel/2020", "Lena", "Lena/2019"}
    assert [link["href"] for link in by_year["Peel/2019"] if link["rel"] == "item"] == [f"./{FIRST}.item.json"]
    for path, of_path in links.items():
        assert all((path.parent / link["href"]).is_file() for link in of_path)


def test_the_index_is_a_geoparquet_table_of_the_same(data):
    write_catalogue(data, planet(data))
    table = gpd.read_parquet(data / INDEX).set_index("id")
    assert table.crs == "OGC:CRS84"
    for id_, item in items(data).items():
        row = table.loc[id_]
        assert row["datetime"].to_pydatetime() == item.datetime
        assert row.geometry.equals(shapely.geometry.shape(item.geometry))
        assert list(row["bbox"].values()) == item.bbox
        assert {key: data / value["href"] for key, value in row["assets"].items()} == {
            key: Path(asset.get_absolute_href()) for key, asset in item.assets.items()
        }
        assert {link["rel"]: data / link["href"] for link in row["links"]} == {"self": Path(item.self_href)}


def test_a_rerun_with_nothing_new_changes_no_byte(data):
    first = write_catalogue(data, planet(data))
    before = state(data)
    second = write_catalogue(data, planet(data))
    assert state(data) == before
    assert (first.opened, first.has_changed, second.opened, second.has_changed) == (3, True, 0, False)


def test_two_folders_alike_have_catalogues_alike(data):
    shutil.copytree(data, data.parent / "copy")
    write_catalogue(data, planet(data))
    write_catalogue(data.parent / "copy", planet(data.parent / "copy"))
    contents = [{name: content for name, (_, _, content) in state(f).items()} for f in (data, data.parent / "copy")]
    assert contents[0] == contents[1]


def test_new_changed_and_gone_scenes_are_followed(data):
    write_catalogue(data, planet(data))
    planet_scene(data / "scenes" / "Peel" / "later", "20190705_042959_08_1057")
    assert write_catalogue(data, planet(data)).opened == 1
    for path in (data / "scenes" / "Lena").rglob("*.*"):
        path.unlink()
    written = write_catalogue(data, planet(data))
    assert written.gone == (SECOND,)
    assert (written.opened, written.scenes) == (0, 3)
    assert items(data).keys() == {FIRST, THIRD, "20190705_042959_08_1057"}
    assert not (data / ITEMS / "Lena").exists()


def test_a_damaged_item_is_written_anew_and_files_of_others_stay(data):
    write_catalogue(data, planet(data))
    before = {name: content for name, (_, _, content) in state(data).items()}
    item = next((data / ITEMS).rglob("*.item.json"))
    item.write_text("{", encoding="utf-8")
    (data / CATALOG).unlink()
    (item.parent / "notes.txt").write_text("mine", encoding="utf-8")
    assert write_catalogue(data, planet(data)).has_changed
    after = {name: content for name, (_, _, content) in state(data).items()}
    assert after == before | {(item.parent / "notes.txt").relative_to(data).as_posix(): b"mine"}


def test_a_scene_that_cannot_be_opened_costs_one_scene(data):
    next((data / "scenes" / "Lena").rglob("*_SR_clip.tif")).write_bytes(b"damaged")
    written = write_catalogue(data, planet(data))
    assert written.failed.keys() == {SECOND}
    assert items(data).keys() == {FIRST, THIRD}


@pytest.mark.parametrize("name", [CATALOG, INDEX])
@pytest.mark.parametrize("content", ['{"type": "Catalog", "id": "mine"}', "damaged", "[]"])
def test_what_thawmap_did_not_make_is_not_replaced(data, name, content):
    (data / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"{name} was not made by thawmap"):
        write_catalogue(data, planet(data))
    assert (data / name).read_text(encoding="utf-8") == content


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_to_is_said(data):
    data.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(DataError, match="cannot be written"):
        write_catalogue(data, planet(data))
    data.chmod(stat.S_IRWXU)


def test_a_place_where_no_folder_can_be_made_is_said(data):
    (data / ITEMS).write_text("a file in the way", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written"):
        write_catalogue(data, planet(data))


def test_checksums_that_fit_are_kept_and_travel(data):
    sums = {
        path.relative_to(data).as_posix(): (path.stat().st_size, file_sha256(path))
        for path in (data / "scenes" / "Peel").rglob("*.tif")
    }
    wrong = {path.relative_to(data).as_posix(): (1, "0" * 64) for path in (data / "scenes" / "Lena").rglob("*.tif")}
    write_catalogue(data, planet(data), checksums=sums | wrong)
    write_catalogue(data, planet(data))
    for item in items(data).values():
        for asset in item.assets.values():
            path = Path(asset.get_absolute_href()).relative_to(data).as_posix()
            expected = "1220" + sums[path][1] if path in sums else None
            assert asset.extra_fields.get("file:checksum") == expected


def test_names_with_odd_characters_lead_to_their_files(tmp_path):
    for site in ("Пил 1", "a#b%20?", "two words"):
        planet_scene(tmp_path / "scenes" / site / "order", f"2019070{len(site)}_042959_08_1057")
    planet_scene(tmp_path / "scenes" / "odd", SECOND)
    (tmp_path / "scenes" / "odd").rename(tmp_path / "scenes" / os.fsdecode(b"no\xfftext"))
    written = write_catalogue(tmp_path, planet(tmp_path))
    assert (written.scenes, list(written.failed)) == (3, [SECOND])
    for path in (tmp_path / ITEMS).rglob("*.item.json"):
        for asset in json.loads(path.read_text(encoding="utf-8"))["assets"].values():
            assert (path.parent / asset["href"]).is_file()


def test_a_scene_without_a_time_has_an_interval(tmp_path):
    raster(tmp_path / "scenes" / "a.tif", reflectance(2))
    bands = {"{name}.tif": {"red": {"band": 1, "scale": 1e-4}, "nir": {"band": 2, "scale": 1e-4}}}
    settings = RasterScenes(kind="rasters", path=tmp_path / "scenes" / "*.tif", files=bands)
    write_catalogue(tmp_path, settings)
    item = items(tmp_path)["a"]
    assert item.datetime is None
    assert item.common_metadata.start_datetime.year == 1858
    changed = (tmp_path / "scenes" / "a.tif").stat().st_mtime
    assert item.common_metadata.end_datetime.timestamp() == int(changed)
    assert (tmp_path / ITEMS / "scenes" / "undated" / "a.item.json").is_file()
    row = gpd.read_parquet(tmp_path / INDEX).iloc[0]
    assert row["start_datetime"].year == 1858


def test_a_scene_across_the_antimeridian_is_cut_there(tmp_path):
    place = {"crs": "EPSG:32601", "transform": Affine(30_000, 0, 200_000, 0, -30_000, 7_700_000)}
    sentinel_scene(tmp_path / "scenes" / "Chukotka" / "S2A_T01WCT_20210712", **place)
    settings = Sentinel2Scenes(kind="sentinel2", path=tmp_path / "scenes", region="{folder}")
    write_catalogue(tmp_path, settings)
    item = items(tmp_path)["S2A_T01WCT_20210712"]
    west, _, east, _ = item.bbox
    assert item.geometry["type"] == "MultiPolygon"
    assert west > 170
    assert east < -170
    assert (np.abs(shapely.geometry.shape(item.geometry).bounds[::2]) <= 180).all()


def test_rasters_whose_pattern_would_take_the_catalogue_are_refused(tmp_path):
    raster(tmp_path / "a" / "image.tif", reflectance(1))
    settings = RasterScenes(kind="rasters", path=tmp_path / "*", files={"image.tif": {"red": {"band": 1}}})
    with pytest.raises(ConfigError, match="keep scenes in a folder of theirs"):
        write_catalogue(tmp_path, settings)


def test_usable_is_the_share_that_is_read(data):
    write_catalogue(data, planet(data))
    scene = scene_files.open_scene(scene_files.candidates(planet(data))[0], planet(data))
    with rasterio.open(scene.files["image"]) as image, rasterio.open(scene.files["udm2"]) as mask:
        usable = (image.read() > 0).all(axis=0) & (mask.read(6) == 0)
    assert items(data)[scene.id].properties["thawmap:usable"] == pytest.approx(usable.mean())

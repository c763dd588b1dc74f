"""Scenes found in a catalogue are those that their files tell, whatever has happened to the files since."""

import dataclasses
import logging
import os
import pickle
import shutil
from pathlib import Path

import pytest
from deliveries import planet_scene, raster, reflectance, sentinel_scene

from thawmap.config import Config, PlanetScopeScenes, RasterScenes, Sentinel2Scenes
from thawmap.data.catalogue.layout import INDEX
from thawmap.data.catalogue.write import write_catalogue
from thawmap.data.project import Project
from thawmap.data.sources import scenes as scene_files
from thawmap.errors import ConfigError, DataError

FIRST, SECOND, THIRD = "20190701_042959_08_1057", "20190702_042959_08_1057", "20190703_042959_08_1057"
LAYERS = ["red", "nir", "ndvi"]


def planet_settings(data: Path, **changes) -> PlanetScopeScenes:
    return PlanetScopeScenes(**{"kind": "planetscope", "path": data / "scenes", "region": "{folder}"} | changes)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two orders of one site and one of another, three scenes in all, and their catalogue."""
    for site, order, name, seed in (("Peel", "a", FIRST, 1), ("Peel", "b", SECOND, 2), ("Lena", "c", THIRD, 3)):
        planet_scene(tmp_path / "data" / "scenes" / site / order / "PSScene", name, seed=seed)
        (tmp_path / "data" / "scenes" / site / order / "manifest.json").write_text("{}", encoding="utf-8")
    write_catalogue(tmp_path / "data", planet_settings(tmp_path / "data"))
    return tmp_path / "data"


def fields(scene) -> dict:
    return {field.name: getattr(scene, field.name) for field in dataclasses.fields(scene)}


def told(settings, candidates) -> dict:
    """What becomes of each candidate: all fields of its scene, or the sentence that refuses it."""
    project = Project(Config(scenes=settings, layers=LAYERS))
    outcomes = {}
    for candidate in candidates:
        try:
            outcomes[candidate.id] = fields(project.open(candidate))
        except DataError as error:
            outcomes[candidate.id] = str(error)
    return outcomes


def by_catalogue(settings):
    return Project(Config(scenes=settings, layers=LAYERS)).candidates()


def assert_true(settings) -> dict[str, bool]:
    """What the catalogue says is what the files say; returns which scenes it knew."""
    try:
        files = scene_files.candidates(settings)
    except ConfigError as error:
        with pytest.raises(ConfigError) as raised:
            by_catalogue(settings)
        assert str(raised.value) == str(error)  # noqa: PT017 - of the other way
        return {}
    known = by_catalogue(settings)
    assert [(one.id, one.path, one.region, one.acquired, one.fault) for one in known] == [
        (one.id, one.path, one.region, one.acquired, one.fault) for one in files
    ]
    assert [dict(one.files) for one in known] == [dict(one.files) for one in files]
    assert told(settings, known) == told(settings, files)
    return {candidate.id: candidate.record is not None for candidate in known}


def test_scenes_of_a_true_catalogue_are_those_of_their_files(data):
    assert assert_true(planet_settings(data)) == {FIRST: True, SECOND: True, THIRD: True}


def test_no_raster_is_opened_where_the_catalogue_is_true(data, monkeypatch):
    expected = told(planet_settings(data), scene_files.candidates(planet_settings(data)))

    def refuse(*_args, **_kwargs):
        raise AssertionError

    monkeypatch.setattr("thawmap.data.sources.planetscope.raster_info", refuse)
    monkeypatch.setattr("thawmap.data.sources.planetscope._parse", refuse)
    assert told(planet_settings(data), by_catalogue(planet_settings(data))) == expected


def other_time(data: Path) -> None:
    path = next((data / "scenes/Peel/a").rglob("*_SR_clip.tif"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def other_bytes_of_the_same_size(data: Path) -> None:
    path = next((data / "scenes/Peel/a").rglob("*_udm2_clip.tif"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)


def another_scene_in_its_place(data: Path) -> None:
    names = [next((data / "scenes/Peel" / order).rglob("*_SR_clip.tif")) for order in "ab"]
    names[1].replace(names[0])


def other_place(data: Path) -> None:
    from affine import Affine  # noqa: PLC0415

    raster(next((data / "scenes/Peel/a").rglob("*_SR_clip.tif")), reflectance(4), transform=Affine(3, 0, 0, 0, -3, 7e6))


def without_mask(data: Path) -> None:
    next((data / "scenes/Peel/a").rglob("*_udm2_clip.tif")).unlink()


def without_image(data: Path) -> None:
    next((data / "scenes/Peel/a").rglob("*_SR_clip.tif")).unlink()


def without_metadata(data: Path) -> None:
    next((data / "scenes/Peel/a").rglob("*_metadata.json")).unlink()


def a_better_image(data: Path) -> None:
    planet_scene(data / "scenes/Peel/a/PSScene", FIRST, words="3B_AnalyticMS_SR_harmonized_clip", mask=False)


def a_mask_elsewhere(data: Path) -> None:
    raster(data / "scenes/Peel/masks" / f"{FIRST}_3B_udm2_clip.tif", reflectance(8).astype("uint8"))


def another_delivery(data: Path) -> None:
    shutil.copytree(data / "scenes/Peel/a", data / "scenes/Lena/a")


def a_half_written_mask(data: Path) -> None:
    path = next((data / "scenes/Peel/a").rglob("*_udm2_clip.tif"))
    path.with_name(path.name + ".part").write_bytes(b"half")


def half_written_metadata(data: Path) -> None:
    path = next((data / "scenes/Peel/a").rglob("*_metadata.json"))
    path.with_name(path.name + ".part").write_bytes(b"half")


def an_empty_image(data: Path) -> None:
    next((data / "scenes/Peel/a").rglob("*_SR_clip.tif")).write_bytes(b"")


def a_damaged_image(data: Path) -> None:
    next((data / "scenes/Peel/a").rglob("*_SR_clip.tif")).write_bytes(b"no raster at all")


def a_georeference_beside(data: Path) -> None:
    path = next((data / "scenes/Peel/a").rglob("*_SR_clip.tif"))
    path.with_name(path.name + ".aux.xml").write_text(
        "<PAMDataset><GeoTransform>0, 3, 0, 7000000, 0, -3</GeoTransform></PAMDataset>", encoding="utf-8"
    )


def another_name_of_the_folder(data: Path) -> None:
    (data / "scenes/Peel/a").rename(data / "scenes/Peel/z")


def another_site(data: Path) -> None:
    (data / "scenes/Peel/a").rename(data / "scenes/Lena/a")


def a_link_in_its_place(data: Path) -> None:
    shutil.move(data / "scenes/Peel/a", data.parent / "disk")
    (data / "scenes/Peel/a").symlink_to(data.parent / "disk", target_is_directory=True)


def a_new_scene(data: Path) -> None:
    planet_scene(data / "scenes/Lena/d/PSScene", "20190704_042959_08_1057", seed=4)


def gone(data: Path) -> None:
    shutil.rmtree(data / "scenes/Peel/a")


CHANGES = (
    other_time, other_bytes_of_the_same_size, another_scene_in_its_place, other_place, without_mask, without_image,
    without_metadata, a_better_image, a_mask_elsewhere, another_delivery, a_half_written_mask, half_written_metadata,
    an_empty_image, a_damaged_image, a_georeference_beside, another_name_of_the_folder, another_site,
    a_link_in_its_place, a_new_scene, gone,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_since_the_catalogue_was_written_is_seen(data, change, caplog):
    change(data)
    known = assert_true(planet_settings(data))
    assert known[THIRD]
    assert known.get(FIRST, False) is (change in (a_new_scene, a_link_in_its_place))
    assert known[SECOND] is (change is not another_scene_in_its_place)
    if change not in (a_link_in_its_place, gone, another_delivery):
        assert "since" in caplog.text
    write_catalogue(data, planet_settings(data))
    assert_true(planet_settings(data))


def test_a_file_that_changes_after_the_scenes_were_found_is_seen(data):
    settings = planet_settings(data)
    candidates = by_catalogue(settings)
    other_place(data)
    assert told(settings, candidates) == told(settings, scene_files.candidates(settings))


def test_a_candidate_with_a_record_goes_to_other_processes(data):
    settings = planet_settings(data)
    sent = pickle.loads(pickle.dumps(by_catalogue(settings)))
    assert told(settings, sent) == told(settings, scene_files.candidates(settings))


def test_part_of_the_folder_has_the_same_catalogue(data):
    settings = planet_settings(data, path=data / "scenes" / "Peel")
    assert assert_true(settings) == {FIRST: True, SECOND: True}
    settings = planet_settings(data, path=data / "scenes" / "*")
    assert assert_true(settings) == {FIRST: True, SECOND: True, THIRD: True}


def test_a_folder_that_is_moved_as_a_whole_keeps_its_catalogue(data):
    moved = data.rename(data.parent / "elsewhere")
    assert all(assert_true(planet_settings(moved)).values())


def test_a_copy_with_its_times_keeps_its_catalogue_and_one_without_does_not(data):
    faithful, other = data.parent / "faithful", data.parent / "other"
    shutil.copytree(data, faithful)  # keeps times
    shutil.copytree(data, other, copy_function=shutil.copyfile)
    assert all(assert_true(planet_settings(faithful)).values())
    assert not any(assert_true(planet_settings(other)).values())


def test_a_link_to_the_folder_and_relative_paths_are_the_same(data, monkeypatch):
    (data.parent / "link").symlink_to(data, target_is_directory=True)
    assert all(assert_true(planet_settings(data.parent / "link")).values())
    for folder, path in (
        (data.parent, "data/scenes"),
        (data, "scenes"),
        (data / "scenes", "."),
        (data, "../data/scenes"),
    ):
        monkeypatch.chdir(folder)
        settings = planet_settings(data, path=Path(path))
        known = by_catalogue(settings)
        assert all(candidate.record for candidate in known)
        expected = told(settings, scene_files.candidates(settings))
        for id_, values in told(settings, known).items():
            files = {key: path.resolve() for key, path in values.pop("files").items()}
            assert files == {key: path.resolve() for key, path in expected[id_].pop("files").items()}
            assert values == expected[id_]


def test_other_settings_are_read_anew(data, caplog):
    settings = planet_settings(data, unusable=("cloud",))
    assert not any(assert_true(settings).values())
    assert "other settings" in caplog.text
    assert all(assert_true(planet_settings(data, region=None)).values())


def test_a_table_of_regions_decides_which_scenes_there_are(data):
    table = data / "regions.csv"
    table.write_text(f"id,region\n{THIRD},Siberia\nabsent,Canada\n", encoding="utf-8")
    settings = planet_settings(data, region=None, table=table)
    assert assert_true(settings) == {THIRD: True, "absent": False}


def damaged(data: Path) -> None:
    content = bytearray((data / INDEX).read_bytes())
    content[8 : len(content) // 2] = bytes(len(content) // 2 - 8)  # whatever column lies there
    (data / INDEX).write_bytes(content)


def cut(data: Path) -> None:
    content = (data / INDEX).read_bytes()
    (data / INDEX).write_bytes(content[: len(content) // 2])


def empty(data: Path) -> None:
    (data / INDEX).write_bytes(b"")


def of_text(data: Path) -> None:
    (data / INDEX).write_text("no table", encoding="utf-8")


@pytest.mark.parametrize("change", [damaged, cut, empty, of_text], ids=lambda change: change.__name__)
def test_a_damaged_index_is_said_and_not_believed(data, change, caplog):
    change(data)
    assert not any(assert_true(planet_settings(data)).values())
    assert f"{data / INDEX} is damaged" in caplog.text
    assert write_catalogue(data, planet_settings(data)).opened == 3
    assert all(assert_true(planet_settings(data)).values())


def test_a_catalogue_of_another_version_is_said_and_not_believed(data, monkeypatch, caplog):
    with monkeypatch.context() as other:
        other.setattr("thawmap.data.catalogue.index.__version__", "99.0")
        write_catalogue(data, planet_settings(data))
    assert not any(assert_true(planet_settings(data)).values())
    assert "thawmap 99.0" in caplog.text
    assert write_catalogue(data, planet_settings(data)).opened == 3


def test_a_table_that_others_made_is_no_catalogue(data, caplog):
    import geopandas as gpd  # noqa: PLC0415
    import shapely  # noqa: PLC0415

    gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326).to_parquet(data / INDEX)
    with caplog.at_level(logging.WARNING):
        assert not any(assert_true(planet_settings(data)).values())
    assert not caplog.text


def test_of_two_catalogues_the_nearest_counts(data):
    inner = planet_settings(data, path=data / "scenes" / "Peel")
    write_catalogue(data / "scenes" / "Peel", inner)
    (data / INDEX).write_bytes(b"damaged")
    assert assert_true(inner) == {FIRST: True, SECOND: True}


def test_folders_with_a_catalogue_each_are_read_by_theirs(data):
    for site in ("Peel", "Lena"):
        write_catalogue(data / "scenes" / site, planet_settings(data, path=data / "scenes" / site))
    (data / INDEX).unlink()
    settings = planet_settings(data, path=data / "scenes" / "[PL]e*")
    assert all(assert_true(settings).values())
    other_time(data)
    assert assert_true(settings) == {FIRST: False, SECOND: True, THIRD: True}


def test_sentinel_scenes_are_those_of_their_files(tmp_path):
    for name in ("S2A_T52WFE_20210712", "S2A_T52WFE_20210714"):
        sentinel_scene(tmp_path / "scenes" / "Lena" / name)
    settings = Sentinel2Scenes(kind="sentinel2", path=tmp_path / "scenes", region="{folder}")
    write_catalogue(tmp_path, settings)
    assert all(assert_true(settings).values())
    item = tmp_path / "scenes/Lena/S2A_T52WFE_20210712/S2A_T52WFE_20210712.json"
    item.write_text(item.read_text(encoding="utf-8").replace('"05.11"', '"02.12"'), encoding="utf-8")
    assert assert_true(settings) == {"S2A_T52WFE_20210712": False, "S2A_T52WFE_20210714": True}


def test_rasters_are_those_of_their_files(tmp_path):
    for name in ("a", "b"):
        raster(tmp_path / "scenes" / name / "image.tif", reflectance(2))
        raster(tmp_path / "masks" / f"{name}.tif", reflectance(1))
    bands = {"image.tif": {"red": {"band": 1, "scale": 1e-4}, "nir": {"band": 2, "scale": 1e-4}}}
    settings = RasterScenes(
        kind="rasters", path=tmp_path / "scenes" / "*", files=bands, valid={"file": "../../masks/{name}.tif"}
    )
    write_catalogue(tmp_path, settings)
    known = by_catalogue(settings)
    assert all(candidate.record for candidate in known)
    expected = told(settings, scene_files.candidates(settings))
    got = told(settings, known)
    for values in (*expected.values(), *got.values()):
        values["files"] = {key: path.resolve() for key, path in values["files"].items()}
    assert got == expected
    raster(tmp_path / "masks" / "c.tif", reflectance(1))
    assert not any(candidate.record for candidate in by_catalogue(settings))


def test_scenes_outside_of_the_catalogues_folder_are_refused(data):
    with pytest.raises(ConfigError, match="lies outside"):
        write_catalogue(data / "scenes" / "Peel", planet_settings(data))

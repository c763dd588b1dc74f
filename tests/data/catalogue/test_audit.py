"""An audit names what was done to a folder, and nothing where nothing was done."""

import os
import shutil
from pathlib import Path

import pytest
from deliveries import planet_scene, raster, reflectance, sentinel_scene

from thawmap.config import PlanetScopeScenes, Sentinel2Scenes
from thawmap.data.catalogue.audit import KINDS, audit
from thawmap.data.catalogue.write import write_catalogue
from thawmap.files.hashes import file_sha256

FIRST, SECOND, THIRD = "20190701_042959_08_1057", "20190702_042959_08_1057", "20190703_042959_08_1057"
PEEL = "scenes/Peel/order/PSScene"


def planet(data: Path) -> PlanetScopeScenes:
    return PlanetScopeScenes(kind="planetscope", path=data / "scenes", region="{folder}")


def checksums(data: Path) -> dict[str, tuple[int, str]]:
    """As a ledger has them of everything that was fetched."""
    files = [path for name in ("scenes", "elevation") for path in (data / name).rglob("*") if path.is_file()]
    return {path.relative_to(data).as_posix(): (path.stat().st_size, file_sha256(path)) for path in files}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three scenes, two tiles of elevation, and what an acquisition leaves beside them."""
    data = tmp_path / "data"
    for seed, name in enumerate((FIRST, SECOND, THIRD)):
        planet_scene(data / PEEL, name, seed=seed)
    for seed, tile in enumerate(("57_05_10m_v4.1_dem", "58_05_10m_v4.1_dem")):
        raster(data / "elevation" / f"{tile}.tif", reflectance(1, seed=seed))
    (data / "ledger.jsonl").write_text("", encoding="utf-8")
    return data


def faults(data: Path, sums, *, complete=False, settings=None) -> list[tuple[str, str, str]]:
    found = audit(data, sums, settings=settings or planet(data), complete=complete)
    assert [row["fault"] for row in found.rows] == sorted((row["fault"] for row in found.rows), key=list(KINDS).index)
    assert all(row["message"] for row in found.rows)
    return [(row["fault"], row["scene"], row["file"].rpartition("/")[2]) for row in found.rows]


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("has_catalogue", [False, True])
def test_of_a_sound_folder_nothing_is_said(data, complete, has_catalogue):
    sums = checksums(data)
    if has_catalogue:
        write_catalogue(data, planet(data), checksums=sums)
    found = audit(data, sums, settings=planet(data), complete=complete)
    assert found.faults == ()
    assert found.lines[-1] == "nothing is amiss"
    assert found.read == (len(sums) if complete else 0)
    assert found.scenes.keys() == {FIRST, SECOND, THIRD}
    assert set().union(*found.scenes.values()) == {path for path in sums if path.startswith("scenes")}


def test_a_folder_without_scenes_or_checksums_is_audited_too(tmp_path):
    (tmp_path / "scenes").mkdir()
    assert audit(tmp_path, settings=planet(tmp_path)).faults == ()
    assert audit(tmp_path).files == 0


def test_gone_cut_and_unfinished_files_are_named_at_once(data):
    sums = checksums(data)
    folder = data / PEEL
    (folder / f"{FIRST}_metadata.json").unlink()
    image = folder / f"{SECOND}_3B_AnalyticMS_SR_clip.tif"
    image.write_bytes(image.read_bytes()[:-1])
    (folder / f"{THIRD}_3B_udm2_clip.tif").write_bytes(b"")
    (data / "elevation" / "59_05_10m_v4.1_dem.tif.part").write_bytes(b"half")
    (data / "elevation" / "59_05_10m_v4.1_dem.tif.part.json").write_bytes(b"{}")
    (data / "elevation" / "link.tif").symlink_to("nowhere.tif")
    assert {(kind, file) for kind, scene, file in faults(data, sums) if file} == {
        ("gone", f"{FIRST}_metadata.json"),
        ("damaged", image.name),
        ("unfinished", f"{THIRD}_3B_udm2_clip.tif"),
        ("unfinished", "59_05_10m_v4.1_dem.tif.part"),
        ("unreadable", "link.tif"),
        ("foreign", "link.tif"),
    }
    assert {(kind, scene) for kind, scene, file in faults(data, sums) if scene} == {
        ("missing", FIRST), ("unusable", THIRD),
    }  # fmt: skip


def flip(path: Path, *, keep_time: bool) -> None:
    """Change one byte."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_changed_bytes_are_found_by_time_at_once_and_without_it_by_reading_all(data):
    sums = checksums(data)
    write_catalogue(data, planet(data))
    changed, hidden = (data / PEEL / f"{name}_3B_udm2_clip.tif" for name in (FIRST, SECOND))
    flip(changed, keep_time=False)
    flip(hidden, keep_time=True)
    assert faults(data, sums) == [("damaged", "", changed.name)]
    assert faults(data, sums, complete=True) == [("damaged", "", changed.name), ("damaged", "", hidden.name)]


def test_a_time_that_changed_alone_is_no_fault(data):
    sums = checksums(data)
    write_catalogue(data, planet(data))
    os.utime(data / PEEL / f"{FIRST}_3B_udm2_clip.tif", ns=(0, 1))
    found = audit(data, sums, settings=planet(data))
    assert (found.faults, found.read) == ((), 1)


def test_progress_counts_the_bytes_that_are_read(data):
    sums, steps = checksums(data), []
    audit(data, sums, settings=planet(data), complete=True, progress=lambda done, total: steps.append((done, total)))
    total = sum(size for size, _ in sums.values())
    assert [total for _, total in steps] == [total] * len(sums)
    assert steps[-1] == (total, total)
    assert sorted(steps) == steps


def test_scenes_that_lack_something_are_named(data):
    (data / PEEL / f"{FIRST}_3B_udm2_clip.tif").unlink()
    (data / PEEL / f"{SECOND}_metadata.json").unlink()
    (data / PEEL / f"{THIRD}_3B_AnalyticMS_SR_clip.tif").unlink()
    assert faults(data, {}) == [("unusable", THIRD, ""), ("missing", FIRST, ""), ("missing", SECOND, "")]


def test_a_scene_and_a_file_that_are_there_twice_are_named(data):
    shutil.copytree(data / PEEL, data / "scenes" / "Lena" / "order" / "PSScene")
    for path in (data / "scenes" / "Lena").rglob("*"):
        if path.is_file() and not path.name.startswith(FIRST):
            path.unlink()
    shutil.copy(data / "elevation" / "57_05_10m_v4.1_dem.tif", data / "elevation" / "copy_v4.1.tif")
    found = faults(data, checksums(data))
    assert ("double", FIRST, "") in found
    assert ("double", "", "57_05_10m_v4.1_dem.tif") in found or ("double", "", "copy_v4.1.tif") in found
    assert {kind for kind, _, _ in found} == {"double"}


def test_masks_that_are_alike_are_not_double(data):
    masks = [(data / PEEL / f"{name}_3B_udm2_clip.tif").read_bytes() for name in (FIRST, SECOND)]
    assert masks[0] == masks[1]
    assert faults(data, checksums(data)) == []


def test_versions_of_elevation_and_harmonised_scenes_that_are_mixed_are_named(data):
    raster(data / "elevation" / "59_05_10m_v3.0_reg_dem.tif", reflectance(1, seed=9))
    image = data / PEEL / f"{FIRST}_3B_AnalyticMS_SR_clip.tif"
    image.rename(image.with_name(f"{FIRST}_3B_AnalyticMS_SR_harmonized_clip.tif"))
    assert faults(data, checksums(data)) == [("mixed", "", "59_05_10m_v3.0_reg_dem.tif"), ("mixed", FIRST, "")]


def test_bands_baselines_and_masks_of_sentinel_scenes_are_compared(tmp_path):
    for day in (12, 13):
        sentinel_scene(tmp_path / "scenes" / f"S2A_T52WFE_202107{day}", seed=100 * day)
    old = sentinel_scene(tmp_path / "scenes" / "S2A_T52WFE_20190714", baseline="02.12", seed=200)
    bare = sentinel_scene(tmp_path / "scenes" / "S2A_T52WFE_20210715", bands=("blue", "green", "red", "nir"), seed=300)
    for day in (12, 13):
        raster(tmp_path / "scenes" / f"S2A_T52WFE_202107{day}" / "swir16.tif", reflectance(1, seed=day + 50))
    raster(old / "swir16.tif", reflectance(1, seed=70))
    settings = Sentinel2Scenes(kind="sentinel2", path=tmp_path / "scenes")
    assert faults(tmp_path, checksums(tmp_path), settings=settings) == [
        ("missing", bare.name, ""), ("missing", bare.name, ""), ("mixed", old.name, ""),
    ]  # fmt: skip


def test_files_of_nobody_are_named_where_a_ledger_knows_the_rest(data):
    sums = checksums(data)
    (data / PEEL / "holiday.jpg").write_bytes(b"picture")
    (data / PEEL / f"{FIRST}_3B_AnalyticMS_SR_clip.tif.aux.xml").write_text("<PAMDataset/>", encoding="utf-8")
    assert faults(data, sums) == [("foreign", "", "holiday.jpg")]
    assert faults(data, {}) == []


def test_a_damaged_index_hinders_no_audit(data):
    sums = checksums(data)
    write_catalogue(data, planet(data))
    (data / "catalog.parquet").write_bytes(b"damaged")
    assert faults(data, sums) == []


def test_lines_say_how_many_and_an_example(data):
    sums = checksums(data)
    for name in (FIRST, SECOND):
        (data / PEEL / f"{name}_metadata.json").unlink()
    lines = audit(data, sums, settings=planet(data)).lines
    assert lines[0].startswith("9 files, ")
    assert lines[1].startswith("2 of the files that were fetched are gone, such as ")
    assert lines[2].startswith("2 of the scenes lack something, such as ")

"""From Landsat scenes of a catalogue to a file of trends, on disk and over a server."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
import rasterio
import shapely
from landsat_catalogue import CLEAR, CLOUD, CORNER, SIDE, area, numbers, put_catalogue, put_scene, put_series
from pyproj import Transformer
from serving import served

from thawmap.acquire import landsat
from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http
from thawmap.acquire.landsat_reading import trend_grid
from thawmap.acquire.landsat_scenes import passes, rows_of
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.trends import TrendSums, day_of, tasselled_cap
from thawmap.config import TrendSettings
from thawmap.config.acquire import LandsatTrends
from thawmap.data.sources.base import Scene
from thawmap.data.sources.trends import TrendSource
from thawmap.errors import ConfigError, DataError

LENA = Area("lena", area())
FAST = {"assets": 1000, "stac": 1000, "tokens": 1000}


def settings(address, **changes):
    return LandsatTrends(address=str(address), years=(2000, 2019), harmonise="none", **changes)


def acquire(chosen, root, *, place=LENA, notes=None, http=None, **changes):
    """Find and fetch; the trends and the rows."""
    notes = [] if notes is None else notes
    with Http(patience_s=5, rates=FAST) as own:
        way = http or own
        rows = landsat.find(way, chosen, place, notes.append)
        with_ledger = Ledger.open(root / "ledger.jsonl")
        return landsat.fetch(way, chosen, place, rows, root, with_ledger, note=notes.append, **changes), rows


def values(path):
    with rasterio.open(path) as file:
        return file.read(), file.transform, file.crs.to_epsg()


def expected(folder, ids, place=LENA):
    """Slopes of an area by sums over whole scenes, cut afterwards."""
    grid = trend_grid(place)
    row, col = round((CORNER[1] - grid.affine.f) / 30), round((grid.affine.c - CORNER[0]) / 30)
    sums = TrendSums.empty((SIDE, SIDE))
    for name in ids:
        item = json.loads((folder / name / f"{name}.json").read_text())
        time = datetime.fromisoformat(item["properties"]["datetime"])
        stored = np.stack([values(folder / name / f"{band}.tif")[0][0] for band in landsat_bands()])
        quality = values(folder / name / "qa_pixel.tif")[0][0]
        sensor = {"C": "oli", "E": "etm", "T": "tm"}[name[1]]
        valid = (quality == CLEAR) & (stored != 0).all(axis=0)
        sums.add(day_of(time), tasselled_cap(stored, sensor, harmonise="none"), valid)
    slopes = sums.slopes(min_observations=5, min_span_years=5)
    rows, cols = slice(row, row + grid.height), slice(col, col + grid.width)
    return slopes[:, rows, cols], sums.number[rows, cols]


def landsat_bands():
    return ("blue", "green", "red", "nir08", "swir16", "swir22")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "catalogue"


def test_trends_are_those_of_all_scenes_and_thawmap_reads_them(folder, tmp_path):
    ids = put_series(folder, quality=np.where(np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 7 == 0, CLOUD, CLEAR))
    made, rows = acquire(settings(put_catalogue(folder)), tmp_path / "out")
    assert (made.used, made.is_new, made.failed, len(rows)) == (12, True, {}, 12)
    slopes, transform, epsg = values(made.path)
    oracle, number = expected(folder, ids)
    assert np.array_equal(slopes, oracle, equal_nan=True), "windows change no bit"
    assert (values(tmp_path / "out" / "observations" / "lena.tif")[0][0] == number).all()
    assert np.isnan(slopes).any()
    assert np.nanmedian(slopes[0]) > 0
    assert not np.isclose(slopes, -0.12).any()
    assert (epsg, transform.a, (transform.c - 15) % 30, (transform.f - 15) % 30) == (32608, 30, 0, 0)
    grid = trend_grid(LENA)
    scene = Scene(id="x", sensor="x", files={}, geobox=grid)
    layers = TrendSource(TrendSettings(path=tmp_path / "out" / "trends")).read(scene, grid, ["tc_wetness"])
    assert np.array_equal(layers["tc_wetness"], slopes[2], equal_nan=True)
    record = json.loads((tmp_path / "out" / "trends" / "lena.json").read_text())
    assert record["scenes"] == ids
    assert record["settings"]["harmonise"] == "none"
    assert not list((tmp_path / "out" / "trends").glob(".*sums")), "sums go when they are not needed"


def test_a_block_of_rows_at_a_time_gives_the_same_as_the_whole(folder, tmp_path):
    put_series(folder)
    chosen = settings(put_catalogue(folder))
    whole, _ = acquire(chosen, tmp_path / "whole")
    parts, _ = acquire(chosen, tmp_path / "parts", memory=3e5)
    assert np.array_equal(values(whole.path)[0], values(parts.path)[0], equal_nan=True)


def test_a_rerun_asks_for_nothing_and_other_settings_make_it_anew(folder, tmp_path):
    put_series(folder)
    with served("stac", folder) as server, Http(patience_s=5, rates=FAST) as http:
        chosen = settings(f"{server}/api/stac/v1")
        made, rows = acquire(chosen, tmp_path, http=http)
        assert made.used == 12
        before = len(httpx.get(f"{server}/_log").json())
        ledger = Ledger.open(tmp_path / "ledger.jsonl")
        again = landsat.fetch(http, chosen, LENA, rows, tmp_path, ledger, note=pytest.fail)
        assert (again.is_new, again.used, again.path) == (False, 12, made.path)
        assert len(httpx.get(f"{server}/_log").json()) == before
        fewer = landsat.fetch(http, chosen, LENA, rows[:-1], tmp_path, ledger, note=pytest.fail)
        assert (fewer.is_new, fewer.used) == (True, 11)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), "signed addresses stay in memory"
    assert "sig=" not in json.dumps(rows)


def test_one_broken_scene_costs_one_scene_and_a_rerun_tries_it_again(folder, tmp_path):
    ids = put_series(folder)
    chosen, notes = settings(put_catalogue(folder)), []
    broken = folder / ids[4] / "red.tif"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    made, _ = acquire(chosen, tmp_path / "out", notes=notes)
    assert (list(made.failed), made.used) == ([ids[4]], 11)
    assert any(ids[4] in note and "red.tif" in note for note in notes)
    oracle, _ = expected_without(folder, ids, 4, broken, whole)
    assert np.array_equal(values(made.path)[0], oracle, equal_nan=True)
    made, _ = acquire(chosen, tmp_path / "out")
    assert (made.failed, made.used) == ({}, 12)
    assert np.array_equal(values(made.path)[0], expected(folder, ids)[0], equal_nan=True)


def expected_without(folder, ids, left_out, broken, whole):
    oracle = expected(folder, [name for number, name in enumerate(ids) if number != left_out])
    broken.write_bytes(whole)
    return oracle


def test_scenes_that_do_not_count_are_left_out_and_named(folder, tmp_path):
    time = datetime(2010, 7, 9, 20, tzinfo=UTC)
    good = put_scene(folder, time=time, stored=numbers(0))
    put_scene(folder, "LC08_L2SP_066010_{day}_02_T2", time=time, stored=numbers(0))
    put_scene(folder, "LC08_L1TP_066010_{day}_02_T1", time=time, stored=numbers(0))
    put_scene(folder, "LE07_L2SP_066010_{day}_01_T1", time=time, stored=numbers(0))
    put_scene(folder, "LT04_L2SP_066010_{day}_02_T1", time=time, stored=numbers(0))
    put_scene(folder, "LC08_L2SP_066010_{day}_20100101_02_T1_ST", time=time, stored=numbers(0), assets={})
    put_scene(folder, "LC08_L2SP_066010_{day}_20200101_02_T1_SR", time=time, stored=numbers(0))
    put_scene(folder, "LE07_L2SR_066010_{day}_02_T1", time=time, stored=numbers(0), cloud=71.0)
    put_scene(folder, "LE07_L2SR_067010_{day}_02_T1", time=time.replace(month=6), stored=numbers(0))
    put_scene(folder, "LE07_L2SR_068010_{day}_02_T1", time=time.replace(year=2020), stored=numbers(0))
    other = put_scene(folder, "LT05_L2SR_068010_{day}_02_T1", time=time, stored=numbers(0))
    notes = []
    with Http() as http:
        rows = landsat.find(http, settings(put_catalogue(folder)), LENA, notes.append)
    assert {row["id"] for row in rows} == {f"{good[:25]}_20200101_02_T1_SR", other}
    assert {row["sensor"] for row in rows} == {"oli", "tm"}
    told = "\n".join(notes)
    for words in ("not Tier 1", "no Level-2", "another collection", "another satellite", "another processing"):
        assert words in told


def test_a_pixel_counts_once_in_a_pass_though_two_scenes_show_it(folder, tmp_path):
    put_series(folder)
    chosen = settings(put_catalogue(folder))
    once, _ = acquire(chosen, tmp_path / "once")
    for name in sorted(folder.glob("LC08*")):
        time = datetime.fromisoformat(json.loads((name / f"{name.name}.json").read_text())["properties"]["datetime"])
        put_scene(
            folder, "LC08_L2SP_066011_{day}_02_T1", time=time + timedelta(seconds=24), stored=numbers(3000, time.year)
        )
    twice, _ = acquire(settings(put_catalogue(folder)), tmp_path / "twice")
    assert twice.used == 24
    assert np.array_equal(values(once.path)[0], values(twice.path)[0], equal_nan=True)
    both = [values(tmp_path / name / "observations" / "lena.tif")[0] for name in ("once", "twice")]
    assert (both[0] == both[1]).all()


def test_scenes_of_one_path_at_another_time_are_passes_of_their_own(folder):
    time = datetime(2010, 7, 31, 23, 59, 50, tzinfo=UTC)
    put_scene(folder, "LC08_L2SP_066010_{day}_02_T1", time=time, stored=numbers(0))
    put_scene(folder, "LC08_L2SP_066011_{day}_02_T1", time=time + timedelta(seconds=24), stored=numbers(0))
    put_scene(folder, "LC08_L2SP_066010_{day}_02_T1", time=time - timedelta(days=16), stored=numbers(0))
    put_scene(folder, "LE07_L2SP_066010_{day}_02_T1", time=time - timedelta(days=8), stored=numbers(0))
    with Http() as http:
        rows = landsat.find(http, settings(put_catalogue(folder), months=(7, 8)), LENA, lambda _: None)
    assert [len(group) for group in passes(rows_of(rows, LENA))] == [1, 1, 2]


def test_a_scene_of_another_zone_is_taken_by_the_nearest_pixel(folder, tmp_path):
    """Its own value at each place: no mean of a value and its neighbour, no bit of a mask mixed."""
    lon, lat = shapely.get_coordinates(area(1.0)).mean(axis=0)
    east, north = Transformer.from_crs(4326, 32609, always_xy=True).transform(lon, lat)
    corner = (round((east - 1200) / 30) * 30 + 15.0, round((north + 1200) / 30) * 30 + 15.0)
    level = np.broadcast_to(np.where(np.arange(SIDE) < SIDE // 2, 9000, 12000).astype(np.uint16), (6, SIDE, SIDE))
    for year in range(2000, 2008):
        stored = (level + 50 * (year - 2000)).astype(np.uint16)
        put_scene(folder, time=datetime(year, 7, 10, tzinfo=UTC), stored=stored, crs="EPSG:32609", corner=corner)
    made, _ = acquire(settings(put_catalogue(folder)), tmp_path / "other")
    slopes, _, epsg = values(made.path)
    assert epsg == 32608
    assert np.isfinite(slopes).all()
    assert np.ptp(slopes[0]) < 1e-6, "a mean over the edge would have the same slope; a mix of dates would not"


def test_nothing_clear_is_nothing_known(folder, tmp_path):
    put_series(folder, quality=CLOUD)
    made, _ = acquire(settings(put_catalogue(folder)), tmp_path / "out")
    assert np.isnan(values(made.path)[0]).all()
    assert (values(tmp_path / "out" / "observations" / "lena.tif")[0] == 0).all()


def test_no_scene_is_told_and_makes_no_file(folder, tmp_path):
    folder.mkdir()
    notes = []
    made, rows = acquire(settings(put_catalogue(folder)), tmp_path / "out", notes=notes)
    assert (made.path, rows) == (None, [])
    assert "it gets no trends" in notes[-1]
    assert not (tmp_path / "out").exists()


def test_somebodys_file_is_not_replaced(folder, tmp_path):
    put_series(folder)
    (tmp_path / "out" / "trends").mkdir(parents=True)
    (tmp_path / "out" / "trends" / "lena.tif").write_text("mine")
    with pytest.raises(DataError, match="is not of an earlier run"):
        acquire(settings(put_catalogue(folder)), tmp_path / "out")
    assert (tmp_path / "out" / "trends" / "lena.tif").read_text() == "mine"


def test_a_row_that_was_edited_into_nonsense_is_refused(folder, tmp_path):
    put_series(folder)
    chosen = settings(put_catalogue(folder))
    with Http() as http:
        rows = landsat.find(http, chosen, LENA, lambda _: None)
        ledger = Ledger.open(tmp_path / "ledger.jsonl")
        for change in ({"sensor": "msi"}, {"acquired": "yesterday"}, {"assets": {}}, {"assets": 3}):
            with pytest.raises(ConfigError, match="plan again"):
                landsat.fetch(http, chosen, LENA, [{**rows[0], **change}], tmp_path, ledger, note=pytest.fail)


def test_theil_sen_is_an_option(folder, tmp_path):
    put_series(folder)
    made, _ = acquire(settings(put_catalogue(folder), method="theil-sen"), tmp_path / "out")
    lines, _ = acquire(settings(put_catalogue(folder)), tmp_path / "lines")
    medians, slopes = values(made.path)[0], values(lines.path)[0]
    assert np.nanmedian(medians[0]) == pytest.approx(np.nanmedian(slopes[0]), rel=0.1)
    assert not np.array_equal(medians, slopes, equal_nan=True)


@pytest.mark.parametrize(
    ("west", "east", "south", "crs"),
    [(-138.4, -138.2, 69.5, 32607), (-132.05, -131.95, 69.5, None), (179.9, -179.9, 68.9, None), (-30, 60, 70, 3413)],
)
def test_grids_lie_in_the_zone_of_the_middle_or_are_polar(west, east, south, crs):
    boxes = [(west, east)] if west < east else [(west, 180), (-180, east)]
    outline = shapely.union_all([shapely.box(left, south, right, south + 0.1) for left, right in boxes])
    grid = trend_grid(Area("x", outline))
    assert crs in (None, grid.crs.epsg)
    assert grid.crs.epsg in (3413, 32607, 32608, 32609, 32601, 32660)
    assert (grid.affine.c - 15) % 30 == (grid.affine.f - 15) % 30 == 0
    assert grid.width * 30 < (4e6 if crs == 3413 else 20_000)


def test_the_trends_folder_holds_nothing_but_trends(folder, tmp_path):
    put_series(folder)
    acquire(settings(put_catalogue(folder)), tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"ledger.jsonl", "trends/lena.tif", "trends/lena.json", "observations/lena.tif"}
    events = Ledger.open(Path(tmp_path / "out" / "ledger.jsonl")).of("file")
    assert [event["path"] for event in events] == ["trends/lena.tif", "observations/lena.tif", "trends/lena.json"]

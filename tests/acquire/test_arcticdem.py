"""Elevation: windows of mosaic tiles, found or given, read by thawmap in one fixed order."""

import json
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from serving import served

from thawmap.acquire import elevation
from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger
from thawmap.config.acquire import ElevationRequest
from thawmap.data.raster.io import raster_info, read_raster
from thawmap.data.sources.elevation import dem_versions
from thawmap.errors import ConfigError
from thawmap.geo.shapes import to_lonlat
from thawmap.pipeline._inputs import version_note

POLAR, SIDE, STEP = "EPSG:3413", 120, 10
LEFT, TOP = -2_300_000, -300_000
PLACE = Area("peel", to_lonlat(shapely.box(LEFT + 900, TOP - 700, LEFT + 1500, TOP - 300), POLAR))
FAST = {"assets": 1000, "stac": 1000}


def put_tile(folder, identity, left, *, version="v4.1", ending="dem", bias=0.0):
    """A tile of 120 x 120 px from a column on, with a hole, and its item."""
    home = folder / identity
    home.mkdir(parents=True)
    rows, cols = np.mgrid[:SIDE, :SIDE]
    heights = (100 + rows + (cols + left) * 0.5 + bias).astype(np.float32)
    heights[40:44, 100:104] = -9999
    with rasterio.open(
        home / f"{identity}_{ending}.tif", "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="float32",
        crs=POLAR, transform=Affine(STEP, 0, LEFT + left * STEP, 0, -STEP, TOP), nodata=-9999, tiled=True,
        blockxsize=32, blockysize=32, compress="deflate",
    ) as file:  # fmt: skip
        file.write(heights, 1)
    x = LEFT + left * STEP
    outline = to_lonlat(shapely.box(x, TOP - SIDE * STEP, x + SIDE * STEP, TOP), POLAR)
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": identity,
        "collection": f"arcticdem-mosaics-{version}-10m",
        "geometry": shapely.geometry.mapping(outline),
        "bbox": list(outline.bounds),
        "properties": {"datetime": "2008-07-01T00:00:00Z", "proj:code": POLAR},
        "assets": {"dem": {"href": f"{identity}_{ending}.tif"}},
        "links": [],
    }
    (home / f"{identity}.json").write_text(json.dumps(item))
    return home / f"{identity}_{ending}.tif"


@pytest.fixture
def folder(tmp_path):
    """Two tiles that overlap by ten pixels, a far one, and one of another version."""
    folder = tmp_path / "tiles"
    put_tile(folder, "58_05_10m_v4.1", 0)
    put_tile(folder, "58_06_10m_v4.1", 110, bias=3)
    put_tile(folder, "58_90_10m_v4.1", 9000)
    put_tile(folder, "58_05_10m_v3.0", 0, version="v3.0", ending="reg_dem")
    return folder


def settings(address="", **changes):
    return ElevationRequest(address=str(address), resolution_m=10, **changes)


def fetch(http, chosen, rows, root, place=PLACE, note=pytest.fail):
    return elevation.fetch(http, chosen, place, rows, root, Ledger.open(root / "ledger.jsonl"), note=note)


def test_windows_of_found_tiles_have_their_numbers_gaps_and_version(folder, tmp_path):
    with served("stac", folder) as server, Http(patience_s=5, rates=FAST) as http:
        chosen = settings(f"{server}/v1")
        rows = elevation.find(http, chosen, PLACE, pytest.fail)
        assert [row["id"] for row in rows] == ["58_05_10m_v4.1", "58_06_10m_v4.1"]
        fetched = fetch(http, chosen, rows, tmp_path)
        before = len(httpx.get(f"{server}/_log").json())
        again = fetch(http, chosen, rows, tmp_path)
        assert len(httpx.get(f"{server}/_log").json()) == before, "a rerun asks for nothing"
    assert (len(fetched.files), fetched.before, len(again.files), again.before) == (2, 0, 0, 2)
    for path, tile in zip(fetched.files, rows, strict=True):
        info = raster_info(path)
        assert info.nodata == -9999
        source = folder / tile["id"] / f"{tile['id']}_dem.tif"
        cut, whole = (read_raster(each, info.geobox, bands=[1]) for each in (path, source))
        assert np.array_equal(cut, whole, equal_nan=True)
        record = json.loads(path.with_suffix(".json").read_text())
        assert (record["version"], record["tile"], record["resolution_m"]) == ("v4.1", tile["id"], 10)
        left, bottom, right, top = info.geobox.extent.boundingbox
        edge = LEFT + 110 * STEP if "06" in tile["id"] else LEFT
        assert left <= max(LEFT + 700, edge)
        assert right >= (LEFT + 1700 if "06" in tile["id"] else LEFT + 1200)
        assert top - bottom < 1100
    assert np.isnan(read_raster(fetched.files[0], raster_info(fetched.files[0]).geobox, bands=[1])).any()
    events = Ledger.open(tmp_path / "ledger.jsonl").of("file")
    assert {event.get("version") for event in events if event["path"].endswith(".tif")} == {"v4.1"}


def test_another_version_is_searched_in_its_own_collection(folder):
    with served("stac", folder) as server, Http(patience_s=5, rates=FAST) as http:
        rows = elevation.find(http, settings(f"{server}/v1", version="v3.0"), PLACE, pytest.fail)
    assert [(row["id"], row["version"]) for row in rows] == [("58_05_10m_v3.0", "v3.0")]
    assert rows[0]["href"].endswith("_reg_dem.tif")


@pytest.mark.parametrize("kind", ["folder", "pattern", "list"])
def test_given_tiles_are_cut_and_those_that_lie_elsewhere_are_asked_once(folder, tmp_path, kind):
    (folder / "58_05_10m_v4.1" / "58_05_10m_v4.1_mad.tif").write_bytes(b"")
    listed = tmp_path / "tiles.txt"
    listed.write_text("# mine\n" + "\n".join(str(path) for path in sorted(folder.rglob("*v4.1_dem.tif"))))
    tiles = {"folder": folder, "pattern": folder / "*" / "*v4.1_dem.tif", "list": listed}[kind]
    chosen = settings(tiles=tiles)
    with Http() as http:
        rows = elevation.find(http, chosen, PLACE, pytest.fail)
        fetched = fetch(http, chosen, rows, tmp_path / "out")
        for path in folder.rglob("*58_90*.tif"):
            path.unlink()
        again = fetch(http, chosen, rows, tmp_path / "out")
    assert len(fetched.files) == (3 if kind == "folder" else 2)
    assert (again.files, again.failed) == ((), {})


def test_no_tile_is_told_or_refused(tmp_path, folder):
    notes = []
    far = Area("far", to_lonlat(shapely.box(0, 0, 1000, 1000), POLAR))
    with served("stac", folder) as server, Http(patience_s=5, rates=FAST) as http:
        assert elevation.find(http, settings(f"{server}/v1"), far, notes.append) == []
        assert "it gets no elevation" in notes[-1]
        with pytest.raises(ConfigError, match="holds no GeoTIFF of heights"):
            elevation.find(http, settings(tiles=tmp_path / "none*.tif"), PLACE, notes.append)


def test_a_cut_tile_costs_that_tile_and_is_named(folder, tmp_path):
    broken = next(folder.rglob("58_06_10m_v4.1_dem.tif"))
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 3])
    notes, chosen = [], settings(tiles=folder / "*" / "*v4.1_dem.tif")
    with Http() as http:
        rows = elevation.find(http, chosen, PLACE, pytest.fail)
        fetched = fetch(http, chosen, rows, tmp_path, note=notes.append)
    assert list(fetched.failed) == ["58_06_10m_v4.1"]
    assert "58_06_10m_v4.1" in notes[0]
    assert len(fetched.files) == 1
    assert len(list((tmp_path / "elevation").glob("*.tif"))) == 1


def test_a_row_that_was_edited_into_nonsense_is_refused(tmp_path):
    row = {"area": "peel", "id": "../x", "href": "/a.tif", "version": "v4.1", "resolution_m": 2}
    with Http() as http, pytest.raises(ConfigError, match="can name no file"):
        fetch(http, settings(), [row], tmp_path)


def test_a_version_travels_into_the_provenance_and_another_one_is_noted(tmp_path):
    (tmp_path / "a_dem.json").write_text(json.dumps({"mosaic": "ArcticDEM", "version": "v4.1"}))
    (tmp_path / "b_dem.json").write_text("nonsense")
    found = dem_versions([tmp_path / f"{name}_dem.tif" for name in "abc"])
    assert found == ["ArcticDEM v4.1"]
    for trained, is_noted in ((["ArcticDEM v4.1"], False), (["ArcticDEM v3.0"], True), (None, False)):
        bundle = SimpleNamespace(id="x", provenance={} if trained is None else {"data": {"elevation": trained}})
        note = version_note(bundle, {"elevation": found})
        assert (note is not None) == is_noted
        assert not is_noted or ("v3.0" in note and "v4.1" in note)

"""Fused maps against whole arrays and GDAL; laws; and bad input through the command line."""

import json
import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import yaml
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from PIL import Image
from pyproj import Transformer
from rasterio.warp import Resampling, reproject

from thawmap import cli
from thawmap.config import OutputSettings, PolygonSettings
from thawmap.data.raster.io import Encoding, write_raster
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.data.stack import preview
from thawmap.errors import ConfigError
from thawmap.maps.item import MapItem
from thawmap.maps.job import MapJob, Provenance
from thawmap.maps.read import MapFolder
from thawmap.maps.rows import Rows
from thawmap.maps.write import write_map
from thawmap.series import fuse as fusing
from thawmap.series.fuse import Recipe, fuse
from thawmap.series.places import open_map, places
from thawmap.series.weights import EDGE_PX

UTM = "EPSG:32608"
X, Y = 500_000.0, 7_700_000.0
FLOATS = Encoding(dtype="float32", nodata=float("nan"))
HOW = ("mean", "median", "maximum")


def grid_at(shape, *, row=0.0, col=0.0, step=3.0, crs=UTM, origin=(X, Y)):
    """A grid whose corner lies rows and columns of 3 m off a common one."""
    return GeoBox(shape, Affine(step, 0, origin[0] + 3 * col, 0, -step, origin[1] - 3 * row), crs)


def july(day, hour=20, minute=0):
    return datetime(2019, 7, 1, hour, minute, tzinfo=UTC) + timedelta(days=day - 1)


def stored(folder, name, values, grid, acquired=None):
    """A map of float32 as it lies on the disk."""
    write_raster(folder / name / "probability.tif", values.astype(np.float32), grid, encoding=FLOATS)
    properties = {} if acquired is None else {"datetime": acquired.isoformat()}
    item = MapItem(folder=folder / name, content={"properties": properties, "assets": {}})
    return MapFolder(path=folder / name, item=item, grid=grid, in_hundredths=False)


def whole(place, **recipe):
    """All rows of a place at once: probability, dates, spread."""
    parts = list(fuse(place, Recipe(spread=True, **recipe)))
    assert [part.first_row for part in parts] == list(np.cumsum([0, *(len(part.dates) for part in parts[:-1])]))
    return tuple(np.concatenate([getattr(part, name) for part in parts]) for name in ("probability", "dates", "spread"))


def one_place(maps):
    (place,) = places(maps)
    return place


def noise(rng, shape, missing=0.3):
    values = rng.uniform(0, 1, shape).astype(np.float32)
    values[rng.uniform(size=shape) < missing] = np.nan
    return values


@pytest.fixture
def _small(monkeypatch):
    """Windows so small that a place has many, and dates that do not fit into one."""
    monkeypatch.setattr(fusing, "_STRIP_PX", 300)
    monkeypatch.setattr(fusing, "_STRIP_ROWS", (3, 7))
    monkeypatch.setattr(fusing, "_BLOCK_PX", 11)
    monkeypatch.setattr(fusing, "_DATES_PX", 100)


# --- weights ------------------------------------------------------------------------------------------------------


def ramped(length):
    nearest = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
    return np.minimum(nearest / min(EDGE_PX, (length + 1) // 2), 1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy on pixels that no date knows
@pytest.mark.usefixtures("_small")
def test_weighted_means_are_numpy_on_whole_arrays(tmp_path):
    """Two maps of one day and one of another; days by their clear share, maps of a day also by their edges."""
    rng = np.random.default_rng(7)
    laid = [(noise(rng, (21, 30)), 4, 0), (noise(rng, (17, 25), 0.7), 0, 9), (noise(rng, (26, 12), 0.1), 1, 14)]
    maps = [
        stored(tmp_path, f"m{number}", values, grid_at(values.shape, row=row, col=col), july(day))
        for number, (day, (values, row, col)) in enumerate(zip((1, 1, 9), laid, strict=True))
    ]
    probability, dates, _ = whole(one_place(maps), weights="clear")
    canvas = spread_out(laid, probability.shape)
    shares = [np.isfinite(values).mean() for values, _, _ in laid]
    edges = spread_out(
        [(np.minimum(*np.ix_(ramped(len(values)), ramped(values.shape[1]))), row, col) for values, row, col in laid],
        probability.shape,
    )
    weight = np.where(np.isfinite(canvas), edges * np.array(shares)[:, None, None], 0)
    total = np.where(np.isfinite(canvas), canvas, 0) * weight
    days = [total[:2].sum(axis=0) / weight[:2].sum(axis=0), total[2] / weight[2]]
    sizes = [values.size for values, _, _ in laid]
    clear = [np.average(shares[:2], weights=sizes[:2]), shares[2]]
    known = np.isfinite(days)
    of_days = known * np.array(clear)[:, None, None]
    expected = np.where(known, days, 0) * of_days
    np.testing.assert_allclose(probability, expected.sum(axis=0) / of_days.sum(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(dates, known.sum(axis=0))


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=4))
@settings(deadline=None, max_examples=20)
def test_a_weighted_mean_of_equally_clear_dates_is_the_plain_one(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("equal")
    maps = [
        stored(folder, f"m{day}", np.full((40, 44), value), grid_at((40, 44)), july(day))
        for day, value in enumerate(values, start=1)
    ]
    place = one_place(maps)
    np.testing.assert_allclose(whole(place, weights="clear")[0], whole(place)[0], rtol=1e-6)


def test_a_clouded_date_says_less(tmp_path):
    """Of a day with a tenth of clear pixels 0.9 is heard as a tenth of another's 0.1."""
    clouded = np.full((40, 40), np.nan)
    clouded[:4] = 0.9
    maps = [
        stored(tmp_path, "clear", np.full((40, 40), 0.1), grid_at((40, 40)), july(1)),
        stored(tmp_path, "clouded", clouded, grid_at((40, 40)), july(5)),
    ]
    place = one_place(maps)
    assert whole(place)[0][0, 0] == pytest.approx(0.5)
    weighted = whole(place, weights="clear")[0]
    assert weighted[0, 0] == pytest.approx((0.1 + 0.1 * 0.9) / 1.1)
    assert weighted[-1, 0] == pytest.approx(0.1)


def test_weights_without_a_mean_are_refused():
    with pytest.raises(ConfigError, match=r"weights are for a mean, and not for --how median"):
        Recipe(how="median", weights="clear")


# --- against whole arrays -----------------------------------------------------------------------------------------


def spread_out(maps, shape):
    """Every map's values on the place's pixels (map, y, x); NaN beyond the map."""
    canvas = np.full((len(maps), *shape), np.nan)
    for layer, (values, row, col) in zip(canvas, maps, strict=True):
        layer[row : row + values.shape[0], col : col + values.shape[1]] = values
    return canvas


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy on pixels that no date knows
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("min_dates", [1, 3])
def test_fused_is_numpy_on_whole_arrays(tmp_path, how, min_dates):
    rng = np.random.default_rng(5)
    laid = [(noise(rng, (21, 30)), 4, 0), (noise(rng, (17, 25)), 0, 9), (noise(rng, (26, 12)), 1, 14)]
    laid += [(noise(rng, (9, 34)), 8, 2), (np.full((12, 12), np.nan), 3, 3)]
    maps = [
        stored(tmp_path, f"m{day}", values, grid_at(values.shape, row=row, col=col), july(day))
        for day, (values, row, col) in enumerate(laid, start=1)
    ]
    place = one_place(maps)
    assert place.geobox == grid_at((27, 36))
    assert place.warped == 0
    probability, dates, spread = whole(place, how=how, min_dates=min_dates)
    canvas = spread_out(laid, (27, 36))
    clear = np.isfinite(canvas).sum(axis=0)
    expected = {"mean": np.nanmean, "median": np.nanmedian, "maximum": np.nanmax}[how](canvas, axis=0)
    enough = clear >= min_dates
    np.testing.assert_array_equal(dates, clear)
    np.testing.assert_allclose(probability, np.where(enough, expected, np.nan), atol=1e-6)
    expected_spread = np.where(enough & (clear > 1), np.nanstd(canvas, axis=0), np.nan)
    np.testing.assert_allclose(spread, expected_spread, atol=1e-6)
    assert (clear[enough].min(), clear.min(), clear.max()) == (min_dates, 0, 4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_maps_of_one_day_count_once(tmp_path):
    rng = np.random.default_rng(1)
    values = [noise(rng, (8, 10), 0.4) for _ in range(4)]
    # 23:59 and 00:01 UTC at 135 degrees west: one swath, one solar day; an unknown time is a date of its own
    times = [july(3, 23, 59), july(4, 0, 1), july(8), None]
    maps = [
        stored(tmp_path, f"m{n}", v, grid_at(v.shape), t) for n, (v, t) in enumerate(zip(values, times, strict=True))
    ]
    probability, dates, _ = whole(one_place(maps))
    canvas = np.stack([np.nanmean(values[:2], axis=0), *values[2:]])
    np.testing.assert_array_equal(dates, np.isfinite(canvas).sum(axis=0))
    np.testing.assert_allclose(probability, np.nanmean(canvas, axis=0), atol=1e-6)
    assert len(one_place(maps).dates) == 3


# --- other grids --------------------------------------------------------------------------------------------------


def smooth(grid):
    """A smooth function of where a pixel lies on Earth, 0..1, at the pixels' centres."""
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    lon, lat = Transformer.from_crs(str(grid.crs), 4326, always_xy=True).transform(*(grid.affine * (cols, rows)))
    return 0.5 + 0.25 * np.sin((lon + 135) * 3000) + 0.25 * np.cos((lat - 69.4) * 9000)


def test_a_shift_of_half_a_pixel_is_no_shared_grid(tmp_path):
    rng = np.random.default_rng(2)
    one, other = rng.uniform(0, 1, (12, 15)), rng.uniform(0, 1, (12, 15))
    maps = [
        stored(tmp_path, "a", one, grid_at(one.shape), july(1)),
        stored(tmp_path, "b", other, grid_at(other.shape, col=0.5), july(2)),
    ]
    place = one_place(maps)
    assert place.warped == 1
    assert place.geobox == grid_at((12, 16))
    probability, dates, _ = whole(place)
    between = (other[:, :-1] + other[:, 1:]) / 2  # a pixel's centre lies on the border of two of the other's
    np.testing.assert_allclose(probability[:, 1:15], (one[:, 1:] + between) / 2, atol=2e-3)
    np.testing.assert_array_equal(dates[:, 1:15], 2)


@pytest.mark.parametrize(
    "other",
    [
        grid_at((30, 30), row=0.3, col=-0.4),
        grid_at((30, 30), row=3, col=4, step=3.5),
        GeoBox((30, 30), Affine.translation(X + 20, Y - 10) * Affine.rotation(20) * Affine.scale(3, -3), UTM),
    ],
    ids=["shifted", "coarser", "turned"],
)
def test_other_grids_are_warped_as_by_gdal_without_what_is_missing(tmp_path, other):
    rng = np.random.default_rng(3)
    values = smooth(other)
    values[rng.uniform(size=values.shape) < 0.1] = np.nan
    own = grid_at((40, 40))
    maps = [stored(tmp_path, "a", smooth(own), own, july(1)), stored(tmp_path, "b", values, other, july(2))]
    place = one_place(maps)
    assert (place.maps[0].grid, place.warped) == (own, 1)
    probability, dates, _ = whole(place)
    warped = np.full(tuple(place.geobox.shape), np.nan, np.float32)
    reproject(
        values.astype(np.float32), warped, src_transform=other.affine, src_crs=UTM, dst_transform=place.geobox.affine,
        dst_crs=UTM, src_nodata=np.nan, dst_nodata=np.nan, resampling=Resampling.bilinear, tolerance=0,
    )  # fmt: skip
    col, row = (round(value) for value in ~place.geobox.affine * (own.affine.c, own.affine.f))
    first = spread_out([(smooth(own), row, col)], place.geobox.shape)[0]
    both = (dates == 2) & np.isfinite(warped)
    assert both.sum() > 400
    np.testing.assert_allclose(probability[both], ((first + warped) / 2)[both], atol=2e-3)
    assert not np.isfinite(first + warped)[dates < 2].all()  # the gaps of the second stay gaps
    assert ((dates >= 1) == np.isfinite(probability)).all()


def test_the_finest_grid_is_taken_and_then_that_of_most(tmp_path):
    grids = [grid_at((9, 9), step=6), grid_at((18, 18), row=0.5), grid_at((18, 18)), grid_at((18, 18), row=2, col=3)]
    maps = [stored(tmp_path, f"m{n}", smooth(grid), grid, july(n + 1)) for n, grid in enumerate(grids)]
    place = one_place(maps)
    assert place.geobox == grid_at((20, 21))
    assert place.warped == 2


def test_a_place_in_two_zones_is_one_place(tmp_path):
    """On the border of zones 8 and 9 one date may come in the one, another in the other."""
    to_eight, to_nine = (Transformer.from_crs(4326, code, always_xy=True) for code in (32608, 32609))
    grids = [
        grid_at((40, 40), origin=to_eight.transform(-132.0, 69.5), crs="EPSG:32608"),
        grid_at((60, 60), origin=to_nine.transform(-132.0, 69.5), crs="EPSG:32609", row=-10, col=-10),
    ]
    maps = [stored(tmp_path, f"m{n}", smooth(grid), grid, july(n + 1)) for n, grid in enumerate(grids)]
    place = one_place(maps)
    assert str(place.geobox.crs) == "EPSG:32608"
    probability, dates, _ = whole(place)
    assert (dates == 2).sum() == 40 * 40
    known = dates > 0
    off = np.abs(probability - smooth(place.geobox))[known]  # a pixel is 0.058; at the edge half of one is beyond it
    assert off.max() < 0.035
    assert np.quantile(off, 0.9) < 0.004
    assert abs(known.sum() - 60 * 60) < 130  # a row or a column more or less


# --- places -------------------------------------------------------------------------------------------------------


def test_places_are_what_hangs_together(tmp_path):
    """In a row of five the first three overlap one after the other; the fourth only touches; the fifth is apart."""
    cols = [0, 8, 16, 26, 60]
    maps = [
        stored(tmp_path, f"m{n}", np.full((10, 10), 0.5), grid_at((10, 10), col=col), july(n + 1))
        for n, col in enumerate(cols)
    ]
    found = places(random.Random(0).sample(maps, 5))
    assert [place.id for place in found] == ["m0+2", "m3", "m4"]
    assert found[0].geobox == grid_at((10, 26))
    assert [one.id for one in found[0].maps] == ["m0", "m1", "m2"]


def test_by_scene_every_map_keeps_its_pixels(tmp_path):
    rng = np.random.default_rng(4)
    values = [noise(rng, (10, 12)) for _ in range(3)]
    maps = [stored(tmp_path, f"m{n}", v, grid_at(v.shape, col=5 * n), july(n + 1)) for n, v in enumerate(values)]
    canvas = spread_out([(v, 0, 5 * n) for n, v in enumerate(values)], (10, 22))
    found = places(maps, by="scene")
    assert [place.id for place in found] == ["m0", "m1", "m2"]
    for n, place in enumerate(found):
        assert place.geobox == maps[n].grid
        probability, dates, _ = whole(place)
        own = canvas[:, :, 5 * n : 5 * n + 12]
        np.testing.assert_array_equal(dates, np.isfinite(own).sum(axis=0))
        known = np.isfinite(values[n])
        np.testing.assert_array_equal(np.isfinite(probability), known)
        np.testing.assert_allclose(probability[known], np.nanmean(own[:, known], axis=0), atol=1e-6)


# --- laws ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    offsets=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4),
    how=st.sampled_from(HOW),
)
def test_the_order_of_maps_does_not_matter_and_copies_change_nothing(tmp_path_factory, seed, offsets, how):
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("maps")
    laid = [(noise(rng, (8, 9)), grid_at((8, 9), row=row, col=col)) for row, col in offsets]
    maps = [stored(folder, f"a{n}", *one, july(n + 1)) for n, one in enumerate(laid)]
    renamed = [stored(folder, f"b{n}", *one, july(n + 1)) for n, one in enumerate(reversed(laid))]
    copies = [stored(folder, f"c{n}{k}", *one, july(3 * n + k)) for n, one in enumerate(laid) for k in (1, 2, 3)]
    fused = whole(one_place(maps), how=how)
    for array, other in zip(fused, whole(one_place(renamed), how=how), strict=True):
        np.testing.assert_array_equal(array, other)
    probability, dates, _ = whole(one_place(copies), how=how)
    np.testing.assert_allclose(probability, fused[0], rtol=1e-6)
    np.testing.assert_array_equal(dates, 3 * fused[1])


# --- from the command line ----------------------------------------------------------------------------------------


def hills(grid, seed):
    """Probabilities of hundredths with a few objects, and gaps."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: grid.height, : grid.width]
    values = np.zeros(grid.shape)
    for _ in range(4):
        row, col = rng.uniform(0, grid.height), rng.uniform(0, grid.width)
        values = np.maximum(values, np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / 40))
    values[rng.uniform(size=values.shape) < 0.05] = np.nan
    return values.astype(np.float32)


def made(folder, name, values, grid, acquired=None, **options):
    """A map as 'thawmap predict' writes it."""
    keys = {"bundle": "b1", "threshold": 0.5, "storage": "uint8", "vectors": ("gpkg",)} | options
    outputs = OutputSettings(probability=keys["storage"], vectors=keys["vectors"])
    scene = Scene(id=name, sensor="test", geobox=grid, files={}, acquired=acquired, region="Yukon")
    image = ArraySource(dict.fromkeys(("nir", "red", "green"), np.nan_to_num(values)), grid)
    rows = (Rows(first_row=row, probability=values[row : row + 16]) for row in range(0, len(values), 16))
    polygons = PolygonSettings(min_area_m2=0)
    config = {"polygons": polygons.model_dump(mode="json"), "outputs": outputs.model_dump(mode="json")}
    job = MapJob(
        scene=scene,
        polygons=polygons.model_copy(update={"threshold": keys["threshold"]}),
        outputs=outputs,
        provenance=Provenance(bundle=keys["bundle"], config=config),
    )
    write_map(job, rows, folder, picture=preview(scene, ("nir", "red", "green"), [image]))
    return folder / name


GRIDS = {
    "a": grid_at((40, 50)),
    "b": grid_at((40, 50), col=6),
    "c": grid_at((40, 50), row=8),
    "far": grid_at((20, 20), col=500),
}


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Three dates of one place, and one of another."""
    folder = tmp_path_factory.mktemp("ready") / "maps"
    for day, (name, grid) in enumerate(GRIDS.items(), start=1):
        made(folder, name, hills(grid, day), grid, july(day))
    return folder


@pytest.fixture
def maps(ready, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(ready, tmp_path / "maps"))


def run(*words):
    return cli._run([str(word) for word in words])


def numbers(path):
    with rasterio.open(path) as file:
        return file.read(1)


def files_of(folder):
    return sorted(path.name for path in folder.iterdir())


def said(capsys):
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.slow
def test_what_is_written_says_the_same_in_all_files(maps, tmp_path):
    out = tmp_path / "fused"
    assert run("fuse", maps, "--out", out, "--spread") == 0
    assert files_of(out) == ["a+2", "far"]
    place = out / "a+2"
    names = ["count.tif", "item.json", "mask.tif", "probability.tif", "quicklook.png", "slumps.gpkg", "spread.tif"]
    assert [name for name in files_of(place) if not name.endswith(".qml")] == names
    canvas = spread_out(
        [(np.where(n == 255, np.nan, n), row, col) for n, row, col in (
            (numbers(maps / "a/probability.tif").astype(float), 0, 0),
            (numbers(maps / "b/probability.tif").astype(float), 0, 6),
            (numbers(maps / "c/probability.tif").astype(float), 8, 0),
        )], (48, 56),
    )  # fmt: skip
    probability, count = numbers(place / "probability.tif"), numbers(place / "count.tif")
    np.testing.assert_array_equal(count, np.isfinite(canvas).sum(axis=0))
    np.testing.assert_array_equal(probability == 255, count == 0)
    known = count > 0
    mean = np.nanmean(canvas[:, known], axis=0)
    assert np.abs(probability[known] - mean).max() < 0.5 + 1e-4
    np.testing.assert_array_equal(numbers(place / "mask.tif")[known], probability[known] > 50)
    spread = numbers(place / "spread.tif")
    np.testing.assert_array_equal(spread == 255, count < 2)
    assert np.abs(spread[count > 1] - np.nanstd(canvas[:, count > 1], axis=0)).max() < 0.5 + 1e-4
    slumps = gpd.read_file(place / "slumps.gpkg")
    assert slumps["pixels"].sum() == (probability[known] > 50).sum() > 0
    assert set(slumps["scene_id"]) == {"a+2"}
    assert set(slumps["bundle_id"]) == {"b1"}


def test_the_item_tells_what_it_is_made_from(maps, tmp_path):
    out = tmp_path / "fused"
    assert run("fuse", maps, "--out", out, "--how", "median", "--min-dates", 2) == 0
    item = pystac.Item.from_file(out / "a+2" / "item.json")
    assert set(item.assets) == {"probability", "mask", "quicklook", "slumps_gpkg", "count"}
    assert [one["name"] for one in item.properties["thawmap:inputs"]] == [f"{n}/probability.tif" for n in "abc"]
    assert item.properties["thawmap:config"]["fuse"] == {
        "how": "median",
        "by": "place",
        "min_dates": 2,
        "spread": False,
    }
    assert item.datetime is None
    times = (item.common_metadata.start_datetime, item.common_metadata.end_datetime)
    assert times == (july(1), july(3))
    alone = pystac.Item.from_file(out / "far" / "item.json")
    assert alone.datetime == july(4)
    assert (numbers(out / "far" / "probability.tif") == 255).all()  # one date where two are asked for


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["uint8", "float32"])
@pytest.mark.parametrize("how", HOW)
def test_one_map_fused_is_itself_bit_for_bit(tmp_path, storage, how):
    folder = made(
        tmp_path / "maps", "a", hills(GRIDS["a"], 7), GRIDS["a"], july(1), storage=storage, vectors=("gpkg", "shp")
    )
    assert run("fuse", tmp_path / "maps", "--out", tmp_path / "fused", "--how", how) == 0
    again = tmp_path / "fused" / "a"
    assert set(files_of(again)) == {*files_of(folder), "count.tif"}
    for name in ("probability.tif", "mask.tif"):
        assert numbers(again / name).dtype == numbers(folder / name).dtype
        np.testing.assert_array_equal(numbers(again / name), numbers(folder / name))
    one, other = (gpd.read_file(place / "slumps.gpkg") for place in (folder, again))
    assert len(one) > 1
    assert one.equals(other)


def test_count_alone_writes_nothing_else(maps, tmp_path):
    out = tmp_path / "fused"
    assert run("fuse", maps, "--out", out, "--how", "count") == 0
    assert files_of(out / "a+2") == ["count.tif", "item.json"]
    assert numbers(out / "a+2" / "count.tif").max() == 3
    item = json.loads((out / "a+2" / "item.json").read_text())
    assert list(item["assets"]) == ["count"]
    assert "thawmap:slumps" not in item["properties"]
    assert run("fuse", maps, "--out", out, "--how", "count", "--dry-run") == 0


@pytest.mark.slow
def test_a_rerun_fuses_only_what_changed(maps, tmp_path, capsys):
    out = tmp_path / "fused"
    assert run("fuse", maps, "--out", out) == 0
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    assert run("fuse", maps, "--out", out) == 0
    assert "2 of them before" in said(capsys)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*")} == stamps
    made(maps, "c", hills(GRIDS["c"], 99), GRIDS["c"], july(3))
    (out / "far" / "count.tif").unlink()
    assert run("fuse", maps, "--out", out, "--dry-run") == 0
    assert "0 are finished" in said(capsys)
    assert run("fuse", maps, "--out", out) == 0
    assert {path.stat().st_mtime_ns for path in out.glob("*/*")}.isdisjoint(stamps.values())
    assert run("fuse", maps, "--out", out, "--how", "maximum") == 0
    assert "maximum of dates in" in (words := said(capsys))
    assert "before" not in words.split("maximum of dates")[1]
    shutil.rmtree(maps / "c")
    assert run("fuse", maps, "--out", out) == 0
    assert "holds 1 more that are not of these maps, such as a+2" in said(capsys)


def test_a_dry_run_writes_nothing(maps, tmp_path, capsys):
    assert run("fuse", maps, "--out", tmp_path / "fused", "--dry-run") == 0
    words = said(capsys)
    assert "would fuse 4 maps on 2 places" in words
    assert "56x48" in words
    assert not (tmp_path / "fused").exists()


def spoil_item(folder, name):
    """Take a property out of an item."""
    item = json.loads((folder / "item.json").read_text())
    del item["properties"][name]
    (folder / "item.json").write_text(json.dumps(item))


def spoil_end(folder):
    """Cut a file short, as a copy that was interrupted."""
    path = folder / "probability.tif"
    path.write_bytes(path.read_bytes()[:-200])


SPOILT = {
    "no item": (lambda folder: (folder / "item.json").unlink(), "is no finished map"),
    "no raster": (lambda folder: (folder / "probability.tif").unlink(), "does not exist"),
    "no JSON": (lambda folder: (folder / "item.json").write_text("{"), "is not a STAC item"),
    "other JSON": (
        lambda folder: (folder / "item.json").write_text('{"properties": {"datetime": 3}}'),
        "not a STAC item",
    ),
    "no maker": (
        lambda folder: spoil_item(folder, "thawmap:bundle"),
        "names no bundle",
    ),
    "no TIFF": (lambda folder: (folder / "probability.tif").write_bytes(b"II*\0"), "is not a raster that can be read"),
    "cut short": (spoil_end, "cannot be read to its end"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_broken_map_is_named_and_the_rest_is_fused(maps, tmp_path, capsys, kind):
    spoil, reason = SPOILT[kind]
    spoil(maps / "b")
    assert run("fuse", maps, "--out", tmp_path / "fused") == 1
    words = said(capsys)
    assert "thawmap: b failed: " in words
    assert reason in words
    assert "Traceback" not in words
    assert files_of(tmp_path / "fused") == ["a+1", "far"]
    assert numbers(tmp_path / "fused" / "a+1" / "count.tif").max() == 2


def test_a_map_that_was_cut_short_is_left_out_of_its_place(tmp_path, capsys):
    """Its first blocks can be read, so that only its end tells."""
    grid = grid_at((700, 30))
    values = np.random.default_rng(0).uniform(0, 0.4, grid.shape).astype(np.float32)
    for day, name in enumerate("ab", start=1):
        made(tmp_path / "maps", name, values, grid, july(day))
    spoil_end(tmp_path / "maps" / "b")
    assert np.isfinite(open_map(tmp_path / "maps" / "a").read(grid[:10])).all()
    assert run("fuse", tmp_path / "maps", "--out", tmp_path / "fused") == 1
    assert "b failed: " in said(capsys)
    assert files_of(tmp_path / "fused") == ["a"]


@pytest.mark.slow
def test_a_map_that_breaks_midway_costs_its_place_alone(tmp_path, capsys):
    grid = grid_at((1100, 40))
    values = np.random.default_rng(0).uniform(0, 0.4, grid.shape).astype(np.float32)
    made(tmp_path / "maps", "a", values, grid, july(1))
    made(tmp_path / "maps", "far", hills(GRIDS["far"], 1), GRIDS["far"], july(2))
    path = tmp_path / "maps" / "a" / "probability.tif"
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content[offset : offset + 5000] = bytes(5000)
    path.write_bytes(content)
    assert run("fuse", tmp_path / "maps", "--out", tmp_path / "fused") == 1
    assert f"a failed: {path} cannot be read to its end" in said(capsys)
    assert files_of(tmp_path / "fused") == ["far"]  # and nothing half-written


@pytest.mark.slow
def test_what_makes_no_common_map_is_refused(maps, tmp_path, capsys):
    out = tmp_path / "fused"
    for name, value in (("bundle", "b2"), ("threshold", 0.4)):
        made(maps, "far", hills(GRIDS["far"], 4), GRIDS["far"], july(4), **{name: value})
        assert run("fuse", maps, "--out", out) == 2
        assert f"the maps are of thawmap:{name} " in said(capsys)
    made(maps, "far", hills(GRIDS["far"], 4), GRIDS["far"], july(4), storage="float32")
    assert run("fuse", maps, "--out", out) == 2
    assert "a and far were made with different 'outputs' settings" in said(capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("{maps}/nowhere", "--out", "{tmp}/fused"), "is no folder"),
        (("{tmp}/empty", "--out", "{tmp}/fused"), "has no map that can be used; make some with 'thawmap predict'"),
        (("{maps}", "--out", "{maps}"), "holds the maps themselves, which are never changed"),
        (("{maps}", "{maps}", "--out", "{tmp}/fused"), "are maps of one scene"),
        (("{maps}", "--out", "{tmp}/fused", "--min-dates", "0"), "must be at least 1"),
        (("{maps}", "--out", "{tmp}/fused", "--how", "best"), "--how"),
        (("{maps}", "--out", "{tmp}/fused", "--set", "polygons.min_area_m2=5"), "name it with --config"),
    ],
)
def test_a_wrong_request_is_one_sentence(maps, tmp_path, capsys, words, reason):
    (tmp_path / "empty").mkdir()
    assert run("fuse", *(word.format(maps=maps, tmp=tmp_path) for word in words)) == 2
    captured = capsys.readouterr()
    assert reason in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert not (tmp_path / "fused").exists()


@pytest.mark.slow
def test_maps_of_any_shape_are_fused(tmp_path):
    maps = tmp_path / "maps"
    made(maps, "line", np.full((30, 1), 0.9, np.float32), grid_at((30, 1), col=3), july(1))
    made(maps, "dot", np.full((1, 1), 0.5, np.float32), grid_at((1, 1), row=4, col=3), july(2))
    made(maps, "empty", np.full((6, 6), np.nan, np.float32), grid_at((6, 6)), july(3))
    assert run("fuse", maps, "--out", tmp_path / "fused") == 0
    (place,) = (tmp_path / "fused").iterdir()
    stored_here = numbers(place / "probability.tif")
    assert (stored_here[:, 3] == [70 if row == 4 else 90 for row in range(30)]).all()
    assert (np.delete(stored_here, 3, axis=1) == 255).all()


# --- with the YAML: images in the pictures, its settings, labels --------------------------------------------------


@pytest.fixture
def project(maps, tmp_path):
    """Images and labels behind the maps, and the YAML that names them."""
    for name, grid in GRIDS.items():
        probability = numbers(maps / name / "probability.tif").astype(int)
        green = np.where(probability == 255, 0, 500 + 20 * probability).astype(np.uint16)
        optical = Encoding(dtype="uint16", bands=3, nodata=0)
        write_raster(
            tmp_path / "scenes" / name / "sr.tif",
            np.stack([green // 2, green, green * 2]),
            grid,
            encoding=optical,
        )
        labels = (hills(grid, 1) > 0.4).astype(np.uint8)
        write_raster(tmp_path / "scenes" / name / "labels.tif", labels, grid, encoding=Encoding(dtype="uint8"))
    bands = {name: {"band": band, "scale": 0.0001} for band, name in enumerate(("nir", "red", "green"), start=1)}
    content = {
        "scenes": {"kind": "rasters", "path": "scenes/*", "files": {"sr.tif": bands}},
        "layers": ["nir", "red", "green"],
        "labels": {"raster": "labels.tif"},
        "polygons": {"min_area_m2": 300},
        "outputs": {"probability": "float32", "vectors": ["parquet"]},
    }
    path = tmp_path / "thawmap.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_the_yaml_decides_what_is_written_and_shows_the_images(maps, project, tmp_path):
    assert run("fuse", maps, "--out", tmp_path / "fused", "--config", project, "--set", "polygons.threshold=0.3") == 0
    place = tmp_path / "fused" / "a+2"
    assert "slumps.parquet" in files_of(place)
    assert numbers(place / "probability.tif").dtype == np.float32
    slumps = gpd.read_parquet(place / "slumps.parquet")
    assert slumps["area_m2"].min() >= 300
    assert slumps["probability_min"].between(0.3, 0.5).any()
    red, green, blue = np.asarray(Image.open(place / "quicklook.png")).astype(int).reshape(-1, 3).T
    assert red.mean() < green.mean() < blue.mean()  # each layer is twice the one before
    assert green.std() > 20


def test_rules_on_layers_that_no_map_has_are_refused(maps, project, tmp_path, capsys):
    words = ("fuse", maps, "--out", tmp_path / "fused", "--config", project, "--set")
    assert run(*words, "polygons.drop=[ndvi < 0]") == 2
    assert "polygons.drop asks for 'ndvi', which fused maps have not" in said(capsys)
    assert run(*words, "polygons.drop=[]", "--dry-run") == 0


@pytest.mark.slow
def test_fused_by_scene_is_scored_against_each_scenes_labels(maps, project, tmp_path):
    fused = tmp_path / "fused"
    assert run("fuse", maps, "--out", fused, "--by", "scene") == 0
    assert files_of(fused) == sorted(GRIDS)
    for name in GRIDS:
        alone, together = (numbers(folder / name / "probability.tif") for folder in (maps, fused))
        np.testing.assert_array_equal(alone == 255, together == 255)
    assert run("evaluate", fused, "--config", project, "--out", tmp_path / "report") == 0
    scores = (tmp_path / "report" / "scores.csv").read_text()
    assert all(f",{name}," in scores for name in GRIDS)


# --- memory -------------------------------------------------------------------------------------------------------

PEAK = """
import sys
from pathlib import Path
from thawmap import fuse
fuse([Path(sys.argv[1])], Path(sys.argv[2]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to tell a process's memory")
def test_memory_does_not_grow_with_the_height(tmp_path):
    def peak(height):
        folder, grid = tmp_path / f"maps{height}", grid_at((height, 500))
        values = np.zeros(grid.shape, np.float32)
        values[::200, 100:400] = 0.9
        first = made(folder, "a", values, grid, july(1))
        for name in ("b", "c", "d"):
            shutil.copytree(first, folder / name)
        words = [sys.executable, "-c", PEAK, str(folder), str(tmp_path / f"fused{height}")]
        result = subprocess.run(words, capture_output=True, text=True, check=True)
        return int(result.stdout.split()[-1]) / 1024

    low, high = peak(1000), peak(8000)
    assert high < low + 30, (low, high)  # MiB; the numbers of all dates would be 61

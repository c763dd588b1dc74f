"""The tile store: what comes out is what went in, and a rerun does only what is needed."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from unittest.mock import patch

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

import thawmap
from thawmap.config import SplitSettings, load, parse
from thawmap.data.raster.io import Encoding, write_raster
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.data.stack import assemble
from thawmap.data.vector.io import write_vector
from thawmap.errors import DataError
from thawmap.files.atomic import write_text
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window, starts
from thawmap.layers import LAYERS, layer
from thawmap.train.split import split_tiles
from thawmap.train.tiles import cut as cutting
from thawmap.train.tiles.store import (
    LayerCode,
    TileStore,
    collect_index,
    decode,
    derive_layers,
    encode,
    is_finished,
    places_of,
    write_tiles,
)

torch.set_num_threads(1)

NAMES = ["red", "nir", "ndvi", "slope"]


def configuration(size=32, overlap=8, min_valid=0.3, layers=NAMES):
    text = f"""
scenes: {{kind: rasters, path: any, files: {{a.tif: {{red: {{band: 1}}}}}}}}
layers: [{", ".join(layers)}]
labels: {{path: any.gpkg}}
tiles: {{size: {size}, overlap: {overlap}, min_valid: {min_valid}}}
"""
    return parse(text, name="test", folder=Path())


class BurntLabels:
    """Targets that are already on the scene's grid; beyond it 0, as polygons give."""

    def __init__(self, target):
        self.target = target

    def burn(self, scene, geobox):
        col, row = ~scene.geobox.affine * (geobox.affine.c, geobox.affine.f)
        row, col = round(row), round(col)
        found = np.zeros(tuple(geobox.shape), np.uint8)
        part = self.target[row : row + found.shape[0], col : col + found.shape[1]]
        found[: part.shape[0], : part.shape[1]] = part
        return found


def example(height=70, width=50, seed=0, scene_id="first"):
    rng = np.random.default_rng(seed)
    geobox = GeoBox((height, width), Affine(10, 0, 500_000, 0, -10, 7_800_000), "EPSG:32640")
    values = {"red": rng.uniform(0, 0.4, (height, width)), "nir": rng.uniform(0, 0.4, (height, width))}
    values["slope"] = rng.uniform(0, 60, (height, width))
    values = {name: np.where(rng.random(array.shape) < 0.03, np.nan, array) for name, array in values.items()}
    valid = rng.random((height, width)) < 0.9
    acquired = datetime(2021, 7, 1, 2, 3, 4, tzinfo=UTC)
    scene = Scene(id=scene_id, sensor="test", geobox=geobox, files={}, acquired=acquired, region="Lena")
    target = rng.choice([0, 1, 255], (height, width), p=[0.7, 0.2, 0.1]).astype(np.uint8)
    return scene, ArraySource(values, geobox, valid), BurntLabels(target)


def cut(store, made, config=None, fingerprint="made from this"):
    scene, source, labels = made
    return write_tiles(
        store, scene, config=config or configuration(), sources=[source], labels=labels, fingerprint=fingerprint
    )


def opened(store, config=None, scenes=("first",)):
    collect_index(store, scenes, (config or configuration()).input_layers)
    return TileStore.open(store)


@given(
    name=st.sampled_from(["red", "slope", "relative_elevation", "tc_wetness"]),
    shares=st.lists(st.floats(0, 1) | st.just(np.nan), min_size=1, max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_a_code_is_off_by_half_a_step_at_most_and_missing_stays_missing(name, shares):
    code = LayerCode.of(LAYERS[name])
    values = (code.low + np.array(shares) * code.step * 65534).astype(np.float32).reshape(1, 1, -1)
    again = decode(torch.from_numpy(encode(values, [code]))[None], [code]).numpy()[0]
    assert np.array_equal(np.isnan(again), np.isnan(values))
    rounding = 4 * np.spacing(np.float32(np.nanmax(np.abs(values), initial=1)))
    assert np.nanmax(np.abs(again - values), initial=0) <= code.step / 2 + rounding


def test_values_beyond_the_codes_are_kept_at_their_ends():
    code = LayerCode.of(LAYERS["red"])
    assert encode(np.array([[[-9.0, 9.0, np.inf]]], np.float32), [code]).tolist() == [[[1, 65535, 65535]]]


def test_tiles_are_the_scene_cut_up(tmp_path):
    scene, source, labels = example()
    number = cut(tmp_path, (scene, source, labels))
    store = opened(tmp_path)
    assert [code.name for code in store.codes] == ["red", "nir", "slope"]  # NDVI follows from them
    assert len(store.index) == number == 3 * 2
    batch = store.to_device(store.read(store.index), torch.device("cpu"))
    image = derive_layers(batch.image, stored=["red", "nir", "slope"], wanted=NAMES)
    for row, col, found, target, valid in zip(
        store.index["row"], store.index["col"], image, batch.target, batch.valid, strict=True
    ):
        window = Window(row=row, col=col, height=32, width=32)
        stack = assemble(scene, NAMES, window_geobox(scene.geobox, window), [source])
        for name, values in zip(NAMES, found.numpy(), strict=True):
            tolerance = 2e-3 if name in {"ndvi", "slope"} else 2e-5
            far = np.abs(values - stack[name]) > tolerance
            assert far.mean() < (0.01 if name == "ndvi" else 1e-9)  # NDVI of two numbers near 0 is rounding
            assert np.array_equal(np.isnan(values), np.isnan(stack[name]))
        assert np.array_equal(valid.numpy(), stack["valid"])
        assert np.array_equal(target.numpy(), labels.target[window.rows, window.cols])
    assert sorted(set(store.index["row"])) == [0, 24, 38]  # the last one is shifted back to the border
    assert sorted(set(store.index["col"])) == [0, 18]


def test_the_index_says_what_is_in_the_tiles(tmp_path):
    cut(tmp_path, example())
    store = opened(tmp_path)
    tiles = store.read(store.index)
    assert store.index["positive_pixels"].tolist() == (tiles.valid & (tiles.target == 1)).sum((1, 2)).tolist()
    np.testing.assert_allclose(store.index["valid_share"], tiles.valid.mean((1, 2)))
    assert store.index["tile_id"].is_unique
    assert set(store.index["region"]) == {"Lena"}
    assert set(store.index["acquired"]) == {datetime(2021, 7, 1, 2, 3, 4, tzinfo=UTC)}
    assert store.index.crs.to_epsg() == 6931
    np.testing.assert_allclose(store.index.area, (32 * 10) ** 2, rtol=2e-3)  # UTM's own scale is off by 0.04 %


def test_a_scene_smaller_than_a_tile_is_mirrored_beyond_its_border_where_nothing_is_learnt(tmp_path):
    assert cut(tmp_path, example(20, 25)) == 1
    store = opened(tmp_path)
    tiles = store.read(store.index)
    for values in (tiles.valid[0], *tiles.codes[0]):
        beyond = tuple((0, length - inside) for length, inside in zip(values.shape, (20, 25), strict=True))
        np.testing.assert_array_equal(values, np.pad(values[:20, :25], beyond, mode="symmetric"))
    assert (tiles.target[0, 20:] == 255).all()
    assert (tiles.target[0, :, 25:] == 255).all()
    assert store.index["valid_share"][0] == tiles.valid[0, :20, :25].mean() > 0.7
    np.testing.assert_allclose(store.index.area, 200 * 250, rtol=2e-3)


def test_tiles_with_too_few_valid_pixels_are_left_out(tmp_path):
    scene, source, labels = example(64, 32)
    source._valid[:40] = False  # the upper tile's all, a quarter of the lower's
    config = configuration(overlap=0, min_valid=0.5)
    assert cut(tmp_path, (scene, source, labels), config) == 1
    assert opened(tmp_path, config).index["row"].tolist() == [32]


@pytest.mark.parametrize("why", ["no valid pixel", "nothing labelled"])
def test_a_scene_without_anything_to_learn_from_gives_no_tile(tmp_path, why):
    scene, source, labels = example()
    if why == "no valid pixel":
        source._valid[:] = False
    else:
        labels.target[:] = 255
    assert cut(tmp_path, (scene, source, labels)) == 0
    store = opened(tmp_path)
    assert len(store.index) == 0
    assert {"scene", "region", "positive_pixels"} <= set(store.index)


def test_scenes_with_and_without_tiles_region_and_time_join(tmp_path):
    scene, source, labels = example(seed=1, scene_id="second")
    nowhere = Scene(id="second", sensor="test", geobox=scene.geobox, files={})
    empty = example(seed=2, scene_id="third")
    empty[1]._valid[:] = False
    cut(tmp_path, example())
    cut(tmp_path, (nowhere, source, labels))
    cut(tmp_path, empty)
    index = opened(tmp_path, scenes=["third", "second", "first"]).index
    assert index.groupby("scene").size().to_dict() == {"first": 6, "second": 6}
    assert index[index["scene"] == "second"][["region", "acquired"]].isna().all(axis=None)


def files(folder):
    return {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_a_rerun_rewrites_nothing_and_a_changed_fingerprint_one_scene(tmp_path):
    first, second = example(), example(seed=1, scene_id="second")
    cut(tmp_path, first)
    cut(tmp_path, second)
    opened(tmp_path, scenes=["first", "second"])
    before = {name: path.stat().st_mtime_ns for name, path in files(tmp_path).items()}
    assert is_finished(tmp_path, first[0], "made from this")
    assert cut(tmp_path, first) == 6
    opened(tmp_path, scenes=["first", "second"])
    assert {name: path.stat().st_mtime_ns for name, path in files(tmp_path).items()} == before
    assert not is_finished(tmp_path, first[0], "something else")
    cut(tmp_path, first, fingerprint="something else")
    opened(tmp_path, scenes=["first", "second"])
    changed = {name.parts[0] for name, path in files(tmp_path).items() if path.stat().st_mtime_ns != before.get(name)}
    assert changed == {"first.zarr", "index.parquet", "store.json"}


def test_two_stores_of_the_same_are_the_same_byte_for_byte(tmp_path):
    for name in ("one", "other"):
        cut(tmp_path / name, example())
        opened(tmp_path / name)
    one, other = files(tmp_path / "one"), files(tmp_path / "other")
    assert list(one) == list(other)
    assert all(one[name].read_bytes() == other[name].read_bytes() for name in one)


def test_a_cut_that_fails_on_the_way_leaves_the_old_tiles_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "_BLOCK_PX", 32)
    scene, source, labels = example()
    burn = labels.burn

    def fail(scene, geobox):
        if geobox.affine.f < scene.geobox.affine.f:
            msg = "label file went away"
            raise DataError(msg)
        return burn(scene, geobox)

    labels.burn = fail
    with pytest.raises(DataError, match="went away"):
        cut(tmp_path, (scene, source, labels))
    assert list(tmp_path.iterdir()) == []
    cut(tmp_path, example())
    with pytest.raises(DataError, match="went away"):
        cut(tmp_path, (scene, source, labels), fingerprint="new")
    assert is_finished(tmp_path, scene, "made from this")
    assert len(opened(tmp_path).index) == 6


def test_numbers_without_scale_are_refused_by_name(tmp_path):
    scene, source, labels = example()
    source._values["red"] = source._values["red"] * 10_000
    with pytest.raises(DataError, match="scene first: the median of red"):
        cut(tmp_path, (scene, source, labels))
    assert not is_finished(tmp_path, scene, "made from this")


def test_scenes_cut_with_different_layers_do_not_make_a_store(tmp_path):
    cut(tmp_path, example())
    cut(tmp_path, example(seed=1, scene_id="second"), configuration(layers=["red", "slope"]))
    with pytest.raises(DataError, match="cut with different layers or sizes"):
        opened(tmp_path, scenes=["first", "second"])
    with pytest.raises(DataError, match="no recipe makes it"):
        collect_index(tmp_path, ["first"], [LAYERS["tc_wetness"]])


def test_context_layers_are_stored_as_they_look_beyond_a_tile(tmp_path):
    config = configuration(layers=["red", "ndvi_mean_50m", "slope_deviation_30m"])
    cut(tmp_path, example(), config)
    store = opened(tmp_path, config)
    assert [code.name for code in store.codes] == ["red", "nir", "slope", "ndvi_mean_50m", "slope_deviation_30m"]
    scene, source, _ = example()
    whole = assemble(scene, ["ndvi_mean_50m"], scene.geobox, [source])["ndvi_mean_50m"]
    batch = store.to_device(store.read(store.index.iloc[[0]]), torch.device("cpu"))
    wanted = derive_layers(batch.image, stored=[code.name for code in store.codes], wanted=["ndvi_mean_50m", "ndvi"])
    row, col = store.index.iloc[0][["row", "col"]]
    np.testing.assert_allclose(wanted[0, 0].numpy(), whole[row : row + 32, col : col + 32], atol=4e-5)
    with pytest.raises(DataError, match="'red_mean_50m' looks beyond a tile's border"):
        collect_index(tmp_path, ["first"], [layer("red_mean_50m")])


def test_what_is_missing_or_damaged_is_said(tmp_path):
    with pytest.raises(DataError, match="holds no whole tile store"):
        TileStore.open(tmp_path)
    with pytest.raises(DataError, match="no whole tiles of scene absent"):
        collect_index(tmp_path, ["absent"], [])
    with pytest.raises(DataError, match="nothing to train on"):
        collect_index(tmp_path, [], [])
    cut(tmp_path, example())
    store = opened(tmp_path)
    (tmp_path / "first.zarr/image/c/2/0/0/0").write_bytes(b"not a chunk")
    with pytest.raises(DataError, match=r"tile 2 of .*first.zarr cannot be read"):
        store.read(store.index)
    content = json.loads((tmp_path / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(DataError, match="has format 99"):
        TileStore.open(tmp_path)


def test_streaming_gives_the_parts_in_order(tmp_path):
    cut(tmp_path, example())
    store = opened(tmp_path)
    parts = [store.index.iloc[order] for order in ([5, 0], [3], [1, 1, 4], [2], [0], [5], [4, 3])]
    for part, found in zip(parts, store.stream(parts), strict=True):
        assert np.array_equal(found.codes, store.read(part).codes)
    started = store.stream(parts)
    next(started)
    started.close()  # a training that stops midway ends its threads


@given(
    height=st.integers(20, 150),
    width=st.integers(20, 150),
    overlap=st.integers(0, 31),
    side=st.sampled_from([1, 32, 75, 100, 1280]),
)
@settings(max_examples=25, deadline=None)
def test_blocks_hold_the_windows_of_the_scene_each_once_and_are_no_larger_than_allowed(height, width, overlap, side):
    firsts = [starts(side, tile=32, overlap=overlap) for side in (height, width)]
    wanted = [Window(row=row, col=col, height=32, width=32) for row in firsts[0] for col in firsts[1]]
    with patch.object(cutting, "_BLOCK_PX", side):
        blocks = list(cutting._blocks((height, width), configuration(overlap=overlap).tiles))
    found = dict(tile for block in blocks for tile in block.tiles)
    assert sum(len(block.tiles) for block in blocks) == len(found)
    assert found == dict(enumerate(wanted))
    assert cutting.tile_count((height, width), configuration(overlap=overlap).tiles) == len(wanted)
    for block in blocks:
        assert max(block.window.height, block.window.width) <= max(side, 32)
        rows, cols = ([getattr(tile, axis) for _, tile in block.tiles] for axis in ("row", "col"))
        assert (block.window.row, block.window.col) == (min(rows), min(cols))
        assert (block.window.height, block.window.width) == (max(rows) + 32 - min(rows), max(cols) + 32 - min(cols))


@pytest.mark.slow
@given(height=st.integers(20, 90), width=st.integers(20, 90), side=st.sampled_from([60, 100, 1280]))
@settings(max_examples=8, deadline=None)
def test_tiles_cut_in_blocks_are_those_cut_one_by_one(tmp_path_factory, height, width, side):
    found = []
    for pixels in (1, side):
        folder = tmp_path_factory.mktemp("store")
        with patch.object(cutting, "_BLOCK_PX", pixels):
            cut(folder, example(height, width))
        found.append(content(opened(folder)))
    assert found[0] == found[1]


def content(store):
    """All that a reader sees of a store."""
    tiles = store.read(store.index) if len(store.index) else None
    arrays = [] if tiles is None else [getattr(tiles, name).tobytes() for name in ("codes", "target", "valid")]
    return store.index.to_wkb(hex=True).to_csv(), arrays, (store.path / "store.json").read_text()


YAML = """
scenes:
  kind: rasters
  path: scenes/*
  region: Lena
  files: {a.tif: {red: {band: 1, scale: 0.0001}, nir: {band: 2, scale: 0.0001}}, coarse.tif: {slope: {band: 1}}}
layers: [red, nir, ndvi, slope]
labels: {path: labels.geojson, scene: image}
tiles: {size: 64, overlap: 9, min_valid: 0.2}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three scenes of two places as files: a slope on a coarser, turned grid, and polygons."""
    folder = tmp_path_factory.mktemp("project")
    shapes = []
    for number, east in enumerate((500_000, 500_000, 560_000)):
        rng = np.random.default_rng(number)
        fine = GeoBox((150, 170), Affine(10, 0, east, 0, -10, 7_800_000), "EPSG:32640")
        optical = rng.integers(1, 5000, (2, 150, 170))
        optical[:, :70, :70] = 0
        write_raster(
            folder / f"scenes/s{number}/a.tif", optical, fine, encoding=Encoding(dtype="uint16", bands=2, nodata=0)
        )
        place = Affine.translation(east - 700, 7_800_300) * Affine.rotation(3) * Affine.scale(34, -34)
        coarse = GeoBox((80, 80), place, "EPSG:32640")
        slope = 20 + 15 * np.sin(np.arange(80) / 4)[:, None] * np.cos(np.arange(80) / 5)
        write_raster(folder / f"scenes/s{number}/coarse.tif", slope, coarse, encoding=Encoding(dtype="float32"))
        shapes.append(shapely.Point(east + 900, 7_799_200).buffer(220))
    frame = gpd.GeoDataFrame({"image": ["s0", "s1", "s2"]}, geometry=shapes, crs="EPSG:32640")
    write_vector(folder / "labels.geojson", frame)
    write_text(folder / "thawmap.yaml", YAML)
    return folder


@pytest.fixture(scope="module")
def whole(project):
    """The store of an unbroken run in one process."""
    thawmap.tiles(load(project / "thawmap.yaml"), project / "store")
    return content(TileStore.open(project / "store"))


@pytest.mark.slow
def test_resampled_layers_are_the_same_cut_in_blocks_or_one_by_one(project, whole, tmp_path):
    with patch.object(cutting, "_BLOCK_PX", 1):
        assert thawmap.tiles(load(project / "thawmap.yaml"), tmp_path / "store").failed == {}
    blocks, alone = TileStore.open(project / "store"), TileStore.open(tmp_path / "store")
    assert blocks.index["tile_id"].tolist() == alone.index["tile_id"].tolist()
    one, other = blocks.read(blocks.index), alone.read(alone.index)
    assert np.array_equal(one.valid, other.valid)
    assert np.array_equal(one.target, other.target)
    assert np.array_equal(one.codes[:, :2], other.codes[:, :2])  # on the scene's own grid
    far = np.abs(one.codes[:, 2].astype(int) - other.codes[:, 2])
    assert far.max() * LAYERS["slope"].code_step < 0.05  # a hundredth of what it changes from pixel to pixel


@pytest.mark.slow
def test_two_processes_cut_what_one_does(project, whole, tmp_path):
    config = load(project / "thawmap.yaml", overrides=["engine.workers=2"])
    thawmap.tiles(config, tmp_path / "store")
    assert content(TileStore.open(tmp_path / "store")) == whole


KILLED = """
import os, signal, sys, time
from pathlib import Path
import thawmap
from thawmap.config import load
from thawmap.data.labels.polygons import PolygonLabels
from thawmap.train.tiles import cut

cut._BLOCK_PX = 1
project, store = map(Path, sys.argv[1:])
burn = PolygonLabels.burn

def burn_until_killed(labels, scene, geobox):
    while scene.id == "s1" and geobox.affine.f < scene.geobox.affine.f:  # its second row of tiles
        if list(store.glob(".s1.zarr.*.tmp/s1.zarr/image/c/*/0/0/0")):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
    return burn(labels, scene, geobox)

PolygonLabels.burn = burn_until_killed
thawmap.tiles(load(project / "thawmap.yaml"), store)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_what_an_unbroken_one_makes(project, whole, tmp_path):
    store = tmp_path / "store"
    ended = subprocess.run([sys.executable, "-c", KILLED, project, store], check=False)
    assert ended.returncode == -signal.SIGKILL
    left = sorted(path.name for path in store.iterdir())
    assert [name for name in left if name.endswith(".tmp")] != []
    assert [name for name in left if name.endswith(".zarr")] == ["s0.zarr"]
    with pytest.raises(DataError, match="no whole tile store"):
        TileStore.open(store)
    first = {path: path.stat().st_mtime_ns for path in (store / "s0.zarr").rglob("*")}
    summary = thawmap.tiles(load(project / "thawmap.yaml"), store)
    assert (summary.done, summary.skipped) == (2, 1)
    assert content(TileStore.open(store)) == whole
    assert first == {path: path.stat().st_mtime_ns for path in (store / "s0.zarr").rglob("*")}
    assert sorted(path.name for path in store.iterdir()) == [
        "index.parquet", "s0.zarr", "s1.zarr", "s2.zarr", "store.json",
    ]  # fmt: skip


@pytest.mark.slow
def test_what_another_process_or_scene_has_in_work_is_left_alone(tmp_path):
    scene, source, labels = example()
    other = tmp_path / ".first.zarr.second.zarr.abcdefg1.tmp"
    dead = tmp_path / ".first.zarr.abcdefg1.tmp"
    for folder in (other, dead):
        (folder / "first.zarr").mkdir(parents=True)
    held, draft = Event(), Event()
    burn = labels.burn

    def wait(scene, geobox):
        held.set()
        assert draft.wait(600)
        return burn(scene, geobox)

    labels.burn = wait
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(cut, tmp_path, (scene, source, labels))
        assert held.wait(600)
        assert not dead.exists()
        assert other.exists()
        mine = [path for path in tmp_path.iterdir() if path.suffix == ".tmp" and path != other]
        assert len(mine) == 1
        two = pool.submit(cut, tmp_path, (scene, source, BurntLabels(labels.target)))
        assert not wait_for([two], timeout=0.5).done  # it waits for the lock, and sweeps nothing away
        assert mine[0].exists()
        draft.set()
        assert one.result(600) == two.result(600) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "first.zarr"]
    assert len(opened(tmp_path).index) == 6


def test_dates_of_one_place_are_found_together_and_never_split(project, whole):
    store = TileStore.open(project / "store")
    assert dict(zip(store.index["scene"], store.index["place"], strict=True)) == {"s0": "s0", "s1": "s0", "s2": "s2"}
    stacked = store.index.groupby(["place", "number"])
    for _, dates in stacked:
        assert dates["scene"].tolist() == (["s0", "s1"] if dates["place"].iloc[0] == "s0" else ["s2"])
        assert len(dates[["row", "col"]].drop_duplicates()) == 1
        assert dates.geometry.iloc[0].equals(dates.geometry.iloc[-1])
    for left_out in ("validation", "test"):
        split = split_tiles(store.index, SplitSettings(by="scene", **{left_out: ["s1"]}))
        assert set(split.train["place"]) == {"s2"}
        assert set(getattr(split, left_out)["scene"]) == {"s1"}
        assert set(split.dropped["scene"]) == {"s0"}


boxes = st.lists(
    st.tuples(
        st.integers(0, 20), st.integers(0, 20), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["a", "b", None])
    ),
    min_size=1,
    max_size=12,
)


@given(scenes=boxes, order=st.randoms(use_true_random=False))
def test_places_are_scenes_that_share_more_than_half_of_the_smaller_whatever_the_order(scenes, order):
    described = {
        f"s{number:02}": {"region": region, "footprint": shapely.box(x, y, x + width, y + height).wkt}
        for number, (x, y, width, height, region) in enumerate(scenes)
    }

    def alike(one, other):
        (x, y, width, height, region), (left, low, wide, tall, place) = scenes[one], scenes[other]
        across = max(0, min(x + width, left + wide) - max(x, left))
        down = max(0, min(y + height, low + tall) - max(y, low))
        return region == place and 2 * across * down > min(width * height, wide * tall)

    expected = list(range(len(scenes)))
    for _ in scenes:  # the least name spreads over all that hang together
        for one in range(len(scenes)):
            expected[one] = min(expected[other] for other in range(len(scenes)) if alike(one, other))
    items = list(described.items())
    order.shuffle(items)
    assert places_of(dict(items)) == {f"s{one:02}": f"s{least:02}" for one, least in enumerate(expected)}


def test_the_plan_says_what_will_be_cut_and_what_is_wrong(project, whole, tmp_path):
    out = tmp_path / "store"
    plan = thawmap.tiles(load(project / "thawmap.yaml"), out, dry_run=True)
    assert not out.exists()
    assert plan.table[["scene", "tiles", "usable"]].values.tolist() == [[f"s{n}", 9, "81%"] for n in range(3)]
    assert "3 scenes of 0.1 million pixels: at most 27 tiles" in plan.lines[0]
    real = sum(path.stat().st_size for path in (project / "store").rglob("c/*/**/*") if path.is_file()) / 1e6
    kept = len(TileStore.open(project / "store").index)
    assert kept < 27
    assert plan.table["MB"].sum() / 27 == pytest.approx(real / kept, rel=0.5)
    wrong = load(project / "thawmap.yaml", overrides=["scenes.files={a.tif: {red: {band: 1}}}", "layers=[red]"])
    plan = thawmap.tiles(wrong, out, dry_run=True)
    assert sorted(plan.failed) == ["s0", "s1", "s2"]
    assert all("far outside of its range" in why for why in plan.failed.values())
    assert plan.table.empty


def test_a_lost_chunk_is_no_missing_data(tmp_path):
    cut(tmp_path, example())
    store = opened(tmp_path)
    (tmp_path / "first.zarr/image/c/2/0/0/0").unlink()
    with pytest.raises(DataError, match=r"tile 2 of .*first.zarr cannot be read \(its chunk is not there\)"):
        store.read(store.index)


def test_tiles_of_another_version_are_cut_again(tmp_path):
    cut(tmp_path, example())
    place = tmp_path / "first.zarr/zarr.json"
    place.write_text(place.read_text().replace('"format": 3', '"format": 2'))
    with pytest.raises(DataError, match="are of another version"):
        collect_index(tmp_path, ["first"], [])
    assert not is_finished(tmp_path, example()[0], "made from this")
    assert cut(tmp_path, example()) == 6
    assert len(opened(tmp_path).index) == 6

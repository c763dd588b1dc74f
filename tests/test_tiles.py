"""The tile store: what comes out is what went in, and a rerun does only what is needed."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from thawmap.config import parse
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.data.stack import assemble, window_geobox
from thawmap.errors import DataError
from thawmap.grid import Window
from thawmap.layers import LAYERS
from thawmap.train import cutting
from thawmap.train.tiles import Code, TileStore, collect, decode, derive, encode, is_finished, write_tiles

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
    collect(store, scenes, (config or configuration()).input_layers)
    return TileStore.open(store)


@given(
    name=st.sampled_from(["red", "slope", "relative_elevation", "tc_wetness"]),
    shares=st.lists(st.floats(0, 1) | st.just(np.nan), min_size=1, max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_a_code_is_off_by_half_a_step_at_most_and_missing_stays_missing(name, shares):
    code = Code.of(LAYERS[name])
    values = (code.low + np.array(shares) * code.step * 65534).astype(np.float32).reshape(1, 1, -1)
    again = decode(torch.from_numpy(encode(values, [code]))[None], [code]).numpy()[0]
    assert np.array_equal(np.isnan(again), np.isnan(values))
    rounding = 4 * np.spacing(np.float32(np.nanmax(np.abs(values), initial=1)))
    assert np.nanmax(np.abs(again - values), initial=0) <= code.step / 2 + rounding


def test_values_beyond_the_codes_are_kept_at_their_ends():
    code = Code.of(LAYERS["red"])
    assert encode(np.array([[[-9.0, 9.0, np.inf]]], np.float32), [code]).tolist() == [[[1, 65535, 65535]]]


def test_tiles_are_the_scene_cut_up(tmp_path):
    scene, source, labels = example()
    number = cut(tmp_path, (scene, source, labels))
    store = opened(tmp_path)
    assert [code.name for code in store.codes] == ["red", "nir", "slope"]  # NDVI follows from them
    assert len(store.index) == number == 3 * 2
    batch = store.to_device(store.read(store.index), torch.device("cpu"))
    image = derive(batch.image, stored=["red", "nir", "slope"], wanted=NAMES)
    for row, col, found, target, valid in zip(
        store.index["row"], store.index["col"], image, batch.target, batch.valid, strict=True
    ):
        window = Window(row=row, col=col, height=32, width=32)
        stack = assemble(scene, NAMES, window_geobox(scene.geobox, window), [source])
        for name, layer in zip(NAMES, found.numpy(), strict=True):
            tolerance = 2e-3 if name in {"ndvi", "slope"} else 2e-5
            far = np.abs(layer - stack[name].to_numpy()) > tolerance
            assert far.mean() < (0.01 if name == "ndvi" else 1e-9)  # NDVI of two numbers near 0 is rounding
            assert np.array_equal(np.isnan(layer), np.isnan(stack[name].to_numpy()))
        assert np.array_equal(valid.numpy(), stack["valid"].to_numpy())
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


def test_a_scene_smaller_than_a_tile_is_filled_up_with_missing(tmp_path):
    assert cut(tmp_path, example(20, 25)) == 1
    store = opened(tmp_path)
    tiles = store.read(store.index)
    assert not tiles.valid[0, 20:].any()
    assert not tiles.valid[0, :, 25:].any()
    assert not tiles.codes[0, :, 20:].any()
    assert (tiles.target[0, 20:] == 255).all()
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
        collect(tmp_path, ["first"], [LAYERS["tc_wetness"]])


def test_what_is_missing_or_damaged_is_said(tmp_path):
    with pytest.raises(DataError, match="holds no whole tile store"):
        TileStore.open(tmp_path)
    with pytest.raises(DataError, match="no whole tiles of scene absent"):
        collect(tmp_path, ["absent"], [])
    with pytest.raises(DataError, match="nothing to train on"):
        collect(tmp_path, [], [])
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

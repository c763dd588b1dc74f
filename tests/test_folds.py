"""Splits: every tile has one place, and no training tile has seen the ground of validation or test."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from thawmap.config import SplitSettings
from thawmap.errors import ConfigError, TrainingError
from thawmap.train.folds import split


def frame(tiles):
    """Tiles as (region, left, bottom, side) in metres."""
    return gpd.GeoDataFrame(
        {
            "tile_id": [str(number) for number in range(len(tiles))],
            "scene": [f"{region}-scene" for region, *_ in tiles],
            "region": [region for region, *_ in tiles],
            "positive_pixels": [number % 2 for number in range(len(tiles))],
        },
        geometry=[shapely.box(x, y, x + side, y + side) for _, x, y, side in tiles],
        crs="EPSG:6931",
    )


tiles = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 30), st.integers(0, 30), st.integers(1, 8)),
    min_size=1,
    max_size=25,
)


def overlap(one, other):
    """Shared ground of two squares, from their corners alone."""
    a, b = one.bounds, other.bounds
    sides = (min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1]))
    return sides[0] > 0 and sides[1] > 0


@given(tiles=tiles)
@settings(max_examples=150, deadline=None)
def test_no_ground_leaks_and_no_tile_is_dropped_without_reason(tiles):
    index = frame(tiles)
    present = set(index["region"])
    wanted = SplitSettings(validation=tuple(present & {"b"}), test=tuple(present & {"c"}))
    try:
        folds = split(index, wanted)
    except TrainingError:
        return
    parts = (folds.train, folds.validation, folds.test, folds.dropped)
    assert sorted(index["tile_id"]) == sorted(name for part in parts for name in part["tile_id"])
    held_out = [shape for shape, region in zip(index.geometry, index["region"], strict=True) if region in {"b", "c"}]
    assert set(folds.train["region"]).isdisjoint({"b", "c"})
    assert not any(overlap(shape, other) for shape in folds.train.geometry for other in held_out)
    assert not any(overlap(shape, other) for shape in folds.validation.geometry for other in folds.test.geometry)
    for shape, region in zip(folds.dropped.geometry, folds.dropped["region"], strict=True):
        against = folds.test.geometry if region == "b" else held_out
        assert any(overlap(shape, other) for other in against)


def test_without_names_every_tile_trains():
    folds = split(frame([("a", 0, 0, 5), (None, 2, 2, 5)]), SplitSettings())
    assert len(folds.train) == 2
    assert len(folds.validation) == len(folds.test) == len(folds.dropped) == 0


def test_tiles_that_touch_do_not_overlap_even_after_rounding():
    index = frame([("a", 0, 0, 5), ("b", 5 - 1e-9, 0, 5)])
    assert len(split(index, SplitSettings(test=("b",))).dropped) == 0


def test_scenes_can_be_left_out_by_name():
    index = frame([("a", 0, 0, 5), ("b", 9, 9, 5), ("c", 20, 20, 5)])
    folds = split(index, SplitSettings(by="scene", validation=("b-scene",), test=("c-scene",)))
    assert [list(part["region"]) for part in (folds.train, folds.validation, folds.test)] == [["a"], ["b"], ["c"]]


def test_what_is_dropped_is_said():
    folds = split(frame([("a", 0, 0, 5), ("a", 20, 0, 5), ("b", 1, 1, 5)]), SplitSettings(validation=("b",)))
    assert folds.lines() == (
        "train: 1 tiles, 1 with objects, from a",
        "validation: 1 tiles, 0 with objects, from b",
        "test: 0 tiles, 0 with objects, from nowhere named",
        "dropped: 1 tiles that overlap tiles of validation or test",
    )


def test_a_name_without_tiles_is_refused_and_the_known_ones_named():
    with pytest.raises(ConfigError, match=r"split.validation names the region 'Hortn'.* there are Horton, Lena"):
        split(frame([("Lena", 0, 0, 5), ("Horton", 9, 9, 5)]), SplitSettings(validation=("Hortn",)))


def test_nothing_left_to_validate_or_train_on_is_said():
    with pytest.raises(TrainingError, match=r"split\.validation b has no tile left"):
        split(frame([("a", 50, 50, 5), ("b", 0, 0, 5), ("c", 1, 1, 5)]), SplitSettings(validation=("b",), test=("c",)))
    with pytest.raises(
        TrainingError, match="no tile is left to train on: 2 tiles, 1 for test, 0 for validation, 1 overlap"
    ):
        split(frame([("a", 0, 0, 5), ("b", 1, 1, 5)]), SplitSettings(test=("b",)))


def test_a_large_index_is_split_in_no_time():
    rng = np.random.default_rng(0)
    regions = rng.choice(list("abcd"), 20_000)
    index = frame([(region, *rng.integers(0, 100_000, 2), 256) for region in regions])
    assert len(split(index, SplitSettings(validation=("b",), test=("c",))).train) > 0


def test_a_scene_without_a_region_is_refused_when_regions_are_left_out():
    """Nobody can tell whether it lies in one of them."""
    index = frame([("a", 0, 0, 5), (None, 20, 20, 5), ("c", 40, 40, 5)])
    with pytest.raises(ConfigError, match="None-scene has no region"):
        split(index, SplitSettings(test=("c",)))


def test_ground_of_a_left_out_scene_is_its_own_where_no_tile_was_kept():
    index = frame([("a", 0, 0, 5), ("a", 30, 30, 5), ("c", 40, 40, 5)])
    scenes = frame([("a", 0, 0, 40), ("c", 28, 28, 20)])
    folds = split(index, SplitSettings(test=("c",)), scenes=scenes)
    assert list(folds.train["tile_id"]) == ["0"]
    assert list(folds.dropped["tile_id"]) == ["1"]

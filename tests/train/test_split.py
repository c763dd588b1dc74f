"""Splits: every tile has one place, and no training tile has seen the ground of validation or test."""

from itertools import pairwise

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from thawmap.config import CrossvalSettings, SplitSettings
from thawmap.errors import ConfigError, TrainingError
from thawmap.train.split import Fold, deal_folds, split_tiles


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


@pytest.mark.slow
@given(tiles=tiles)
@settings(max_examples=150, deadline=None)
def test_no_ground_leaks_and_no_tile_is_dropped_without_reason(tiles):
    index = frame(tiles)
    present = set(index["region"])
    wanted = SplitSettings(validation=tuple(present & {"b"}), test=tuple(present & {"c"}))
    try:
        split = split_tiles(index, wanted)
    except TrainingError:
        return
    frames = (split.train, split.validation, split.test, split.dropped)
    assert sorted(index["tile_id"]) == sorted(name for tiles_ in frames for name in tiles_["tile_id"])
    held_out = [shape for shape, region in zip(index.geometry, index["region"], strict=True) if region in {"b", "c"}]
    assert set(split.train["region"]).isdisjoint({"b", "c"})
    assert not any(overlap(shape, other) for shape in split.train.geometry for other in held_out)
    assert not any(overlap(shape, other) for shape in split.validation.geometry for other in split.test.geometry)
    for shape, region in zip(split.dropped.geometry, split.dropped["region"], strict=True):
        against = split.test.geometry if region == "b" else held_out
        assert any(overlap(shape, other) for other in against)


def test_without_names_every_tile_trains():
    split = split_tiles(frame([("a", 0, 0, 5), (None, 2, 2, 5)]), SplitSettings())
    assert len(split.train) == 2
    assert len(split.validation) == len(split.test) == len(split.dropped) == 0


def test_tiles_that_touch_do_not_overlap_even_after_rounding():
    index = frame([("a", 0, 0, 5), ("b", 5 - 1e-9, 0, 5)])
    assert len(split_tiles(index, SplitSettings(test=("b",))).dropped) == 0


def test_scenes_can_be_left_out_by_name():
    index = frame([("a", 0, 0, 5), ("b", 9, 9, 5), ("c", 20, 20, 5)])
    split = split_tiles(index, SplitSettings(by="scene", validation=("b-scene",), test=("c-scene",)))
    assert [list(tiles_["region"]) for tiles_ in (split.train, split.validation, split.test)] == [["a"], ["b"], ["c"]]


def test_what_is_dropped_is_said():
    split = split_tiles(frame([("a", 0, 0, 5), ("a", 20, 0, 5), ("b", 1, 1, 5)]), SplitSettings(validation=("b",)))
    assert split.lines() == (
        "train: 1 tile, 1 with objects, from a",
        "validation: 1 tile, 0 with objects, from b",
        "test: 0 tiles, 0 with objects",
        "dropped: 1 tile that overlaps tiles of validation or test",
    )


def test_tiles_without_a_region_are_from_scenes():
    index = frame([(None, 0, 0, 5), (None, 9, 9, 5), (None, 20, 20, 5)]).assign(scene=["a", "a", "b"])
    first = split_tiles(index, SplitSettings(by="scene", validation=("b",))).lines()[0]
    assert first == "train: 2 tiles, 1 with objects, from 1 scene"


def test_a_name_without_tiles_is_refused_and_the_known_ones_named():
    with pytest.raises(ConfigError, match=r"split.validation names the region 'Hortn'.* there are Horton, Lena"):
        split_tiles(frame([("Lena", 0, 0, 5), ("Horton", 9, 9, 5)]), SplitSettings(validation=("Hortn",)))


def test_nothing_left_to_validate_or_train_on_is_said():
    with pytest.raises(TrainingError, match=r"split\.validation b has no tile left"):
        split_tiles(
            frame([("a", 50, 50, 5), ("b", 0, 0, 5), ("c", 1, 1, 5)]), SplitSettings(validation=("b",), test=("c",))
        )
    with pytest.raises(
        TrainingError, match="no tile is left to train on: 2 tiles, 1 for test, 0 for validation, 1 overlap"
    ):
        split_tiles(frame([("a", 0, 0, 5), ("b", 1, 1, 5)]), SplitSettings(test=("b",)))


def test_a_large_index_is_split_in_no_time():
    rng = np.random.default_rng(0)
    regions = rng.choice(list("abcd"), 20_000)
    index = frame([(region, *rng.integers(0, 100_000, 2), 256) for region in regions])
    assert len(split_tiles(index, SplitSettings(validation=("b",), test=("c",))).train) > 0


def test_a_scene_without_a_region_is_refused_when_regions_are_left_out():
    """Nobody can tell whether it lies in one of them."""
    index = frame([("a", 0, 0, 5), (None, 20, 20, 5), ("c", 40, 40, 5)])
    with pytest.raises(ConfigError, match="None-scene has no region"):
        split_tiles(index, SplitSettings(test=("c",)))


def test_ground_of_a_left_out_scene_is_its_own_where_no_tile_was_kept():
    index = frame([("a", 0, 0, 5), ("a", 30, 30, 5), ("c", 40, 40, 5)])
    scenes = frame([("a", 0, 0, 40), ("c", 28, 28, 20)])
    split = split_tiles(index, SplitSettings(test=("c",)), scenes=scenes)
    assert list(split.train["tile_id"]) == ["0"]
    assert list(split.dropped["tile_id"]) == ["1"]


def weighed(pixels, by="region"):
    """An index of one tile per name, with these object pixels."""
    return pd.DataFrame({"scene": list(pixels), by: list(pixels), "positive_pixels": list(pixels.values())})


regions = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 50), min_size=2)
labelled = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 50), min_size=2)


@given(pixels=regions, inner=st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_every_region_is_held_out_once_and_never_chooses_for_itself(pixels, inner):
    wanted = CrossvalSettings(inner=inner)
    others = [sum(pixels[other] > 0 for other in pixels if other != name) for name in pixels]
    if min(others) <= inner:
        message = r"crossval\.inner asks for" if min(others) < inner else "no region with an object is left to train on"
        with pytest.raises(ConfigError, match=message):
            deal_folds(weighed(pixels), wanted)
        return
    folds = deal_folds(weighed(pixels), wanted)
    assert [fold.test for fold in folds] == [(name,) for name in sorted(pixels)]
    for fold in folds:
        assert len(fold.validation) == inner
        assert not set(fold.validation) & set(fold.test)
        assert all(pixels[name] > 0 for name in fold.validation)


def test_the_next_region_with_objects_chooses_round_and_round():
    folds = deal_folds(weighed({"a": 5, "b": 0, "c": 5, "d": 5}), CrossvalSettings(inner=1))
    assert {fold.name: fold.validation for fold in folds} == {"a": ("c",), "b": ("c",), "c": ("d",), "d": ("a",)}


@given(pixels=labelled, inner=st.integers(0, 3), number=st.integers(2, 5))
@settings(max_examples=100, deadline=None)
def test_several_inner_folds_count_each_for_itself_and_one_by_its_regions(pixels, inner, number):
    wanted = CrossvalSettings(folds={"number": min(number, len(pixels))}, inner=inner)
    index = frame([(name, 10 * position, 0, 1) for position, name in enumerate(pixels)]).assign(
        positive_pixels=list(pixels.values())
    )
    if wanted.folds.number <= inner + 1:
        return
    folds = deal_folds(index, wanted)
    held_out = {fold.test for fold in folds}
    for fold in folds:
        validation = split_tiles(index, fold).validation
        chosen = [set(tiles["region"]) for _, tiles in validation.groupby("group")]
        assert sorted(map(sorted, chosen)) == sorted(
            sorted(group) for group in (fold.groups or [{name} for name in fold.validation])
        )
        assert set(fold.groups) <= held_out - {fold.test}
        assert len(fold.groups) == (inner if inner > 1 else 0)


def test_two_folds_choose_unless_told_otherwise():
    assert all(len(fold.validation) == 2 for fold in deal_folds(weighed(dict.fromkeys("abcd", 1)), CrossvalSettings()))


def test_validation_regions_of_a_training_are_groups_of_their_own():
    index = frame([("a", 0, 0, 1), ("b", 10, 0, 1), ("b", 20, 0, 1), ("c", 30, 0, 1)])
    validation = split_tiles(index, SplitSettings(validation=["a", "b"])).validation
    assert validation["group"].tolist() == ["a", "b", "b"]
    nameless = index.assign(region=[None, "b", "b", "c"])
    by_scene = split_tiles(nameless, SplitSettings(by="scene", validation=["a-scene", "b-scene"]))
    assert by_scene.validation["group"].tolist() == ["", "b", "b"]


@given(pixels=labelled, number=st.integers(2, 8))
@settings(max_examples=100, deadline=None)
def test_dealt_folds_hold_every_name_once_and_weigh_about_the_same(pixels, number):
    wanted = CrossvalSettings(folds={"number": number}, inner=0)
    if number > len(pixels):
        with pytest.raises(ConfigError, match=f"in {number} folds needs as many regions, and {len(pixels)} have"):
            deal_folds(weighed(pixels), wanted)
        return
    groups = [fold.test for fold in deal_folds(weighed(pixels), wanted)]
    assert len(groups) == number
    assert sorted(name for group in groups for name in group) == sorted(pixels)
    sums = sorted(sum(pixels[name] for name in group) for group in groups)
    assert sums[-1] - sums[0] <= max(pixels.values())  # what greedy dealing promises


def test_given_folds_are_held_out_and_what_no_fold_names_always_trains():
    wanted = CrossvalSettings(folds={"given": {"west": ["a", "b"], "east": ["c"]}}, inner=1)
    folds = deal_folds(weighed(dict.fromkeys("abcd", 1)), wanted)
    assert [(fold.name, fold.test, fold.validation) for fold in folds] == [
        ("west", ("a", "b"), ("c",)), ("east", ("c",), ("a", "b")),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"crossval\.folds\.given names the region 'z'.* there are a, b, c, d"):
        deal_folds(weighed(dict.fromkeys("abcd", 1)), CrossvalSettings(folds={"given": {"x": ["z"], "y": ["a"]}}))


def test_a_scene_that_belongs_nowhere_cannot_be_dealt():
    with pytest.raises(ConfigError, match="has no region"):
        deal_folds(
            pd.DataFrame({"scene": ["s", "t"], "region": ["a", None], "positive_pixels": [1, 1]}), CrossvalSettings()
        )


@pytest.mark.slow
@given(tiles=tiles, buffer=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_a_buffer_keeps_training_away_from_what_is_held_out(tiles, buffer):
    """Against the plain distance of squares, from their corners."""
    index = frame(tiles)
    fold = Fold(name="b", by="region", test=tuple(set(index["region"]) & {"b"}))
    try:
        split = split_tiles(index, fold, buffer_m=buffer)
    except TrainingError:
        return
    held_out = list(split.test.geometry)
    for shape in split.train.geometry:
        assert all(distance(shape, other) > buffer for other in held_out)
    for shape in split.dropped.geometry:
        assert any(distance(shape, other) <= buffer for other in held_out)


def distance(one, other):
    a, b = one.bounds, other.bounds
    return np.hypot(*(max(0, a[axis] - b[axis + 2], b[axis] - a[axis + 2]) for axis in (0, 1)))


def test_places_are_held_out_with_all_their_dates_and_whole_scenes():
    """Scenes know their place from their tiles: ground without a tile is its place's too."""
    index = frame([("a", 0, 0, 5), ("a", 0, 0, 5), ("a", 6, 0, 5), ("a", 30, 0, 5)])
    index["scene"], index["place"] = ["s", "t", "u", "v"], ["s", "s", "u", "v"]
    scenes = gpd.GeoDataFrame({"scene": ["s"], "region": ["a"]}, geometry=[shapely.box(0, 0, 8, 5)], crs="EPSG:6931")
    split = split_tiles(index, Fold(name="s", by="place", test=("s",)), scenes=scenes)
    assert [list(tiles_["scene"]) for tiles_ in (split.test, split.dropped, split.train)] == [["s", "t"], ["u"], ["v"]]


def test_what_divides_a_single_region_leaves_gaps_between_its_places():
    index = frame([("a", 10 * number, 0, 5) for number in range(6)])
    index["place"] = [f"p{number}" for number in range(6)]
    wanted = CrossvalSettings(folds={"by": "place", "number": 3, "buffer_m": 6}, inner=0)
    for fold in deal_folds(index, wanted):
        split = split_tiles(index, fold, buffer_m=wanted.folds.buffer_m)
        assert all(trained.distance(tested) > 6 for trained in split.train.geometry for tested in split.test.geometry)
        assert len(split.dropped)
    assert all(right.distance(left) == 5 for left, right in pairwise(index.geometry))

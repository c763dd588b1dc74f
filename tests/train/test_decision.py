"""Decisions: against every combination tried one by one, what bundles carry, and what lies on the ground."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage
from toy_training import configuration, make_store, run

from thawmap.maps.smooth import smooth
from thawmap.model.bundle_folder import load
from thawmap.model.decision import Decision, common
from thawmap.model.metrics.pixels import PLATEAU, Counts, scores
from thawmap.train import decision as deciding
from thawmap.train.decision import (
    AREAS_PX,
    PEAKS,
    THRESHOLDS,
    ObjectCounts,
    amid_plateau,
    choose_decisions,
    count_decided,
    decide,
    of_kinds,
)
from thawmap.train.split import split_tiles
from thawmap.train.views import TileView, mean_of, overlapping, views_by_place

torch.set_num_threads(1)
SHAPE = (24, 30)
CPU = {"device": torch.device("cpu"), "batch_size": 2}


def view(seed=0, *, group="a", day="2019-07-01", scene="s", at=(0, 0), probability=None, target=None, missing=0.1):
    rng = np.random.default_rng(seed)
    if target is None:
        target = (ndimage.gaussian_filter(rng.normal(size=SHAPE), 3) > 0.1).astype(np.uint8)
        target[rng.uniform(size=SHAPE) < 0.05] = 255
    if probability is None:
        noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2) * 2
        probability = (1 / (1 + np.exp(2 - 3 * (target == 1) - 3 * noise))).astype(np.float32)
        probability[rng.uniform(size=SHAPE) < missing] = np.nan
    row, col = at
    geobox = GeoBox(target.shape, Affine(10, 0, 5e5 + 10 * col, 0, -10, 7.9e6 - 10 * row), "EPSG:6931")
    footprint = geobox.extent.geom
    return TileView(scene=scene, day=day, group=group, probability=probability, target=target, footprint=footprint)


def decision(**changes):
    chosen = {"smoothing_px": 0.0, "threshold": 0.3, "peak": 0.6, "min_area_m2": 0.0, "views": 1.0}
    return Decision(**chosen | changes)


def iou_of(views, chosen):
    """Mean over groups with a labelled pixel of their IoU, each from its own mask."""
    groups = {}
    for one in views:
        mask, known = decide(one, chosen), np.isfinite(one.probability)
        tp, fp, fn = (
            int((known & what).sum())
            for what in (mask & (one.target == 1), mask & (one.target == 0), ~mask & (one.target == 1))
        )
        groups[one.group] = groups.get(one.group, Counts()) + Counts(tp, fp, fn)
    return np.mean([scores(counts)["iou"] for counts in groups.values() if counts.tp + counts.fn])


@given(seed=st.integers(0, 200))
@settings(max_examples=10, deadline=None)
def test_the_table_of_ious_is_that_of_each_combination_tried_alone(seed):
    views = [view(seed), view(seed + 1, group="b"), view(seed + 2, group="b")]
    objects = ObjectCounts()
    for one in views:
        objects.add(one)
    table = objects.mean_iou()
    rng = np.random.default_rng(seed)
    for at, number, size in rng.integers(0, table.shape, (12, 3)):
        if not np.isfinite(table[at, number, size]):
            assert PEAKS[number + 1] <= THRESHOLDS[at]
            continue
        chosen = decision(
            threshold=THRESHOLDS[at],
            peak=max(PEAKS[number], THRESHOLDS[at]),
            min_area_m2=(AREAS_PX[size] - 0.5) * 100,
        )
        assert table[at, number, size] == pytest.approx(iou_of(views, chosen))


def test_a_group_counts_once_and_one_without_labels_not_at_all():
    once, more = ObjectCounts(), ObjectCounts()
    empty = view(9, group="c", target=np.zeros(SHAPE, np.uint8))
    for one in (view(1), view(2, group="b")):
        once.add(one)
    for one in (view(1), *[view(2, group="b")] * 5, empty):
        more.add(one)
    np.testing.assert_allclose(once.mean_iou(), more.mean_iou())


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_what_is_taken_lies_on_the_plateau_around_the_best(seed):
    score = ndimage.gaussian_filter(np.random.default_rng(seed).uniform(size=(8, 9, 4)), 1.5)
    taken = amid_plateau(score)
    assert score[taken] >= (1 - PLATEAU) * score.max()
    one = np.zeros((5, 5, 5))
    one[1:4, 1:4, 1:4] = 0.5
    one[1, 1, 1], one[4, 4, 4] = 0.505, 0.504
    assert amid_plateau(one) == (2, 2, 2)


def test_peaks_keep_whole_objects_and_small_ones_are_left_out():
    probability = np.zeros((6, 12), np.float32)
    probability[1:4, 1:4], probability[2, 2] = 0.4, 0.9  # a peak
    probability[1:4, 6:9] = 0.5  # no peak
    probability[5, 11] = 0.95  # small
    one = view(probability=probability, target=np.zeros((6, 12), np.uint8))
    expected = np.zeros((6, 12), bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(decide(one, decision(min_area_m2=150.0)), expected)
    expected[5, 11] = True
    np.testing.assert_array_equal(decide(one, decision()), expected)
    assert not decide(one, decision(threshold=0.96, peak=0.97)).any()


# --- views on the ground -------------------------------------------------------------------------------------------


@given(row=st.integers(-20, 20), col=st.integers(-25, 25))
@settings(max_examples=40, deadline=None)
def test_a_tile_is_laid_over_another_by_its_footprint(row, col):
    ground = np.random.default_rng(0).uniform(size=(70, 90)).astype(np.float32)

    def cut(at):
        rows, cols = slice(at[0], at[0] + SHAPE[0]), slice(at[1], at[1] + SHAPE[1])
        return view(at=at, probability=ground[rows, cols], target=np.zeros(SHAPE, np.uint8))

    first, second = cut((22, 27)), cut((22 + row, 27 + col))
    laid = second.on(first)
    there = np.isfinite(laid)
    np.testing.assert_array_equal(laid[there], first.probability[there])
    assert there.sum() == max(SHAPE[0] - abs(row), 0) * max(SHAPE[1] - abs(col), 0)
    together = overlapping([first, second])
    assert together == ([[0, 1], [0, 1]] if there.any() else [[0], [1]])


def test_a_tile_beyond_its_scene_has_the_pixels_of_its_footprint():
    """The scene has 20 of the tile's 24 rows; a footprint is that of the scene's part."""
    whole = view(3, missing=0.0)
    target, probability = whole.target.copy(), whole.probability.copy()
    target[20:], probability[20:] = 255, np.nan
    footprint = GeoBox((20, 30), Affine(10, 0, 5e5, 0, -10, 7.9e6), "EPSG:6931").extent.geom
    cut = replace(whole, target=target, probability=probability, footprint=footprint)
    assert cut.pixel_m2 == pytest.approx(100)
    laid = cut.on(whole)
    np.testing.assert_array_equal(laid[:20], whole.probability[:20])
    assert np.isnan(laid[20:]).all()


def test_means_are_of_days_first_and_no_day_counts_twice():
    values = {"s1": 0.2, "s2": 0.4, "s3": 0.9}
    nothing = np.zeros(SHAPE, np.uint8)
    days = {"s1": "2019-07-01", "s2": "2019-07-01", "s3": "2019-08-01"}
    views = [
        view(scene=scene, day=days[scene], probability=np.full(SHAPE, value, np.float32), target=nothing)
        for scene, value in values.items()
    ]
    views[1].probability[:, :10] = np.nan
    mean, number = mean_of(views[0], views)
    np.testing.assert_allclose(mean.probability[:, 10:], (0.3 + 0.9) / 2, rtol=1e-6)
    np.testing.assert_allclose(mean.probability[:, :10], (0.2 + 0.9) / 2, rtol=1e-6)
    assert number == pytest.approx((2 * 10 + 3 * 20) / 30)
    scored = {(kind, one.scene): one.probability[0, -1] for kind, one, _ in of_kinds(views)}
    assert scored["tile", "s1"] == pytest.approx(0.2)
    assert scored["overlap", "s1"] == pytest.approx(0.3)
    assert scored["overlap", "s3"] == pytest.approx(0.9)
    assert scored["dates", "s3"] == pytest.approx(0.6)
    own = mean_of(views[1], views)[0].probability
    assert np.isnan(own[:, :10]).all()  # so that it is scored where it has a probability itself


# --- from validation to the bundle ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("small"), configuration())


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    return run(store, out, "split.validation=[Yamal, Horton]"), out


def test_a_training_stores_what_its_validation_tiles_choose(store, trained):
    bundle, out = trained
    split = split_tiles(store.index, configuration("split.validation=[Yamal, Horton]").split)
    assert load(out).decisions == bundle.decisions
    assert set(bundle.decisions) == {"tile"}  # tiles of the toy neither overlap nor have dates
    chosen = bundle.decisions["tile"]
    assert chosen.peak >= chosen.threshold
    views = [one for place in views_by_place(bundle, store, split.validation, **CPU) for one in place]
    assert {one.group for one in views} == {"Yamal", "Horton"}
    reached = iou_of([one.smoothed(chosen.smoothing_px) for one in views], chosen)
    tried = [
        iou_of([one.smoothed(px) for one in views], decision(threshold=low, peak=max(low, high)))
        for px, low, high in product(deciding.SMOOTHING_PX, THRESHOLDS[::3], PEAKS[::5])
    ]
    assert reached >= (1 - PLATEAU) * max(tried)
    counted = count_decided(views_by_place(bundle, store, split.validation, **CPU), bundle.decisions)
    assert scores(counted["tile"])["iou"] == pytest.approx(reached, abs=0.1)


def test_views_of_two_dates_have_a_decision_of_their_own(store, trained):
    """A second date on the same ground, as two names for one scene: its mean is itself, its views are two."""
    bundle, _ = trained
    split = split_tiles(store.index, configuration("split.validation=[Yamal, Horton]").split)
    first = split.validation.assign(acquired=pd.Timestamp("2019-07-01", tz="UTC"))
    second = split.validation.assign(acquired=pd.Timestamp("2019-08-01", tz="UTC"))
    decisions = choose_decisions(bundle, store, pd.concat([first, second]), **CPU)
    assert set(decisions) == {"tile", "dates"}
    assert (decisions["tile"].views, decisions["dates"].views) == (1.0, 2.0)
    same = replace(decisions["dates"], views=1.0)
    assert same == decisions["tile"]


def test_nothing_is_decided_where_nothing_is_labelled(tmp_path):
    silent = make_store(tmp_path, configuration(), silent=(0, 1))
    assert run(silent, tmp_path / "out").decisions == {}


def test_decisions_of_several_bundles_are_their_mean_of_what_all_have():
    one, other = decision(threshold=0.2, smoothing_px=0.0), decision(threshold=0.4, smoothing_px=1.0)
    both = common([{"tile": one, "dates": one}, {"tile": other}])
    assert both == {"tile": decision(threshold=pytest.approx(0.3), smoothing_px=0.5)}
    assert common([{"tile": one}, {}]) == {}


# --- smoothing -----------------------------------------------------------------------------------------------------


def test_smoothing_draws_nothing_towards_gaps_or_borders():
    values = np.full(SHAPE, 0.7, np.float32)
    values[5:9, 3:20] = np.nan
    result = smooth(values, 1.0)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(values))
    np.testing.assert_allclose(result[np.isfinite(values)], 0.7, rtol=1e-6)
    inner = np.random.default_rng(0).uniform(size=SHAPE)
    expected = ndimage.gaussian_filter(inner, 1.0, truncate=3.0)
    np.testing.assert_allclose(smooth(inner, 1.0)[3:-3, 3:-3], expected[3:-3, 3:-3], rtol=1e-5)

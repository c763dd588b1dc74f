"""The scenes that make a date: against all sets of them, and bounds of the greedy search."""

from itertools import combinations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from offering import boxes, rules

from thawmap.acquire.covering import MOST_EXACT, Pool, best_set, exact_set, greedy_set, split


@st.composite
def pools(draw, *, most=6, costs=(0.0, 1.0, 3.0, 10.0), clears=(0.5, 0.85, 0.9, 1.0)):
    """Pools of scenes over a line of cells with whole sizes."""
    count, cells = draw(st.integers(1, most)), draw(st.integers(1, 12))
    flags = st.lists(st.booleans(), min_size=cells, max_size=cells)
    shown = np.array([draw(flags) for _ in range(count)]).reshape(count, cells)
    shown[:, 0] |= ~shown.any(axis=1)  # each shows something
    sizes = np.array(draw(st.lists(st.integers(1, 5), min_size=cells, max_size=cells)), float)
    return Pool(
        shown=shown,
        cells=sizes / sizes.sum(),
        clear=np.array([draw(st.sampled_from(clears)) for _ in range(count)]),
        km2=np.array([draw(st.sampled_from(costs)) for _ in range(count)]),
    )


SETTINGS = st.builds(rules, cover=st.sampled_from([0.3, 0.9]), cloud=st.sampled_from([0.1, 0.3, 1.0]),
                     min_share=st.sampled_from([0.0, 0.01, 0.2]))  # fmt: skip


def shown_by(pool, scenes):
    """Share of the area that scenes show, cell by cell."""
    return sum(size for cell, size in enumerate(pool.cells) if any(pool.shown[scene, cell] for scene in scenes))


def allowed(pool, scenes, the):
    """Whether a set obeys the rules, by the words of the sheet."""
    weights = [shown_by(pool, [scene]) for scene in scenes]
    clear = sum(weight * pool.clear[scene] for weight, scene in zip(weights, scenes, strict=True)) / sum(weights)
    gains = [shown_by(pool, scenes) - shown_by(pool, [s for s in scenes if s != scene]) for scene in scenes]
    return (
        shown_by(pool, scenes) >= the.cover - 1e-9
        and 1 - clear <= the.cloud + 1e-9
        and min(gains) >= the.min_share - 1e-9
    ), clear


def brute(pool, the):
    """Best set of all: most clear ground for its cost, then cheapest, clearest, fewest, first."""
    best = None
    for size in range(1, len(pool.clear) + 1):
        for scenes in combinations(range(len(pool.clear)), size):
            obeys, clear = allowed(pool, scenes, the)
            if not obeys:
                continue
            ground, cost = shown_by(pool, scenes) * clear, sum(pool.km2[scene] for scene in scenes)
            ratio = round(ground / cost, 9) if cost else np.inf
            key = (-ratio, round(cost, 9), -round(ground, 9), size, scenes)
            best = key if best is None or key < best else best
    return () if best is None else best[-1]


@given(pools(), SETTINGS)
def test_the_best_set_is_that_of_all_sets(pool, the):
    assert exact_set(pool, the) == brute(pool, the)


@given(pools(), SETTINGS)
def test_the_greedy_set_obeys_the_rules_and_is_never_better_than_the_best(pool, the):
    scenes, best = list(greedy_set(pool, the)), list(exact_set(pool, the))
    if not scenes:
        return
    assert pool.obeys(scenes, the)
    if best and allowed(pool, scenes, the)[0]:
        worth = [pool.cover(each) * pool.clear_of(each) for each in (best, scenes)]
        costs = [pool.km2[each].sum() for each in (best, scenes)]
        assert worth[0] * costs[1] >= worth[1] * costs[0] - 1e-9


@given(pools(most=8, costs=(2.0,), clears=(1.0,)))
def test_the_greedy_set_shows_at_least_the_share_that_is_proven_of_it(pool):
    """Of equal scenes k chosen greedily show 1 - (1 - 1/k)^k of what any k show (Nemhauser, Wolsey, Fisher 1978).

    So where they stop at ``cover``, one scene fewer than they are shows at most cover / (1 - (1 - 1/k)^k).
    """
    the = rules(cover=0.9, cloud=1.0, min_share=0.0)
    scenes = greedy_set(pool, the)
    if len(scenes) < 2:
        return
    k = len(scenes) - 1
    most = max(pool.cover(each) for each in combinations(range(len(pool.clear)), k))
    assert most * (1 - (1 - 1 / k) ** k) <= 0.9 + 1e-9


@given(pools(), SETTINGS)
def test_where_nothing_alone_is_cloudy_the_greedy_set_reaches_what_can_be_reached(pool, the):
    """Every scene adds something where ``min_share`` is 0, so the cover is reached if all together reach it."""
    clear = Pool(shown=pool.shown, cells=pool.cells, clear=np.ones(len(pool.clear)), km2=pool.km2)
    the = the.model_copy(update={"min_share": 0.0})
    can = clear.cover(range(len(clear.clear))) >= the.cover - 1e-9
    assert bool(greedy_set(clear, the)) == bool(exact_set(clear, the)) == can


def test_more_than_twelve_scenes_are_searched_greedily_and_fewer_are_not():
    narrow = np.eye(MOST_EXACT + 1, dtype=bool)
    cells = np.full(MOST_EXACT + 1, 1 / (MOST_EXACT + 1))
    pool = Pool(shown=narrow, cells=cells, clear=np.ones(MOST_EXACT + 1), km2=np.ones(MOST_EXACT + 1))
    assert best_set(pool, rules()) == tuple(range(MOST_EXACT))  # 12 of 13 show 0.92
    assert best_set(pool, rules(cover=1.0)) == tuple(range(MOST_EXACT + 1))


def test_the_greedy_search_goes_on_with_clear_scenes_where_a_cloudy_one_misled_it():
    shown = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]], bool)
    pool = Pool(shown=shown, cells=np.full(5, 0.2), clear=np.array([0.8, 1.0, 1.0]), km2=np.array([2.0, 3.0, 2.0]))
    the = rules(cloud=0.05)
    assert greedy_set(pool, the) == exact_set(pool, the) == (1, 2)


@given(st.lists(boxes(), min_size=1, max_size=7))
def test_cells_are_the_ground_that_the_same_scenes_show(outlines):
    cells, shown = split(np.array(outlines, object))
    assert shapely.area(cells).sum() == pytest.approx(shapely.area(shapely.union_all(outlines)), rel=1e-6)
    for outline, row in zip(outlines, shown, strict=True):
        assert shapely.area(cells[row]).sum() == pytest.approx(shapely.area(outline), rel=1e-6)
        assert shapely.area(shapely.intersection(cells[~row], outline)).sum() <= 1e-9

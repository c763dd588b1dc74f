"""How scenes are tiled: everything covered, what is valid cheaply, within the memory."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thawmap.config import InferenceSettings
from thawmap.errors import ConfigError
from thawmap.grid import starts
from thawmap.infer.plan import LARGEST_PX, memory, plan


@dataclass(frozen=True)
class Net:
    """What a plan asks of a network: U-Net with ResNet-34 and ten layers, about."""

    names: tuple[str, ...] = tuple("abcdefghij")
    tile: int = 256
    stride: int = 32
    fixed_tile: bool = False
    bytes_per_pixel: int = 500
    base_bytes: int = 0
    readers: int = 2


def pixels_of(tiling):
    """How often each pixel of the scene lies in a window."""
    seen = np.zeros(tiling.shape, np.uint16)
    for tile in tiling.tiles:
        inside = tile.window.clip(tiling.shape)
        assert inside is not None
        seen[inside.rows, inside.cols] += 1
    return seen


def axes(tiling):
    """First rows, widths of the rows of windows, and first columns of each."""
    columns = [[tile.window.col for tile in tiles] for tiles in tiling.tile_rows]
    return [tiles[0].window.row for tiles in tiling.tile_rows], tiling.widths, columns


grounds = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))


def ground_of(rows, cols, seed, share):
    """A coarse picture of what is valid."""
    return np.random.default_rng(seed).random((rows, cols)) < share


@given(
    shape=st.tuples(st.integers(1, 1500), st.integers(1, 1500)),
    overlap=st.integers(0, 200),
    stride=st.sampled_from([1, 16, 32, 48]),
    memory_gb=st.floats(1.5, 8),
    ground=grounds,
    margin=st.integers(0, 100),
)
@settings(deadline=None, max_examples=30)
def test_an_automatic_tiling_covers_the_scene_within_the_memory(shape, overlap, stride, memory_gb, ground, margin):
    network, inference = Net(stride=stride), InferenceSettings(overlap=overlap, memory_gb=memory_gb, margin=margin)
    valid = ground_of(*ground)
    tiling = plan(shape, [network], inference, valid=valid[: shape[0], : shape[1]])
    assert pixels_of(tiling).min() >= 1
    assert tiling.height % stride == 0
    rows, widths, columns = axes(tiling)
    assert rows == sorted(set(rows))
    for width, cols in zip(widths, columns, strict=True):
        assert width % stride == 0
        assert cols == sorted(set(cols))
        assert tiling.height * width <= LARGEST_PX
        assert memory((tiling.height, width), [network], inference, width=shape[1] + 2 * margin) <= memory_gb * 1e9
        assert all(right - left <= width - overlap for left, right in pairwise(cols))
    assert all(below - above <= tiling.height - overlap for above, below in pairwise(rows))


@given(
    shape=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    tile=st.integers(32, 600),
    overlap=st.integers(0, 200),
    margin=st.integers(0, 100),
)
@settings(deadline=None, max_examples=40)
def test_a_tile_that_is_set_is_obeyed_and_shifted_where_the_margin_ends(shape, tile, overlap, margin):
    overlap = min(overlap, tile - 8)  # or there are millions of windows
    tiling = plan(shape, [Net(stride=1)], InferenceSettings(tile=tile, overlap=overlap, margin=margin))
    rows, widths, columns = axes(tiling)

    def due(length):
        firsts = [first - margin for first in starts(length + 2 * margin, tile=tile, overlap=overlap)]
        return [first for first in firsts if -tile < first < length]

    assert (tiling.height, set(widths)) == (tile, {tile})
    assert rows == due(shape[0])
    assert all(cols == due(shape[1]) for cols in columns)
    assert tiling.pixels == sum(one.window.height * one.window.width for one in tiling.tiles)


@given(shape=st.tuples(st.integers(1, 900), st.integers(1, 900)), overlap=st.integers(0, 127))
@settings(deadline=None, max_examples=30)
def test_a_margin_costs_no_tile_more_where_a_network_sees_its_whole_tile(shape, overlap):
    settings = InferenceSettings(overlap=overlap, margin=64)
    tiling = plan(shape, [Net(tile=128, fixed_tile=True)], settings)
    bare = plan(shape, [Net(tile=128, fixed_tile=True)], settings.model_copy(update={"margin": 0}))
    assert len(list(tiling.tiles)) == len(list(bare.tiles))
    assert pixels_of(tiling).min() >= 1


@given(ground=grounds, margin=st.integers(0, 64))
@settings(deadline=None, max_examples=30)
def test_windows_reach_a_margin_beyond_what_is_valid(ground, margin):
    """So that the network's own border lies on nothing that counts."""
    shape, valid = (700, 900), ground_of(*ground)
    tiling = plan(shape, [Net()], InferenceSettings(overlap=64, margin=margin), valid=valid)
    rows, cols = (np.flatnonzero(np.repeat(valid.any(axis=axis), -(-side // valid.shape[1 - axis])))
                  for axis, side in ((1, shape[0]), (0, shape[1])))  # fmt: skip
    if len(rows) and len(cols):
        windows = [tile.window for tile in tiling.tiles]
        assert min(one.row for one in windows) <= max(rows[0] - valid.shape[0], 0) or margin == 0
        assert min(one.row for one in windows) <= -margin or rows[0] > 0
        assert max(one.rows.stop for one in windows) >= shape[0] + margin or not valid[-1].any()
        assert max(one.cols.stop for one in windows) >= shape[1] + margin or not valid[:, -1].any()


@given(ground=grounds, shape=st.tuples(st.integers(1, 1500), st.integers(1, 1500)), overlap=st.integers(0, 200))
@settings(deadline=None, max_examples=30)
def test_every_pixel_is_some_windows_own(ground, shape, overlap):
    valid = ground_of(*ground)[: shape[0], : shape[1]]
    tiling = plan(shape, [Net()], InferenceSettings(overlap=overlap), valid=valid)
    seen = np.zeros(shape, bool)
    for tile in tiling.tiles:
        if tile.own is None:
            continue
        assert tile.window.row <= tile.own.row < tile.own.rows.stop <= min(tile.window.rows.stop, shape[0])
        assert tile.window.col <= tile.own.col < tile.own.cols.stop <= min(tile.window.cols.stop, shape[1])
        seen[tile.own.rows, tile.own.cols] = True
    assert seen.all()


@pytest.mark.slow
@given(ground=grounds, shape=st.tuples(st.integers(200, 1500), st.integers(200, 1500)))
@settings(deadline=None, max_examples=30)
def test_what_is_counted_lies_where_something_is_valid_and_all_of_that_is_counted(ground, shape):
    valid = ground_of(*ground)
    tiling = plan(shape, [Net()], InferenceSettings(tile=256, overlap=32), valid=valid)
    rows = (np.arange(shape[0]) * valid.shape[0] // shape[0])[:, None]
    fine = valid[rows, np.arange(shape[1]) * valid.shape[1] // shape[1]]
    busy = sum(fine[tile.own.rows, tile.own.cols].any() for tile in tiling.tiles if tile.own is not None)
    assert busy * 256 * 256 <= tiling.pixels
    assert bool(tiling.pixels) == bool(valid.any())


@pytest.mark.slow
def test_a_swath_edge_costs_little_more_than_what_is_valid():
    whole = plan((8000, 8000), [Net()], InferenceSettings()).pixels
    diagonal, straight = np.tri(512, 512, dtype=bool), np.zeros((512, 512), bool)
    straight[:, 256:] = True
    for valid in (diagonal, diagonal[::-1], diagonal.T, straight, straight.T):
        assert plan((8000, 8000), [Net()], InferenceSettings(), valid=valid).pixels < 0.66 * whole


def test_windows_along_a_diagonal_seldom_change_their_width(monkeypatch):
    """Each change costs a backend some time, as much as a million pixels."""
    cells, inference = np.arange(400), InferenceSettings(memory_gb=3)
    valid = cells[:, None] <= cells
    found = plan((8000, 8000), [Net()], inference, valid=valid)
    monkeypatch.setattr("thawmap.infer.plan._OTHER_WIDTH_PX", 0)
    other = plan((8000, 8000), [Net()], inference, valid=valid)
    saved = changes(other) - changes(found)
    assert saved >= 4
    assert 0 < found.pixels - other.pixels < saved * 1e6


def changes(tiling):
    return sum(one != other for one, other in pairwise(tiling.widths))


def test_no_tiling_with_one_width_is_much_cheaper():
    """Against every height and width, for scenes without gaps; three tenths of a window nothing else is done."""
    inference = InferenceSettings(memory_gb=2, overlap=64, margin=0)
    for shape in ((700, 1900), (1333, 1333), (3000, 500)):
        found = plan(shape, [Net()], inference)
        costs = [
            height * width * (0.3 + math.prod(len(starts(length, tile=side, overlap=64)) if length > side else 1
                                       for length, side in zip(shape, (height, width), strict=True)))
            for height in range(96, 2048, 32) for width in range(96, 2048, 32)
            if memory((height, width), [Net()], inference, width=shape[1]) <= 2e9
        ]  # fmt: skip
        cheapest = min(costs) + 1e6  # to get ready for the one width
        assert cheapest <= found.cost < 1.02 * cheapest


def test_more_memory_never_costs_more():
    tilings = [plan((8000, 8000), [Net()], InferenceSettings(memory_gb=gb)) for gb in (1.5, 2, 3, 6, 16)]
    costs = [tiling.cost for tiling in tilings]
    assert costs == sorted(costs, reverse=True)
    assert tilings[-1].pixels < 1.1 * 8000**2


def test_networks_together_keep_to_what_each_of_them_needs():
    together = plan((500, 700), [Net(stride=16), Net(stride=24)], InferenceSettings())
    assert together.height % 48 == together.largest[1] % 48 == 0
    fixed = plan((500, 700), [Net(), Net(tile=128, fixed_tile=True)], InferenceSettings(overlap=8))
    assert fixed.largest == (128, 128)
    with pytest.raises(ConfigError, match="tiles of 128 and of 256 px; map with one at a time"):
        plan((500, 700), [Net(fixed_tile=True), Net(tile=128, fixed_tile=True)], InferenceSettings(overlap=8))


@pytest.mark.parametrize(
    ("network", "inference", "sentence"),
    [
        ({}, {"tile": 500}, "needs a multiple of 32; use 480 or 512, or auto"),
        ({"fixed_tile": True}, {"tile": 512}, "depends on its tile of 256 px; set inference.tile to auto"),
        ({"tile": 128, "fixed_tile": True}, {"overlap": 128}, "smaller than the tiles of 128 px; .*overlap to 32"),
        ({}, {"memory_gb": 1.05}, "allow more memory, or a smaller overlap or batch"),
        ({}, {"memory_gb": 3, "overlap": 3000}, "larger than the overlap of 3000 px; allow more memory"),
    ],
)
def test_a_tile_that_does_not_suit_is_refused_with_its_remedy(network, inference, sentence):
    with pytest.raises(ConfigError, match=sentence):
        plan((5000, 5000), [Net(**network)], InferenceSettings(**inference))


def test_what_a_backend_takes_in_any_case_is_left_free():
    """A library that takes half a gigabyte leaves tiles as half a gigabyte less of memory does."""
    tight, roomy = InferenceSettings(memory_gb=2), InferenceSettings(memory_gb=2.5)
    shape = (5000, 5000)
    assert (
        plan(shape, [Net(base_bytes=500_000_000)], roomy) == plan(shape, [Net()], tight) != plan(shape, [Net()], roomy)
    )
    both = [Net(base_bytes=200_000_000), Net(base_bytes=300_000_000)]  # each holds its own copy of its weights
    assert memory((512, 512), both, tight, width=5000) == memory((512, 512), [Net(), Net()], roomy, width=5000) + 5e8
    with pytest.raises(ConfigError, match="allow more memory"):
        plan(shape, [Net(base_bytes=10**9)], tight)

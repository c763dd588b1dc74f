"""The stream of rows: laws 1, 2, 3 and 14, with networks whose answers are known."""

import threading
import time
import tracemalloc

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage

from thawmap.config import InferenceSettings
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.errors import ConfigError, DataError
from thawmap.grid import ramp
from thawmap.infer.predict import LARGEST_TILE, Member, largest_tile, plan, predict
from thawmap.layers import layer

law = settings(deadline=None, max_examples=25)

LAYERS = (layer("nir"), layer("slope"))


def identity(images):
    """The first layer, as it is."""
    return images[:, 0]


def mean_of_nine(images):
    """The mean of the first layer's 3 x 3 pixels, missing and beyond the tile = 0: one convolution."""
    filled = np.where(np.isnan(images[:, 0]), 0, images[:, 0])
    return ndimage.uniform_filter(filled, (1, 3, 3), mode="constant").astype(np.float32)


def member(network=identity, tile=8, **options):
    return Member(layers=LAYERS, tile=tile, network=network, **{"fixed_tile": True} | options)


def scene_of(values, **options):
    """A scene whose first layer has these values, and its source."""
    geobox = GeoBox(values.shape, Affine(10, 0, 500_000, 0, -10, 7_700_000), "EPSG:32608")
    source = ArraySource({"nir": values, "slope": np.full(values.shape, 3.0)}, geobox, **options)
    return Scene(id="s1", sensor="test", geobox=geobox, files={}), source


def whole(values, network_member, inference=None, **options):
    """All rows, after checking that they come in order and each once."""
    scene, source = scene_of(values, **options)
    parts = []
    for rows in predict(scene, network_member, [source], inference or InferenceSettings(overlap=2)):
        assert rows.first_row == sum(len(part) for part in parts)
        assert rows.probability.dtype == np.float32
        parts.append(rows.probability)
    return np.concatenate(parts)


def firsts(length, tile, overlap):
    """First pixels of tiles, found by walking."""
    found = [0]
    while found[-1] + tile < length:
        found.append(min(found[-1] + tile - overlap, length - tile))
    return found


def slow(values, network, tile, overlap):
    """Every tile from last to first, on padded whole rasters in float64."""
    height, width = values.shape
    padded = np.full((height + tile, width + tile), np.nan, np.float32)
    padded[:height, :width] = values
    total, weight = np.zeros(padded.shape), np.zeros(padded.shape)
    shape = np.outer(ramp(tile, overlap=overlap), ramp(tile, overlap=overlap)).astype(np.float64)
    for row in reversed(firsts(height, tile, overlap)):
        for col in reversed(firsts(width, tile, overlap)):
            place = np.s_[row : row + tile, col : col + tile]
            image = np.stack([padded[place], np.full((tile, tile), 3.0)])[np.newaxis].astype(np.float32)
            total[place] += np.nan_to_num(network(image)[0]) * shape
            weight[place] += shape
    blended = (total / np.where(weight > 0, weight, 1))[:height, :width]
    return np.where(np.isnan(values), np.nan, blended)


@st.composite
def jobs(draw):
    """A raster with some missing pixels, a tile, an overlap and a batch."""
    shape = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    tile = draw(st.integers(3, 12))
    overlap = draw(st.integers(0, tile - 1))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.uniform(0, 0.5, shape).astype(np.float32)
    values[random.random(shape) < draw(st.sampled_from([0, 0, 0.1, 0.9]))] = np.nan
    return values, tile, InferenceSettings(overlap=overlap, batch_size=draw(st.integers(1, 5)))


@law
@given(job=jobs())
def test_law_1_a_network_that_returns_its_input_gives_the_raster_back(job):
    values, tile, inference = job
    np.testing.assert_allclose(whole(values, member(tile=tile), inference), values, rtol=1e-6)


@law
@given(job=jobs())
def test_answers_are_those_of_the_slow_version_in_another_order(job):
    values, tile, inference = job
    expected = slow(values, mean_of_nine, tile, inference.overlap)
    np.testing.assert_allclose(whole(values, member(mean_of_nine, tile=tile), inference), expected, atol=1e-6)


@law
@given(job=jobs(), batch=st.integers(1, 7))
def test_law_2_the_batch_changes_nothing(job, batch):
    values, tile, inference = job
    other = inference.model_copy(update={"batch_size": batch})
    network = member(mean_of_nine, tile=tile)
    np.testing.assert_array_equal(whole(values, network, inference), whole(values, network, other))


@law
@given(job=jobs(), data=st.data())
def test_law_3_a_missing_pixel_changes_only_what_the_network_sees_it_from(job, data):
    values, tile, inference = job
    row, col = data.draw(st.tuples(*(st.integers(0, side - 1) for side in values.shape)))
    holed = values.copy()
    holed[row, col] = np.nan
    network = member(mean_of_nine, tile=tile)
    before, after = whole(values, network, inference), whole(holed, network, inference)
    assert np.isnan(after[row, col])
    rows, cols = np.indices(values.shape)
    far = np.maximum(np.abs(rows - row), np.abs(cols - col)) > 1
    np.testing.assert_array_equal(before[far], after[far])


class SlowSource(ArraySource):
    """An array whose windows come the later the earlier they are asked for."""

    def read(self, scene, geobox, layers):
        time.sleep(0.02 if geobox.transform.c == 500_000 else 0)
        return super().read(scene, geobox, layers)


def test_law_2_threads_that_finish_out_of_order_change_nothing():
    values = np.random.default_rng(1).uniform(0, 0.5, (25, 30)).astype(np.float32)
    scene, quick = scene_of(values)
    late = SlowSource({"nir": values, "slope": np.full(values.shape, 3.0)}, scene.geobox)
    inference = InferenceSettings(overlap=2, batch_size=2)
    found = [list(predict(scene, member(mean_of_nine), [source], inference)) for source in (quick, late)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.probability, other.probability)


def test_the_sensors_mask_is_obeyed():
    values = np.full((20, 9), 0.25, np.float32)
    usable = np.ones(values.shape, bool)
    usable[3:6, 2:4] = False
    np.testing.assert_array_equal(np.isfinite(whole(values, member(), valid=usable)), usable)


def test_windows_without_a_valid_pixel_are_not_computed():
    seen = []

    def counting(images):
        seen.append(len(images))
        return identity(images)

    values = np.full((40, 16), np.nan, np.float32)
    values[39, 15] = 0.25
    np.testing.assert_allclose(whole(values, member(counting), InferenceSettings(overlap=0)), values)
    assert seen == [1]
    assert np.isnan(whole(np.full((40, 16), np.nan), member(counting))).all()
    assert seen == [1]


def test_an_optional_layer_may_be_missing():
    values = np.full((9, 9), 0.25, np.float32)
    scene, _ = scene_of(values)
    source = ArraySource({"nir": values, "slope": np.full(values.shape, np.nan)}, scene.geobox)
    for optional, expected in ((frozenset({"slope"}), 1.0), (frozenset(), 0.0)):
        rows = list(predict(scene, member(optional=optional), [source], InferenceSettings(overlap=2)))
        assert np.isfinite(rows[0].probability).mean() == expected


def test_images_have_the_layers_in_order_and_sides_of_the_stride():
    def checking(images):
        assert images.shape[1:] == (2, 64, 96)
        assert images.dtype == np.float32
        assert np.nanmax(images[:, 1]) == np.nanmin(images[:, 1]) == 3
        return identity(images)

    values = np.full((41, 70), 0.25, np.float32)
    found = whole(values, member(checking, fixed_tile=False, stride=32), InferenceSettings())
    np.testing.assert_array_equal(found, values)


def test_law_14_other_units_are_refused_before_anything_is_computed():
    scene, source = scene_of(np.full((20, 20), 2500, np.float32))

    def never(images):
        pytest.fail("the network was asked")

    with pytest.raises(DataError, match=r"s1: the median of nir is 2500"):
        predict(scene, member(never), [source], InferenceSettings(overlap=2))


def test_a_layer_that_no_source_has_is_refused_by_name():
    scene, _ = scene_of(np.zeros((9, 9)))
    source = ArraySource({"nir": np.zeros((9, 9))}, scene.geobox)
    with pytest.raises(DataError, match="slope"):
        predict(scene, member(), [source], InferenceSettings(overlap=2))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.25, -0.5])
def test_a_network_that_answers_with_nonsense_is_named(wrong):
    def broken(images):
        answer = identity(images).copy()
        answer[:, 2, 2] = wrong
        return answer

    with pytest.raises(DataError, match=rf"scene s1: the network answers {wrong:g} where .*train it again"):
        whole(np.full((20, 20), 0.25, np.float32), member(broken))


def test_a_source_that_fails_midway_ends_the_stream_and_its_threads():
    class Vanishing(ArraySource):
        def read(self, scene, geobox, layers):
            if geobox.transform.f < 7_700_000 - 200:
                msg = "s1.tif does not exist"
                raise DataError(msg)
            return super().read(scene, geobox, layers)

    values = np.full((60, 9), 0.25, np.float32)
    scene, _ = scene_of(values)
    source = Vanishing({"nir": values, "slope": values}, scene.geobox)
    before = threading.active_count()
    with pytest.raises(DataError, match="does not exist"):
        list(predict(scene, member(), [source], InferenceSettings(overlap=2)))
    stream = predict(scene, member(), [source], InferenceSettings(overlap=2))
    next(stream)
    del stream
    assert threading.active_count() == before


def test_memory_does_not_grow_with_the_height():
    def peak(height):
        values = np.broadcast_to(np.float32(0.25), (height, 60))
        scene, source = scene_of(values)
        network = member(tile=64)
        tracemalloc.start()
        try:
            for _ in predict(scene, network, [source], InferenceSettings(overlap=16)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    assert peak(4000) < 1.1 * peak(500)


@given(
    shape=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    overlap=st.integers(0, 200),
    stride=st.sampled_from([1, 16, 32]),
    memory_gb=st.floats(1.5, 16),
)
@settings(deadline=None, max_examples=60)
def test_an_automatic_cut_covers_the_scene_within_the_memory(shape, overlap, stride, memory_gb):
    network = member(fixed_tile=False, stride=stride)
    inference = InferenceSettings(overlap=overlap, memory_gb=memory_gb)
    largest = largest_tile(shape[1], network, inference)
    assert largest <= LARGEST_TILE
    cut = plan(shape, network, inference)
    for length, side, found in zip(shape, cut.tile, (cut.rows, cut.cols), strict=True):
        assert side % stride == 0
        assert side <= max(largest, stride)
        assert found == firsts(length, side, overlap if length > side else 0)
    assert cut.pixels == sum(window.height * window.width for window in cut.windows)


def test_more_memory_allows_larger_tiles():
    network = member(fixed_tile=False, stride=32)
    sides = [largest_tile(8000, network, InferenceSettings(memory_gb=gb)) for gb in (0.5, 1.5, 2, 3, 6, 64)]
    assert sides == sorted(sides)
    assert sides[0] == 0
    assert 900 < sides[3] < 1300
    assert sides[-1] == LARGEST_TILE


def test_a_tile_that_is_set_is_obeyed():
    network = member(fixed_tile=False, stride=32)
    assert plan((5000, 100), network, InferenceSettings(tile=512)).tile == (512, 512)
    assert plan((500, 100), member(tile=96), InferenceSettings(overlap=8)).tile == (96, 96)
    assert plan((500, 100), member(tile=96), InferenceSettings(tile=96, overlap=8)).tile == (96, 96)


@pytest.mark.parametrize(
    ("network", "inference", "sentence"),
    [
        ({"stride": 32, "fixed_tile": False}, {"tile": 500}, "needs a multiple of 32; use 480 or 512, or auto"),
        ({"tile": 256}, {"tile": 512}, "depends on its tile of 256 px; set inference.tile to auto"),
        ({"tile": 128}, {"overlap": 128}, "smaller than the tiles of 128 px; set inference.overlap to 32"),
        ({"fixed_tile": False}, {"memory_gb": 1.05}, "allow more memory, or a smaller overlap or batch"),
        ({"fixed_tile": False}, {"overlap": 3000}, "larger than the overlap of 3000 px; allow more memory"),
    ],
)
def test_a_tile_that_does_not_suit_is_refused_with_its_remedy(network, inference, sentence):
    with pytest.raises(ConfigError, match=sentence):
        plan((5000, 5000), member(**network), InferenceSettings(**inference))

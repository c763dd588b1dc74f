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
from thawmap.infer.member import Member
from thawmap.infer.predict import predict
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
    for rows in predict(scene, [network_member], [source], inference or InferenceSettings(overlap=2)):
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
    """Every tile from last to first, on mirrored whole rasters in float64."""
    height, width = values.shape
    bare = [len(firsts(side, tile, overlap)) for side in values.shape]
    margin = next(
        margin
        for margin in range(32, -1, -1)
        if [len(firsts(side + 2 * margin, tile, overlap)) for side in values.shape] == bare
    )
    padded = np.pad(values, (margin, margin + tile), mode="symmetric").astype(np.float32)
    total, weight = np.zeros(padded.shape), np.zeros(padded.shape)
    shape = np.outer(ramp(tile, overlap=overlap), ramp(tile, overlap=overlap)).astype(np.float64)
    for row in reversed(firsts(height + 2 * margin, tile, overlap)):
        for col in reversed(firsts(width + 2 * margin, tile, overlap)):
            place = np.s_[row : row + tile, col : col + tile]
            image = np.stack([padded[place], np.full((tile, tile), 3.0)])[np.newaxis].astype(np.float32)
            total[place] += np.nan_to_num(network(image)[0]) * shape
            weight[place] += shape
    blended = (total / np.where(weight > 0, weight, 1))[margin : margin + height, margin : margin + width]
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


@pytest.mark.slow
@law
@given(job=jobs())
def test_law_1_a_network_that_returns_its_input_gives_the_raster_back(job):
    values, tile, inference = job
    np.testing.assert_allclose(whole(values, member(tile=tile), inference), values, rtol=1e-6)


@pytest.mark.slow
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


@pytest.mark.slow
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
    found = [list(predict(scene, [member(mean_of_nine)], [source], inference)) for source in (quick, late)]
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
        rows = list(predict(scene, [member(optional=optional)], [source], InferenceSettings(overlap=2)))
        assert np.isfinite(rows[0].probability).mean() == expected


def test_images_have_the_layers_in_order_and_sides_of_the_stride():
    def checking(images):
        assert images.shape[1:] == (2, 128, 160)
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
        predict(scene, [member(never)], [source], InferenceSettings(overlap=2))


def test_a_layer_that_no_source_has_is_refused_by_name():
    scene, _ = scene_of(np.zeros((9, 9)))
    source = ArraySource({"nir": np.zeros((9, 9))}, scene.geobox)
    with pytest.raises(DataError, match="slope"):
        predict(scene, [member()], [source], InferenceSettings(overlap=2))


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
        list(predict(scene, [member()], [source], InferenceSettings(overlap=2)))
    stream = predict(scene, [member()], [source], InferenceSettings(overlap=2))
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
            for _ in predict(scene, [network], [source], InferenceSettings(overlap=16)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    assert peak(4000) < 1.1 * peak(500)


def test_a_lone_valid_pixel_that_no_coarse_picture_shows_is_mapped():
    values = np.full((1101, 1101), np.nan, np.float32)
    values[:, :90] = 0.25
    values[1001, 1003] = 0.375
    seen = []

    def counting(images):
        seen.append(images.shape[2:])
        return identity(images)

    found = whole(values, member(counting, fixed_tile=False), InferenceSettings(overlap=8, memory_gb=1.5))
    np.testing.assert_array_equal(found, values)
    assert sum(rows * cols for rows, cols in seen) < values.size / 2


def test_several_networks_give_mean_and_spread_and_each_sees_its_own_layers():
    values = np.random.default_rng(3).uniform(0, 0.5, (30, 25)).astype(np.float32)
    scene, source = scene_of(values)
    slope_only = Member(layers=LAYERS[1:], tile=8, fixed_tile=True, network=lambda images: images[:, 0] / 10)
    members = [member(mean_of_nine), slope_only, member()]
    inference = InferenceSettings(overlap=2)
    rows = list(predict(scene, members, [source], inference))
    alone = [
        np.concatenate([one.probability for one in predict(scene, [each], [source], inference)]) for each in members
    ]
    np.testing.assert_allclose(np.concatenate([one.probability for one in rows]), np.mean(alone, axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([one.spread for one in rows]), np.std(alone, axis=0), atol=1e-6)
    assert next(predict(scene, [member()], [source], inference)).spread is None


def test_a_layer_that_only_one_network_can_do_without_must_be_there():
    values = np.full((9, 9), 0.25, np.float32)
    scene, _ = scene_of(values)
    source = ArraySource({"nir": values, "slope": np.full(values.shape, np.nan)}, scene.geobox)
    members = [member(optional=frozenset({"slope"})), member()]
    assert np.isnan(next(predict(scene, members, [source], InferenceSettings(overlap=2))).probability).all()


@law
@given(job=jobs())
def test_eight_symmetries_are_the_mean_of_the_turned_scenes(job):
    values, _, inference = job

    def rightward(images):
        """Each pixel's right neighbour: nothing symmetric about it."""
        filled = np.nan_to_num(images[:, 0])
        return np.concatenate([filled[..., 1:], np.zeros_like(filled[..., :1])], axis=2)

    side = max(values.shape)  # one window, as a cut is not symmetric
    network = member(rightward, tile=side)
    square = np.full((side, side), np.nan, np.float32)
    square[: values.shape[0], : values.shape[1]] = values
    turned = []
    for mirrored in (False, True):
        for quarters in range(4):
            image = np.rot90(square[:, ::-1] if mirrored else square, quarters)
            answer = np.rot90(rightward(image[None, None])[0], -quarters)
            turned.append(answer[:, ::-1] if mirrored else answer)
    expected = np.where(np.isnan(square), np.nan, np.mean(turned, axis=0))
    inference = inference.model_copy(update={"symmetries": 8, "overlap": 0})
    np.testing.assert_allclose(whole(square, network, inference), expected, rtol=1e-5, atol=1e-7)


def test_turns_of_layers_with_a_direction_are_refused():
    scene, source = scene_of(np.zeros((9, 9), np.float32))
    aspect = Member(layers=(layer("aspect"),), tile=8, network=identity)
    with pytest.raises(ConfigError, match=r"'aspect' has a direction.*set inference.symmetries to 1"):
        predict(scene, [aspect], [source], InferenceSettings(overlap=2, symmetries=8))


@pytest.mark.slow
@law
@given(job=jobs())
def test_extra_layers_come_with_the_rows_wherever_something_is_valid(job):
    values, tile, inference = job
    scene, source = scene_of(values)
    steep = np.random.default_rng(1).uniform(0, 40, values.shape).astype(np.float32)
    sources = [source, ArraySource({"hillshade": steep}, scene.geobox)]
    rows = list(predict(scene, [member(tile=tile)], sources, inference, extra_layers=["hillshade"]))
    found = np.concatenate([one.layers["hillshade"] for one in rows])
    usable = np.isfinite(values)
    np.testing.assert_array_equal(found[usable], steep[usable])


@pytest.mark.slow
@law
@given(job=jobs())
def test_cosine_weights_give_the_raster_back_too(job):
    values, tile, inference = job
    inference = inference.model_copy(update={"blend": "cosine"})
    np.testing.assert_allclose(whole(values, member(tile=tile), inference), values, rtol=1e-6)


def test_a_batch_that_memory_does_not_hold_is_halved_once_and_for_all_and_said_once(caplog):
    asked = []

    def small(images):
        asked.append(len(images))
        if len(images) > 2:
            raise MemoryError
        return mean_of_nine(images)

    values = np.random.default_rng(5).uniform(0, 0.5, (40, 40)).astype(np.float32)
    inference = InferenceSettings(overlap=2, batch_size=8)
    found = whole(values, member(small), inference)
    np.testing.assert_array_equal(found, whole(values, member(mean_of_nine), inference))
    assert asked[:3] == [8, 4, 2]
    assert max(asked[3:]) == 2
    assert [record.message for record in caplog.records] == [
        "memory does not hold 8 tiles at once; from here on 4",
        "memory does not hold 4 tiles at once; from here on 2",
    ]


def test_a_tile_that_memory_does_not_hold_is_named():
    def never(images):
        raise MemoryError

    with pytest.raises(DataError, match=r"scene s1: the memory does not hold a tile of 8 x 8 px; lower inference"):
        whole(np.full((20, 20), 0.25, np.float32), member(never))

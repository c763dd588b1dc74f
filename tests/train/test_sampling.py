"""Which tiles an epoch sees: each once, or as often as its weight says; mined negatives are the worst ones."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_training import configuration, make_store

from thawmap.config import Phase, SamplerSettings
from thawmap.errors import TrainingError
from thawmap.train import sampling
from thawmap.train.devices import fabric_of
from thawmap.train.learner import Learner

torch.set_num_threads(1)


def tiles(positive, regions=None):
    frame = pd.DataFrame({"positive_pixels": positive, "tile": range(len(positive))})
    frame["region"] = ["a"] * len(positive) if regions is None else regions
    return frame


def phase(kind):
    return Phase(name="x", epochs=1, tiles=kind)


def nobody(_):
    raise AssertionError


def test_positive_and_all_ask_no_network():
    frame = tiles([0, 5, 0, 1])
    assert sampling.choose_tiles(phase("positive"), frame, nobody) == [1, 3]
    assert sampling.choose_tiles(phase("all"), frame, nobody) == [0, 1, 2, 3]
    assert sampling.choose_tiles(phase("mined"), tiles([1, 2]), nobody) == [0, 1]


@given(positive=st.lists(st.integers(0, 1), min_size=1, max_size=20).filter(any), seed=st.integers(0, 99))
def test_mined_are_all_positives_and_as_many_of_the_worst_others(positive, seed):
    frame = tiles(positive)
    hardness = np.random.default_rng(seed).permutation(len(frame)).astype(float)
    chosen = sampling.choose_tiles(phase("mined"), frame, lambda negative: hardness[negative["tile"]])
    negatives = [number for number in range(len(frame)) if not positive[number]]
    worst = sorted(negatives, key=lambda number: -hardness[number])[: sum(positive)]
    assert chosen == sorted([*worst, *(number for number in range(len(frame)) if positive[number])])


def test_a_network_is_most_wrong_where_it_sees_what_is_not_labelled(tmp_path):
    config = configuration("model.architecture=pixel")
    store = make_store(tmp_path, config, across=3, silent=[1], barren=[2])
    learner = Learner.of(store, config, fabric_of(config.training))
    with torch.no_grad():
        learner.network.weight[:] = torch.tensor([0.0, 0.0, 20.0]).view(1, 3, 1, 1)
        learner.network.bias[:] = -14  # an object where NDVI is above 0.4
    negative = store.index[store.index["positive_pixels"] == 0]
    hardness = learner.hardness(negative)
    silent = negative["number"].to_numpy() == 1
    assert len(hardness) == len(negative) == 6
    assert hardness[silent].min() > 50 * hardness[~silent].max()
    probability = np.concatenate(
        [each.probability.flatten(1).numpy() for each in learner._predict(negative, [slice(None)])]
    )
    np.testing.assert_allclose(hardness, (probability.astype(float) ** 2).sum(1), rtol=1e-6)


def test_a_phase_without_tiles_is_refused():
    for kind in ("positive", "mined"):
        with pytest.raises(TrainingError, match=f"trains on {kind} tiles, but of 2 training tiles"):
            sampling.check_phases([phase("all"), phase(kind)], tiles([0, 0]))
    sampling.check_phases([phase("all")], tiles([0, 0]))


def test_without_weights_every_tile_comes_once():
    order = sampling.draw_order(tiles([0] * 9), None, torch.Generator().manual_seed(1))
    assert sorted(order) == list(range(9))
    assert list(order) != list(range(9))


def test_tiles_come_as_often_as_their_weights_say():
    frame = tiles([1] * 10 + [0] * 30, ["a"] * 5 + ["b"] * 35)
    order = sampling.draw_order(
        pd.concat([frame] * 100, ignore_index=True),
        SamplerSettings(positive=6, negative=1),
        sampling.seeded_generator(0, 1),
    )
    assert len(order) == 4000
    assert np.mean(order % 40 < 10) == pytest.approx(60 / 90, abs=0.03)
    equal = sampling.sampling_weights(frame, SamplerSettings(positive=2, negative=1, regions="equal"))
    assert equal[:5].sum() == pytest.approx(1)
    assert equal[5:].sum() == pytest.approx(1)
    assert equal[5] == pytest.approx(2 * equal[39])


def test_tiles_of_no_region_are_one_region():
    frame = tiles([1, 1, 1], ["a", None, None])
    assert sampling.sampling_weights(frame, SamplerSettings(regions="equal")).tolist() == [1, 0.5, 0.5]


@pytest.mark.slow
@given(number=st.integers(1, 40), size=st.integers(1, 9), processes=st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_batches_hold_every_tile_once_and_a_lone_one_twice(number, size, processes):
    order = np.random.default_rng(number).permutation(number)
    frame = tiles([0] * number)
    alone = sampling.make_batches(frame, order, size)
    each = [
        sampling.make_batches(frame, order, size, process=process, processes=processes) for process in range(processes)
    ]
    assert {len(batches) for batches in (alone, *each)} == {math.ceil(number / size)}
    in_order = [tile for batch in alone for tile in batch["tile"].unique()]
    assert in_order == list(order)
    assert all(2 <= len(batch) <= max(size, 2) for batch in alone)
    for batch, *shares in zip(alone, *each, strict=True):  # a step sees the same tiles, whoever looks at them
        assert set(batch["tile"]) == {tile for share in shares for tile in share["tile"]}
        sizes = [share["tile"].nunique() for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == max(batch["tile"].nunique(), processes)
        assert all(len(share) == 2 or share["tile"].is_unique for share in shares)


def test_every_place_has_randomness_of_its_own_and_always_the_same():
    places = [(phase_, epoch, process, purpose) for phase_ in (0, 1) for epoch in (1, 2) for process in (0, 1)
              for purpose in (1, 2, 3)]  # fmt: skip
    numbers = [sampling.seed_of(5, *position) for position in places]
    assert len(set(numbers)) == len(places)
    assert numbers == [sampling.seed_of(5, *position) for position in places]
    assert sampling.seed_of(-1, 0) != sampling.seed_of(1, 0)
    first, second = (torch.rand(3, generator=sampling.seeded_generator(5, 1, 2)) for _ in range(2))
    assert torch.equal(first, second)

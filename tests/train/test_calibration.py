"""Temperatures: that of the least cross-entropy, what over-confidence asks for, and thresholds that suit it."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from thawmap.model.metrics.pixels import calibration_error, histogram
from thawmap.train.calibration import LogitHistogram, best_temperature
from thawmap.train.inference import Prediction
from thawmap.train.tiles.store import Batch

SIDE = 16


def drawn(seed, *, sureness=1.0, number=8):
    """Tiles whose labels are drawn with the probability of a logit, and a network that is so many times as sure."""
    random = np.random.default_rng(seed)
    true = random.normal(-2, 2, (number, SIDE, SIDE))
    target = random.random(true.shape) < 1 / (1 + np.exp(-true))
    return torch.from_numpy(sureness * true).float(), torch.from_numpy(target.astype(np.uint8))


def counted(logits, target, valid=None):
    valid = torch.ones_like(target, dtype=torch.bool) if valid is None else valid
    batch = Batch(image=torch.zeros(len(logits), 1, SIDE, SIDE), target=target, valid=valid)
    prediction = Prediction(rows=pd.DataFrame(index=range(len(logits))), batch=batch, logits=logits)
    return LogitHistogram.of(prediction, np.ones(len(logits), bool))


@given(seed=st.integers(0, 1000), temperature=st.floats(0.3, 10), sureness=st.floats(0.2, 5))
@settings(deadline=None, max_examples=25)
def test_the_loss_is_the_cross_entropy_of_usable_pixels(seed, temperature, sureness):
    logits, target = drawn(seed, sureness=sureness)
    target[0, :4] = 255
    valid = torch.from_numpy(np.random.default_rng(seed).random(target.shape) < 0.8)
    used = valid & (target != 255)
    expected = binary_cross_entropy_with_logits(logits[used] / temperature, target[used].float()).item()
    assert counted(logits, target, valid).loss(temperature) == pytest.approx(expected, rel=0.01, abs=1e-3)


@pytest.mark.parametrize("sureness", [0.5, 1, 2, 6])
def test_the_temperature_takes_back_how_much_too_sure_a_network_is(sureness):
    logits, target = drawn(1, sureness=sureness, number=200)
    histogram_ = counted(logits, target)
    temperature = best_temperature([histogram_])
    assert temperature == pytest.approx(sureness, rel=0.05)
    before, after = (calibration_error(histogram_.histogram(value)) for value in (1.0, temperature))
    assert after < 0.01
    assert sureness == 1 or before > 2 * after


def test_regions_count_alike_for_the_temperature():
    """One region on which the network is four times too sure, and ten times as much ground where it is right."""
    sure, right = counted(*drawn(1, sureness=4, number=20)), counted(*drawn(2, sureness=1, number=200))
    pooled, by_region = best_temperature([sure + right]), best_temperature([sure, right])
    assert 1 < pooled < by_region < 4


@given(seed=st.integers(0, 1000), temperature=st.sampled_from([0.5, 1.0, 2.5]))
@settings(deadline=None, max_examples=20)
def test_histograms_are_those_of_the_probabilities_but_for_steps_of_logits(seed, temperature):
    logits, target = drawn(seed, sureness=2, number=20)
    valid = np.ones(target.shape, bool)
    exact = histogram(torch.sigmoid(logits / temperature).numpy(), target.numpy(), valid)
    rounded = counted(logits, target).histogram(temperature)
    assert rounded.total == exact.total
    for step in range(5, 100, 5):
        counts, expected = rounded.counts(step / 100), exact.counts(step / 100)
        assert abs(counts.tp - expected.tp) + abs(counts.fp - expected.fp) <= 0.01 * exact.total


def test_infinite_and_huge_logits_are_counted_at_the_ends():
    logits = torch.full((1, SIDE, SIDE), math.inf)
    logits[0, 0] = -1e30
    histogram_ = counted(logits, torch.ones(1, SIDE, SIDE, dtype=torch.uint8))
    assert histogram_.positive[0] == SIDE
    assert histogram_.positive[-1] == SIDE * (SIDE - 1)

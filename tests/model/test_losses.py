"""Losses: the library's as oracles; laws of masks and perfect predictions."""

import itertools
import math

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from thawmap.config import BceLoss, FocalLoss, OverlapLoss, TrainingSettings, TverskyLoss
from thawmap.model.losses import LOSSES, objective, usable

torch.set_num_threads(1)

CONFIGURED = {
    **{name: name for name in LOSSES},
    "bce with weights": {"name": "bce", "positive_weight": 7.0},
    "focal with alpha": {"name": "focal", "gamma": 1.5, "alpha": 0.7},
    "focal with a root": {"name": "focal", "gamma": 0.5},
    "focal without a power": {"name": "focal", "gamma": 0},
    "tversky with costs": {"name": "tversky", "alpha": 0.1, "beta": 2.0},
    "a sum": [{"name": "bce", "positive_weight": 5, "weight": 0.5}, {"name": "lovasz", "weight": 0.5}, "dice"],
}
seeds = st.integers(0, 2**32 - 1)


def configured(setting):
    return objective(TrainingSettings(loss=setting).loss)


every_loss = pytest.mark.parametrize("loss", [configured(setting) for setting in CONFIGURED.values()], ids=CONFIGURED)


def example(seed, shape=(2, 8, 8), share=0.5):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator) * 3
    target = (torch.rand(shape, generator=generator) < share).to(torch.uint8)
    valid = torch.rand(shape, generator=generator) < 0.7
    return logits, target.masked_fill(torch.rand(shape, generator=generator) < 0.2, 255), valid


def counted_only(logits, target, valid):
    """The pixels that count, and nothing else, as the library takes them."""
    counted = valid & (target != 255)
    return logits[counted][None, None], target[counted].float()[None, None]


def gradient(loss, logits, *others):
    leaf = logits.clone().requires_grad_()
    loss(leaf, *others).backward()
    return leaf.grad


def test_the_configuration_and_the_registry_agree():
    schema = TrainingSettings.model_json_schema()["properties"]["loss"]["anyOf"]
    assert set(LOSSES) == set(schema[0]["enum"]) == set(schema[1]["discriminator"]["mapping"])
    for name in LOSSES:
        (term,) = TrainingSettings(loss=name).loss
        assert (term.name, term.weight) == (name, 1.0)


ORACLES = {
    "focal": ({"name": "focal"}, smp.losses.FocalLoss(mode="binary")),
    "focal with alpha": (
        {"name": "focal", "gamma": 1.5, "alpha": 0.7},
        smp.losses.FocalLoss(mode="binary", gamma=1.5, alpha=0.7),
    ),
    "bce": ("bce", functional.binary_cross_entropy_with_logits),
    "bce with weights": (
        {"name": "bce", "positive_weight": 7.0},
        torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(7.0)),
    ),
    "dice": ("dice", smp.losses.DiceLoss(mode="binary", smooth=0.5)),
    "jaccard": ("jaccard", smp.losses.JaccardLoss(mode="binary", smooth=0.5)),
    "tversky": (
        {"name": "tversky", "alpha": 0.2, "beta": 0.9},
        smp.losses.TverskyLoss(mode="binary", smooth=0.5, alpha=0.2, beta=0.9),
    ),
    "lovasz": ("lovasz", smp.losses.LovaszLoss(mode="binary")),
}


@pytest.mark.parametrize("name", ORACLES)
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_the_librarys_losses_over_the_counted_pixels_are_the_oracles(name, seed):
    setting, oracle = ORACLES[name]
    logits, target, valid = example(seed)
    loss = configured(setting)
    assert loss(logits, target, valid).item() == pytest.approx(
        oracle(*counted_only(logits, target, valid)).item(), rel=1e-4
    )
    slope = gradient(lambda leaf: oracle(*counted_only(leaf, target, valid)), logits)
    torch.testing.assert_close(gradient(loss, logits, target, valid), slope, rtol=1e-3, atol=1e-6)


def slow_lovasz(logits, target):
    """Each pixel in order of its error costs what it takes from the IoU: by sets, in float64."""
    signs = [1 if label else -1 for label in target]
    errors = [1 - value * sign for value, sign in zip(logits, signs, strict=True)]
    labelled = {index for index, label in enumerate(target) if label}
    wrong, before, cost = set(), 0.0, 0.0
    for index in sorted(range(len(errors)), key=lambda number: -errors[number]):
        wrong.add(index)
        now = 1 - len(labelled - wrong) / len(labelled | wrong)
        cost += max(errors[index], 0) * (now - before)
        before = now
    return cost


@given(seed=seeds, share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_lovasz_agrees_with_sets_of_pixels(seed, share):
    logits, target, valid = example(seed, share=share)
    counted = usable(target, valid)
    slow = slow_lovasz(logits[counted].tolist(), target[counted].tolist())
    assert configured("lovasz")(logits, target, valid).item() == pytest.approx(slow, rel=1e-5, abs=1e-6)


def test_lovasz_of_hard_mistakes_is_one_minus_the_iou():
    target = torch.tensor([[[1, 1, 1, 0, 0, 0, 0, 0]]])
    predicted = torch.tensor([[[1, 1, 0, 1, 0, 0, 0, 0]]])
    logits = predicted * 2.0 - 1  # at the margin: an error is 2, a hit 0
    assert configured("lovasz")(logits, target, torch.ones_like(target, dtype=torch.bool)).item() == pytest.approx(
        2 * (1 - 2 / 4)
    )


def test_lovasz_stays_exact_where_counts_are_large():
    pixels = 2_000_000
    target = torch.zeros(1, 1, pixels, dtype=torch.uint8)
    target[..., : pixels // 2] = 1
    logits = torch.full((1, 1, pixels), -1.0)  # nothing found: every labelled pixel has an error of 2, IoU is 0
    cost = configured("lovasz")(logits, target, torch.ones_like(target, dtype=torch.bool))
    assert cost.item() == pytest.approx(2.0, rel=1e-4)


def test_focal_by_hand():
    probability = 0.2
    logits = torch.logit(torch.tensor([[[probability]]]))
    cost = configured("focal")(logits, torch.ones(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)).item()
    assert cost == pytest.approx(-((1 - probability) ** 2) * np.log(probability))


def test_without_its_power_focal_is_cross_entropy_and_equal_costs_make_tversky_dice():
    sample = example(5)
    pairs = [
        ({"name": "focal", "gamma": 0}, "bce"),
        ({"name": "tversky", "alpha": 0.5, "beta": 0.5}, "dice"),
        ({"name": "tversky", "alpha": 1, "beta": 1}, "jaccard"),
    ]
    for first, second in pairs:
        assert configured(first)(*sample).item() == pytest.approx(configured(second)(*sample).item(), rel=1e-6)


def test_a_sum_is_its_parts_each_by_its_weight():
    sample = example(6)
    terms = (BceLoss(positive_weight=5, weight=0.5), OverlapLoss(name="lovasz", weight=2), TverskyLoss(), FocalLoss())
    single = [objective((term.model_copy(update={"weight": 1.0}),))(*sample).item() for term in terms]
    expected = math.fsum(term.weight * cost for term, cost in zip(terms, single, strict=True))
    assert objective(terms)(*sample).item() == pytest.approx(expected)


@every_loss
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("tiles", [1, 2])
@pytest.mark.parametrize("size", [15.0, 30.0, 200.0])
def test_a_perfect_prediction_costs_nothing_and_its_opposite_much(loss, share, tiles, size):
    target = (torch.rand(tiles, 16, 16, generator=torch.Generator().manual_seed(1)) < share).to(torch.uint8)
    valid = torch.ones_like(target, dtype=torch.bool)
    logits = size * (target.float() * 2 - 1)
    assert loss(logits, target, valid).item() == pytest.approx(0, abs=1e-3 if size == 15 else 1e-6)
    assert loss(-logits, target, valid).item() > 0.9
    for sign in (1, -1):
        assert torch.isfinite(gradient(loss, sign * logits, target, valid)).all()


@every_loss
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_worse_a_prediction_the_more_it_costs(loss, share):
    target = (torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(2)) < share).to(torch.uint8)
    right = target.float() * 2 - 1
    costs = [loss(right * size, target, torch.ones_like(target, dtype=torch.bool)).item() for size in (4, 1, 0, -1, -4)]
    assert all(better <= worse for better, worse in itertools.pairwise(costs))
    assert costs[0] < costs[-1]


@every_loss
@pytest.mark.parametrize("tiles", [1, 2])
@pytest.mark.parametrize("reason", ["not valid", "not labelled"])
def test_a_batch_that_is_all_ignored_costs_nothing_and_moves_nothing(loss, tiles, reason):
    logits = torch.randn(tiles, 8, 8, requires_grad=True)
    target = torch.full((tiles, 8, 8), 255 if reason == "not labelled" else 1, dtype=torch.uint8)
    value = loss(logits, target, torch.full((tiles, 8, 8), reason == "not labelled"))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@every_loss
def test_what_is_ignored_changes_nothing_not_even_nan(loss):
    logits, target, valid = example(3)
    ignored = ~valid | (target == 255)
    for strange in (torch.nan, torch.inf, -1e30):
        other = logits.masked_fill(ignored, strange).requires_grad_()
        again = loss(other, target, valid)
        again.backward()
        assert again.item() == loss(logits, target, valid).item()
        assert torch.isfinite(other.grad).all()
        assert not other.grad[ignored].any()


@every_loss
def test_a_batch_is_its_pixels_in_any_order_and_with_any_number_of_ignored_ones(loss):
    logits, target, valid = example(7)
    order = torch.randperm(logits.numel(), generator=torch.Generator().manual_seed(8))
    moved = [images.flatten()[order].reshape(1, 8, 16) for images in (logits, target, valid)]
    more = [torch.cat([logits, logits]), torch.cat([target, target]), torch.cat([valid, torch.zeros_like(valid)])]
    cost = loss(logits, target, valid).item()
    assert loss(*moved).item() == pytest.approx(cost, rel=1e-5)
    assert loss(*more).item() == pytest.approx(cost, rel=1e-5)


@every_loss
def test_what_diverged_is_not_hidden(loss):
    logits, target, _ = example(9)
    logits[0, 0, 0], target[0, 0, 0] = torch.nan, 1
    assert not math.isfinite(loss(logits, target, torch.ones_like(target, dtype=torch.bool)).item())


@every_loss
def test_half_precision_logits_are_counted_in_full(loss):
    logits, target, valid = example(4)
    half = logits.bfloat16()
    assert loss(half, target, valid).dtype == torch.float32
    assert loss(half, target, valid).item() == loss(half.float(), target, valid).item()


@every_loss
def test_steps_downhill_find_the_labels(loss):
    logits, target, valid = example(10, share=0.3)
    logits = (0.1 * logits).requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.3)
    begin = loss(logits, target, valid).item()
    for _ in range(60):
        optimiser.zero_grad()
        loss(logits, target, valid).backward()
        optimiser.step()
    counted = usable(target, valid)
    assert loss(logits, target, valid).item() < 0.2 * begin
    assert torch.equal((logits > 0)[counted], (target == 1)[counted])

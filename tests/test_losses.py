"""Losses: the library's own as oracles, and the laws of masks and perfect predictions."""

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thawmap.config import TrainingSettings
from thawmap.model.losses import LOSSES, bce, dice, focal

torch.set_num_threads(1)

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def example(seed, shape=(2, 8, 8)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator) * 3
    target = torch.randint(0, 2, shape, generator=generator).to(torch.uint8)
    valid = torch.rand(shape, generator=generator) < 0.7
    return logits, target.masked_fill(torch.rand(shape, generator=generator) < 0.2, 255), valid


def test_the_configuration_and_the_registry_agree():
    assert set(LOSSES) == set(TrainingSettings.model_fields["loss"].annotation.__args__)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_librarys_losses_over_the_counted_pixels_are_the_oracles(seed):
    logits, target, valid = example(seed)
    counted = valid & (target != 255)
    kept, truth = logits[counted], target[counted].float()
    theirs = smp.losses.FocalLoss(mode="binary")
    assert focal(logits, target, valid).item() == pytest.approx(theirs(kept, truth).item(), rel=1e-5)
    oracle = torch.nn.functional.binary_cross_entropy_with_logits(kept, truth)
    assert bce(logits, target, valid).item() == pytest.approx(oracle.item(), rel=1e-5)
    theirs = smp.losses.DiceLoss(mode="binary", smooth=0.5)  # it adds this to halves of ours
    assert dice(logits, target, valid).item() == pytest.approx(
        theirs(kept[None, None], truth[None, None]).item(), rel=1e-4
    )


def test_focal_by_hand():
    probability = 0.2
    logits = torch.logit(torch.tensor([[[probability]]]))
    expected = -((1 - probability) ** 2) * np.log(probability)
    assert focal(logits, torch.ones(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)).item() == pytest.approx(expected)


@every_loss
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_perfect_prediction_costs_nothing_and_its_opposite_much(loss, share):
    target = (torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(1)) < share).to(torch.uint8)
    valid = torch.ones_like(target, dtype=torch.bool)
    logits = 30.0 * (target.float() * 2 - 1)
    assert loss(logits, target, valid).item() == pytest.approx(0, abs=1e-6)
    assert loss(-logits, target, valid).item() > 0.9


@every_loss
@pytest.mark.parametrize("why", ["not valid", "not labelled"])
def test_a_batch_that_is_all_ignored_costs_nothing_and_moves_nothing(loss, why):
    logits = torch.randn(2, 8, 8, requires_grad=True)
    target = torch.full((2, 8, 8), 255 if why == "not labelled" else 1, dtype=torch.uint8)
    value = loss(logits, target, torch.full((2, 8, 8), why == "not labelled"))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@every_loss
def test_what_is_ignored_changes_nothing_not_even_nan(loss):
    logits, target, valid = example(3)
    ignored = ~valid | (target == 255)
    value = loss(logits, target, valid)
    other = logits.masked_fill(ignored, torch.nan).requires_grad_()
    again = loss(other, target, valid)
    again.backward()
    assert again.item() == value.item()
    assert torch.isfinite(other.grad).all()
    assert not other.grad[ignored].any()


@every_loss
def test_half_precision_logits_are_counted_in_full(loss):
    logits, target, valid = example(4)
    half = logits.bfloat16()
    assert loss(half, target, valid).dtype == torch.float32
    assert loss(half, target, valid).item() == loss(half.float(), target, valid).item()

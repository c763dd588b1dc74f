"""Optimisers and learning rates against PyTorch's own schedulers, and against what is written at each."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thawmap.config import OptimiserSettings, TrainingSettings
from thawmap.train.schedule import ScheduleStep, epochs_since_best, lr_factor, make_optimiser


def schedule(**settings_):
    return TrainingSettings.model_validate({"schedule": settings_}).schedule


def factors(epochs, steps, **settings_):
    chosen = schedule(**settings_)
    return [lr_factor(chosen, ScheduleStep(done=step / steps, epochs=epochs)) for step in range(epochs * steps)]


def torchs(kind, number, **settings_):
    """Factors of the learning rate as one of torch's schedulers has them."""
    steps = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps that no optimiser optimiser
        scheduler, rates = kind(steps, **settings_), []
        for _ in range(number):
            rates.append(steps.param_groups[0]["lr"])
            scheduler.step()
    return rates


def test_constant_is_one():
    assert factors(3, 2, name="constant") == [1.0] * 6


def test_step_and_exponential_are_torchs_by_epoch():
    step = torchs(torch.optim.lr_scheduler.StepLR, 9, step_size=4, gamma=0.3)
    assert factors(9, 5, name="step", every=4, factor=0.3) == pytest.approx(np.repeat(step, 5))
    exponential = torchs(torch.optim.lr_scheduler.ExponentialLR, 9, gamma=0.8)
    assert factors(9, 5, name="exponential", factor=0.8) == pytest.approx(np.repeat(exponential, 5))


def test_cosine_is_torchs_by_step_and_rises_before():
    cosine = torchs(torch.optim.lr_scheduler.CosineAnnealingLR, 40, T_max=40, eta_min=0.1)
    assert factors(8, 5, name="cosine", final=0.1) == pytest.approx(cosine)
    warm = factors(10, 10, name="cosine", warmup=0.2)
    assert warm[:20] == pytest.approx(np.linspace(0.01, 1, 21)[:20])
    assert warm[20:] == pytest.approx(torchs(torch.optim.lr_scheduler.CosineAnnealingLR, 80, T_max=80))


def test_one_cycle_is_torchs():
    chosen = {"pct_start": 0.25, "max_lr": 1.0, "div_factor": 20.0, "final_div_factor": 50.0}
    expected = torchs(torch.optim.lr_scheduler.OneCycleLR, 4000, total_steps=4001, **chosen)
    rates = factors(40, 100, name="one_cycle", warmup=0.25, start=0.05, final=0.001)
    assert rates == pytest.approx(expected, abs=2e-3)  # torch's turns one step earlier
    assert max(rates) == rates[1000] == 1.0


@given(
    scores=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=30),
    patience=st.integers(0, 4),
)
@settings(max_examples=100, deadline=None)
def test_plateau_is_torchs(scores, patience):
    steps = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        steps, mode="max", factor=0.5, patience=patience, threshold=0, eps=0
    )
    chosen = schedule(name="plateau", patience=patience, factor=0.5)
    for number, score in enumerate(scores):
        step = ScheduleStep(done=number + 0.5, epochs=99, history=scores[:number])
        assert lr_factor(chosen, step) == steps.param_groups[0]["lr"]
        scheduler.step(score)


@given(st.lists(st.integers(0, 3), max_size=12))
def test_waited_counts_the_epochs_without_a_better_one(scores):
    slow = 0
    for number, score in enumerate(scores):
        slow = 0 if all(score > before for before in scores[:number]) else slow + 1
    assert epochs_since_best(scores) == slow


@pytest.mark.parametrize(
    ("chosen", "kind", "expected"),
    [
        ({"name": "adam", "eps": 1e-3}, torch.optim.Adam, {"eps": 1e-3, "betas": (0.9, 0.999)}),
        ({"name": "adamw", "weight_decay": 0.1, "betas": [0.8, 0.9]}, torch.optim.AdamW, {"betas": (0.8, 0.9)}),
        ({"name": "sgd", "momentum": 0.5, "nesterov": True}, torch.optim.SGD, {"momentum": 0.5, "nesterov": True}),
    ],
)
def test_every_setting_reaches_the_optimiser(chosen, kind, expected):
    optimiser = make_optimiser(OptimiserSettings.model_validate(chosen), [torch.nn.Parameter(torch.zeros(1))], 0.3)
    assert type(optimiser) is kind
    group = optimiser.param_groups[0]
    assert {name: group[name] for name in expected} == expected
    assert group["lr"] == 0.3
    assert group["weight_decay"] == chosen.get("weight_decay", 0)


def test_settings_of_another_optimiser_are_refused():
    for chosen, message in (
        ({"name": "sgd", "betas": [0.8, 0.9]}, "'betas' is no setting of sgd"),
        ({"name": "adam", "momentum": 0.5}, "'momentum' is no setting of adam"),
        ({"name": "sgd", "momentum": 0, "nesterov": True}, "'nesterov' needs a 'momentum' above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            OptimiserSettings.model_validate(chosen)
    with pytest.raises(ValueError, match="cannot have mined tiles"):
        TrainingSettings.model_validate({"phases": [{"name": "a", "epochs": 1, "tiles": "mined"}]})

"""Optimisers, and the learning rate at every step of a phase.

The learning rate is a function of how far the phase is and of how good its epochs were. Nothing else is kept of
it, so a training that goes on after an interruption goes on as if there had been none.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from thawmap.config import OptimiserSettings, ScheduleTerm


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleStep:
    """One step of a phase, as schedules see it.

    Attributes:
        done: Finished epochs, with the finished fraction of the running one.
        epochs: Epochs of the phase.
        history: Score of each finished epoch; more is better.
    """

    done: float
    epochs: int
    history: Sequence[float] = ()

    @property
    def progress(self) -> float:
        """The finished fraction of the phase, 0..1."""
        return self.done / self.epochs


def make_optimiser(settings: OptimiserSettings, weights: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Return a new Adam, AdamW or SGD, as configured, for a network's weights."""
    return OPTIMISERS[settings.name](settings, weights, lr)


def lr_factor(schedule: ScheduleTerm, step: ScheduleStep) -> float:
    """Return a schedule's learning rate at a step, as a fraction of the highest."""
    return SCHEDULES[schedule.name](step, **schedule.model_dump(exclude={"name"}))


def epochs_since_best(history: Sequence[float]) -> int:
    """Count the epochs after the best score, the first of equals; 0 without any.

    >>> epochs_since_best([0.1, 0.3, 0.2, 0.3])
    2
    """
    return len(history) - 1 - max(range(len(history)), key=history.__getitem__) if history else 0


def _adam(settings: OptimiserSettings, weights: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(weights, lr=lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay)


def _sgd(settings: OptimiserSettings, weights: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        weights, lr=lr, momentum=settings.momentum, nesterov=settings.nesterov, weight_decay=settings.weight_decay
    )


def _constant(_: ScheduleStep) -> float:
    return 1.0


def _step(step: ScheduleStep, *, every: int, factor: float) -> float:
    return factor ** (int(step.done) // every)


def _exponential(step: ScheduleStep, *, factor: float) -> float:
    return factor ** int(step.done)


def _cosine(step: ScheduleStep, *, warmup: float, final: float) -> float:
    if step.progress < warmup:
        return _COLD + (1 - _COLD) * step.progress / warmup
    return _cosine_between(1.0, final, (step.progress - warmup) / (1 - warmup))


def _one_cycle(step: ScheduleStep, *, warmup: float, start: float, final: float) -> float:
    if step.progress < warmup:
        return _cosine_between(start, 1.0, step.progress / warmup)
    return _cosine_between(1.0, final, (step.progress - warmup) / (1 - warmup))


def _plateau(step: ScheduleStep, *, patience: int, factor: float) -> float:
    best, waited, lowered = -math.inf, 0, 0
    for score in step.history:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited > patience:
            waited, lowered = 0, lowered + 1
    return factor**lowered


def _cosine_between(first: float, last: float, progress: float) -> float:
    """Return the value between two ends along half a cosine, at progress 0..1."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


_COLD = 0.01  # fraction of the learning rate with which a warm-up begins

OPTIMISERS: Mapping[str, Callable[[OptimiserSettings, Iterable[nn.Parameter], float], torch.optim.Optimizer]] = (
    MappingProxyType({"adam": _adam, "adamw": _adam, "sgd": _sgd})
)
"""Makers of optimisers, by their names in the configuration."""

SCHEDULES: Mapping[str, Callable[..., float]] = MappingProxyType(
    {
        "constant": _constant,
        "step": _step,
        "exponential": _exponential,
        "cosine": _cosine,
        "one_cycle": _one_cycle,
        "plateau": _plateau,
    }
)
"""Schedules by their names in the configuration; the settings there are their keywords."""

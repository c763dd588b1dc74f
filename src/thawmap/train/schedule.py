"""Optimisers, and the learning rate that they have at every moment of a phase.

The learning rate is a function of what is over of the phase and of how good its epochs were. Nothing else is kept of
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
class Moment:
    """Where a phase is.

    Attributes:
        done: Epochs that are over, with the part of the running one.
        epochs: Epochs of the phase.
        history: How good each finished epoch was; more is better.
    """

    done: float
    epochs: int
    history: Sequence[float] = ()

    @property
    def share(self) -> float:
        """What is over of the phase, 0..1."""
        return self.done / self.epochs


def optimiser(settings: OptimiserSettings, weights: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """The optimiser that the configuration asks for."""
    return OPTIMISERS[settings.name](settings, weights, lr)


def factor(schedule: ScheduleTerm, moment: Moment) -> float:
    """The learning rate as a share of the phase's."""
    return SCHEDULES[schedule.name](moment, **schedule.model_dump(exclude={"name"}))


def waited(history: Sequence[float]) -> int:
    """Epochs since the best one; the first of equals is the best.

    >>> waited([0.1, 0.3, 0.2, 0.3])
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


def _constant(_: Moment) -> float:
    return 1.0


def _step(moment: Moment, *, every: int, factor: float) -> float:
    return factor ** (int(moment.done) // every)


def _exponential(moment: Moment, *, factor: float) -> float:
    return factor ** int(moment.done)


def _cosine(moment: Moment, *, warmup: float, final: float) -> float:
    if moment.share < warmup:
        return _COLD + (1 - _COLD) * moment.share / warmup
    return _between(1.0, final, (moment.share - warmup) / (1 - warmup))


def _one_cycle(moment: Moment, *, warmup: float, start: float, final: float) -> float:
    if moment.share < warmup:
        return _between(start, 1.0, moment.share / warmup)
    return _between(1.0, final, (moment.share - warmup) / (1 - warmup))


def _plateau(moment: Moment, *, patience: int, factor: float) -> float:
    best, since, lowered = -math.inf, 0, 0
    for score in moment.history:
        since = 0 if score > best else since + 1
        best = max(best, score)
        if since > patience:
            since, lowered = 0, lowered + 1
    return factor**lowered


def _between(first: float, last: float, share: float) -> float:
    """From ``first`` to ``last`` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


_COLD = 0.01  # of the learning rate, where a warm-up begins

OPTIMISERS: Mapping[str, Callable[[OptimiserSettings, Iterable[nn.Parameter], float], torch.optim.Optimizer]] = (
    MappingProxyType({"adam": _adam, "adamw": _adam, "sgd": _sgd})
)
"""Every optimiser, by its name in the configuration."""

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
"""Every schedule, by its name in the configuration; the settings there are its keywords."""

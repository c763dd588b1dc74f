"""Losses: what a training makes small.

Each takes logits, never probabilities, and counts usable and labelled pixels only. A perfect prediction costs
about 0 (law 4); a batch without any such pixel costs exactly 0 and moves nothing.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

GAMMA = 2.0
"""Focusing parameter of the focal loss; 2 is Lin et al.'s choice."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A scalar, float32, from logits (N, H, W), target (N, H, W) and valid (N, H, W)."""


def usable(target: Tensor, valid: Tensor) -> Tensor:
    """Pixels that count, bool: valid, and labelled as object (1) or not (0)."""
    return valid & ((target == 0) | (target == 1))


def bce(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean binary cross-entropy."""
    counted = usable(target, valid)
    return _mean(_cross_entropy(logits, target, counted), counted)


def focal(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean focal loss (Lin et al. 2017, doi 10.1109/ICCV.2017.324, equation 4), without class weights.

    The paper's loss (section 2.3.2): cross-entropy, times the squared probability given to the wrong class,
    so that the many easy pixels without an object do not drown the few difficult ones.
    """
    counted = usable(target, valid)
    entropy = _cross_entropy(logits, target, counted)
    wrong = 1.0 - torch.exp(-entropy)
    return _mean(wrong**GAMMA * entropy, counted)


def dice(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """One minus the soft Dice coefficient of the whole batch, with 1 added to both of its parts.

    The 1 gives a batch without objects a loss of about 0 when nothing is predicted, and a slope when
    something is (Milletari et al. 2016, doi 10.1109/3DV.2016.79, without squares).
    """
    counted = usable(target, valid)
    probability = torch.where(counted, torch.sigmoid(_known(logits, counted)), 0.0)
    truth = torch.where(counted, target.float(), 0.0)
    shared = (probability * truth).sum()
    return 1.0 - (2.0 * shared + 1.0) / (probability.sum() + truth.sum() + 1.0)


LOSSES: Mapping[str, Loss] = MappingProxyType({"focal": focal, "bce": bce, "dice": dice})
"""Every loss, by its name in the configuration."""


def _known(logits: Tensor, counted: Tensor) -> Tensor:
    """Logits in float32, 0 where nothing counts: not even NaN there reaches a gradient (law 3)."""
    return torch.where(counted, logits.float(), 0.0)


def _cross_entropy(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    truth = torch.where(counted, target.float(), 0.0)
    return F.binary_cross_entropy_with_logits(_known(logits, counted), truth, reduction="none")


def _mean(costs: Tensor, counted: Tensor) -> Tensor:
    """Mean over the pixels that count; 0 where none does."""
    return torch.where(counted, costs, 0.0).sum() / counted.sum().clamp(min=1)

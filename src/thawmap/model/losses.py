"""Losses that a training minimises.

Each takes logits, never probabilities, and counts usable and labelled pixels only: what the others hold, even NaN,
changes neither loss nor gradient. A perfect prediction costs about 0 (law 4); a batch without any pixel that counts
costs exactly 0 and moves nothing. All are float32, whatever the logits are, and none waits for the device.

The library's own (segmentation_models.pytorch) are the oracles of the tests. They are not used here: with them a
pixel cannot be left out of cross-entropy, or only by an index that makes the device wait, and their Dice, Jaccard
and Tversky losses are 0, with no slope, for a batch without objects, whatever is predicted there.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from thawmap.config import LossTerm

SMOOTHING = 0.5
"""Pixels added to numerator and denominator of a soft overlap.

Half a pixel, so that Dice, which doubles both, gets one.
"""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function from logits, target and valid, (N, H, W) each, to a float32 scalar."""


def objective(terms: Sequence[LossTerm]) -> Loss:
    """Return the weighted sum of the losses in the configuration, as a function."""
    weighted = [(term.weight, LOSSES[term.name], term.model_dump(exclude={"name", "weight"})) for term in terms]

    def loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        costs = [weight * function(logits, target, valid, **options) for weight, function, options in weighted]
        return torch.stack(costs).sum()

    return loss


def usable(target: Tensor, valid: Tensor) -> Tensor:
    """Return a bool tensor of the pixels that count: valid, and labelled 0 or 1."""
    return valid & ((target == 0) | (target == 1))


def bce(logits: Tensor, target: Tensor, valid: Tensor, *, positive_weight: float) -> Tensor:
    """Return the mean binary cross-entropy of usable pixels' logits, a float32 scalar.

    That of object pixels is multiplied by ``positive_weight``. The mean is over pixels, not weights: a larger weight
    makes a larger loss, as with torch's `pos_weight`.
    """
    counted = usable(target, valid)
    costs = _cross_entropy(logits, target, counted)
    return _mean(torch.where(target == 1, positive_weight * costs, costs), counted)


def focal(logits: Tensor, target: Tensor, valid: Tensor, *, gamma: float, alpha: float | None) -> Tensor:
    """Return the mean focal loss of usable pixels' logits, a float32 scalar.

    Lin et al. 2017, doi 10.1109/ICCV.2017.324, equations 4 and, with ``alpha``, 5. The paper's loss (section 2.3.2,
    without ``alpha``): cross-entropy, times a power of the probability given to the wrong class, so that the many easy
    pixels without an object do not drown the few difficult ones.
    """
    counted = usable(target, valid)
    finite, labelled = _finite_logits(logits, counted), target == 1
    wrong = torch.sigmoid(torch.where(labelled, -finite, finite))
    # clamped, as 0 to a power below 1 has an infinite slope
    costs = wrong.clamp(min=torch.finfo(wrong.dtype).tiny) ** gamma * _cross_entropy(logits, target, counted)
    if alpha is not None:
        costs = torch.where(labelled, alpha * costs, (1.0 - alpha) * costs)
    return _mean(costs, counted)


def dice(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return one minus the soft Dice coefficient of a batch's logits, a scalar.

    Milletari et al. 2016, doi 10.1109/3DV.2016.79. Without their squares: the Tversky loss with equal halves.
    """
    return tversky(logits, target, valid, alpha=0.5, beta=0.5)


def jaccard(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return one minus the soft Jaccard index (IoU) of a batch's logits, a scalar.

    The Tversky loss with both costs 1.
    """
    return tversky(logits, target, valid, alpha=1.0, beta=1.0)


def tversky(logits: Tensor, target: Tensor, valid: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return one minus the soft Tversky index of a batch's logits, a scalar.

    Salehi et al. 2017, doi 10.1007/978-3-319-67389-9_44. `SMOOTHING` in numerator and denominator gives a batch without
    objects a loss of about 0 when nothing is predicted, and a slope when something is.

    Args:
        logits: (N, H, W), any float type.
        target: 1 object, 0 not, anything else is left out.
        valid: True where the pixel could be used.
        alpha: Cost of pixels that are predicted only.
        beta: Cost of pixels that are labelled only.
    """
    counted = usable(target, valid)
    labelled = counted & (target == 1)
    probability = torch.where(counted, torch.sigmoid(_finite_logits(logits, counted)), 0.0)
    shared = torch.where(labelled, probability, 0.0).sum()
    predicted_only = torch.where(labelled, 0.0, probability).sum()
    labelled_only = torch.where(labelled, 1.0 - probability, 0.0).sum()
    missed = alpha * predicted_only + beta * labelled_only
    return missed / (shared + missed + SMOOTHING)


def lovasz(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return the Lovasz hinge loss of all usable pixels of a batch together, a scalar.

    Berman et al. 2018, doi 10.1109/CVPR.2018.00464, section 3.1. The convex extension of one minus IoU to margins:
    errors of pixels in descending order, each times what its pixel takes from the IoU after all before it. That cost is
    written as a fraction of whole counts, not as a difference of two nearly equal IoUs, so it stays exact in large
    batches.
    """
    counted = (usable(target, valid)).flatten()
    labelled = counted & (target == 1).flatten()
    finite = _finite_logits(logits.flatten(), counted)
    error = torch.where(counted, torch.where(labelled, 1.0 - finite, 1.0 + finite), -torch.inf)
    error, order = torch.sort(error, descending=True)
    return (torch.relu(error) * _cost_of_each(labelled[order], (counted & ~labelled)[order])).sum()


def _cost_of_each(labelled: Tensor, unlabelled: Tensor) -> Tensor:
    """Return the IoU (n,) that each pixel costs if it and all before it are wrong.

    Pixels are in descending order of errors.

    With I of the labelled pixels still right and U = all labelled pixels and the unlabelled so far: 1 / U for a
    labelled pixel; I / (U - 1) - I / U for another; 1 for the first of all where nothing is labelled.
    """
    total = labelled.sum()
    right = (total - labelled.cumsum(0)).float()
    union = (total + unlabelled.cumsum(0)).float()
    first = (union == 1) & (total == 0)  # where the IoU falls from 1, of nothing, to 0 at once
    of_unlabelled = torch.where(first, 1.0, right / (union * (union - 1)).clamp(min=1))
    return torch.where(labelled, 1 / union.clamp(min=1), torch.where(unlabelled, of_unlabelled, 0.0))


LOSSES: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"bce": bce, "dice": dice, "focal": focal, "jaccard": jaccard, "lovasz": lovasz, "tversky": tversky}
)
"""Every loss by its name in the configuration, whose settings are its keywords."""


def _finite_logits(logits: Tensor, counted: Tensor) -> Tensor:
    """Return logits in float32, 0 in pixels that do not count.

    So not even NaN there reaches a gradient (law 3).
    """
    return torch.where(counted, logits.float(), 0.0)


def _cross_entropy(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Return the binary cross-entropy of each pixel (N, H, W), finite everywhere."""
    truth = torch.where(counted, target.float(), 0.0)
    return F.binary_cross_entropy_with_logits(_finite_logits(logits, counted), truth, reduction="none")


def _mean(costs: Tensor, counted: Tensor) -> Tensor:
    """Return the mean cost of the pixels that count, a scalar; 0 where none does."""
    return torch.where(counted, costs, 0.0).sum() / counted.sum().clamp(min=1)

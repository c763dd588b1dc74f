"""The self-test of a bundle: an input, and the probability that its network must give for ever."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from thawmap.model.bundle import Bundle
from thawmap.model.network import PROBE_PX, probability
from thawmap.model.reading import Reading


def make(bundle: Bundle) -> Tensor:
    """Values across and somewhat beyond each layer's range, one in twenty missing, always the same."""
    side = min(bundle.tile, PROBE_PX if bundle.fixed_tile else 2 * max(bundle.stride, 8))
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(bundle.layers), side, side)
    low = torch.tensor([layer.low for layer in bundle.layers]).view(1, -1, 1, 1)
    width = torch.tensor([layer.high - layer.low for layer in bundle.layers]).view(1, -1, 1, 1)
    values = low + width * (torch.rand(shape, generator=generator) * 1.2 - 0.1)
    return values.masked_fill(torch.rand(shape, generator=generator) < 0.05, torch.nan)


def answer(network: nn.Module, inputs: Tensor, reading: Reading) -> Tensor:
    """Probability (1, H, W) on the CPU, wherever the network is: GPUs round more, each in its own way."""
    if next(network.parameters()).device.type != "cpu":
        network = deepcopy(network).cpu()
    with torch.inference_mode():
        return probability(network.eval(), inputs, reading).clone()

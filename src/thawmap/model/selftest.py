"""The self-test of a bundle: an input, and its network's probability for it."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from thawmap.model.bundle import Bundle
from thawmap.model.network import PROBE_PX, probability
from thawmap.model.reading import Reading


def make_input(bundle: Bundle) -> Tensor:
    """Make the input (1, C, side, side) of a bundle's self-test, always the same.

    Its values lie across and somewhat beyond each layer's range, and one in twenty is missing.
    """
    side = min(bundle.tile, PROBE_PX if bundle.fixed_tile else 2 * max(bundle.stride, 8))
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(bundle.layers), side, side)
    low = torch.tensor([layer.low for layer in bundle.layers]).view(1, -1, 1, 1)
    width = torch.tensor([layer.high - layer.low for layer in bundle.layers]).view(1, -1, 1, 1)
    values = low + width * (torch.rand(shape, generator=generator) * 1.2 - 0.1)
    return values.masked_fill(torch.rand(shape, generator=generator) < 0.05, torch.nan)


def answer(network: nn.Module, inputs: Tensor, reading: Reading) -> Tensor:
    """Compute a network's probability (1, H, W) of the self-test's input, on the CPU.

    Wherever the network is: GPUs round more, each in its own way.
    """
    if next(network.parameters()).device.type != "cpu":
        network = deepcopy(network).cpu()
    with torch.inference_mode():
        return probability(network.eval(), inputs, reading).clone()

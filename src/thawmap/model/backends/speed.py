"""Limits of a machine: its rate of matrix products, and a network's operations."""

import time
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from thawmap.model.bundle import Bundle

_SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices: large enough that reading them takes no time

_REPEATS = 10


def operations_per_pixel(bundle: Bundle) -> float:
    """Count a network's multiplications and additions per pixel of the bundle's tile.

    Those of its matrix products and convolutions. They are counted in a run that computes nothing.
    """
    network = deepcopy(bundle.network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, len(bundle.layers), bundle.tile, bundle.tile, device="meta"))
    return float(counter.get_total_flops() / bundle.tile**2)


def product_rate(device: torch.device) -> float:
    """Measure the most operations a second of a device's large matrix products.

    In float32, at the present number of threads. The best of several, as it is a limit: in float32 no network computes
    faster. On a processor products are also asked for as a convolution of 1 x 1 pixels, which another library computes:
    one of them may not know the processor well.
    """
    side = _SIDES[device.type]
    left, right = (torch.rand(side, side, device=device) for _ in range(2))
    image = left.view(1, 1, side, side).permute(0, 3, 1, 2)  # so many pixels with so many channels, channels last
    products: list[Callable[[], Tensor]] = [lambda: left @ right]
    if device.type == "cpu":
        products.append(lambda: conv2d(image, right[:, :, None, None]))
    taken = []
    with torch.inference_mode():
        for product in products * _REPEATS:
            begin = time.perf_counter()
            answer = product()
            answer[(0,) * answer.ndim].item()  # which waits for the device
            taken.append(time.perf_counter() - begin)
    return 2 * side**3 / min(taken)

"""From a network of PyTorch to the files of OpenVINO, in a process of its own."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from thawmap.model.backends.folding import folded
from thawmap.model.backends.openvino import CONVERTED, NETWORK, import_openvino
from thawmap.model.backends.sandbox import bundle_of, task_of
from thawmap.model.bundle import Bundle
from thawmap.model.network import PROBE_PX, probability
from thawmap.model.reading import Reading


class _Probability(nn.Module):
    """What is converted: from physical units, NaN = missing, to probability."""

    def __init__(self, network: nn.Module, reading: Reading) -> None:
        super().__init__()
        self._network = network
        self._reading = reading

    def forward(self, images: Tensor) -> Tensor:
        """Probability (1, H, W) of an image (1, C, H, W)."""
        return probability(self._network, images, self._reading)


def trace(bundle: Bundle, path: Path) -> None:
    """Trace with a small image of which no side is fixed, and save in float32."""
    openvino = import_openvino()
    sides = {
        axis: torch.export.Dim(name, min=2, max=1024) * bundle.stride if bundle.stride > 1 else torch.export.Dim(name)
        for axis, name in ((2, "rows"), (3, "columns"))
    }
    example = torch.zeros(1, len(bundle.layers), PROBE_PX, PROBE_PX * 3 // 2)
    network = folded(bundle.network, channels=len(bundle.layers))
    with torch.no_grad():
        whole = _Probability(network, replace(bundle.reading, fill="zero")).eval()
        traced = torch.export.export(whole, (example,), dynamic_shapes=(sides,))
    path.parent.mkdir()
    openvino.save_model(openvino.convert_model(traced), path, compress_to_fp16=False)


def main(folder: Path) -> None:
    """In a process of its own: convert the bundle in ``folder``."""
    with task_of(folder):
        trace(bundle_of(folder), folder / CONVERTED / NETWORK)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Conversion of a network from PyTorch to OpenVINO's files, in a sandbox."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from thawmap.model.backends.folding import folded
from thawmap.model.backends.openvino import CONVERTED, NETWORK, import_openvino
from thawmap.model.backends.sandbox import sandboxed_bundle, sandboxed_task
from thawmap.model.bundle import Bundle
from thawmap.model.network import PROBE_PX, ProbabilityNetwork


def trace(bundle: Bundle, path: Path) -> None:
    """Write a bundle's network as OpenVINO's files in float32, for images of any size.

    It is traced with a small image of which no side is fixed.
    """
    openvino = import_openvino()
    sides = {
        axis: torch.export.Dim(name, min=2, max=1024) * bundle.stride if bundle.stride > 1 else torch.export.Dim(name)
        for axis, name in ((2, "rows"), (3, "columns"))
    }
    example = torch.zeros(1, len(bundle.layers), PROBE_PX, PROBE_PX * 3 // 2)
    network = folded(bundle.network, channels=len(bundle.layers))
    with torch.no_grad():
        # gaps are filled before, outside of OpenVINO, which would do that more slowly and in every image
        scaled = ProbabilityNetwork(network, replace(bundle.reading, fill="zero")).eval()
        traced = torch.export.export(scaled, (example,), dynamic_shapes=(sides,))
    path.parent.mkdir()
    openvino.save_model(openvino.convert_model(traced), path, compress_to_fp16=False)


def main(folder: Path) -> None:
    """Write the network of the bundle in a sandbox's folder as OpenVINO's files."""
    with sandboxed_task(folder):
        trace(sandboxed_bundle(folder), folder / CONVERTED / NETWORK)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

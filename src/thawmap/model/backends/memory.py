"""Estimate of the memory that a network takes for each pixel of an image."""

from copy import deepcopy

from thawmap.model.backends.agreement import Precision
from thawmap.model.bundle import Bundle

FACTORS = {
    ("eager", "float32"): 2.4,
    ("eager", "bfloat16"): 1.4,
    ("compile", "float32"): 2.4,
    ("compile", "bfloat16"): 1.4,
    ("openvino", "float32"): 0.75,
    ("openvino", "bfloat16"): 0.4,
}
"""Peak of a process over that of its tensors, by backend and precision.

Measured at 1024 to 2048 px (docs/performance.md). PyTorch copies what it multiplies, and what it frees is kept
in blocks that do not always fit; OpenVINO merges operations and lets what is never alive together share memory.
"""

BASE_BYTES = {"eager": 0, "compile": 400_000_000, "openvino": 200_000_000}
"""Bytes that a process holds for each network at any size of images, by backend.

Beside PyTorch itself and the tensors.
"""


def bytes_per_pixel(bundle: Bundle, backend: str, precision: Precision = "float32") -> int:
    """Estimate the bytes that a backend takes for each pixel of an image.

    The image itself is not counted. Of a batch, PyTorch holds all images at once, OpenVINO one. The tensors that live
    at the same time are counted in a run that computes nothing, so that every architecture and encoder has its own
    number.
    """
    import torch  # noqa: PLC0415 - it loads slowly, here and below

    from thawmap.model.backends.folding import folded  # noqa: PLC0415
    from thawmap.model.backends.liveness import Living  # noqa: PLC0415
    from thawmap.model.network import PROBE_PX  # noqa: PLC0415

    network = folded(deepcopy(bundle.network).to("meta").eval(), channels=len(bundle.layers))
    watch = Living()
    with torch.no_grad(), watch:
        network(torch.zeros(1, len(bundle.layers), PROBE_PX, PROBE_PX, device="meta"))
    return round(watch.peak / PROBE_PX**2 * FACTORS[backend, precision])

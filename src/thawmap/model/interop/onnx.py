"""Export of a bundle as one ONNX file, for QGIS and programs without Python.

It takes layers in physical units and gives probability. The metadata are those that Deepness reads, a plugin of QGIS
that maps rasters with ONNX models. It divides what it reads by 255 before it standardises; the standard deviations
written here undo that, so that the network sees the raster's own values.
"""

import json
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from thawmap.errors import BundleError, ConfigError
from thawmap.model.bundle import Bundle
from thawmap.model.network import ProbabilityNetwork

_OVERLAP_PERCENT = 25  # of a tile's side, that neighbouring tiles share in Deepness
_PACKAGES = ("onnx", "onnxscript")


def write_onnx(bundle: Bundle, path: Path, *, pixel_m: float | None = None) -> None:
    """Write a bundle as one ONNX file, from layers in physical units to probability.

    It takes batches of any number, of tiles of the bundle's size. Input ``layers`` (B, C, H, W) float32 in physical
    units, NaN = missing, in the bundle's order; output ``probability`` (B, 1, H, W) float32, 0..1.

    Args:
        bundle: The bundle, on the CPU.
        path: The file.
        pixel_m: Side of a pixel in metres, for Deepness; None: it takes that from its window.

    Raises:
        ConfigError: If the packages for ONNX are missing, or ``pixel_m`` is not above 0.
        BundleError: If the network cannot be said in ONNX.
    """
    if pixel_m is not None and not pixel_m > 0:
        msg = f"--pixel-m is {pixel_m:g}; the side of a pixel in metres is above 0"
        raise ConfigError(msg)
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        msg = f"ONNX files need the packages {' and '.join(missing)}; install them: pip install 'thawmap[onnx]'"
        raise ConfigError(msg)
    network = ProbabilityNetwork(bundle.network, bundle.reading, keep_channel=True).eval()
    example = torch.zeros(2, len(bundle.layers), bundle.tile, bundle.tile)
    program = _trace(network, example, bundle)
    program.model.metadata_props.update(metadata(bundle, pixel_m=pixel_m))
    program.model.producer_name = "thawmap"
    program.save(path, external_data=False)


def metadata(bundle: Bundle, *, pixel_m: float | None = None) -> dict[str, str]:
    """Return a bundle's metadata for an ONNX file, as JSON texts by key.

    The keys that Deepness reads, and under ``thawmap`` the bundle's id and layers.
    """
    channels = len(bundle.layers)
    values = {
        "model_type": "Segmentor",
        "class_names": {"0": "slump"},
        "tile_size": bundle.tile,
        "tiles_overlap": _OVERLAP_PERCENT,
        "seg_thresh": bundle.threshold,
        "standardization_mean": [0.0] * channels,
        "standardization_std": [1 / 255] * channels,
        "thawmap": {
            "bundle": bundle.id,
            "layers": [{"name": layer.name, "units": layer.units, "recipe": layer.recipe} for layer in bundle.layers],
        },
    }
    if pixel_m is not None:
        values["resolution"] = pixel_m * 100  # in centimetres
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def _trace(network: nn.Module, example: Tensor, bundle: Bundle) -> torch.onnx.ONNXProgram:
    """Trace a network into an ONNX program, without the exporter's log and warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # deprecations inside of the exporter
            program = torch.onnx.export(
                network,
                (example,),
                input_names=["layers"],
                output_names=["probability"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                dynamo=True,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
        reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0][:200]
        msg = f"{bundle.network_name} cannot be said in ONNX ({reason}); export it as darts, or use another network"
        raise BundleError(msg) from error
    finally:
        logger.setLevel(level)
    assert program is not None
    return program

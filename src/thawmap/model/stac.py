"""Description of a bundle as a STAC Item, for catalogues of models.

It has the Machine Learning Model extension. The item stands beside the bundle's files. It describes them and decides
nothing: a bundle loads without it.
"""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from thawmap.layers import Layer

if TYPE_CHECKING:
    from thawmap.model.bundle import Bundle

EXTENSION = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
"""The version of the extension that the items follow."""

_BINARY, _JSON = "application/octet-stream; application=safetensors", "application/json"
_FILLED = {
    "near": "then missing pixels are filled from near ones.",
    "zero": "missing becomes 0 after that.",
}
_TASKS = ["semantic-segmentation"]
_CLASSES = [{"value": 1, "name": "slump", "description": "The object that the model was trained to find"}]


def item(bundle: "Bundle", *, saved: datetime | None = None) -> dict[str, Any]:
    """Return a bundle as a STAC Item (JSON values) with a null geometry.

    Args:
        bundle: A bundle that has its id.
        saved: Time of saving; None: now.
    """
    moment = (saved or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSION],
        "id": f"thawmap-{bundle.id}",
        "geometry": None,
        "properties": {"datetime": moment, "created": moment} | _properties(bundle),
        "links": [],
        "assets": _assets(bundle),
    }


def _properties(bundle: "Bundle") -> dict[str, Any]:
    """Return a bundle's properties for its STAC Item: the extension's, and our own."""
    config = bundle.provenance.get("config", {})
    name = "-".join(filter(None, ("thawmap", bundle.architecture, bundle.encoder, bundle.id)))
    properties: dict[str, Any] = {
        "title": f"{bundle.network_name}, thawmap bundle {bundle.id}",
        "bands": [_band(layer) for layer in bundle.layers],
        "mlm:name": re.sub(r"[^a-zA-Z0-9_.\-]+", "-", name),
        "mlm:architecture": bundle.architecture,
        "mlm:tasks": _TASKS,
        "mlm:framework": "PyTorch",
        "mlm:total_parameters": sum(weights.numel() for weights in bundle.network.parameters()),
        "mlm:input": [_input(bundle)],
        "mlm:output": [_output(bundle)],
        "thawmap:bundle": bundle.id,
        "thawmap:thresholds": dict(bundle.thresholds),
        "thawmap:metrics": dict(bundle.metrics),
    }
    version = re.match(r"\d+\.\d+\.\d+", str(bundle.provenance.get("versions", {}).get("torch", "")))
    if version is not None:
        properties["mlm:framework_version"] = version.group()
    if "model" in config:
        weights = config["model"].get("weights")
        properties |= {"mlm:pretrained": weights is not None, "mlm:pretrained_source": weights}
    if "training" in config:
        properties["mlm:hyperparameters"] = config["training"]
    return properties


def _band(layer: Layer) -> dict[str, Any]:
    """Return an input layer as a dict that describes a band in STAC."""
    recipe = {"description": f"made as: {layer.recipe}"} if layer.recipe else {}
    return {"name": layer.name, "unit": layer.units or "1", "nodata": "nan", "data_type": "float32"} | recipe


def _input(bundle: "Bundle") -> dict[str, Any]:
    """Return a dict for STAC of a network's input: layers, shape and scaling."""
    clipped = [layer.name for layer in bundle.layers if layer.clip]
    return {
        "name": "layers",
        "bands": [layer.name for layer in bundle.layers],
        "input": {
            "shape": [-1, len(bundle.layers), bundle.tile, bundle.tile],
            "dim_order": ["batch", "channel", "height", "width"],
            "data_type": "float32",
        },
        "description": (
            "Physical units, NaN where missing; x = (v - minimum) / (maximum - minimum) for each layer, "
            f"clipped to 0..1: {', '.join(clipped) or 'none'}; {_FILLED[bundle.fill]} Sides are multiples of "
            f"{bundle.stride} px{', and no others than these' if bundle.fixed_tile else ''}."
        ),
        "value_scaling": [
            {"type": "min-max", "minimum": layer.low, "maximum": layer.high} for layer in bundle.layers
        ],
        "pre_processing_function": {"format": "python", "expression": "thawmap.model.network:scale"},
    }  # fmt: skip


def _output(bundle: "Bundle") -> dict[str, Any]:
    """Return a dict for STAC of a network's output: logits, and the sigmoid."""
    return {
        "name": "logits",
        "tasks": _TASKS,
        "result": {
            "shape": [-1, 1, bundle.tile, bundle.tile],
            "dim_order": ["batch", "channel", "height", "width"],
            "data_type": "float32",
        },
        "description": f"One sigmoid makes probabilities; objects are where they are above {bundle.threshold:g}.",
        "classification:classes": _CLASSES,
        "post_processing_function": {"format": "python", "expression": "torch.sigmoid"},
    }


def _assets(bundle: "Bundle") -> dict[str, Any]:
    """Return a bundle's files as assets of a STAC Item by name, with relative paths.

    The weights name the bands too, without which STAC 1.1 allows no item to name any.
    """
    return {
        "weights": {
            "href": "./weights.safetensors",
            "type": _BINARY,
            "title": "Weights of the network",
            "roles": ["mlm:model", "mlm:weights"],
            "mlm:artifact_type": "safetensors.torch.save_file",
            "bands": [_band(layer) for layer in bundle.layers],
        },
        "bundle": {
            "href": "./bundle.json",
            "type": _JSON,
            "title": "What the bundle is, with the checksums of its files",
            "roles": ["metadata"],
        },
        "selftest": {
            "href": "./selftest.safetensors",
            "type": _BINARY,
            "title": "An input and the probability that it must give",
            "roles": ["data"],
        },
    }

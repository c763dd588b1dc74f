"""The verbs about models: describe, import and export bundles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from thawmap.errors import ConfigError
from thawmap.files.atomic import atomic
from thawmap.files.guard import check_apart, check_new, some_of
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import files_of, load, save
from thawmap.pipeline.progress import Summary

Range = tuple[float, float]
"""The physical values that a network sees as 0 and as 1."""


def model_info(path: Path) -> Summary:
    """Describe the bundle in a folder: a row for each layer, and lines of all else.

    Raises:
        BundleError: If there is none, or it is damaged.
    """
    return _summary(load(path))


def _summary(bundle: Bundle) -> Summary:
    """Return a bundle's facts as a summary: a row for each layer, lines of all else."""
    provenance = bundle.provenance
    weights = sum(weight.numel() for weight in bundle.network.parameters())
    facts = {
        "bundle": bundle.id,
        "network": f"{bundle.network_name}, {weights:,} weights",
        "tile": f"{bundle.tile} px, {'always' if bundle.fixed_tile else f'or any multiple of {bundle.stride} px'}",
        "thresholds": ", ".join(f"{name} {value:g}" for name, value in bundle.thresholds.items()),
        "metrics": ", ".join(f"{name} {value:.4g}" for name, value in bundle.metrics.items()),
        "made by": str(provenance.get("made_by", "")),
        "from": str(provenance.get("from", "")),
        **{f"{split} on": ", ".join(names) for split, names in provenance.get("regions", {}).items() if names},
        "seed": str(provenance.get("config", {}).get("training", {}).get("seed", "")),
        "versions": ", ".join(f"{name} {number}" for name, number in provenance.get("versions", {}).items()),
    }
    lines = [f"{name}: {text}" for name, text in facts.items() if text]
    notes = [f"note: {note}" for note in provenance.get("notes", ())]
    return Summary(lines=(*lines, *notes), done=1, rows=_layer_rows(bundle))


def import_model(
    source: Path,
    out: Path,
    *,
    window_m: float | None = None,
    ranges: Mapping[str, Range] | None = None,
    tile: int | None = None,
) -> Summary:
    """Convert another program's model into a bundle, and write its folder.

    Args:
        source: Run folder of thaw-slump-segmentation, one of its checkpoints, or a .pt or .ckpt of DARTS.
        out: Folder of the bundle.
        window_m: Diameter in metres of the circle of relative elevation; needed where the model sees it.
        ranges: Band to the physical values that the network sees as 0 and as 1, where the file does not say.
        tile: Side in pixels of the tiles that it was trained with, where the file does not say.

    Raises:
        BundleError: If the model cannot be imported.
        ConfigError: If a fact is missing, or ``out`` holds a bundle.
    """
    from thawmap.model.interop.convert import Facts, import_bundle  # noqa: PLC0415 - torch loads slowly

    check_apart([out], [source])
    present = files_of(out)
    if present:
        content = "a bundle already" if "bundle.json" in present else some_of(present)
        msg = f"{out} holds {content}; name another --out, or remove it"
        raise ConfigError(msg)
    bundle, notes = import_bundle(source, Facts(window_m=window_m, ranges=dict(ranges or {}), tile=tile))
    saved = save(bundle, out)
    lines = (*notes, f"bundle {saved.id} is in {out}; next: thawmap predict thawmap.yaml --model {out} --out maps")
    return Summary(lines=lines, done=1, rows=_layer_rows(saved))


def export_model(
    bundle: Path, out: Path, *, to: Literal["onnx", "darts"] = "onnx", pixel_m: float | None = None
) -> Summary:
    """Write a bundle as one file for another program: ONNX, or a checkpoint of DARTS.

    Args:
        bundle: Folder of the bundle.
        out: File to write.
        to: onnx: one file with scaling and sigmoid inside, for QGIS (Deepness) and others; darts: a .pt for DARTS.
        pixel_m: Side in metres of the pixels that the model was trained on; Deepness takes it over.

    Raises:
        BundleError: If the bundle is damaged, or the other program could not mean the same by it.
        ConfigError: If ``out`` exists, or packages for ONNX are missing.
    """
    from thawmap.model.interop.convert import darts_checkpoint  # noqa: PLC0415 - torch loads slowly
    from thawmap.model.interop.onnx import write_onnx  # noqa: PLC0415

    check_new(out)
    if to == "darts" and pixel_m is not None:
        msg = "--pixel-m has no meaning for darts; leave it out"
        raise ConfigError(msg)
    loaded = load(bundle)
    notes: tuple[str, ...] = ()
    with atomic(out) as draft:
        if to == "darts":
            notes = darts_checkpoint(loaded, draft)
        else:
            write_onnx(loaded, draft, pixel_m=pixel_m)
            order = ", ".join(f"{layer.name} ({layer.units})" if layer.units else layer.name for layer in loaded.layers)
            notes = (
                f"it takes tiles of {loaded.tile} px with bands in physical units, NaN where missing: {order}",
                f"scaling and sigmoid are inside: it gives probabilities; objects are above {loaded.threshold:g}",
            )
    return Summary(lines=(*notes, f"bundle {loaded.id} is in {out}"), done=1)


def read_ranges(texts: Sequence[str]) -> dict[str, Range]:
    """Parse texts such as "ndvi=-1:1" into a dict of layer to (low, high).

    >>> read_ranges(["ndvi=-1:1"])
    {'ndvi': (-1.0, 1.0)}

    Raises:
        ConfigError: If a text is not of the form NAME=LOW:HIGH, with numbers.
    """
    ranges: dict[str, Range] = {}
    for text in texts:
        name, _, ends = text.partition("=")
        try:
            low, high = (float(end) for end in ends.split(":"))
        except ValueError as error:
            msg = f"--range is {text!r}; write it as NAME=LOW:HIGH, such as ndvi=-1:1"
            raise ConfigError(msg) from error
        ranges[name.strip()] = (low, high)
    return ranges


def _layer_rows(bundle: Bundle) -> list[dict[str, str]]:
    """Return a table row for each layer of a bundle, without columns that are blank."""
    rows = [
        {
            "layer": layer.name,
            "units": layer.units,
            "seen as 0": f"{layer.low:g}",
            "seen as 1": f"{layer.high:g}",
            "beyond": "clipped" if layer.clip else "kept",
            "made as": layer.recipe,
            "may be missing": "yes" if layer.name in bundle.optional else "",
        }
        for layer in bundle.layers
    ]
    filled = [name for name in rows[0] if any(row[name] for row in rows)]
    return [{name: row[name] for name in filled} for row in rows]

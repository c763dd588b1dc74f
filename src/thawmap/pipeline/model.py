"""The verbs about models: what a bundle is, and other people's models in and out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from thawmap.errors import ConfigError
from thawmap.files.atomic import atomic
from thawmap.files.guard import check_apart, check_new, some_of
from thawmap.pipeline.progress import Summary

if TYPE_CHECKING:
    from thawmap.model.bundle import Bundle

Range = tuple[float, float]
"""The physical values that a network sees as 0 and as 1."""


def model_info(path: Path) -> Summary:
    """What the bundle in ``path`` is: a table of its layers, and lines.

    Raises:
        BundleError: If there is none, or it is damaged.
    """
    from thawmap.model.bundle_folder import load  # noqa: PLC0415 - torch loads slowly, here and below

    return _told(load(path))


def import_model(
    source: Path,
    out: Path,
    *,
    window_m: float | None = None,
    ranges: Mapping[str, Range] | None = None,
    tile: int | None = None,
) -> Summary:
    """Make a bundle of another program's model, once and for all.

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
    from thawmap.model.bundle_folder import files_of, save  # noqa: PLC0415
    from thawmap.model.interop.convert import Facts, import_bundle  # noqa: PLC0415

    check_apart([out], [source])
    there = files_of(out)
    if there:
        what = "a bundle already" if "bundle.json" in there else some_of(there)
        msg = f"{out} holds {what}; name another --out, or remove it"
        raise ConfigError(msg)
    made, notes = import_bundle(source, Facts(window_m=window_m, ranges=dict(ranges or {}), tile=tile))
    saved = save(made, out)
    lines = (*notes, f"bundle {saved.id} is in {out}; next: thawmap predict thawmap.yaml --model {out} --out maps")
    return Summary(lines=lines, done=1, rows=_layers(saved))


def export_model(
    bundle: Path, out: Path, *, to: Literal["onnx", "darts"] = "onnx", pixel_m: float | None = None
) -> Summary:
    """Write a bundle as another program's file.

    Args:
        bundle: Folder of the bundle.
        out: File to write.
        to: onnx: one file with scaling and sigmoid inside, for QGIS (Deepness) and others; darts: a .pt for DARTS.
        pixel_m: Side in metres of the pixels that the model was trained on; Deepness takes it over.

    Raises:
        BundleError: If the bundle is damaged, or the other program could not mean the same by it.
        ConfigError: If ``out`` exists, or packages for ONNX are missing.
    """
    from thawmap.model.bundle_folder import load  # noqa: PLC0415
    from thawmap.model.interop.convert import darts_checkpoint  # noqa: PLC0415
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
            order = ", ".join(f"{one.name} ({one.units})" if one.units else one.name for one in loaded.layers)
            notes = (
                f"it takes tiles of {loaded.tile} px with bands in physical units, NaN where missing: {order}",
                f"scaling and sigmoid are inside: it gives probabilities; objects are above {loaded.threshold:g}",
            )
    return Summary(lines=(*notes, f"bundle {loaded.id} is in {out}"), done=1)


def read_ranges(texts: Sequence[str]) -> dict[str, Range]:
    """Ranges as a command line tells them.

    >>> read_ranges(["ndvi=-1:1"])
    {'ndvi': (-1.0, 1.0)}

    Raises:
        ConfigError: If one is none.
    """
    return dict(_read_range(text) for text in texts)


def _read_range(text: str) -> tuple[str, Range]:
    name, _, ends = text.partition("=")
    try:
        low, high = (float(end) for end in ends.split(":"))
    except ValueError as error:
        msg = f"--range is {text!r}; write it as NAME=LOW:HIGH, such as ndvi=-1:1"
        raise ConfigError(msg) from error
    return name.strip(), (low, high)


def _layers(bundle: "Bundle") -> list[dict[str, str]]:
    """A row for each layer, without columns that say nothing."""
    rows = [
        {
            "layer": one.name,
            "units": one.units,
            "seen as 0": f"{one.low:g}",
            "seen as 1": f"{one.high:g}",
            "beyond": "clipped" if one.clip else "kept",
            "made as": one.recipe,
            "may be missing": "yes" if one.name in bundle.optional else "",
        }
        for one in bundle.layers
    ]
    told = [name for name in rows[0] if any(row[name] for row in rows)]
    return [{name: row[name] for name in told} for row in rows]


def _told(bundle: "Bundle") -> Summary:
    """All that a person asks of a bundle."""
    made = bundle.provenance
    weights = sum(one.numel() for one in bundle.network.parameters())
    facts = {
        "bundle": bundle.id,
        "network": f"{bundle.architecture} with {bundle.encoder}, {weights:,} weights",
        "tile": f"{bundle.tile} px, {'always' if bundle.fixed_tile else f'or any multiple of {bundle.stride} px'}",
        "thresholds": ", ".join(f"{name} {value:g}" for name, value in bundle.thresholds.items()),
        "metrics": ", ".join(f"{name} {value:.4g}" for name, value in bundle.metrics.items()),
        "made by": str(made.get("made_by", "")),
        "from": str(made.get("from", "")),
        **{f"{part} on": ", ".join(names) for part, names in made.get("regions", {}).items() if names},
        "seed": str(made.get("config", {}).get("training", {}).get("seed", "")),
        "versions": ", ".join(f"{name} {number}" for name, number in made.get("versions", {}).items()),
    }
    lines = [f"{name}: {value}" for name, value in facts.items() if value]
    notes = [f"note: {one}" for one in made.get("notes", ())]
    return Summary(lines=(*lines, *notes), done=1, rows=_layers(bundle))

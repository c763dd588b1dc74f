"""The verb model and its own verbs: describe, import and export bundles."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

import thawmap
from thawmap.cli.options import Out, finish

model_app = App(name="model", help="Describe bundles; bring other people's models in, and take bundles out.")


@model_app.command(name="info")
def model_info(bundle: Path, /) -> int:
    """Say what a bundle is: its layers, network, thresholds and metrics.

    Layers are shown with their ranges; where known, how the bundle came to be.

    Args:
        bundle: Folder of the bundle.
    """
    return finish(thawmap.model_info(bundle))


@model_app.command(name="import")
def import_model(
    source: Path,
    /,
    *,
    out: Out,
    window_m: Annotated[float | None, Parameter(name="--window-m")] = None,
    range_: Annotated[tuple[str, ...], Parameter(name="--range", negative="", consume_multiple=False)] = (),
    tile: int | None = None,
) -> int:
    """Make a bundle of another program's model; nothing in its files is run.

    Args:
        source: Run folder or checkpoint of thaw-slump-segmentation, or a .pt or .ckpt of DARTS.
        out: Folder of the bundle.
        window_m: Diameter in metres of the circle of relative elevation, where the model sees that layer.
        range_: BAND=LOW:HIGH, the physical values that the network sees as 0 and as 1, where the file does not say.
        tile: Side in pixels of the tiles that it was trained with, where the file does not say.
    """
    from thawmap.pipeline.model import read_ranges  # noqa: PLC0415

    ranges = read_ranges(range_)
    return finish(thawmap.import_model(source, out, window_m=window_m, ranges=ranges, tile=tile))


@model_app.command(name="export")
def export_model(
    bundle: Path,
    out: Path,
    /,
    *,
    to: Literal["onnx", "darts"] = "onnx",
    pixel_m: Annotated[float | None, Parameter(name="--pixel-m")] = None,
) -> int:
    """Write a bundle as one file for another program.

    Args:
        bundle: Folder of the bundle.
        out: File to write.
        to: onnx: for QGIS (the plugin Deepness) and others, scaling and sigmoid inside; darts: a .pt for DARTS.
        pixel_m: Side in metres of the pixels that the model was trained on; onnx only.
    """
    return finish(thawmap.export_model(bundle, out, to=to, pixel_m=pixel_m))

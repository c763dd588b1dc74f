"""The verbs about digitised objects."""

from pathlib import Path
from typing import Literal

from cyclopts import App

import thawmap
from thawmap.cli.options import OptionalOut, Sets, config_or_file, finish, load_config
from thawmap.cli.terminal import Terminal

labels_app = App(name="labels", help="Count digitised objects; check, describe and convert them.")


@labels_app.default
def labels(path: Path, /, *, set_: Sets = ()) -> int:
    """Count what is labelled: objects and pixels by region and scene.

    Args:
        path: The YAML.
        set_: KEY=VALUE put over the YAML.
    """
    settings = load_config(path, set_)
    return finish(thawmap.labels(settings, progress=Terminal()))


@labels_app.command(name="check")
def check_labels(
    path: Path,
    /,
    *,
    layer: str | None = None,
    out: OptionalOut = None,
    repaired: Path | None = None,
    set_: Sets = (),
) -> int:
    """Say what is wrong with digitised polygons.

    It checks geometry, duplicates, overlaps, scenes, dates and sizes.

    Args:
        path: The YAML, whose scenes the polygons are compared with; or only a vector file.
        layer: Of a vector file with several layers, the one that is meant.
        out: File of the faults to write, a polygon for each, such as faults.gpkg.
        repaired: File of a repaired copy to write, such as repaired.gpkg.
        set_: KEY=VALUE put over the YAML.
    """
    source = config_or_file(path, set_)
    summary = thawmap.check_labels(source, layer=layer, out=out, repaired=repaired, progress=Terminal())
    return finish(summary)


@labels_app.command(name="stats")
def label_stats(path: Path, /, *, layer: str | None = None, by: str | None = None, set_: Sets = ()) -> int:
    """Say what an inventory holds, as the paper's Table 2.

    That is objects, objects of a date, and their median area.

    Args:
        path: The YAML, or a vector file.
        layer: Of a vector file with several layers, the one that is meant.
        by: Column of sites; by default that of regions.
        set_: KEY=VALUE put over the YAML.
    """
    source = config_or_file(path, set_)
    return finish(thawmap.label_stats(source, layer=layer, by=by))


@labels_app.command(name="convert")
def convert_labels(
    source: Path,
    out: Path,
    /,
    *,
    to: Literal["arts", "thawmap"],
    layer: str | None = None,
    creator: str | None = None,
    image: str | None = None,
    resolution: float | None = None,
) -> int:
    """Write labels in the columns of the ARTS inventory, or ARTS in those of thawmap.

    Nothing is lost.

    Args:
        source: Vector file to read.
        out: Vector file to write.
        to: The columns to write.
        layer: Of a vector file with several layers, the one that is meant.
        creator: Who digitised, for ARTS, where the labels do not say it.
        image: What it was digitised on, such as PlanetScope, where they do not say it.
        resolution: Resolution of that in m, where they do not say it.
    """
    summary = thawmap.convert_labels(
        source, out, to=to, layer=layer, creator=creator, image=image, resolution=resolution
    )
    return finish(summary)

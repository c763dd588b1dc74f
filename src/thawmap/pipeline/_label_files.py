"""The verbs of digitised polygons: what is wrong with them, what they hold, and their form elsewhere."""

from functools import partial
from pathlib import Path
from typing import Literal

import geopandas as gpd
import numpy as np

from thawmap.config import Config, LabelSettings
from thawmap.data.labels import faults, inventory
from thawmap.data.labels.polygons import read_extent
from thawmap.data.project import Project
from thawmap.data.sources.base import Candidate
from thawmap.data.stack import preview
from thawmap.data.vector.io import read_vector, write_vector
from thawmap.errors import ConfigError, LabelError
from thawmap.files.guard import check_new
from thawmap.geo.crs import EQUAL_AREA
from thawmap.pipeline.progress import Progress, Summary, records, run_all
from thawmap.text import counted

_COARSE = 256  # pixels of a scene's longer side, in which the ground that it shows is measured


def check_labels(
    labels: Config | Path,
    *,
    layer: str | None = None,
    out: Path | None = None,
    repaired: Path | None = None,
    progress: Progress | None = None,
) -> Summary:
    """What is wrong with digitised polygons: a row for each kind of fault.

    Args:
        labels: A configuration, whose scenes the polygons are compared with; or only a vector file.
        layer: Of a vector file with several, the one that is meant; a configuration says it itself.
        out: File of the faults, one polygon a row, as .gpkg.
        repaired: File of a copy in which what a machine can mend is mended.
        progress: Is told what happens.

    Raises:
        ConfigError: If the configuration has no polygons.
        DataError: If the file cannot be read.
        LabelError: If it lacks a column that the configuration names.
    """
    frame, settings = _polygons(labels, layer, needs_crs=False)
    _check_new(settings, out, repaired)
    extent = read_extent(settings)
    seen: dict[str, faults.Footprint] = {}
    failed: dict[str, str] = {}
    if isinstance(labels, Config):
        project = Project(labels)
        values, failed = run_all(partial(_look, project=project), project.candidates(), labels, progress, "scenes")
        seen = dict(values)
    found = faults.check(frame, settings=settings, scenes=seen, extent=extent)
    found = found[~((found["kind"] == "unknown scene") & found["scene"].isin(failed))]
    lines = [f"{counted(len(found), 'fault')} in {counted(len(frame), 'polygon')}"]
    if out is not None:
        write_vector(out, found)
        lines.append(f"faults: {out}")
    if repaired is not None:
        mended = faults.repaired(frame, settings=settings)
        write_vector(repaired, mended.frame)
        lines.append(f"repaired: {', '.join(mended.changes) or 'nothing had to be'}: {repaired}")
    return Summary(lines=tuple(lines), done=len(frame), failed=failed, rows=records(faults.summary(found)))


def label_stats(labels: Config | Path, *, layer: str | None = None, by: str | None = None) -> Summary:
    """What an inventory holds, as the paper's Table 2: objects, objects of a date, median area.

    Args:
        labels: A configuration, or a vector file.
        layer: Of a vector file with several, the one that is meant; a configuration says it itself.
        by: Column of sites; unset: that of regions, where there is one.

    Raises:
        ConfigError: If the configuration has no polygons.
        DataError: If the file cannot be read.
        LabelError: If it has no column ``by``.
    """
    frame, settings = _polygons(labels, layer, needs_crs=True)
    known = inventory.columns_of(frame)
    table = inventory.site_table(frame, by=by or settings.region, scene=settings.scene, date=known.start)
    for column in ("median_m2", "total_m2"):
        table[column] = table[column].map("{:,.0f}".format).str.replace(",", " ")
    return Summary(
        lines=(f"{counted(len(frame), 'polygon')}; areas in {EQUAL_AREA}, equal-area",),
        rows=records(table),
    )


def convert_labels(
    source: Path,
    out: Path,
    *,
    to: Literal["arts", "thawmap"],
    layer: str | None = None,
    creator: str | None = None,
    image: str | None = None,
    resolution: float | None = None,
) -> Summary:
    """Labels in the columns of ARTS, or back, losing nothing.

    Args:
        source: Vector file; it is not changed.
        out: Vector file to write.
        to: Columns of ARTS, or those of thawmap.
        layer: Of a file with several, the one that is meant.
        creator: Who digitised, where the labels do not say it.
        image: What it was digitised on, such as PlanetScope, where they do not say it.
        resolution: Of that in m, where they do not say it.

    Raises:
        ConfigError: If ``out`` is ``source``.
        DataError: If a file cannot be read or written.
        LabelError: If a required field is nowhere, or a date or class has no form there.
    """
    _check_new(LabelSettings(path=source), out)
    frame = _read(source, layer, needs_crs=True)
    if to == "arts":
        made = inventory.to_arts(frame, creator=creator, source=image, resolution=resolution)
    else:
        made = inventory.from_arts(frame)
    write_vector(out, made)
    return Summary(lines=(f"{counted(len(made), 'polygon')} in the columns of {to}: {out}",), done=len(made))


def _polygons(labels: Config | Path, layer: str | None, *, needs_crs: bool) -> tuple[gpd.GeoDataFrame, LabelSettings]:
    """The polygons, and what their columns mean: as settings say, else by the names that are usual."""
    if isinstance(labels, Config):
        if labels.labels is None or labels.labels.path is None:
            msg = "the configuration has no polygons; name their file in 'labels.path'"
            raise ConfigError(msg)
        if layer is not None:
            msg = f"the configuration says which layer its labels are; change 'labels.layer', and leave out {layer!r}"
            raise ConfigError(msg)
        return _read(labels.labels.path, labels.labels.layer, needs_crs=needs_crs), labels.labels
    frame = _read(labels, layer, needs_crs=needs_crs)
    known = inventory.columns_of(frame)
    named = {"scene": known.scene, "region": known.region}
    said = {role: column for role, column in named.items() if column is not None and frame[column].notna().any()}
    return frame, LabelSettings(path=labels, **said)


def _read(path: Path, layer: str | None, *, needs_crs: bool) -> gpd.GeoDataFrame:
    """The rows of a file of labels.

    Raises:
        LabelError: If there is none.
    """
    frame = read_vector(path, layer=layer, needs_crs=needs_crs)
    if frame.empty:
        msg = f"{path} holds no polygon; digitise some, or name another file"
        raise LabelError(msg)
    return frame


def _look(candidate: Candidate, project: Project) -> tuple[str, faults.Footprint]:
    """A scene's id, and the ground that it shows."""
    scene = project.open(candidate, labelled=False)
    bands, *_ = project.sources
    first = min(scene.readings)
    seen = np.isfinite(preview(scene, [first], [bands], size=_COARSE)[first])
    return scene.id, faults.footprint(scene, seen)


def _check_new(settings: LabelSettings, *outs: Path | None) -> None:
    """Refuse to write over the file that is read, over any other, or twice into one."""
    named = [out for out in outs if out is not None]
    if len({out.resolve() for out in named}) < len(named):
        msg = f"{named[0]} is named for two results; name a file for each"
        raise ConfigError(msg)
    for out in named:
        if settings.path is not None and out.resolve() == settings.path.resolve():
            msg = f"{out} is the file that is read, and inputs are never changed; name another"
            raise ConfigError(msg)
        check_new(out)

"""The verb labels and its own verbs: check, stats and convert digitised objects."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np

from thawmap.config import Config, LabelSettings
from thawmap.data.labels import faults, inventory
from thawmap.data.labels.polygons import IGNORE, PolygonLabels, read_extent
from thawmap.data.project import Project
from thawmap.data.sources.base import Candidate, Scene
from thawmap.data.stack import preview
from thawmap.data.vector.io import read_vector, write_vector
from thawmap.errors import ConfigError, LabelError
from thawmap.files.guard import check_new
from thawmap.geo.crs import EQUAL_AREA
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.pipeline.progress import Progress, Summary, records, run_all
from thawmap.text import counted

_COARSE_PX = 256  # longer side of a scene, in which the ground that it shows is measured
_BLOCK_PX = 2048  # side of the blocks in which labels are counted


def labels(config: Config, *, progress: Progress | None = None) -> Summary:
    """Count labelled polygons and pixels of every scene: a row for each.

    Raises:
        ConfigError: If the configuration has no labels, or no scene is found.
        LabelError: If the labels cannot be used.
    """
    project = Project(config)
    scenes, failed = labelled_scenes(project, progress)
    rows, uncounted = run_all(partial(_counted, project=project), scenes, config, progress, "labels")
    lines = (
        *lost_labels(project, scenes, needed=False),
        f"{sum(row['object px'] for row in rows)} object pixels in {counted(len(rows), 'scene')}",
    )
    return Summary(lines=lines, done=len(rows), failed={**failed, **uncounted}, rows=rows)


def labelled_scenes(project: Project, progress: Progress | None) -> tuple[list[Scene], dict[str, str]]:
    """Open a project's labelled scenes; return them, and messages of failures by id.

    Raises:
        ConfigError: If the configuration has no labels, or no scene is found.
        LabelError: If the labels cannot be used, or name none of the scenes.
    """
    return run_all(project.open, project.labelled_candidates(), project.config, progress, "scenes", in_process=True)


def _counted(scene: Scene, project: Project) -> dict[str, Any]:
    """Return a scene's polygons, object pixels and ignored pixels as a table row."""
    counts = np.zeros(256, np.int64)
    for block in Window.of_shape((scene.geobox.height, scene.geobox.width)).blocks(_BLOCK_PX):
        target = project.labels.burn(scene, window_geobox(scene.geobox, block))
        counts += np.bincount(target.ravel(), minlength=256)
    outlines = project.labels.outlines(scene)
    return {
        "scene": scene.id,
        "region": scene.region or "",
        "part": project.part(scene),
        "polygons": "" if outlines is None else len(outlines),
        "object px": int(counts[1]),
        "ignored px": int(counts[IGNORE]),
        "object share": f"{counts[1] / counts.sum():.2%}",
    }


def lost_labels(project: Project, scenes: Sequence[Scene], *, needed: bool) -> tuple[str, ...]:
    """Return one warning in a tuple if labels lie on no scene or hardly any, else ().

    Args:
        project: Names the labels.
        scenes: The scenes.
        needed: Whether such labels are of no use, even where nothing explains where they lie.

    Raises:
        LabelError: If they are needed, or it is known what is wrong with them.
    """
    labels = project.labels
    lost = labels.astray(scenes) if isinstance(labels, PolygonLabels) else None
    if lost is None:
        return ()
    if needed or lost.explained:
        remedy = "correct that" if lost.explained else "see its CRS, and whether the scenes show its ground"
        msg = f"{lost.message}; {remedy}"
        raise LabelError(msg)
    return (lost.message,)


def check_labels(
    labels: Config | Path,
    *,
    layer: str | None = None,
    out: Path | None = None,
    repaired: Path | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Check digitised polygons; return a row for each kind of fault.

    On request it writes the faults, and a repaired copy.

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
    footprints: dict[str, faults.Footprint] = {}
    failed: dict[str, str] = {}
    if isinstance(labels, Config):
        project = Project(labels)
        ground = partial(_ground, project=project)
        pairs, failed = run_all(ground, project.candidates(), labels, progress, "scenes")
        footprints = dict(pairs)
    table = faults.check(frame, settings=settings, scenes=footprints, extent=extent)
    table = table[~((table["kind"] == "unknown scene") & table["scene"].isin(failed))]
    lines = [f"{counted(len(table), 'fault')} in {counted(len(frame), 'polygon')}"]
    if out is not None:
        write_vector(out, table)
        lines.append(f"faults: {out}")
    if repaired is not None:
        mended = faults.repaired(frame, settings=settings)
        write_vector(repaired, mended.frame)
        lines.append(f"repaired: {', '.join(mended.changes) or 'nothing had to be'}: {repaired}")
    return Summary(lines=tuple(lines), done=len(frame), failed=failed, rows=records(faults.summary(table)))


def label_stats(labels: Config | Path, *, layer: str | None = None, by: str | None = None) -> Summary:
    """Count an inventory's objects by site, with median areas, as the paper's Table 2.

    Objects of a date are counted too.

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
    columns = inventory.columns_of(frame)
    table = inventory.site_table(frame, by=by or settings.region, scene=settings.scene, date=columns.start)
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
    """Copy labels into a file with the columns of ARTS, or back into those of thawmap.

    Nothing is lost.

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
        converted = inventory.to_arts(frame, creator=creator, source=image, resolution=resolution)
    else:
        converted = inventory.from_arts(frame)
    write_vector(out, converted)
    lines = (f"{counted(len(converted), 'polygon')} in the columns of {to}: {out}",)
    return Summary(lines=lines, done=len(converted))


def _polygons(labels: Config | Path, layer: str | None, *, needs_crs: bool) -> tuple[gpd.GeoDataFrame, LabelSettings]:
    """Read labels as a GeoDataFrame, and settings that say what its columns mean.

    The settings are those of the configuration; for a file alone, columns are known by their usual names.
    """
    if isinstance(labels, Config):
        if labels.labels is None or labels.labels.path is None:
            msg = "the configuration has no polygons; name their file in 'labels.path'"
            raise ConfigError(msg)
        if layer is not None:
            msg = f"the configuration says which layer its labels are; change 'labels.layer', and leave out {layer!r}"
            raise ConfigError(msg)
        return _read(labels.labels.path, labels.labels.layer, needs_crs=needs_crs), labels.labels
    frame = _read(labels, layer, needs_crs=needs_crs)
    columns = inventory.columns_of(frame)
    named = {"scene": columns.scene, "region": columns.region}
    filled = {role: column for role, column in named.items() if column is not None and frame[column].notna().any()}
    return frame, LabelSettings(path=labels, **filled)


def _read(path: Path, layer: str | None, *, needs_crs: bool) -> gpd.GeoDataFrame:
    """Read the polygons of a vector file as a GeoDataFrame; refuse an empty file.

    Raises:
        LabelError: If there is none.
    """
    frame = read_vector(path, layer=layer, needs_crs=needs_crs)
    if frame.empty:
        msg = f"{path} holds no polygon; digitise some, or name another file"
        raise LabelError(msg)
    return frame


def _ground(candidate: Candidate, project: Project) -> tuple[str, faults.Footprint]:
    """Return a scene's id and the ground that its first band shows, seen coarsely."""
    scene = project.open(candidate, labelled=False)
    bands, *_ = project.sources
    band = min(scene.readings)
    shows = np.isfinite(preview(scene, [band], [bands], size=_COARSE_PX)[band])
    return scene.id, faults.footprint(scene, shows)


def _check_new(settings: LabelSettings, *outs: Path | None) -> None:
    """Refuse output files that exist, that are the labels' own, or that are the same."""
    named = [out for out in outs if out is not None]
    if len({out.resolve() for out in named}) < len(named):
        msg = f"{named[0]} is named for two results; name a file for each"
        raise ConfigError(msg)
    for out in named:
        if settings.path is not None and out.resolve() == settings.path.resolve():
            msg = f"{out} is the file that is read, and inputs are never changed; name another"
            raise ConfigError(msg)
        check_new(out)

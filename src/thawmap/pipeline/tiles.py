"""The verb tiles: cut the labelled scenes into a tile store."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from thawmap.config import Config
from thawmap.data.labels.polygons import IGNORE
from thawmap.data.overview import OVERVIEW_PX
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.data.stack import check_ranges, preview
from thawmap.errors import DataError
from thawmap.geo.crs import crs_of
from thawmap.pipeline._inputs import how_read, identity, inputs
from thawmap.pipeline.labels import labelled_scenes, lost_labels
from thawmap.pipeline.progress import Progress, Summary, run_all, still_due
from thawmap.provenance import fingerprint, stamps
from thawmap.text import counted
from thawmap.train.tiles.cut import (
    FOOTPRINT_CRS,
    FORMAT,
    check_replaceable,
    disk_bytes,
    is_finished,
    tile_count,
    write_tiles,
)
from thawmap.train.tiles.store import check_store, collect_index


def tiles(config: Config, out: Path, *, dry_run: bool = False, progress: Progress | None = None) -> Summary:
    """Cut the labelled scenes into tiles for training, stored in ``out``.

    Only what is missing, or was made from something else, is cut.

    Raises:
        ConfigError: If the configuration has no labels, no scene is found, or ``out`` is where inputs lie.
        DataError: If ``out`` holds something else, or no scene could be cut.
        LabelError: If the labels cannot be used.
    """
    project = Project(config)
    scenes, failed = labelled_scenes(project, progress)
    return cut_tiles(project, scenes, failed, out, dry_run=dry_run, progress=progress)


def cut_tiles(
    project: Project,
    scenes: Sequence[Scene],
    failed: Mapping[str, str],
    out: Path,
    *,
    dry_run: bool,
    progress: Progress | None,
) -> Summary:
    """Cut opened scenes into the tile store in ``out``, or say what would be cut.

    Args:
        project: What they belong to; its configuration says how they are cut.
        scenes: The scenes (`labelled_scenes`).
        failed: Messages of those that could not be opened, by id; they go into the summary.
        out: Folder of the tile store.
        dry_run: Say what would be cut, and cut nothing.
        progress: Is told what happens.

    Raises:
        ConfigError: If ``out`` is where inputs lie.
        DataError: If ``out`` holds something else, or no scene could be cut.
        LabelError: If the labels lie on none of the scenes.
    """
    config = project.config
    project.check_outputs([out], scenes, replaced=[out / f"{scene.id}.zarr" for scene in scenes])
    check_store(out)
    lost_labels(project, scenes, needed=True)
    todo, stuck = still_due(partial(_is_due, config=config, out=out), scenes)
    finished, failed = len(scenes) - len(todo) - len(stuck), {**failed, **stuck}
    if dry_run:
        plan, unusable = run_all(partial(_planned, project=project), todo, config, progress, "plan")
        failed |= unusable
        most, megabytes, pixels = (sum(row[name] for row in plan) for name in ("tiles", "MB", "Mpx"))
        line = (
            f"would cut {counted(len(plan), 'scene')} of {pixels:.1f} million pixels: at most {counted(most, 'tile')}, "
            f"which take about {megabytes / 1000:.2g} GB into {out}; {finished} are there, {len(failed)} cannot be used"
        )
        return Summary(lines=(line,), skipped=finished, failed=failed, rows=plan)
    _, broken = run_all(partial(_cut, project=project, out=out), todo, config, progress, "tiles")
    failed |= broken
    cut = [scene.id for scene in scenes if scene.id not in failed]
    if not cut:
        msg = f"none of {counted(len(failed), 'scene')} could be cut; the first: {next(iter(failed.values()))}"
        raise DataError(msg)
    index = collect_index(out, cut, config.input_layers)
    extent = f"of {counted(index['scene'].nunique(), 'scene')} at {counted(index['place'].nunique(), 'place')}"
    line = f"{counted(len(index), 'tile')}, {index['positive'].sum()} with objects, {extent}: {out}"
    return Summary(lines=(line,), done=len(todo) - len(broken), skipped=finished, failed=failed)


def footprints(scenes: Sequence[Scene]) -> gpd.GeoDataFrame:
    """Return a GeoDataFrame of scenes: id, region, and the outline as a polygon.

    It is in the CRS of the tiles' footprints.
    """
    frames = [
        gpd.GeoDataFrame(
            {"scene": [scene.id], "region": [scene.region]},
            geometry=[scene.geobox.extent.geom],
            crs=crs_of(scene.geobox),
        ).to_crs(FOOTPRINT_CRS)
        for scene in scenes
    ]
    return gpd.GeoDataFrame(pd.concat(frames, ignore_index=True))


def _is_due(scene: Scene, config: Config, out: Path) -> bool:
    """Return whether a scene's tiles are missing, or made from something else.

    Raises:
        DataError: If its inputs cannot be found, or a folder that must stay has its name.
    """
    if is_finished(out, scene, _fingerprint(scene, config)):
        return False
    check_replaceable(out, scene.id)
    return True


def _cut(scene: Scene, project: Project, out: Path) -> int:
    """Cut one scene into the store; return the number of its tiles."""
    return write_tiles(
        out,
        scene,
        config=project.config,
        sources=project.sources,
        labels=project.labels,
        fingerprint=_fingerprint(scene, project.config),
    )


def _fingerprint(scene: Scene, config: Config) -> str:
    """Return a hash of the files, grid and settings that make a scene's tiles."""
    resolved = config.as_json()
    return fingerprint(
        {
            "format": FORMAT,
            "scene": identity(scene),
            "files": [*inputs(scene, config), *(stamps(path) for path in Project(config).label_files)],
            **{name: resolved[name] for name in ("layers", "labels", "tiles")},
            **how_read(resolved),
        }
    )


def _planned(scene: Scene, project: Project) -> dict[str, Any]:
    """Estimate the most tiles and megabytes of a scene, as a table row; cut nothing.

    Raises:
        DataError: If the scene cannot be cut.
        LabelError: If its labels cannot be used.
    """
    config, shape = project.config, (scene.geobox.height, scene.geobox.width)
    overview = preview(scene, project.layers, project.sources, size=OVERVIEW_PX)
    check_ranges(overview, config.input_layers, scene_id=scene.id)
    coarse = scene.geobox.zoom_to(min(OVERVIEW_PX, max(shape)))
    labelled = project.labels.burn(scene, coarse) != IGNORE
    most = tile_count(shape, config.tiles)
    return {
        "scene": scene.id,
        "region": scene.region or "",
        "part": project.part(scene),
        "px": f"{shape[1]}x{shape[0]}",
        "usable": f"{overview['valid'].mean():.0%}",
        "labelled": f"{labelled.mean():.0%}",
        "tiles": most,
        "MB": round(most * disk_bytes(config, project.sources) / 1e6, 1),
        "Mpx": shape[0] * shape[1] / 1e6,
    }

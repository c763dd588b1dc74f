"""Inputs of tiles and maps, as results record them."""

from typing import Any

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.geo.crs import crs_of
from thawmap.provenance import stamps, without


def inputs(scene: Scene, config: Config) -> list[list[dict[str, Any]]]:
    """Return stamps of a scene's files and its sources' files: a list for each file.

    Sorted by path. A list holds the stamp of the file, and of those with the same stem beside it.
    """
    paths = {path for source in Project(config).sources for path in source.files(scene)} | set(scene.files.values())
    return [stamps(path) for path in sorted(paths)]


def how_read(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return sections 'scenes' and 'sources' less their paths, tables and regions.

    They decide values; files are told apart by their stamps.
    """
    return {name: without(resolved[name], {"path", "table", "region"}) for name in ("scenes", "sources")}


def identity(scene: Scene) -> dict[str, Any]:
    """Return a scene's acquisition time, region and grid as a dict of JSON values."""
    return {
        "acquired": None if scene.acquired is None else scene.acquired.isoformat(),
        "region": scene.region,
        "crs": crs_of(scene.geobox),
        "shape": list(scene.geobox.shape),
        "transform": list(scene.geobox.transform)[:6],
    }

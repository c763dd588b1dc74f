"""Inputs of tiles and maps, as results record them."""

from typing import Any

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.geo.crs import crs_of
from thawmap.provenance import stamps, without


def inputs(scene: Scene, config: Config) -> list[list[dict[str, Any]]]:
    """Return the stamps of all files that a scene's layers and labels come from."""
    paths = {path for source in Project(config).sources for path in source.files(scene)} | set(scene.files.values())
    return [stamps(path) for path in sorted(paths)]


def how_read(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of scenes and sources that decide values, without paths.

    Files are told apart by their stamps.
    """
    return {name: without(resolved[name], {"path", "table", "region"}) for name in ("scenes", "sources")}


def identity(scene: Scene) -> dict[str, Any]:
    """Return acquisition time, region and grid of a scene, as results record them."""
    return {
        "acquired": None if scene.acquired is None else scene.acquired.isoformat(),
        "region": scene.region,
        "crs": crs_of(scene.geobox),
        "shape": list(scene.geobox.shape),
        "transform": list(scene.geobox.transform)[:6],
    }

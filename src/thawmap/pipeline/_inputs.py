"""Inputs of tiles and maps, as results record them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.data.sources.elevation import ElevationSource, dem_versions
from thawmap.errors import ThawmapError
from thawmap.geo.crs import crs_of
from thawmap.model.bundle import Bundle
from thawmap.provenance import stamps, without


def inputs(scene: Scene, config: Config) -> list[list[dict[str, Any]]]:
    """Return stamps of a scene's files and its sources' files: a list for each file.

    Sorted by path. A list holds the stamp of the file, and of those with the same stem beside it.
    """
    paths = {path for source in Project(config).sources for path in source.files(scene)} | set(scene.files.values())
    return [stamps(path) for path in sorted(paths)]


def data_versions(scenes: Iterable[Scene], config: Config) -> dict[str, list[str]]:
    """Return versions of the elevation under scenes, as {"elevation": [...]}.

    Empty where nothing says them.
    """
    files = {
        path
        for source in Project(config).sources
        if isinstance(source, ElevationSource)
        for scene in scenes
        for path in _files_under(source, scene)
    }
    versions = dem_versions(files)
    return {"elevation": versions} if versions else {}


def _files_under(source: ElevationSource, scene: Scene) -> Sequence[Path]:
    """Return a source's files under a scene.

    None where there are none, which mapping and cutting tell.
    """
    try:
        return source.files(scene)
    except ThawmapError:
        return ()


def version_note(bundle: Bundle, versions: Mapping[str, Sequence[str]]) -> str | None:
    """Return a sentence if a bundle was trained on other versions of elevation.

    Else None.
    """
    data = bundle.provenance.get("data")
    trained = data.get("elevation") if isinstance(data, Mapping) else None
    found = versions.get("elevation")
    if not trained or not found or set(found) <= set(trained):
        return None
    return (
        f"note: bundle {bundle.id} was trained with elevation of {', '.join(trained)}, and here is that of "
        f"{', '.join(found)}; heights and gaps of versions differ"
    )


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

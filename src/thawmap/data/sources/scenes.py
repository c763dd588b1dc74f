"""Scenes of any kind of files: found as candidates, and opened by their own reader."""

from collections.abc import Sequence
from pathlib import Path

from thawmap.config import PlanetScopeScenes, RasterScenes, SceneSettings
from thawmap.data.sources import planetscope, rasters, sentinel2
from thawmap.data.sources.base import Candidate, Scene
from thawmap.errors import DataError


def candidates(settings: SceneSettings, *, paths: Sequence[Path] = ()) -> list[Candidate]:
    """Return the candidates that the settings name, or those at ``paths``, by id.

    Raises:
        ConfigError: If there is none, or two have one id.
    """
    if isinstance(settings, RasterScenes):
        return rasters.candidates(settings, paths=paths)
    if isinstance(settings, PlanetScopeScenes):
        return planetscope.candidates(settings, paths=paths)
    return sentinel2.candidates(settings, paths=paths)


def open_scene(candidate: Candidate, settings: SceneSettings) -> Scene:
    """Open a candidate as a scene by its kind of files; refuse one at fault.

    Raises:
        DataError: If it is at fault, or a file is missing or damaged.
    """
    if candidate.fault is not None:
        raise DataError(candidate.fault)
    if isinstance(settings, RasterScenes):
        return rasters.open_scene(candidate, settings)
    if isinstance(settings, PlanetScopeScenes):
        return planetscope.open_scene(candidate, settings)
    return sentinel2.open_scene(candidate, settings)

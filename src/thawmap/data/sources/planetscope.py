"""Scenes as delivered."""

from collections.abc import Sequence
from pathlib import Path

from thawmap.config import PlanetScopeScenes
from thawmap.data.sources.base import Candidate, Scene
from thawmap.errors import DataError


def candidates(settings: PlanetScopeScenes, *, places: Sequence[Path] = ()) -> list[Candidate]:
    """The scenes."""
    raise DataError(str((settings, places)))


def open_scene(candidate: Candidate, settings: PlanetScopeScenes) -> Scene:
    """The scene."""
    raise DataError(str((candidate, settings)))

"""Processing of a scene: what was made of its numbers, as its names and metadata tell."""

import re

from thawmap.data.sources.base import Scene
from thawmap.data.sources.metadata import BASELINE, read_baseline

_MOST_ABOVE = 4  # folders above a band in a SAFE


def processing(scene: Scene) -> str:
    """Return how a scene was processed, such as "baseline 05.11"; "" if unknown.

    Raises:
        DataError: If its metadata cannot be read.
    """
    if scene.sensor == "planetscope":
        return _of_planetscope(scene)
    return _of_sentinel2(scene) if scene.sensor == "sentinel2" else ""


def _of_planetscope(scene: Scene) -> str:
    """Return what the name of a PlanetScope image says of its numbers."""
    words = set(re.split("[_.]", scene.files["image"].name.lower()))
    reflectance = "surface reflectance" if "sr" in words else "top-of-atmosphere"
    return f"{reflectance}, harmonized" if "harmonized" in words else reflectance


def _of_sentinel2(scene: Scene) -> str:
    """Return a Sentinel-2 scene's processing baseline, by its names or metadata."""
    above = (path.parts[-1 - _MOST_ABOVE : -1] for path in scene.files.values())
    names = [scene.id, *(path.stem for path in scene.files.values()), *(name for parts in above for name in parts)]
    by_name = next((f"{match[1]}.{match[2]}" for match in map(BASELINE.search, names) if match), None)
    baseline = by_name or next(filter(None, map(read_baseline, scene.files.values())), None)
    return "" if baseline is None else f"baseline {baseline}"

"""Layers in a scene's own files: scaled bands, and the usable pixels by masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from thawmap.data.raster.io import read_raster
from thawmap.data.sources.base import Reading, Scene

OPTICAL = frozenset({"blue", "green", "red", "nir"})
"""Layers that every optical sensor known to thawmap has in its own files."""


@dataclass(frozen=True, slots=True)
class BandSource:
    """A source that reads bands by `Scene.readings` and `Scene.masks`.

    Attributes:
        layers: Names of the layers that scenes' readings have; one scene may lack some.
    """

    layers: frozenset[str]

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        """Return a dict of the scene's layers (y, x) on a grid, and `valid` by its masks.

        Float32 in physical units, NaN where missing.

        Raises:
            DataError: If a file is missing, damaged, without CRS, or without a band.
        """
        wanted = {name: reading for name, reading in scene.readings.items() if name in layers}
        # bands of one file that are read alike are read together
        groups: dict[tuple[str, str | None, float | None], dict[str, Reading]] = {}
        for name, reading in wanted.items():
            groups.setdefault((reading.file, reading.resampling, reading.nodata), {})[name] = reading
        stack: dict[str, npt.NDArray[Any]] = {}
        for readings in groups.values():
            stack |= _read_bands(scene, geobox, readings)
        if scene.masks:
            files = sorted({mask.file for mask in scene.masks})
            stack["valid"] = np.logical_and.reduce([_read_masks(scene, geobox, file) for file in files])
        return stack

    def files(self, scene: Scene) -> Sequence[Path]:
        """Return the paths of all files of a scene, in the order of their roles."""
        return [path for _, path in sorted(scene.files.items())]


def _read_bands(scene: Scene, geobox: GeoBox, readings: Mapping[str, Reading]) -> dict[str, npt.NDArray[np.float32]]:
    """Return a dict of layers (y, x) from bands of one file, in physical units."""
    first = next(iter(readings.values()))
    bands = [reading.band for reading in readings.values()]
    values = read_raster(scene.files[first.file], geobox, bands=bands, resampling=first.resampling, nodata=first.nodata)
    with np.errstate(over="ignore"):  # infinite is missing
        values *= np.array([reading.scale for reading in readings.values()], np.float32)[:, None, None]
        values += np.array([reading.offset for reading in readings.values()], np.float32)[:, None, None]
    return dict(zip(readings, values, strict=True))


def _read_masks(scene: Scene, geobox: GeoBox, file: str) -> npt.NDArray[np.bool_]:
    """Return a bool array (y, x): True where all masks of one file say usable.

    Each band of the file is read once.
    """
    masks = [mask for mask in scene.masks if mask.file == file]
    bands = sorted({band for mask in masks for band in mask.bands})
    stored = dict(zip(bands, read_raster(scene.files[file], geobox, bands=bands, resampling="nearest"), strict=True))
    usable: npt.NDArray[np.bool_] = np.logical_and.reduce(
        [np.isin(stored[band], mask.usable) for mask in masks for band in mask.bands]
    )
    return usable

"""Layers that lie in the scene's own files: bands, scaled, and what the sensor's masks say of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from thawmap.data.raster.io import read_raster
from thawmap.data.sources.base import Reading, Scene

OPTICAL = frozenset({"blue", "green", "red", "nir"})
"""What every optical sensor that thawmap knows has in its own files."""


@dataclass(frozen=True, slots=True)
class BandSource:
    """Reads what `Scene.readings` and `Scene.masks` say.

    Attributes:
        layers: Names of the layers that scenes' readings have; one scene may lack some.
    """

    layers: frozenset[str]

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        """The layers that the scene has (y, x), float32 in physical units, NaN where missing, and `valid` by masks.

        Raises:
            DataError: If a file is missing, damaged, without CRS, or without a band.
        """
        wanted = {name: reading for name, reading in scene.readings.items() if name in layers}
        made: dict[str, npt.NDArray[Any]] = {}
        for alike in _alike(wanted):
            made |= _read_bands(scene, geobox, alike)
        if scene.masks:
            files = sorted({mask.file for mask in scene.masks})
            made["valid"] = np.logical_and.reduce([_read_masks(scene, geobox, file) for file in files])
        return made

    def files(self, scene: Scene) -> Sequence[Path]:
        """Every file of the scene."""
        return [path for _, path in sorted(scene.files.items())]


def _alike(readings: Mapping[str, Reading]) -> Iterator[dict[str, Reading]]:
    """Bands of one file that can be read together."""
    groups: dict[tuple[str, str | None, float | None], dict[str, Reading]] = {}
    for name, reading in readings.items():
        groups.setdefault((reading.file, reading.resampling, reading.nodata), {})[name] = reading
    yield from groups.values()


def _read_bands(scene: Scene, geobox: GeoBox, alike: Mapping[str, Reading]) -> dict[str, npt.NDArray[np.float32]]:
    """Layers of one file, in physical units."""
    first = next(iter(alike.values()))
    bands = [reading.band for reading in alike.values()]
    values = read_raster(scene.files[first.file], geobox, bands=bands, resampling=first.resampling, nodata=first.nodata)
    with np.errstate(over="ignore"):  # infinite is missing
        values *= np.array([reading.scale for reading in alike.values()], np.float32)[:, None, None]
        values += np.array([reading.offset for reading in alike.values()], np.float32)[:, None, None]
    return dict(zip(alike, values, strict=True))


def _read_masks(scene: Scene, geobox: GeoBox, file: str) -> npt.NDArray[np.bool_]:
    """Which pixels (y, x) all masks of a file call usable; each of its bands is read once."""
    masks = [mask for mask in scene.masks if mask.file == file]
    bands = sorted({band for mask in masks for band in mask.bands})
    stored = dict(zip(bands, read_raster(scene.files[file], geobox, bands=bands, resampling="nearest"), strict=True))
    usable: npt.NDArray[np.bool_] = np.logical_and.reduce(
        [np.isin(stored[band], mask.usable) for mask in masks for band in mask.bands]
    )
    return usable

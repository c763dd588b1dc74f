"""Layers that lie in the scene's own files: bands, scaled, and what the sensor's masks say of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from thawmap.data.io import read_raster
from thawmap.data.sources.base import Reading, Scene

OPTICAL = frozenset({"blue", "green", "red", "nir"})
"""What every optical sensor that thawmap knows has in its own files."""


@dataclass(frozen=True, slots=True)
class BandSource:
    """Reads what `Scene.readings` and `Scene.masks` say.

    Attributes:
        layers: Names of the layers that every scene's readings have.
    """

    layers: frozenset[str]

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> xr.Dataset:
        """The layers (y, x), float32 in physical units, NaN where missing, and `valid` where there is a mask.

        Raises:
            DataError: If a file is missing, damaged, without CRS, or without a band.
        """
        stack = xr.Dataset(coords=xr_coords(geobox, dims=("y", "x")))
        wanted = {name: reading for name, reading in scene.readings.items() if name in layers}
        for alike in _alike(wanted):
            first = next(iter(alike.values()))
            read = read_raster(
                scene.files[first.file],
                geobox,
                bands=[reading.band for reading in alike.values()],
                resampling=first.resampling,
                nodata=first.nodata,
            ).values
            for values, (name, reading) in zip(read, alike.items(), strict=True):
                stack[name] = (("y", "x"), values * np.float32(reading.scale) + np.float32(reading.offset))
        if scene.masks:
            usable = np.ones(tuple(geobox.shape), bool)
            for mask in scene.masks:
                stored = read_raster(scene.files[mask.file], geobox, bands=mask.bands, resampling="nearest").values
                usable &= np.isin(stored, mask.usable).all(axis=0)
            stack["valid"] = (("y", "x"), usable)
        return stack

    def files(self, scene: Scene) -> Sequence[Path]:
        """Every file of the scene."""
        return [path for _, path in sorted(scene.files.items())]


def _alike(readings: Mapping[str, Reading]) -> Iterator[dict[str, Reading]]:
    """Bands of one file that can be read together."""
    groups: dict[tuple[str, str | None, float | None], dict[str, Reading]] = {}
    for name, reading in readings.items():
        groups.setdefault((reading.file, reading.resampling, reading.nodata), {})[name] = reading
    yield from groups.values()

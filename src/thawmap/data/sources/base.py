"""A scene, and the protocol of everything that can fill its grid with layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

import xarray as xr
from odc.geo.geobox import GeoBox


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One image of one place at one time; two scenes are equal when their ids are.

    Attributes:
        id: Unique name, safe as a folder name.
        sensor: What took it, such as "planetscope", "sentinel2" or "rasters".
        geobox: The scene's grid: shape, transform and CRS.
        files: Role to file, such as "s2.tif": its full path.
        acquired: UTC time of the image; None where unknown, never invented.
        region: Region that it belongs to, for splits; None where unknown.
    """

    id: str
    sensor: str = field(compare=False)
    geobox: GeoBox = field(compare=False)
    files: Mapping[str, Path] = field(compare=False, repr=False)
    acquired: datetime | None = field(default=None, compare=False)
    region: str | None = field(default=None, compare=False)


class Source(Protocol):
    """Reads layers of a scene onto any grid; never the network."""

    @property
    def layers(self) -> frozenset[str]:
        """Names of the layers that it can read."""
        ...

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> xr.Dataset:
        """The layers (y, x), float32 in physical units, NaN where missing, on exactly ``geobox``.

        A source that knows which pixels its sensor could use adds ``valid`` (y, x), bool, True = usable.

        Raises:
            DataError: If a file is missing, damaged, or without what is asked for.
        """
        ...

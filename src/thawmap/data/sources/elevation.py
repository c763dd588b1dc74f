"""Layers from files beside the scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from odc.geo.geobox import GeoBox

from thawmap.config import ElevationSettings
from thawmap.data.sources.base import Scene
from thawmap.errors import DataError


@dataclass(frozen=True, slots=True)
class ElevationSource:
    """Reads."""

    settings: ElevationSettings

    @property
    def layers(self) -> frozenset[str]:
        """Names."""
        return frozenset()

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> xr.Dataset:
        """The layers."""
        raise DataError(str((scene, geobox, layers)))

    def files(self, scene: Scene) -> Sequence[Path]:
        """The files."""
        raise DataError(str(scene))

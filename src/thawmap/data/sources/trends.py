"""Landsat trends of the tasseled-cap indices (TCVIS): brightness, greenness and wetness, in three bands of tiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from odc.geo.geobox import GeoBox

from thawmap.config import TrendSettings
from thawmap.data.raster.index import tile_sets_under
from thawmap.data.raster.io import RasterInfo
from thawmap.data.raster.mosaic import Content, read_mosaic
from thawmap.data.sources.base import Scene
from thawmap.errors import DataError

_BANDS = {"tc_brightness": 1, "tc_greenness": 2, "tc_wetness": 3}
_PLACE = "sources.trends.path"


@dataclass(frozen=True, slots=True)
class TrendSource:
    """Reads what the settings name."""

    settings: TrendSettings

    @property
    def layers(self) -> frozenset[str]:
        """The three indices."""
        return frozenset(_BANDS)

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        """Trends per decade (y, x), float32, on exactly ``geobox``; NaN where missing.

        Bytes are low + code / 255 x (high - low) (paper, section 2.2.3); files of floats hold the trends themselves.

        Raises:
            DataError: If no file lies under the scene, or one that is needed cannot be used.
            ConfigError: If the place holds no raster.
        """
        settings = self.settings
        content = Content(
            quantity="trend",
            bands=tuple(_BANDS[name] for name in layers),
            setting="sources.trends",
            encoding=self._encoding,
            nodata=settings.nodata,
        )
        tile_sets = tile_sets_under(scene.geobox, geobox, scene_id=scene.id, path=settings.path, setting=_PLACE)
        return dict(zip(layers, read_mosaic(tile_sets, geobox, content), strict=True))

    def files(self, scene: Scene) -> Sequence[Path]:
        """The rasters that the scene touches.

        Raises:
            DataError: If there is none, or none can be used.
            ConfigError: If the place holds no raster.
        """
        return tile_sets_under(
            scene.geobox, scene.geobox, scene_id=scene.id, path=self.settings.path, setting=_PLACE
        ).files(scene.geobox)

    def _encoding(self, info: RasterInfo) -> tuple[float, float]:
        if info.count - info.alpha != len(_BANDS):
            msg = (
                f"{info.path} has {info.count} bands, and trends have three (brightness, greenness, wetness) and "
                f"perhaps an alpha band; correct '{_PLACE}'"
            )
            raise DataError(msg)
        if info.dtype.startswith("float"):
            return 1.0, 0.0
        if info.dtype != "uint8":
            msg = f"{info.path} holds {info.dtype}, and trends are bytes of TCVIS, or floats; convert it to one of them"
            raise DataError(msg)
        return (self.settings.high - self.settings.low) / 255, self.settings.low

"""Landsat trends of tasseled-cap brightness, greenness, wetness (TCVIS), in tiles."""

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
_SETTING = "sources.trends.path"


@dataclass(frozen=True, slots=True)
class TrendSource:
    """A source that reads the trends of the settings' path."""

    settings: TrendSettings

    @property
    def layers(self) -> frozenset[str]:
        """Names of the layers of the three trends."""
        return frozenset(_BANDS)

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        """Return a dict of trends per decade (y, x), on exactly ``geobox``.

        Float32, NaN where missing.

        Bytes are low + code / 255 x (high - low) (paper, section 2.2.3); files of floats hold the trends themselves.

        Raises:
            DataError: If no file lies under the scene, or one that is needed cannot be used.
            ConfigError: If the path holds no raster.
        """
        settings = self.settings
        content = Content(
            quantity="trend",
            bands=tuple(_BANDS[name] for name in layers),
            setting="sources.trends",
            encoding=self._encoding,
            nodata=settings.nodata,
        )
        tile_sets = tile_sets_under(scene.geobox, geobox, scene_id=scene.id, path=settings.path, setting=_SETTING)
        return dict(zip(layers, read_mosaic(tile_sets, geobox, content), strict=True))

    def files(self, scene: Scene) -> Sequence[Path]:
        """Return paths of the trend rasters that a scene touches.

        Raises:
            DataError: If there is none, or none can be used.
            ConfigError: If the path holds no raster.
        """
        return tile_sets_under(
            scene.geobox, scene.geobox, scene_id=scene.id, path=self.settings.path, setting=_SETTING
        ).files(scene.geobox)

    def _encoding(self, info: RasterInfo) -> tuple[float, float]:
        """Return scale and offset of a file's stored numbers; refuse what is no trend.

        Raises:
            DataError: If the file has other bands, or numbers of another type.
        """
        if info.count - info.alpha != len(_BANDS):
            msg = (
                f"{info.path} has {info.count} bands, and trends have three (brightness, greenness, wetness) and "
                f"perhaps an alpha band; correct '{_SETTING}'"
            )
            raise DataError(msg)
        if info.dtype.startswith("float"):
            return 1.0, 0.0
        if info.dtype != "uint8":
            msg = f"{info.path} holds {info.dtype}, and trends are bytes of TCVIS, or floats; convert it to one of them"
            raise DataError(msg)
        return (self.settings.high - self.settings.low) / 255, self.settings.low

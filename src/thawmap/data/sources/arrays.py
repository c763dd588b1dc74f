"""Layers in memory: for tests, for simulated scenes, for arrays of your own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from thawmap.data.sources.base import Scene
from thawmap.errors import DataError
from thawmap.geo.crs import crs_name


class ArraySource:
    """Layers (y, x) in physical units, on one grid; what is not finite is missing.

    Args:
        values: Layer name to its values.
        geobox: Their grid.
        valid: Mask (y, x), bool, True = usable; None where nothing but the values says so.

    Raises:
        DataError: If an array is not of the grid's shape.
    """

    def __init__(
        self,
        values: Mapping[str, npt.NDArray[np.floating]],
        geobox: GeoBox,
        valid: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.layers = frozenset(values)
        self._geobox = geobox
        self._values = dict(values)
        self._valid = valid
        for name, array in (self._values | ({} if valid is None else {"valid": valid})).items():
            if array.shape != tuple(geobox.shape):
                msg = f"layer {name!r} has shape {array.shape}, its grid {tuple(geobox.shape)}; make them agree"
                raise DataError(msg)

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        """Return a dict of layers at a grid's pixel centres from the arrays; NaN beyond.

        They are (y, x), float32, by name, with `valid` where the arrays have it.

        Raises:
            DataError: If a layer is not there, or ``geobox`` has another CRS or is turned against the arrays'
                grid.
        """
        absent = sorted(set(layers) - self.layers)
        if absent:
            names = ", ".join(sorted(self.layers))
            msg = f"scene {scene.id}: no array for layer {absent[0]!r}; there are: {names}"
            raise DataError(msg)
        pixels, inside = self._pixels_under(scene, geobox)
        stack: dict[str, npt.NDArray[Any]] = {}
        for name in layers:
            values = self._values[name][pixels]
            values = np.where(inside & np.isfinite(values), values, np.nan)
            stack[name] = values.astype(np.float32)
        if self._valid is not None:
            stack["valid"] = inside & self._valid[pixels]
        return stack

    def files(self, scene: Scene) -> Sequence[Path]:  # noqa: ARG002 - arrays lie in no file
        """Return an empty tuple: arrays lie in no file."""
        return ()

    def _pixels_under(
        self, scene: Scene, geobox: GeoBox
    ) -> tuple[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]], npt.NDArray[np.bool_]]:
        """Return array indices under a grid's pixel centres, and the mask of those inside.

        The indices, of rows and columns, are clipped to the arrays; the mask (y, x) is True where the centre lies
        inside of them.
        """
        to_pixels = ~self._geobox.transform * geobox.transform
        if geobox.crs != self._geobox.crs or to_pixels.b or to_pixels.d:
            crs = str(self._geobox.crs), str(geobox.crs)
            other = "a turned grid" if crs[0] == crs[1] else crs_name(crs[1])
            msg = f"scene {scene.id}: arrays on {crs_name(crs[0])} cannot be read on {other}; use a grid like theirs"
            raise DataError(msg)
        height, width = self._geobox.shape
        rows = np.floor(to_pixels.e * (np.arange(geobox.shape[0]) + 0.5) + to_pixels.f).astype(np.intp)
        cols = np.floor(to_pixels.a * (np.arange(geobox.shape[1]) + 0.5) + to_pixels.c).astype(np.intp)
        inside = ((rows >= 0) & (rows < height))[:, None] & ((cols >= 0) & (cols < width))
        return np.ix_(rows.clip(0, height - 1), cols.clip(0, width - 1)), inside

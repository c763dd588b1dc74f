"""A scene as a picture with the outlines of what was found in it."""

from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

_OUTLINE = "#56b4e9"  # as predictions in the reports
_PICTURE_PX = 1024  # longer side of a quicklook


def quicklook(picture: xr.Dataset, slumps: gpd.GeoDataFrame) -> npt.NDArray[np.uint8]:
    """The scene (y, x, 3), uint8, in false colour (NIR, red, green), with the slumps' outlines.

    Each layer is stretched between its 2nd and 98th percentile; missing pixels are dark. Without these three
    layers the first layer is shown in grey.
    """
    geobox = picture.odc.geobox
    height, width = geobox.shape
    figure = Figure(figsize=(width / height, 1) if height >= width else (1, height / width), dpi=_PICTURE_PX)
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(_false_colour(picture), extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
    points, ring = shapely.get_coordinates(shapely.get_rings(slumps.geometry.to_numpy()), return_index=True)
    pixels = np.column_stack(~geobox.transform * tuple(points.T))
    rings = np.split(pixels, np.flatnonzero(np.diff(ring)) + 1) if len(ring) else []
    axes.add_collection(LineCollection(rings, colors=_OUTLINE, linewidths=2.2 * 72 / _PICTURE_PX))
    axes.set(xlim=(0, width), ylim=(height, 0))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _false_colour(picture: xr.Dataset) -> npt.NDArray[np.float32]:
    """The picture (y, x, 3), 0..1."""
    names = ["nir", "red", "green"]
    if not set(names) <= set(picture.data_vars):
        names = [next(str(name) for name in picture.data_vars if name != "valid")] * 3
    return np.stack([_stretched(picture[name].to_numpy()) for name in names], axis=-1)


def _stretched(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    known = np.isfinite(values)
    if not known.any():
        return np.full(values.shape, 0.1, np.float32)
    low, high = np.percentile(values[known], [2, 98])
    stretched = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return np.where(known, stretched, 0.1).astype(np.float32)

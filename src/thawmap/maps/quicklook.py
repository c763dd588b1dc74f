"""A scene as a picture with the outlines of its slumps."""

from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from thawmap.data.stack import Stack
from thawmap.maps.colours import FALSE_COLOUR, brightness, brightness_limits

_OUTLINE = "#56b4e9"  # as predictions in the reports
_PICTURE_PX = 1024  # longer side of a quicklook
_WIDTH_PX = 1.8  # of an outline
_RIM_PX = 1.0  # black, on either side of it: seen on snow and bare ground too
_MISSING = 0.35  # grey that neither water nor clouds have
_REFLECTANCES = np.array([(0.03, 0.40), (0.02, 0.18), (0.02, 0.17)], np.float32)
"""Darkest and brightest that is shown of NIR, red, green: the Arctic in summer, without snow and clouds."""
_VEIL = 0.55  # grey over what is seen but was not mapped
_VEILED = 0.6  # its share


def quicklook(picture: Stack, slumps: gpd.GeoDataFrame) -> npt.NDArray[np.uint8]:
    """Return an image (y, x, 3) of a scene in false colour with its slumps' outlines.

    uint8. NIR, red and green are shown as red, green and blue; the longer side has 1024 px.

    A reflectance has one brightness in all pictures, so that two maps can be compared by eye, whatever their masks and
    clouds. What is seen but not valid, and so not mapped, lies under a veil; missing pixels are grey. Without these
    three layers the first layer is shown in grey, between the 2nd and 98th percentile of what the sensor saw.
    """
    geobox = picture.geobox
    height, width = geobox.shape
    figure = Figure(figsize=(width / height, 1) if height >= width else (1, height / width), dpi=_PICTURE_PX)
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(_false_colour(picture), extent=(0, width, height, 0), aspect="auto", interpolation="antialiased")
    points, ring = shapely.get_coordinates(shapely.get_rings(slumps.geometry.to_numpy()), return_index=True)
    pixels = np.column_stack(~geobox.transform * tuple(points.T))
    rings = np.split(pixels, np.flatnonzero(np.diff(ring)) + 1) if len(ring) else []
    for colour, width_px in (("black", _WIDTH_PX + 2 * _RIM_PX), (_OUTLINE, _WIDTH_PX)):
        axes.add_collection(LineCollection(rings, colors=colour, linewidths=width_px * 72 / _PICTURE_PX))
    axes.set(xlim=(0, width), ylim=(height, 0))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _false_colour(picture: Stack) -> npt.NDArray[np.float32]:
    """Return NIR, red, green of a scene, or one layer in grey, as colours (y, x, 3).

    float32, 0..1. Pixels that are not valid lie under a veil, missing ones are grey.
    """
    in_colour = set(FALSE_COLOUR) <= set(picture)
    names = FALSE_COLOUR if in_colour else (next(name for name in picture if name != "valid"),) * 3
    layers = np.stack([picture[name] for name in names], axis=-1)
    is_known, valid = np.isfinite(layers).all(axis=-1, keepdims=True), picture["valid"][..., np.newaxis]
    if not is_known.any():
        return np.full(layers.shape, _MISSING, np.float32)
    low, high = _REFLECTANCES.T if in_colour else brightness_limits(layers[is_known[..., 0]])
    colours = brightness(layers, low.astype(np.float32), high.astype(np.float32))
    veiled = np.where(valid, colours, (1 - _VEILED) * colours + _VEILED * _VEIL)
    return np.where(is_known, veiled, _MISSING).astype(np.float32)

"""Grids of windows."""

from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.grid import Window


def window_geobox(geobox: GeoBox, window: Window) -> GeoBox:
    """Return the grid of a window's pixels; the window may reach beyond its grid."""
    shift = Affine.translation(window.col, window.row)
    return GeoBox((window.height, window.width), geobox.affine * shift, geobox.crs)

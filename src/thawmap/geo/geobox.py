"""The grids of windows."""

from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.grid import Window


def window_geobox(geobox: GeoBox, window: Window) -> GeoBox:
    """The grid of a window, which may reach beyond the raster's own."""
    shift = Affine.translation(window.col, window.row)
    return GeoBox((window.height, window.width), geobox.affine * shift, geobox.crs)

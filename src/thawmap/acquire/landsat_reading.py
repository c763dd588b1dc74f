"""Landsat scenes read onto the grid of an area: indices, and where they can be used.

A scene on the grid's own pixels is read as it is. One of another zone or alignment is taken by the nearest pixel: masks
are bits, which have no mean, and a mean of values would mix what a cloud hides into its neighbours; the nearest pixel
is at most 15 m off along each axis, for all bands alike.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from thawmap.acquire.areas import Area, grown
from thawmap.acquire.http import Http
from thawmap.acquire.landsat_scenes import SceneRow
from thawmap.acquire.remote import Address
from thawmap.acquire.stac.signing import Signer, signed
from thawmap.acquire.trends import BANDS, Usable, Values, is_clear, tasselled_cap, usable
from thawmap.acquire.windows import BesideAreaError, ReadWindow, read_window
from thawmap.config.acquire import LandsatTrends
from thawmap.errors import DataError
from thawmap.geo.crs import crs_of, to_pixels
from thawmap.geo.geobox import window_geobox
from thawmap.geo.shapes import LONLAT, reproject, to_lonlat
from thawmap.grid import Window

PIXEL_M = 30.0
_CORNER_M = 15.0  # edges of Landsat's pixels lie at odd multiples of it
_MARGIN_M = 300.0  # around the area, so that images cut to it have trends at their borders
_POLAR = "EPSG:3413"
_MOST_EAST_M = 600_000.0  # from the meridian of a zone, beyond which an area is too wide for it
_NODE_PX = 32  # between pixels whose places are projected; those between them are interpolated
_SNAP_PX = 1e-3
_CHUNK_PX = 2**15  # computed at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a scene shows of a block.

    Attributes:
        values: Indices (index, y, x), float32.
        valid: Where they can be used (y, x).
        row: First row of both in the block.
        col: First column.
    """

    values: Values
    valid: Usable
    row: int
    col: int


def trend_grid(area: Area) -> GeoBox:
    """Return the grid of an area's trends: pixels of 30 m that coincide with Landsat's own.

    In the UTM zone of the area's middle, with 300 m around the area; in polar stereographic EPSG:3413 for an area that
    reaches more than 600 km east or west of the zone's meridian, or beyond 84 degrees north.
    """
    import geopandas as gpd  # noqa: PLC0415

    outline = grown(area, _MARGIN_M)
    lon, lat = _middle(area)
    crs = f"EPSG:{(32600 if lat >= 0 else 32700) + int((lon + 180) % 360 // 6) + 1}"
    bounds = reproject(gpd.GeoDataFrame(geometry=[outline], crs=LONLAT), crs).shapes[0].bounds
    too_wide = not bounds or max(abs(side - 500_000) for side in (bounds[0], bounds[2])) > _MOST_EAST_M
    if lat > 0 and (too_wide or area.outline.bounds[3] > 84):
        crs = _POLAR
        bounds = reproject(gpd.GeoDataFrame(geometry=[outline], crs=LONLAT), crs).shapes[0].bounds
    left, bottom = (float(np.floor((side - _CORNER_M) / PIXEL_M) * PIXEL_M + _CORNER_M) for side in bounds[:2])
    right, top = (float(np.ceil((side - _CORNER_M) / PIXEL_M) * PIXEL_M + _CORNER_M) for side in bounds[2:])
    return GeoBox.from_bbox((left, bottom, right, top), crs=crs, resolution=PIXEL_M, tight=True)


def _middle(area: Area) -> tuple[float, float]:
    """Return longitude and latitude of an area's middle, wherever 180 degrees lie."""
    import shapely  # noqa: PLC0415

    lon, lat = np.radians(shapely.get_coordinates(shapely.segmentize(area.outline, 0.5))).T
    x, y, z = (np.cos(lat) * np.cos(lon)).mean(), (np.cos(lat) * np.sin(lon)).mean(), np.sin(lat).mean()
    return float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


@dataclass(frozen=True, slots=True)
class BlockReader:
    """Reads scenes onto rows of an area's grid.

    Attributes:
        http: Sends the requests.
        settings: Masks and harmonisation.
        grid: The area's grid.
        rows: The rows of the block.
    """

    http: Http
    settings: LandsatTrends
    grid: GeoBox
    rows: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the block."""
        return self.rows.stop - self.rows.start, self.grid.width

    def read(self, scene: SceneRow, signer: Signer | None) -> Seen | None:
        """Return what a scene shows of the block; None if nothing of it is clear there.

        Masks are read first, so that of a scene that is all cloud nothing else is.

        Raises:
            DataError: If a file is damaged, or lies elsewhere than the scene's others.
            ServiceError: If a file does not come.
        """
        addresses = {name: signed(signer, href) for name, href in scene.assets.items()}
        try:
            quality = self._window(addresses["qa_pixel"])
        except BesideAreaError:
            return None
        if not is_clear(quality.values[0], scene.sensor, dilated_cloud=self.settings.dilated_cloud).any():
            return None
        saturation = self._band(addresses["qa_radsat"], quality, scene)
        numbers = np.concatenate([self._band(addresses[name], quality, scene) for name in BANDS])
        values, valid = self._computed(scene, numbers, quality.values[0], saturation[0])
        return self._placed(values, valid, quality.geobox) if valid.any() else None

    def _window(self, address: Address) -> ReadWindow:
        """Return the window of a file around the block, as stored numbers."""
        outline = _outline(self.grid, self.rows.start, self.rows.stop)
        return read_window(address, outline, margin_px=2, http=self.http)

    def _band(self, address: Address, quality: ReadWindow, scene: SceneRow) -> npt.NDArray[np.uint16]:
        """Return the stored numbers (1, y, x) of a file, of the pixels of QA_PIXEL.

        Raises:
            DataError: If they are others.
        """
        window = self._window(address)
        if window.geobox != quality.geobox or window.values.dtype != np.uint16 or len(window.values) != 1:
            msg = f"{window.source} has other pixels, bands or numbers than QA_PIXEL of {scene.id}; leave the scene out"
            raise DataError(msg)
        return window.values

    def _computed(
        self,
        scene: SceneRow,
        numbers: npt.NDArray[np.uint16],
        quality: npt.NDArray[np.uint16],
        saturation: npt.NDArray[np.uint16],
    ) -> tuple[Values, Usable]:
        """Return indices (index, y, x) and where they can be used (y, x)."""
        settings, (height, width) = self.settings, quality.shape
        values, valid = np.empty((3, height, width), np.float32), np.empty((height, width), np.bool_)
        step = max(_CHUNK_PX // width, 1)
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            part = numbers[:, rows]
            valid[rows] = usable(
                part, quality[rows], saturation[rows], scene.sensor, dilated_cloud=settings.dilated_cloud
            )
            values[:, rows] = tasselled_cap(part, scene.sensor, harmonise=settings.harmonise)
        return values, valid

    def _placed(self, values: Values, valid: Usable, geobox: GeoBox) -> Seen | None:
        """Return values of a scene's pixels on the block's; None if none lies there."""
        height, width = self.shape
        if geobox.crs == self.grid.crs:
            step = ~self.grid.affine * geobox.affine
            row, col = round(step.f), round(step.c)
            off = max(abs(step.f - row), abs(step.c - col), abs(step.a - 1), abs(step.e - 1), abs(step.b), abs(step.d))
            if off < _SNAP_PX:
                block = Window(row=self.rows.start, col=0, height=height, width=width)
                own = Window(row=row, col=col, height=valid.shape[0], width=valid.shape[1])
                shared = block.intersect(own)
                if shared is None:
                    return None
                rows, cols = shared.within(own)
                at = shared.within(block)
                return Seen(values=values[:, rows, cols], valid=valid[rows, cols], row=at[0].start, col=at[1].start)
        row_of, col_of, inside = self._nearest(geobox)
        on_block = valid[row_of, col_of] & inside
        return Seen(values=values[:, row_of, col_of], valid=on_block, row=0, col=0) if on_block.any() else None

    def _nearest(self, geobox: GeoBox) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Usable]:
        """Return row and column (y, x) of the pixels nearest to the block's, and where there are any.

        Interpolated between pixels that are projected, which count from the grid's corner: a block has the values of
        the whole.
        """
        first, last = self.rows.start // _NODE_PX, -(-self.rows.stop // _NODE_PX)
        node_rows = np.arange(first, last + 1) * _NODE_PX
        node_cols = np.arange(-(-self.grid.width // _NODE_PX) + 1) * _NODE_PX
        col, row = np.meshgrid(node_cols + 0.5, node_rows + 0.5)
        x, y = self.grid.affine * (col.ravel(), row.ravel())
        places = [axis.reshape(col.shape) for axis in to_pixels(geobox, self.grid.crs, x, y)]
        rows, cols = np.arange(self.rows.start, self.rows.stop), np.arange(self.grid.width)
        source_col, source_row = (_interpolated(place, rows - node_rows[0], cols) for place in places)
        with np.errstate(invalid="ignore"):
            inside = (source_row >= 0) & (source_row < geobox.height) & (source_col >= 0) & (source_col < geobox.width)
        row_of, col_of = (np.where(inside, axis, 0).astype(np.intp) for axis in (source_row, source_col))
        return row_of, col_of, inside


@lru_cache(maxsize=16)
def _outline(grid: GeoBox, top: int, bottom: int) -> BaseGeometry:
    """Return the outline of rows of a grid in EPSG:4326."""
    block = window_geobox(grid, Window(row=top, col=0, height=bottom - top, width=grid.width))
    return to_lonlat(block.extent.geom, crs_of(grid))


def _interpolated(
    nodes: npt.NDArray[np.float64], rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Return values (y, x) at rows and columns, bilinear between nodes."""
    down, right = rows // _NODE_PX, cols // _NODE_PX
    row_weight, col_weight = ((axis % _NODE_PX / _NODE_PX) for axis in (rows, cols))
    in_rows = nodes[down] * (1 - row_weight)[:, None] + nodes[down + 1] * row_weight[:, None]
    values: npt.NDArray[np.float64] = in_rows[:, right] * (1 - col_weight) + in_rows[:, right + 1] * col_weight
    return values

"""Rasters read north-up, in whatever order their pixels are stored.

A network has learnt slopes and shadows on pictures with north above: a mirrored or turned picture of the same ground
would get another map. Grids that are turned by other angles come as near to north-up as quarter turns and mirrors can
bring them; nothing is resampled.
"""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from affine import Affine
from rasterio.windows import Window as FileWindow

_SWAP = Affine(0, 1, 0, 1, 0, 0)  # of columns and rows


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """The order of stored pixels: rows and columns swapped first, then each reversed.

    Attributes:
        swapped: True if stored rows are columns.
        rows: True if rows are reversed.
        cols: True if columns are reversed.
    """

    swapped: bool
    rows: bool
    cols: bool

    @property
    def is_upright(self) -> bool:
        """True if pixels are upright as they are stored."""
        return not (self.swapped or self.rows or self.cols)


class Upright:
    """An open raster, read as near to north-up as mirrors and quarter turns allow.

    Attributes:
        file: The open rasterio file.
        shape: Its rows and columns.
        transform: From its columns and rows to its CRS.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self._order = _order(file.transform)
        self.shape: tuple[int, int] = file.shape[::-1] if self._order.swapped else file.shape
        self.transform: Affine = _transform(file.transform, self._order, self.shape)

    def read(
        self, bands: list[int], *, window: FileWindow, out_shape: tuple[int, int] | None = None, **options: Any
    ) -> npt.NDArray[Any]:
        """Read stored numbers (band, y, x) of a window, turned north-up.

        Resampled to ``out_shape`` (rows, columns); other options as those of rasterio's `read`.
        """
        order = self._order
        if out_shape is not None:
            options["out_shape"] = (len(bands), *(out_shape[::-1] if order.swapped else out_shape))
        values: npt.NDArray[Any] = self.file.read(bands, window=self._stored(window), **options)
        if order.is_upright:
            return values
        turned = values.swapaxes(1, 2) if order.swapped else values
        return turned[:, :: -1 if order.rows else 1, :: -1 if order.cols else 1].copy()

    def _stored(self, window: FileWindow) -> FileWindow:
        """Return a north-up window as a window of the pixels as they are stored."""
        order, (height, width) = self._order, self.shape
        row = height - window.row_off - window.height if order.rows else window.row_off
        col = width - window.col_off - window.width if order.cols else window.col_off
        if order.swapped:
            return FileWindow(row, col, window.height, window.width)
        return FileWindow(col, row, window.width, window.height)


def _order(stored: Affine) -> _Order:
    """Return the swap and reversals that make a file's pixels north-up.

    ``stored`` is its transform.
    """
    swapped = abs(stored.a * stored.e) < abs(stored.b * stored.d)  # rows run more to the east than to the south
    upright = stored * _SWAP if swapped else stored
    return _Order(swapped=swapped, rows=upright.e > 0, cols=upright.a < 0)


def _transform(stored: Affine, order: _Order, shape: tuple[int, int]) -> Affine:
    """Return a file's transform for its pixels in north-up order."""
    if order.is_upright:
        return stored
    height, width = shape
    mirror = Affine(
        -1 if order.cols else 1, 0, width if order.cols else 0, 0, -1 if order.rows else 1, height if order.rows else 0
    )
    turned = (stored * _SWAP if order.swapped else stored) * mirror
    return Affine(*(value + 0.0 for value in turned[:6]))  # no -0.0, which is written down as another number

"""The only reader and writer of raster and text files; vectors have their own.

Reading: the destination grid is an argument, missing is NaN, nodata numbers stay in here. Writing: whole or not at all.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window as FileWindow

from thawmap.data.raster.resample import Choice, read, read_blocks
from thawmap.data.raster.upright import Upright
from thawmap.errors import DataError
from thawmap.files.atomic import atomic, unwritable
from thawmap.geo.crs import crs_of, file_crs, location_fault
from thawmap.grid import Window

CACHE_BYTES = 128 * 2**20
"""Memory of GDAL's block cache, in bytes; its own default is 5 % of the machine's."""

FILTERS = Lock()
"""Held while warnings are filtered, for the filters belong to the whole process."""
# rasterio silences this one while it burns polygons, which threads undo for each other; `_open` refuses such files
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterInfo:
    """The header of a raster file: grid, bands, type, nodata, scales and units.

    Attributes:
        path: The file.
        geobox: Its grid, as near to north-up as mirrors and quarter turns of its pixels can make it.
        count: Number of bands.
        dtype: Type of the stored numbers.
        nodata: Stored number that means missing; None where the file names none.
        descriptions: Name of each band; "" where it has none.
        scales: Factor from each band's stored numbers to values, as the file says; 1 where it says nothing.
        offsets: What is added after scaling, as the file says; 0 where it says nothing.
        units: Unit of each band's values; "" where the file says nothing.
        alpha: True if the last band says how opaque the others are.
    """

    path: Path
    geobox: GeoBox
    count: int
    dtype: str
    nodata: float | None
    descriptions: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str, ...]
    alpha: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The form in which a raster is stored: value = stored number * scale + offset.

    Attributes:
        dtype: Type of the stored numbers.
        bands: Number of bands.
        nodata: Stored number that means missing.
        scale: Factor to physical units, written for readers.
        offset: Added after scaling, written for readers.
        descriptions: Name of each band.
        colours: Stored number to (red, green, blue, alpha), 0..255, for one band of bytes.
        overviews: How coarser copies are made.
    """

    dtype: str
    bands: int = 1
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    descriptions: tuple[str, ...] = ()
    colours: Mapping[int, tuple[int, int, int, int]] | None = None
    overviews: Literal["nearest", "average"] = "average"


def raster_info(path: Path) -> RasterInfo:
    """Read a raster file's header; refuse one that does not say where it lies.

    Raises:
        DataError: If it is missing, not a raster, or says nothing of where it lies.
    """
    with _open(path) as opened:
        file = opened.file
        return RasterInfo(
            path=path,
            geobox=_grid(opened),
            count=file.count,
            dtype=file.dtypes[0],
            nodata=file.nodata,
            descriptions=tuple(name or "" for name in file.descriptions),
            scales=tuple(file.scales),
            offsets=tuple(file.offsets),
            units=tuple(unit or "" for unit in file.units),
            alpha=file.colorinterp[-1] == ColorInterp.alpha,
        )


def read_raster(
    path: Path,
    geobox: GeoBox,
    *,
    bands: Sequence[int],
    resampling: str | None = None,
    nodata: float | None = None,
) -> npt.NDArray[np.float32]:
    """Read bands (band, y, x) of a file, unscaled, resampled onto ``geobox``.

    Float32; NaN where missing, infinite or outside.

    Args:
        path: A raster that GDAL reads.
        geobox: The grid to read onto; a part of the file's own grid is read without resampling.
        bands: Numbers of the bands, from 1.
        resampling: nearest, bilinear, cubic or average; unset: average when coarsening, else cubic.
        nodata: A stored number that means missing, beside those that the file knows itself.

    Raises:
        DataError: If the file is missing, damaged, without CRS, or has no such band.
    """
    with _open(path) as file:
        count = file.file.count
        absent = [band for band in bands if not 1 <= band <= count]
        if absent:
            msg = f"{path} has no band {absent[0]}; it has 1 to {count}, correct its 'band' in the YAML"
            raise DataError(msg)
        choice = Choice(bands=tuple(bands), resampling=resampling, nodata=nodata)
        with _damage_as_error(path):
            return read(file, _grid(file), geobox, choice)


def read_means(path: Path, window: Window, shape: tuple[int, int], *, bands: Sequence[int]) -> npt.NDArray[np.float32]:
    """Read a window of a file as ``shape`` (rows, columns) of means of equal blocks.

    Gives (band, y, x); the window counts the file's own pixels. Float32, unscaled; NaN where all of a block is missing.
    From the file's overviews where it has some, rounded to its type.

    Raises:
        DataError: If the file is missing or damaged.
    """
    with _open(path) as file, _damage_as_error(path):
        return read_blocks(file, window, shape, Choice(bands=tuple(bands), resampling="average"))


@contextmanager
def _damage_as_error(path: Path) -> Iterator[None]:
    """Raise a DataError for what libraries raise in a block on a damaged file."""
    try:
        yield
    except (RasterioError, OSError) as error:
        msg = f"{path} cannot be read to its end ({_reason(error)}); fetch or copy it again"
        raise DataError(msg) from error


@contextmanager
def _open(path: Path) -> Iterator[Upright]:
    """Open a raster to read it north-up; refuse one without place or real numbers.

    Raises:
        DataError: If it is missing, no such raster, or damaged.
    """
    if not path.exists():
        msg = f"{path} does not exist; correct the name, or the folder it counts from"
        raise DataError(msg)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        try:
            with FILTERS, warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)  # such a file is refused below
                file = rasterio.open(path)
        except RasterioIOError as error:
            msg = f"{path} is not a raster that can be read ({_reason(error)}); fetch or copy it again"
            raise DataError(msg) from error
        with file:
            fault = location_fault(file)
            complex_type = next((dtype for dtype in file.dtypes if dtype.startswith("complex")), None)
            if fault is None and complex_type is not None:
                fault = (
                    f"holds complex numbers ({complex_type}), and layers are real ones; write their intensity or real "
                    f"part to a file"
                )
            if fault is not None:
                msg = f"{path} {fault}"
                raise DataError(msg)
            yield Upright(file)


def _grid(file: Upright) -> GeoBox:
    """Return the grid (shape, transform, CRS) of an open raster, north-up."""
    return GeoBox(file.shape, file.transform, file_crs(file.file))


def _reason(error: Exception) -> str:
    """Return the first line of a library's message, without its full stop."""
    return (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0].rstrip(".")


@dataclass(slots=True)
class RasterWriter:
    """An open raster that takes its rows in any order, whole rows at a time."""

    _file: Any = field(repr=False)

    def write(self, first_row: int, rows: npt.NDArray[Any]) -> None:
        """Write ``rows`` (band, y, x) or (y, x), stored numbers, from ``first_row`` on."""
        block = rows if rows.ndim == 3 else rows[np.newaxis]
        window = FileWindow(0, first_row, block.shape[2], block.shape[1])
        self._file.write(block.astype(self._file.dtypes[0], copy=False), window=window)

    def read(self, first_row: int, count: int) -> npt.NDArray[Any]:
        """Read back ``count`` rows (band, y, x) of stored numbers that were written."""
        return np.asarray(self._file.read(window=FileWindow(0, first_row, self._file.width, count)))


@contextmanager
def raster_writer(path: Path, geobox: GeoBox, encoding: Encoding) -> Iterator[RasterWriter]:
    """Yield a writer of a Cloud-Optimised GeoTIFF with overviews, in bounded memory.

    The file appears when it is whole, at the end of the context.

    Raises:
        DataError: If it cannot be written.
    """
    profile = {
        "driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd", "zstd_level": 1,
        "bigtiff": "if_safer", "dtype": encoding.dtype, "count": encoding.bands, "nodata": encoding.nodata,
        "width": geobox.width, "height": geobox.height, "crs": crs_of(geobox), "transform": geobox.affine,
    }  # fmt: skip
    with atomic(path) as draft, TemporaryDirectory(dir=draft.parent) as folder, rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        plain = Path(folder) / "plain.tif"
        try:
            with rasterio.open(plain, "w+", **profile) as file:
                _describe(file, encoding)
                yield RasterWriter(file)
            predictor = 3 if np.issubdtype(encoding.dtype, np.floating) else 2
            rasterio.shutil.copy(
                plain, draft, driver="COG", compress="deflate", predictor=predictor, blocksize=512,
                bigtiff="if_safer", overview_resampling=encoding.overviews,
            )  # fmt: skip
        except (RasterioError, CPLE_BaseError) as error:  # the latter where the disk filled up when the file was closed
            raise unwritable(path, _reason(error)) from error


def _describe(file: Any, encoding: Encoding) -> None:
    """Write scale, offset, names of bands and colours into an open file's header."""
    if (encoding.scale, encoding.offset) != (1.0, 0.0):
        file.scales = [encoding.scale] * encoding.bands
        file.offsets = [encoding.offset] * encoding.bands
    for band, name in enumerate(encoding.descriptions, start=1):
        file.set_band_description(band, name)
    if encoding.colours is not None:
        file.write_colormap(1, dict(encoding.colours))


def write_raster(path: Path, values: npt.NDArray[Any], geobox: GeoBox, *, encoding: Encoding) -> None:
    """Write stored numbers (y, x) or (band, y, x) as a Cloud-Optimised GeoTIFF.

    Raises:
        DataError: If the shape is not the grid's, or the file cannot be written.
    """
    if values.shape[-2:] != tuple(geobox.shape):
        msg = f"{path.name}: values of {values.shape[-2:]} px do not fit a grid of {tuple(geobox.shape)} px"
        raise DataError(msg)
    with raster_writer(path, geobox, encoding) as writer:
        writer.write(0, values)


def write_png(path: Path, rgb: npt.NDArray[np.uint8]) -> None:
    """Write a picture (y, x, 3), uint8, as PNG."""
    from PIL import Image  # noqa: PLC0415 - only pictures need it

    with atomic(path) as draft:
        Image.fromarray(rgb).save(draft, format="PNG", compress_level=4)

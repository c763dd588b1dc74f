"""Windows cut out of large rasters, on the web or on disk, with the stored numbers unchanged.

Rasters on the web are read by ranges of bytes through `Http`, so GDAL sees no address, and an error of the transfer is
raised as one, never read as missing pixels. Those in a bucket (s3://) are read by GDAL, with the keys that are in the
environment.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window as FileWindow
from shapely.geometry.base import BaseGeometry

from thawmap.acquire.http import Http, without_query
from thawmap.acquire.remote import ENDPOINT, RATE, Address, RemoteFile
from thawmap.data.raster.io import CACHE_BYTES
from thawmap.errors import DataError, ServiceError
from thawmap.files.atomic import atomic, sync, unwritable
from thawmap.files.hashes import file_sha256
from thawmap.geo.crs import file_crs, location_fault
from thawmap.geo.geobox import window_geobox
from thawmap.geo.shapes import LONLAT, meridian_of, reproject
from thawmap.grid import Window

_BLOCK = 256  # pixels along a side of a tile of what is written
_STRIP_BYTES = 64 * 2**20  # stored numbers that are read at once
_ROUNDING = 1e-6  # pixels by which an edge may lie beyond a border that it is on
_GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": 8,
    "GDAL_HTTP_RETRY_DELAY": 2,
    "GDAL_HTTP_TIMEOUT": 120,
    "GDAL_HTTP_CONNECTTIMEOUT": 20,
    "GDAL_TIFF_INTERNAL_MASK": True,
    "GDAL_CACHEMAX": CACHE_BYTES,
}
_BUCKETS = {"eodata": {"AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu", "AWS_VIRTUAL_HOSTING": "FALSE"}}
"""Settings of buckets that are not Amazon's; what the environment says goes before them."""


class BesideAreaError(DataError):
    """A raster does not show the area."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutWindow:
    """A window that was written to a file.

    Attributes:
        path: The file.
        source: Address, without query, or path of the raster that it was cut out of.
        window: The window, in the raster's pixels.
        geobox: Its grid.
        size: Length of the file in bytes.
        sha256: Of the file's bytes, as hex digits.
    """

    path: Path
    source: str
    window: Window
    geobox: GeoBox = field(compare=False)
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadWindow:
    """A window that was read.

    Attributes:
        source: Address, without query, or path of the raster.
        window: The window, in the raster's pixels.
        geobox: Its grid.
        values: Stored numbers (band, y, x).
        nodata: Stored number that means missing; None where the raster names none.
        scales: Factor from each band's stored numbers to values, as the raster says; 1 where it says nothing.
        offsets: What is added after scaling, as the raster says; 0 where it says nothing.
    """

    source: str
    window: Window
    geobox: GeoBox = field(compare=False)
    values: npt.NDArray[Any] = field(compare=False)
    nodata: float | None
    scales: tuple[float, ...]
    offsets: tuple[float, ...]


def cut_window(
    href: Address | Path,
    outline: BaseGeometry,
    path: Path,
    *,
    margin_px: int = 0,
    step_m: float | None = None,
    http: Http | None = None,
    before: Callable[[CutWindow], object] | None = None,
) -> CutWindow:
    """Cut the window around an outline out of a raster, and write it as a GeoTIFF.

    It has the raster's own grid, type, stored numbers, nodata, mask, scales, offsets and names. The file appears when
    it is whole.

    Args:
        href: Address or path of the raster, or a function that gives a fresh address.
        outline: Ground in EPSG:4326, cut at the antimeridian.
        path: The file to write, which is replaced.
        margin_px: Pixels around the outline that are cut too, where the raster has them.
        step_m: Edges lie at multiples of this length from the raster's corner, so that windows of rasters with other
            pixels cover the same ground; unset: a pixel.
        http: Sends the requests; unset: one for this call.
        before: Is told of the file before it appears.

    Raises:
        DataError: If the outline misses the raster, the raster cannot be read, or the file cannot be written.
        ServiceError: If the raster does not come.
    """
    with _opened(href, http) as raster:
        window = _window_of(raster, outline, margin_px, step_m)
        geobox = window_geobox(raster.geobox, window)
        with atomic(path) as draft:
            _write(raster, window, draft, path)
            sync(draft)
            size, digest = draft.stat().st_size, file_sha256(draft)
            cut = CutWindow(path=path, source=raster.name, window=window, geobox=geobox, size=size, sha256=digest)
            if before is not None:
                before(cut)
        return cut


def read_window(
    href: Address | Path,
    outline: BaseGeometry,
    *,
    margin_px: int = 0,
    step_m: float | None = None,
    http: Http | None = None,
) -> ReadWindow:
    """Read the window around an outline from a raster, as stored numbers.

    Arguments and errors are those of `cut_window`.
    """
    with _opened(href, http) as raster:
        window = _window_of(raster, outline, margin_px, step_m)
        return ReadWindow(
            source=raster.name,
            window=window,
            geobox=window_geobox(raster.geobox, window),
            values=raster.read(window),
            nodata=raster.file.nodata,
            scales=tuple(raster.file.scales),
            offsets=tuple(raster.file.offsets),
        )


@dataclass(slots=True, kw_only=True)
class _Raster:
    """An open raster; ``remote`` is None where GDAL reads it by itself."""

    name: str
    file: Any
    remote: RemoteFile | None
    header: frozenset[int]

    @property
    def geobox(self) -> GeoBox:
        """Its grid."""
        return GeoBox(self.file.shape, self.file.transform, file_crs(self.file))

    def read(self, window: Window) -> npt.NDArray[Any]:
        """Return the stored numbers (band, y, x) of a window.

        Raises:
            DataError: If it is damaged.
            ServiceError: If it does not come.
        """
        with _faults(self.name, self.remote):
            self._fetch(window)
            return np.asarray(self.file.read(window=_file_window(window)))

    def read_mask(self, window: Window) -> npt.NDArray[np.uint8]:
        """Return its mask (y, x), 0 where missing; errors as of `read`."""
        with _faults(self.name, self.remote):
            return np.asarray(self.file.read_masks(1, window=_file_window(window)))

    def _fetch(self, window: Window) -> None:
        """Fetch all blocks of a window in few requests, and forget those of before."""
        if self.remote is None:
            return
        self.remote.forget(keeping=self.header)
        height, width = self.file.block_shapes[0]
        ranges = []
        for row in range(window.rows.start // height, -(-window.rows.stop // height)):
            for col in range(window.cols.start // width, -(-window.cols.stop // width)):
                for band in self.file.indexes:
                    start, length = (
                        self.file.get_tag_item(f"BLOCK_{what}_{col}_{row}", dm="TIFF", bidx=band)
                        for what in ("OFFSET", "SIZE")
                    )
                    if start and length:
                        ranges.append((int(start), int(start) + int(length)))
        self.remote.fetch(ranges)


@contextmanager
def _opened(href: Address | Path, http: Http | None) -> Iterator[_Raster]:
    """Yield an open raster that says where it lies.

    Raises:
        DataError: If it is no raster, or says nothing of its place.
        ServiceError: If it does not come.
    """
    scheme = "http" if callable(href) else urlsplit(str(href)).scheme
    with ExitStack() as stack:
        remote = None
        if scheme in ("http", "https"):
            assert not isinstance(href, Path)
            http = stack.enter_context(Http(rates={ENDPOINT: RATE})) if http is None else http
            remote = RemoteFile(http, href)
            name, opened = remote.name, {"fp": "/raster", "opener": remote.open}
        elif scheme == "s3":
            name = without_query(str(href))
            opened = {"fp": f"/vsis3/{name.removeprefix('s3://')}"}
        else:
            name = str(Path(str(href)).absolute())
            opened = {"fp": name}
            if not Path(name).is_file():
                msg = f"{name} does not exist; correct the path, or fetch it again"
                raise DataError(msg)
        stack.enter_context(rasterio.Env(**_GDAL, **(_bucket_settings(name) if scheme == "s3" else {})))
        with _faults(name, remote):
            file = stack.enter_context(rasterio.open(**opened))
        fault = location_fault(file)
        if fault is not None:
            msg = f"{name} {fault}"
            raise DataError(msg)
        yield _Raster(name=name, file=file, remote=remote, header=frozenset() if remote is None else remote.kept())


def _bucket_settings(name: str) -> dict[str, str]:
    """Return GDAL's settings of a bucket that the environment does not give."""
    settings = _BUCKETS.get(urlsplit(name).netloc, {})
    return {key: value for key, value in settings.items() if key not in os.environ}


@contextmanager
def _faults(name: str, remote: RemoteFile | None) -> Iterator[None]:
    """Raise what goes wrong in reading a raster as errors that name it.

    Raises:
        DataError: If it is damaged.
        ServiceError: If it does not come.
    """
    fault: str | None = None
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        fault = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0].rstrip(".")
    if remote is not None and remote.fault is not None:
        raise remote.fault
    if fault is not None:  # not from the cause, in whose text an address may stand
        msg = f"{name} cannot be read ({fault.replace('/raster', 'it')}); try again, or leave it out"
        raise DataError(msg) if not name.startswith("s3:") else ServiceError(_with_keys(msg))


def _with_keys(msg: str) -> str:
    return f"{msg}; buckets need keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def _window_of(raster: _Raster, outline: BaseGeometry, margin_px: int, step_m: float | None) -> Window:
    """Return the window of a raster's pixels around an outline.

    Raises:
        DataError: If the outline misses the raster.
    """
    file, crs = raster.file, file_crs(raster.file)
    middle = file.transform * (file.width / 2, file.height / 2)
    shape = reproject(
        gpd.GeoDataFrame(geometry=[outline], crs=LONLAT), crs, meridian=meridian_of(crs, middle[0])
    ).shapes[0]
    inverse = ~file.transform
    shape = shapely.transform(shape, lambda points: np.column_stack(inverse * tuple(points.T)))
    seen = shapely.intersection(shapely.make_valid(shape), shapely.box(0, 0, file.width, file.height))
    if seen.area <= _ROUNDING:
        msg = f"{raster.name} does not show the area; choose another image, or correct the area"
        raise BesideAreaError(msg)
    seen = shapely.intersection(
        shapely.box(*_grown(seen.bounds, margin_px)), shapely.box(0, 0, file.width, file.height)
    )
    left, top, right, bottom = seen.bounds
    steps = [1 if step_m is None else max(round(step_m / side), 1) for side in _sides(file.transform)]
    return Window.from_edges(
        top=math.floor(top / steps[0] + _ROUNDING) * steps[0],
        left=math.floor(left / steps[1] + _ROUNDING) * steps[1],
        bottom=min(math.ceil(bottom / steps[0] - _ROUNDING) * steps[0], file.height),
        right=min(math.ceil(right / steps[1] - _ROUNDING) * steps[1], file.width),
    )


def _grown(bounds: tuple[float, float, float, float], margin: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = bounds
    return left - margin, top - margin, right + margin, bottom + margin


def _sides(transform: Any) -> tuple[float, float]:
    """Return height and width of a pixel in units of the CRS."""
    return math.hypot(transform.b, transform.e), math.hypot(transform.a, transform.d)


def _file_window(window: Window) -> FileWindow:
    return FileWindow(window.col, window.row, window.width, window.height)


def _strips(raster: _Raster, window: Window) -> Iterator[Window]:
    """Yield parts of a window that fit into memory, cut between the raster's blocks."""
    file = raster.file
    row_bytes = window.width * file.count * np.dtype(file.dtypes[0]).itemsize
    height = file.block_shapes[0][0]
    rows = max(_STRIP_BYTES // (row_bytes * height), 1) * height
    top = window.rows.start
    while top < window.rows.stop:
        bottom = min((top // height) * height + rows, window.rows.stop)
        yield Window.from_edges(top=top, left=window.cols.start, bottom=bottom, right=window.cols.stop)
        top = bottom


def _write(raster: _Raster, window: Window, draft: Path, path: Path) -> None:
    """Write a window of a raster to a draft of a file.

    Raises:
        DataError: If the raster is damaged, or the file cannot be written.
        ServiceError: If the raster does not come.
    """
    source = raster.file
    has_mask = MaskFlags.per_dataset in source.mask_flag_enums[0] and MaskFlags.alpha not in source.mask_flag_enums[0]
    with _unwritable(path):
        target = rasterio.open(draft, "w", **_profile(raster, window))
    try:
        with _unwritable(path):
            _describe(source, target)
        for strip in _strips(raster, window):
            values = raster.read(strip)
            mask = raster.read_mask(strip) if has_mask else None
            place = FileWindow(0, strip.row - window.row, strip.width, strip.height)
            with _unwritable(path):
                target.write(values, window=place)
                if mask is not None:
                    target.write_mask(mask, window=place)
    finally:
        with _unwritable(path):
            target.close()


def _profile(raster: _Raster, window: Window) -> dict[str, Any]:
    """Return the form of a GeoTIFF that a window of a raster is written to."""
    source, dtype = raster.file, raster.file.dtypes[0]
    kind = np.dtype(dtype).kind
    return {
        "driver": "GTiff", "tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "bigtiff": "if_safer",
        "compress": "deflate", "predictor": {"f": 3, "c": 1}.get(kind, 2), "interleave": "band",
        "dtype": dtype, "count": source.count, "nodata": source.nodata, "crs": source.crs,
        "width": window.width, "height": window.height,
        "transform": window_geobox(raster.geobox, window).affine,
    }  # fmt: skip


def _describe(source: Any, target: Any) -> None:
    """Write what a raster's header says of its bands into another's."""
    target.scales, target.offsets, target.units = source.scales, source.offsets, source.units
    target.descriptions = source.descriptions
    target.update_tags(**{key: text for key, text in source.tags().items() if key == "AREA_OR_POINT"})
    if source.colorinterp[0] == ColorInterp.palette:
        target.write_colormap(1, source.colormap(1))
    elif ColorInterp.alpha in source.colorinterp:
        target.colorinterp = source.colorinterp


@contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    """Raise a DataError for what GDAL raises when a file cannot be written."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise unwritable(path, reason) from error

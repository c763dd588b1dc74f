"""The published Landsat trends (TCVIS) from Earth Engine, with their gaps.

Bytes are asked for with a band that says where there are any: exported by themselves, gaps are zeros, and a zero means
-0.12. Nothing here opens a browser: the login is that of a service account or of the machine.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from thawmap.acquire.areas import Area
from thawmap.acquire.landsat_reading import trend_grid
from thawmap.acquire.ledger import Ledger
from thawmap.config.acquire import EarthEngineTrends
from thawmap.data.raster.io import Encoding, write_raster
from thawmap.errors import ConfigError, DataError, ServiceError
from thawmap.files.atomic import alone, atomic
from thawmap.files.hashes import file_sha256
from thawmap.geo.crs import crs_of
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window

Pixels = Callable[[GeoBox], npt.NDArray[np.uint8]]
"""Returns bytes (4, y, x) of a grid: three bands of trends, and one that is 0 where there are none."""

_LOW, _HIGH = -0.12, 0.12  # per decade, of bytes 0 and 255
_MOST_BYTES = 24 * 2**20  # of a request; the service takes 48 MiB
_BANDS = ("tc_brightness", "tc_greenness", "tc_wetness")
_SCOPES = ("https://www.googleapis.com/auth/earthengine", "https://www.googleapis.com/auth/cloud-platform")


def fetch(
    settings: EarthEngineTrends, area: Area, root: Path, ledger: Ledger, *, pixels: Pixels | None = None
) -> Path | None:
    """Fetch the published trends of an area into ``trends/<site>.tif``.

    None if it is there.

    Args:
        settings: Asset and project.
        area: The area.
        root: Folder of the acquisition.
        ledger: Is told of the file before it appears.
        pixels: Returns the bytes of a grid; unset: Earth Engine.

    Raises:
        ConfigError: If the package or a login is missing.
        DataError: If a file there is not of an earlier run, or the asset has nothing there.
        ServiceError: If Earth Engine refuses.
    """
    path = root / "trends" / f"{area.name}.tif"
    name = path.relative_to(root).as_posix()
    known = ledger.of("file", path=name)
    if path.exists():
        last = known[-1] if known else {}
        if last.get("source") == settings.asset and last.get("size") == path.stat().st_size:
            return None
        if not known:
            msg = f"{path} is not of an earlier run, and nothing is replaced unasked; move it away"
            raise DataError(msg)
    grid = trend_grid(area)
    ask = pixels or _pixels_of(settings)
    values = np.full((3, *grid.shape), np.nan, np.float32)
    for window in requests(grid):
        values[:, window.rows, window.cols] = decode(ask(window_geobox(grid, window)))
    if np.isnan(values).all():
        msg = f"{settings.asset} has no trends for {area.name}; name another asset, or compute them (kind: landsat)"
        raise DataError(msg)
    encoding = Encoding(dtype="float32", bands=3, nodata=np.nan, descriptions=_BANDS)
    with alone(path), atomic(path) as draft:
        write_raster(draft, values, grid, encoding=encoding)
        ledger.append("file", path=name, size=draft.stat().st_size, sha256=file_sha256(draft), source=settings.asset)
    return path


def requests(grid: GeoBox, *, most_bytes: int = _MOST_BYTES) -> Iterator[Window]:
    """Yield the windows of a grid that are asked for one by one, four bytes a pixel."""
    side = max(int((most_bytes / 4) ** 0.5), 1)
    for row in range(0, grid.height, side):
        for col in range(0, grid.width, side):
            height, width = min(side, grid.height - row), min(side, grid.width - col)
            yield Window(row=row, col=col, height=height, width=width)


def decode(content: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return trends (3, y, x) per decade of bytes (4, y, x).

    NaN where the last band is 0.
    """
    values = _LOW + content[:3].astype(np.float32) * np.float32((_HIGH - _LOW) / 255)
    decoded: npt.NDArray[np.float32] = np.where(content[3] != 0, values, np.nan).astype(np.float32)
    return decoded


def _pixels_of(settings: EarthEngineTrends) -> Pixels:
    """Return what asks Earth Engine for the bytes of a grid.

    Raises:
        ConfigError: If the package or a login is missing.
        ServiceError: If Earth Engine refuses.
    """
    ee = _initialised(settings.project)
    image = _image(ee, settings.asset)

    def pixels(grid: GeoBox) -> npt.NDArray[np.uint8]:
        affine = grid.affine
        transform = {
            "scaleX": affine.a, "shearX": affine.b, "translateX": affine.c,
            "shearY": affine.d, "scaleY": affine.e, "translateY": affine.f,
        }  # fmt: skip
        wanted = {
            "expression": image,
            "fileFormat": "NUMPY_NDARRAY",
            "grid": {
                "dimensions": {"width": grid.width, "height": grid.height},
                "affineTransform": transform,
                "crsCode": crs_of(grid),
            },
        }
        try:
            content = ee.data.computePixels(wanted)
        except ee.EEException as error:
            msg = f"Earth Engine refuses {settings.asset}: {str(error).splitlines()[0]}; check asset and project"
            raise ServiceError(msg) from None
        return np.stack([content[name] for name in content.dtype.names]).astype(np.uint8)

    return pixels


def _image(ee: Any, asset: str) -> Any:
    """Return an asset's three bands as bytes, gaps 0, and a band that is 1 where all are there."""
    is_collection = ee.data.getAsset(asset).get("type") in ("IMAGE_COLLECTION", "ImageCollection")
    image = (ee.ImageCollection(asset).mosaic() if is_collection else ee.Image(asset)).select([0, 1, 2])
    there = image.mask().reduce(ee.Reducer.min()).gt(0).rename("there").unmask(0)
    return image.unmask(0).addBands(there).toUint8()


def _initialised(project: str) -> Any:
    """Return the package of Earth Engine, logged in without a question.

    Raises:
        ConfigError: If the package or a login is missing.
        ServiceError: If Earth Engine refuses the project.
    """
    try:
        import ee  # noqa: PLC0415 - an extra
        import google.auth  # noqa: PLC0415
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
    except ImportError as error:
        msg = "'acquire.trends.kind: earthengine' needs earthengine-api; pip install 'thawmap[earthengine]'"
        raise ConfigError(msg) from error
    try:
        credentials, _ = google.auth.default(scopes=list(_SCOPES))
    except GoogleAuthError:
        msg = (
            "no login for Earth Engine; name the key file of a service account in GOOGLE_APPLICATION_CREDENTIALS, or "
            "run 'gcloud auth application-default login' once"
        )
        raise ConfigError(msg) from None
    try:
        ee.Initialize(credentials, project=project)
    except (ee.EEException, GoogleAuthError) as error:
        msg = f"Earth Engine refuses the project {project!r}: {str(error).splitlines()[0]}; register it"
        raise ServiceError(msg) from None
    return ee

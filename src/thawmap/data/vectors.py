"""The only reader and writer of vector files: whatever their libraries make of one, users are told in a sentence."""

from pathlib import Path

import geopandas as gpd
import pyogrio

from thawmap.data.drafts import atomic, unwritable
from thawmap.errors import DataError

_VECTOR_DRIVERS = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON"}


def read_vector(path: Path, *, layer: str | None = None, needs_crs: bool = True) -> gpd.GeoDataFrame:
    """The features of a vector file, GeoParquet included, with its CRS.

    Raises:
        DataError: If it is missing, not a vector file, without that layer, or without the CRS that it needs.
    """
    if not path.exists():
        msg = f"{path} does not exist; correct the name, or the folder it counts from"
        raise DataError(msg)
    try:
        if path.suffix == ".parquet":
            frame = gpd.read_parquet(path)
        else:
            frame = gpd.read_file(path, layer=layer) if layer else gpd.read_file(path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, OSError) as error:
        msg = f"{path} is not a vector file that can be read ({_reason(error)}); use GPKG, Shapefile or GeoParquet"
        raise DataError(msg) from error
    if frame.crs is None and needs_crs:
        msg = f"{path} has no CRS, so nobody knows where it lies; write one into it"
        raise DataError(msg)
    return frame


def write_vector(path: Path, frame: gpd.GeoDataFrame, *, layer: str | None = None) -> None:
    """Write features as .gpkg, .shp, .geojson or .parquet, by the name's ending.

    Raises:
        DataError: If the ending is another, or the file cannot be written.
    """
    driver = _VECTOR_DRIVERS.get(path.suffix)
    if driver is None and path.suffix != ".parquet":
        msg = f"{path.name} ends in {path.suffix!r}; vector files end in .gpkg, .shp, .geojson or .parquet"
        raise DataError(msg)
    with atomic(path) as draft:
        if driver is None:
            frame.to_parquet(draft)
            return
        try:
            kind = "Polygon" if frame.empty else None  # else as the features are
            pyogrio.write_dataframe(frame, draft, layer=layer or path.stem, driver=driver, geometry_type=kind)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise unwritable(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    """The first line of a library's message, without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

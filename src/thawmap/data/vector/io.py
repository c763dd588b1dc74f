"""The only reader and writer of vector files.

Whatever their libraries raise becomes a sentence for the user.

A file is read as it stands and is not changed by it. What a format has no form for is written as text or under
another name, and said; where that loses something, nothing is written.
"""

import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet
import pyogrio
import shapely
from pyproj.exceptions import ProjError

from thawmap.data.raster.io import FILTERS
from thawmap.data.vector.columns import shapefile_fault, with_plain_types, with_sqlite_names
from thawmap.errors import DataError
from thawmap.files.atomic import atomic, is_disk_full, unwritable
from thawmap.geo.crs import crs_name, is_on_earth
from thawmap.provenance import stamp
from thawmap.text import printable

_log = logging.getLogger(__name__)

_DRIVERS = {
    ".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON", ".json": "GeoJSON", ".fgb": "FlatGeobuf",
}  # fmt: skip
_ONE_LAYER = (".shp", ".geojson", ".fgb")
_PARQUET = (".parquet", ".geoparquet", ".pq")
_READ_AGAIN = "use GPKG, Shapefile or GeoParquet"
_FAILURES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NameError, OSError, RuntimeError,
    TypeError, ValueError, ProjError, shapely.errors.ShapelyError, pyarrow.ArrowException,
)  # fmt: skip
"""Errors of pyogrio, geopandas, pandas, pyarrow, shapely and pyproj on files that they do not foresee."""

_DISK_WORDS = ("disk", "no space", "i/o error", "too large", "failure writing", "fwrite")
"""Words of libraries that tell of the disk, not of what was to be written."""
_MAX_NOTES = 3  # warnings of libraries that are logged for a file that is read
_MAX_LETTERS = 200  # of a library's message that are shown


def read_vector(path: Path, *, layer: str | None = None, needs_crs: bool = True) -> gpd.GeoDataFrame:
    """Read a layer of a vector file as a GeoDataFrame; refuse one without CRS.

    A CRS is not needed if ``needs_crs`` is False. Rows are in order, columns have one name each. Any format that GDAL
    reads, and GeoParquet, told by what is in the file. Of several layers the one named as the file, else the only one
    that can hold polygons.

    Raises:
        DataError: If it is missing, not a vector file, damaged, without that layer, without geometry, or without the
            CRS that it needs.
    """
    if not path.exists():
        msg = f"{path} does not exist; correct the name, or the folder it counts from"
        raise DataError(msg)
    with _unchanged(path) as copy, _collected_warnings() as notes:
        try:
            frame = _read_frame(copy, layer)
        except DataError as error:
            raise DataError(str(error).replace(str(copy), str(path))) from error
        except _FAILURES as error:
            raise DataError(_read_failure(path, copy, layer, error)) from error
    for note in list(dict.fromkeys(notes))[:_MAX_NOTES]:
        _log.warning("%s: %s", path, note)
    frame = _checked(path, frame)
    if frame.crs is None and needs_crs:
        msg = f"{path} has no CRS, so nobody knows where it lies; write one into it"
        raise DataError(msg)
    _warn_of_encoding(path, frame)
    return frame


def _is_parquet(path: Path) -> bool:
    """Return whether a file is GeoParquet, by its name or its first bytes."""
    return path.suffix.lower() in _PARQUET or _head(path).startswith(b"PAR1")


def _head(path: Path) -> bytes:
    """Read the first 100 bytes of a file; none of a folder."""
    if path.is_dir():
        return b""
    with path.open("rb") as file:
        return file.read(100)


def _read_frame(path: Path, layer: str | None) -> pd.DataFrame:
    """Read the features, or the bare table, of GeoParquet or of any format of GDAL."""
    frame: pd.DataFrame
    if not _is_parquet(path):
        frame = pyogrio.read_dataframe(path, layer=_layer_name(path, layer))
        return frame
    if layer is not None:
        msg = f"{path} has no layer {layer!r}, for GeoParquet has no layers; leave the layer out"
        raise DataError(msg)
    frame = gpd.read_parquet(path)
    return frame


def _layer_name(path: Path, requested: str | None) -> str | None:
    """Return the name of a file's layer to read; None where its format has one only.

    To list the layer of such a format, GDAL would read the whole file.

    Raises:
        DataError: If the one asked for is not there, none has geometry, or several can hold polygons.
    """
    if requested is None and path.suffix.lower() in _ONE_LAYER:
        return None
    kinds: dict[str, str | None] = dict(pyogrio.list_layers(path))
    if requested is not None:
        if requested not in kinds:
            msg = f"{path} has no layer {requested!r}; it has {_names(kinds)}"
            raise DataError(msg)
        return requested
    with_geometry = [name for name, kind in kinds.items() if kind is not None]
    if not with_geometry:
        columns = pyogrio.read_info(path, layer=next(iter(kinds)))["fields"] if kinds else ()
        msg = f"{path} has no geometry, only a table with the columns {_names(columns)}; {_READ_AGAIN}"
        raise DataError(msg)
    polygonal = [name for name in with_geometry if not any(kind in str(kinds[name]) for kind in ("Point", "Line"))]
    if len(polygonal) > 1:
        polygonal = [name for name in polygonal if pyogrio.read_info(path, layer=name)["features"]] or polygonal[:1]
    if len(polygonal) > 1 and path.stem not in polygonal:
        msg = (
            f"{path} has several layers with polygons: {_names(polygonal)}; say which by 'labels.layer', or by --layer"
        )
        raise DataError(msg)
    chosen = path.stem if path.stem in polygonal else (*polygonal, *with_geometry)[0]
    if len(with_geometry) > 1:  # `_collected_warnings` passes this on
        warnings.warn(f"of its layers {_names(with_geometry)}, {chosen!r} is read", stacklevel=1)
    return chosen


def _names(names: Any) -> str:
    """Return a text of names in quotes, the first dozen of them."""
    quoted = [repr(str(name)) for name in names]
    return ", ".join(quoted[:12]) + (f" and {len(quoted) - 12} more" if len(quoted) > 12 else "")


def _read_failure(path: Path, copy: Path, layer: str | None, error: Exception) -> str:
    """Return a message on why a file cannot be read, and what to do about it."""
    if isinstance(error, UnicodeDecodeError):
        if path.suffix.lower() == ".shp":
            cpg = path.with_suffix(".cpg").name
            return (
                f"{path} holds texts that are not {error.encoding.upper()}; write what they are, as cp1251, into {cpg}"
            )
        return f"{path} holds texts that are not {error.encoding.upper()}; write it again in UTF-8"
    reason = _reason(error).replace(f"'{copy}' ", "").replace(str(copy), str(path))
    if isinstance(error, shapely.errors.ShapelyError):
        row = None if _is_parquet(copy) else _first_broken(copy, layer)
        shape = "a shape" if row is None else f"the shape in row {row}"
        return f"{path}: {shape} cannot be read ({reason}); close and correct it, or remove it"
    if "SHAPE_RESTORE_SHX" in str(error):
        return f"{path} lacks its .shx; copy all files of this name, for .shp, .shx, .dbf and .prj are one Shapefile"
    return f"{path} is not a vector file that can be read ({reason}); {_READ_AGAIN}"


def _first_broken(path: Path, layer: str | None) -> int | None:
    """Return the first row, from 1, whose shape is no shape; None if unknown."""
    try:
        _, _, stored, _ = pyogrio.raw.read(path, layer=_layer_name(path, layer), columns=[])
    except _FAILURES:
        return None
    missing = shapely.is_missing(shapely.from_wkb(stored, on_invalid="ignore"))
    broken = np.flatnonzero(missing & np.array([wkb is not None for wkb in stored]))
    return int(broken[0]) + 1 if len(broken) else None


def _checked(path: Path, frame: pd.DataFrame) -> gpd.GeoDataFrame:
    """Return features with text column names; refuse a table without geometry.

    An index with a name becomes a column; the new one only counts.

    Raises:
        DataError: If it has no geometry, two columns of one name, or a CRS that is nowhere on Earth.
    """
    if not isinstance(frame, gpd.GeoDataFrame) or frame.active_geometry_name is None:
        msg = f"{path} has no geometry, only a table with the columns {_names(frame.columns)}; {_READ_AGAIN}"
        raise DataError(msg)
    named = any(name is not None for name in frame.index.names)
    geometry = frame.geometry.name
    features = gpd.GeoDataFrame(frame.reset_index(drop=not named))
    features.columns = pd.Index([str(name) for name in features.columns])
    twice = features.columns[features.columns.duplicated()]
    if len(twice):
        msg = f"{path} has two columns called {twice[0]!r}; rename one of them"
        raise DataError(msg)
    features = features.set_geometry(str(geometry))
    crs = None if features.crs is None else features.crs.to_wkt()
    if crs is not None and not is_on_earth(crs):
        msg = f"{path} lies in {crs_name(crs)}, which has no place on Earth; write the right one into it"
        raise DataError(msg)
    return features


def _warn_of_encoding(path: Path, frame: gpd.GeoDataFrame) -> None:
    """Log a warning if a Shapefile has texts beyond ASCII and names no encoding.

    It shows one of the texts.
    """
    table = path.with_suffix(".dbf")
    if path.suffix.lower() != ".shp" or not table.exists() or any(path.parent.glob(f"{path.stem}.[cC][pP][gG]")):
        return
    if table.read_bytes()[29:30] not in _NO_LANGUAGE:
        return
    for name in frame.columns[frame.dtypes.map(pd.api.types.is_string_dtype)]:
        not_ascii = [text for text in frame[name].dropna().unique() if not str(text).isascii()]
        if not_ascii:
            _log.warning(
                "%s does not say how its texts are encoded; as Latin-1 %r is %r: if that is wrong, write the encoding, "
                "such as UTF-8 or cp1251, into %s", path, name, not_ascii[0], path.with_suffix(".cpg").name,
            )  # fmt: skip
            return


_NO_LANGUAGE = (b"\x00", b"\x57", b"")
"""Language drivers of a DBF that leave the encoding open: none, and that of whatever machine wrote it."""


@contextmanager
def _unchanged(path: Path) -> Iterator[Path]:
    """Yield a file's path, or a temporary copy's where reading would change the file.

    SQLite folds journals back into the file, and GDAL puts schemas beside XML.

    Raises:
        DataError: If another program writes the file meanwhile, or there is no room for the copy.
    """
    head = _head(path)
    sqlite, xml = head.startswith(b"SQLite format 3\0"), head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<")
    beside = [path.with_name(path.name + ending) for ending in ("-wal", "-journal") if sqlite]
    beside += [path.with_suffix(ending) for ending in (".xsd", ".gfs") if xml]
    beside = [file for file in beside if file.exists()]
    if not (xml or (sqlite and (beside or 2 in head[18:20]))):  # 2: it keeps a write-ahead log
        yield path
        return
    files = [path, *beside]
    with TemporaryDirectory() as folder:
        try:
            before = [stamp(file) for file in files]
            for file in files:
                shutil.copyfile(file, Path(folder) / file.name)
            after = [stamp(file) for file in files]
        except OSError as error:
            msg = f"{path} cannot be copied to leave it unchanged ({error.strerror}); free some room in {folder}"
            raise DataError(msg) from error
        if before != after:  # the copy may hold a half of what was written meanwhile
            msg = f"{path} is being written by another program; wait for its end, or close it there"
            raise DataError(msg)
        yield Path(folder) / path.name


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Yield a list that is filled, at the block's end, with libraries' warnings.

    Each is one line; harmless ones are left out.
    """
    notes: list[str] = []
    with FILTERS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    notes += [_reason(warning.message) for warning in caught if not str(warning.message).startswith(_HARMLESS)]


_HARMLESS = ("invalid value encountered", "'crs' was not provided", "Non-conformant content", "Series.values returning")
"""Beginnings of warnings that tell of no loss: numpy on coordinates that are no numbers, a missing CRS."""


def write_vector(path: Path, frame: gpd.GeoDataFrame, *, layer: str | None = None, append: bool = False) -> None:
    """Write features as a vector file, in the format that the name's ending tells.

    GeoPackage, Shapefile, GeoJSON, FlatGeobuf or GeoParquet. Columns of types that the format lacks become texts, and
    those whose names it takes for one get another; both are logged.

    Args:
        path: The file.
        frame: The features.
        layer: Name of the layer; unset: that of the file.
        append: Put the layer into the GeoPackage that is there, beside its others; else the file is replaced.

    Raises:
        DataError: If the ending is another, the format cannot hold the features, or the file cannot be written.
    """
    ending, name = path.suffix.lower(), layer or path.stem
    driver = _DRIVERS.get(ending)
    if driver is None and ending not in _PARQUET:
        msg = f"{path.name} ends in {path.suffix!r}; vector files end in .gpkg, .shp, .geojson, .fgb or .parquet"
        raise DataError(msg)
    assert not append or driver == "GPKG", "only GeoPackages have layers"
    features, notes = with_plain_types(frame, arrow=driver is None, times=driver != "ESRI Shapefile")
    options = {"SPATIAL_INDEX": "NO"} if driver == "FlatGeobuf" else {}  # it takes no empty shapes, and sorts the rows
    if driver == "GPKG":
        features, options, renamed = with_sqlite_names(features)
        notes = (*notes, *renamed)
    fault = shapefile_fault(features) if driver == "ESRI Shapefile" else None
    if fault is not None:
        raise _write_error(path, fault)
    for note in notes:
        _log.warning("%s: %s", path.name, note)
    with atomic(path) as draft:
        if append and path.exists():
            shutil.copyfile(path, draft)
            assert name not in dict(pyogrio.list_layers(draft)), f"{path} has the layer {name} already"
        _write(draft, path, features, driver, name, options)


def _write(
    draft: Path, path: Path, frame: gpd.GeoDataFrame, driver: str | None, layer: str, options: dict[str, str]
) -> None:
    """Write features to a draft; refuse if a library fails, or warns of any loss.

    Raises:
        DataError: If the format cannot hold the features, or the disk is full.
    """
    kind = "Polygon" if frame.empty else None  # the library takes it from the features, where there are some
    with _collected_warnings() as notes:
        try:
            if driver is None:
                frame.to_parquet(draft)
            else:
                pyogrio.write_dataframe(
                    frame, draft, layer=layer, driver=driver, geometry_type=kind, append=draft.exists(), **options
                )
        except _FAILURES as error:
            raise _write_error(path, _reason(error)) from error
    if notes:
        raise _write_error(path, notes[0])


def _write_error(path: Path, reason: str) -> DataError:
    """Return a DataError: of a full disk, or of features that a format cannot hold."""
    if is_disk_full(path) or any(word in reason.lower() for word in _DISK_WORDS):
        return unwritable(path, reason)
    other = "GeoParquet (.parquet)" if path.suffix.lower() == ".gpkg" else "a GeoPackage (.gpkg)"
    return DataError(f"{path} cannot hold what was to be written ({reason}); correct that, or write {other}")


def _reason(error: Exception | str) -> str:
    """Return the first line of a library's message, cleaned and cut to 200 letters.

    Without its full stop; rows count from 1; control codes are written as such.
    """
    line = (str(error).splitlines() or [type(error).__name__])[0].split(".; It might help")[0].rstrip(".")
    line = re.sub(r"at index (\d+)", lambda match: f"in row {int(match[1]) + 1}", line)
    line = printable(line)
    return line if len(line) <= _MAX_LETTERS else f"{line[:_MAX_LETTERS]} ..."

"""Columns of features in types and under names that vector formats can hold."""

import json
from datetime import date
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa

Notes = tuple[str, ...]
"""Sentences for the user on columns that were changed."""


def with_plain_types(
    frame: gpd.GeoDataFrame, *, arrow: bool = False, times: bool = True
) -> tuple[gpd.GeoDataFrame, Notes]:
    """Return features with columns of numbers, texts and times only, and notes.

    Other columns become texts; there is a note on each that did.

    Args:
        frame: Features.
        arrow: True to keep every column that Arrow can hold.
        times: True if the format has a form for times of a day.
    """
    columns, notes = {}, []
    for name in frame.columns.drop(frame.geometry.name):
        if not (arrow and _fits_arrow(frame[name])):
            columns[name], kind = _plain_column(frame[name], times=times)
            if kind is not None:
                notes.append(f"column {str(name)!r} of type {kind} is written as text")
    return frame.assign(**columns) if columns else frame, tuple(notes)


def with_sqlite_names(frame: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, dict[str, str], Notes]:
    """Return features with names SQLite tells apart, options for GDAL, and notes.

    SQLite knows no capitals in names: there is a note on each column that had to be renamed. The options name
    GeoPackage's own columns. Every layer has one of row numbers, ``fid``, and one of shapes, ``geom``; where the
    features have columns called so, these two get other names.
    """
    taken: set[str] = set()
    renamed: dict[str, str] = {}
    for name in map(str, frame.columns.drop(frame.geometry.name)):
        free = _free(name, taken)
        taken.add(free.lower())
        if free != name:
            renamed[name] = free
    options = {"FID": _free("fid", taken), "GEOMETRY_NAME": _free("geom", taken)}
    notes = tuple(
        f"column {old!r} is written as {new!r}, for capitals make no other name" for old, new in renamed.items()
    )
    return frame.rename(columns=renamed), options, notes


def shapefile_fault(frame: gpd.GeoDataFrame) -> str | None:
    """Return a clause on why a Shapefile cannot hold the columns; None where it can."""
    names = pd.Index(map(str, frame.columns.drop(frame.geometry.name)))
    for name in names:
        if len(name.encode()) > _DBF_NAME:
            return f"names have at most {_DBF_NAME} letters, and {name!r} has more"
        if isinstance(frame[name].dtype, pd.StringDtype | np.dtypes.ObjectDType):
            size = frame[name].map(lambda text: 0 if text is None or text is pd.NA else len(str(text).encode()))
            if len(size) and size.max() > _DBF_TEXT:
                most, row = int(size.max()), int(size.argmax()) + 1
                return f"texts have at most {_DBF_TEXT} bytes, and {name!r} has {most} in row {row}"
    twice = names[names.str.lower().duplicated()]
    return f"capitals make no other name, and {twice[0]!r} is there twice" if len(twice) else None


_DBF_NAME, _DBF_TEXT = 10, 254  # bytes of a name and of a text


def _free(name: str, taken: set[str]) -> str:
    """Return a name, numbered if it is among taken ones, without regard to case.

    Taken names are in small letters.
    """
    candidates = (name, *(f"{name}_{number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in candidates if candidate.lower() not in taken)


def _fits_arrow(column: pd.Series) -> bool:
    """Return whether GeoParquet has a form for a column."""
    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return isinstance(column.dtype, gpd.array.GeometryDtype)
    return True


def _plain_column(column: pd.Series, *, times: bool) -> tuple[pd.Series, str | None]:
    """Return a column as numbers, times or texts, and its old type if it became text.

    Else the type is None.
    """
    kind: str = str(column.dtype)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _plain_column(column.astype(column.cat.categories.dtype), times=times)
    if isinstance(column.dtype, gpd.array.GeometryDtype):
        kind = "geometry"
    elif pd.api.types.is_object_dtype(column):
        kind = pd.api.types.infer_dtype(column, skipna=True)
        if kind in ("string", "empty"):
            return column, None
        if kind in ("boolean", "integer", "floating", "mixed-integer-float"):
            column = column.convert_dtypes()  # a missing value had made objects of it
        if kind in ("datetime", "datetime64"):  # of several zones
            column = pd.to_datetime(column, utc=True, format="mixed")
    if column.dtype == np.float16:
        return column.astype(np.float32), None
    held = "biufM" if times else "biuf"
    too_large = column.dtype.kind == "u" and len(column) and column.max() > np.iinfo(np.int64).max
    if (column.dtype.kind in held and not too_large) or isinstance(column.dtype, pd.StringDtype):
        return column, None
    return column.map(_as_text, na_action="ignore").astype("string"), kind


def _as_text(value: Any) -> str:
    """Return a value as text: ISO 8601 for times, JSON for lists and mappings."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    nested = isinstance(value, list | tuple | dict)
    return json.dumps(value, default=str, ensure_ascii=False) if nested else str(value)

"""Columns of features in the types and under the names that vector formats can hold."""

import json
from datetime import date
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa

Told = tuple[str, ...]


def plain(frame: gpd.GeoDataFrame, *, arrow: bool = False, times: bool = True) -> tuple[gpd.GeoDataFrame, Told]:
    """The frame with columns of numbers, texts and times only, and what is said of those that became texts.

    Args:
        frame: Features.
        arrow: Whether everything stays that Arrow can hold.
        times: Whether there is a form for times of a day.
    """
    made, told = {}, []
    for name in frame.columns.drop(frame.geometry.name):
        if not (arrow and _in_arrow(frame[name])):
            made[name], kind = _plain(frame[name], times=times)
            if kind is not None:
                told.append(f"column {str(name)!r} of type {kind} is written as text")
    return frame.assign(**made) if made else frame, tuple(told)


def own_names(frame: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, dict[str, str], Told]:
    """The frame with names that SQLite tells apart, the names of GeoPackage's own columns, and what is said.

    SQLite knows no capitals in names. Every layer of a GeoPackage has a column of row numbers, ``fid``, and one of
    shapes, ``geom``; where the features have columns called so, these two get other names.
    """
    taken: set[str] = set()
    renamed: dict[str, str] = {}
    for name in map(str, frame.columns.drop(frame.geometry.name)):
        free = _free(name, taken)
        taken.add(free.lower())
        if free != name:
            renamed[name] = free
    options = {"FID": _free("fid", taken), "GEOMETRY_NAME": _free("geom", taken)}
    told = tuple(
        f"column {old!r} is written as {new!r}, for capitals make no other name" for old, new in renamed.items()
    )
    return frame.rename(columns=renamed), options, told


def beyond_dbf(frame: gpd.GeoDataFrame) -> str | None:
    """What the table of a Shapefile cannot hold of some columns; None where it can hold them."""
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


_DBF_NAME, _DBF_TEXT = 10, 254


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number behind it where it is taken."""
    candidates = (name, *(f"{name}_{number}" for number in range(2, len(taken) + 3)))
    return next(one for one in candidates if one.lower() not in taken)


def _in_arrow(column: pd.Series) -> bool:
    """Whether GeoParquet has a form for a column."""
    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return isinstance(column.dtype, gpd.array.GeometryDtype)
    return True


def _plain(column: pd.Series, *, times: bool) -> tuple[pd.Series, str | None]:
    """A column as numbers, times or texts, and the type of which it became text; None where it did not."""
    kind: str = str(column.dtype)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _plain(column.astype(column.cat.categories.dtype), times=times)
    if isinstance(column.dtype, gpd.array.GeometryDtype):
        kind = "geometry"
    elif pd.api.types.is_object_dtype(column):
        kind = pd.api.types.infer_dtype(column, skipna=True)
        if kind in ("string", "empty"):
            return column, None
        if kind in ("boolean", "integer", "floating", "mixed-integer-float"):
            column = column.convert_dtypes()  # a gap had made objects of it
        if kind in ("datetime", "datetime64"):  # of several zones
            column = pd.to_datetime(column, utc=True, format="mixed")
    if column.dtype == np.float16:
        return column.astype(np.float32), None
    held = "biufM" if times else "biuf"
    if (column.dtype.kind in held and not _too_large(column)) or isinstance(column.dtype, pd.StringDtype):
        return column, None
    return column.map(_text, na_action="ignore").astype("string"), kind


def _too_large(column: pd.Series) -> bool:
    """Whether whole numbers are beyond 64 bits with a sign."""
    return bool(column.dtype.kind == "u" and len(column) and column.max() > np.iinfo(np.int64).max)


def _text(value: Any) -> str:
    """A value as text: ISO 8601 where it is a time, JSON where it has parts."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    parts = isinstance(value, list | tuple | dict)
    return json.dumps(value, default=str, ensure_ascii=False) if parts else str(value)

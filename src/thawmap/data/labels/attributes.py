"""What the attribute table of digitised polygons says: names, numbers, days."""

import re
from datetime import UTC, datetime

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd

from thawmap.config import LabelSettings

Texts = npt.NDArray[np.object_]
Days = npt.NDArray[np.datetime64]

_WHOLE = 2.0**53  # below which floating-point numbers hold every whole one
_PLANETSCOPE = re.compile(
    r"(\d{8}_\d{6}(?:_[0-9a-z]{1,2})?_[0-9a-f]{4}|\d+_\d+_\d{4}-\d{2}-\d{2}_[0-9a-f]{4})(?:_.+)?", re.IGNORECASE
)


def scene_id(name: str) -> str:
    """The id of the scene that a polygon names: of a PlanetScope file the part before what the product adds.

    >>> scene_id("20190709_042959_08_10A7_3B_AnalyticMS_SR")
    '20190709_042959_08_10a7'
    >>> scene_id("any other name")
    'any other name'
    """
    found = _PLANETSCOPE.fullmatch(name)
    return found[1].lower() if found else name


def texts(column: pd.Series) -> Texts:
    """A column of the attribute table as texts without blanks around them; "" where it is empty.

    Whole numbers that a gap has made fractional are whole again.
    """
    if column.dtype.kind == "f" and (known := column.dropna()).abs().lt(_WHOLE).all() and (known % 1 == 0).all():
        column = column.astype("Int64")
    missing = column.isna().to_numpy()
    return np.where(missing, "", column.astype(str).str.strip().to_numpy(object))


def days(column: pd.Series) -> Days:
    """A column of days or times as UTC days (datetime64[D]); NaT where there is none or it makes no sense."""
    written = pd.Series(texts(column), dtype="object").str.replace("/", "-")
    whole = written.where(written.str.match(r"\d{4}-?\d{2}-?\d{2}(\D|$)"))
    times = pd.to_datetime(whole, format="ISO8601", utc=True, errors="coerce")
    return times.dt.tz_localize(None).to_numpy("datetime64[D]")


def period(frame: gpd.GeoDataFrame, settings: LabelSettings) -> tuple[Days, Days]:
    """First and last day of each polygon; the last is the first where it is not given, NaT where it makes no sense."""
    first = days(frame[settings.start])
    if settings.end is None:
        return first, first
    last = days(frame[settings.end])
    return first, np.where(texts(frame[settings.end]) == "", first, last)


def day_of(time: datetime) -> np.datetime64:
    """The UTC day of a time; one without a zone is UTC."""
    return np.datetime64((time.astimezone(UTC) if time.tzinfo else time).date())


def numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """A column as numbers, whatever its type; NaN where it is none."""
    found: npt.NDArray[np.float64] = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return found


_DAY = re.compile(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)")


def days_in(name: str) -> list[np.datetime64]:
    """The days that stand in the name of a scene; none where there is no date in it.

    >>> days_in("S2A_20190709T042959_20190711T101010")
    [np.datetime64('2019-07-09'), np.datetime64('2019-07-11')]
    """
    read = days(pd.Series(["".join(parts) for parts in _DAY.findall(name)], dtype="object"))
    return list(read[~np.isnat(read)])

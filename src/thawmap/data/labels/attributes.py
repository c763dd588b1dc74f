"""Texts, numbers and days in the attribute table of digitised polygons."""

import re
from datetime import UTC, datetime

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd

from thawmap.config import LabelSettings

Texts = npt.NDArray[np.object_]
Days = npt.NDArray[np.datetime64]

_EXACT = 2.0**53  # below which a floating-point number holds every integer
_PLANETSCOPE = re.compile(
    r"(\d{8}_\d{6}(?:_[0-9a-z]{1,2})?_[0-9a-f]{4}|\d+_\d+_\d{4}-\d{2}-\d{2}_[0-9a-f]{4})(?:_.+)?", re.IGNORECASE
)
_DAY = re.compile(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)")


def scene_id(name: str) -> str:
    """Return a scene's name as its id: PlanetScope files' in short, others unchanged.

    Of a PlanetScope file it is the part before what the product adds, in small letters; other names stay as they are.

    >>> scene_id("20190709_042959_08_10A7_3B_AnalyticMS_SR")
    '20190709_042959_08_10a7'
    >>> scene_id("any other name")
    'any other name'
    """
    planetscope = _PLANETSCOPE.fullmatch(name)
    return planetscope[1].lower() if planetscope else name


def texts(column: pd.Series) -> Texts:
    """Return a column as an array of stripped texts; "" where it is empty.

    Whole numbers that an empty row has made floating-point are written as whole numbers.
    """
    if column.dtype.kind == "f":
        filled = column.dropna()
        if filled.abs().lt(_EXACT).all() and (filled % 1 == 0).all():
            column = column.astype("Int64")
    missing = column.isna().to_numpy()
    return np.where(missing, "", column.astype(str).str.strip().to_numpy(object))


def days(column: pd.Series) -> Days:
    """Return a column as an array of UTC days; NaT where none is written in full.

    Of type datetime64[D]; from days or times. A full date is such as 2019-07-14, 2019/07/14 or 20190714.
    """
    written = pd.Series(texts(column), dtype="object").str.replace("/", "-")
    # pandas also reads "2019" and "2019-07" as days: the first of the year, or of the month
    full = written.where(written.str.match(r"\d{4}-?\d{2}-?\d{2}(\D|$)"))
    times = pd.to_datetime(full, format="ISO8601", utc=True, errors="coerce")
    return times.dt.tz_localize(None).to_numpy("datetime64[D]")


def period(frame: gpd.GeoDataFrame, settings: LabelSettings) -> tuple[Days, Days]:
    """Return first and last day of each polygon, two arrays; NaT where unreadable.

    The last is the first where it is not given.
    """
    first = days(frame[settings.start])
    if settings.end is None:
        return first, first
    last = days(frame[settings.end])
    return first, np.where(texts(frame[settings.end]) == "", first, last)


def day_of(time: datetime) -> np.datetime64:
    """Return the UTC day of a time; one without a zone is taken for UTC."""
    return np.datetime64((time.astimezone(UTC) if time.tzinfo else time).date())


def numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """Return a column of any type as an array of floats; NaN where it holds no number."""
    floats: npt.NDArray[np.float64] = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return floats


def days_in(name: str) -> list[np.datetime64]:
    """Return a list of the days in a scene's name, as 20190709; empty without any.

    >>> days_in("S2A_20190709T042959_20190711T101010")
    [np.datetime64('2019-07-09'), np.datetime64('2019-07-11')]
    """
    written = days(pd.Series(["".join(digits) for digits in _DAY.findall(name)], dtype="object"))
    return list(written[~np.isnat(written)])

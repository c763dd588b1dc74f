"""The page of a plan: dates, footprints, costs, and what is left out, on one HTML page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from thawmap.files.atomic import write_text
from thawmap.files.results import result
from thawmap.report.acquisition import figures as draw
from thawmap.report.html import Picture, picture, render
from thawmap.text import counted

PAGE = "plan.html"
_ROWS = 40  # of a calendar, in one figure
_MAPS = 24  # areas that are drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPage:
    """A plan as its page shows it.

    Attributes:
        title: Name of the project, or of the areas.
        areas: ``name`` and ``km2``, in EPSG:4326.
        dates: ``area``, ``date``, ``day`` (ISO 8601), ``take``, ``reason``, ``cover``, ``clear`` (NaN where unknown),
            ``clear_source``, ``km2``, ``scenes``.
        items: ``area``, ``take``, ``reason``; the footprints.
        costs: For each area ``area``, ``area_km2``, ``found``, ``dates``, ``scenes``, ``owned``, ``km2``,
            ``left_out_km2``.
        left_out: How many scenes are not taken, by reason.
        quota_km2: Most square kilometres that may be asked for; None: no limit.
        rules: Words of the rules, by name.
        notes: Sentences for the reader, such as on what else is fetched.
    """

    title: str
    areas: gpd.GeoDataFrame
    dates: gpd.GeoDataFrame
    items: gpd.GeoDataFrame
    costs: Sequence[Mapping[str, Any]]
    left_out: Mapping[str, int]
    quota_km2: float | None = None
    rules: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write(folder: Path, page: PlanPage, *, made: datetime) -> Path:
    """Write the page of a plan into a folder; return its path.

    Raises:
        DataError: If it cannot be written, or somebody has changed the one that is there.
    """
    total = {name: sum(row[name] for row in page.costs) for name in ("found", "dates", "scenes", "owned", "km2")}
    html = render(
        "acquisition/page.html.j2",
        page=page,
        made=made,
        summary=list(summary(page)),
        total=total | {name: sum(row[name] for row in page.costs) for name in ("area_km2", "left_out_km2")},
        figures=list(_figures(page)),
        left_out=sorted(page.left_out.items(), key=lambda pair: (-pair[1], pair[0])),
        taken=_taken_rows(page.dates),
    )
    with result(folder) as draft:
        write_text(draft / PAGE, html)
    return folder / PAGE


def summary(page: PlanPage) -> Iterator[str]:
    """Yield sentences on a plan: what is taken, what it costs, what is left out."""
    scenes, dates = int(page.items["take"].sum()), sum(row["dates"] for row in page.costs)
    km2, sites = sum(row["km2"] for row in page.costs), len(page.areas)
    yield (
        f"{counted(scenes, 'scene')} of {counted(dates, 'date')} for {counted(sites, 'site')} would be fetched"
        f"{f', which costs {km2:,.1f} km2 of quota' if km2 else ', which costs no quota'}."
    )
    if page.quota_km2 is not None:
        over = sum(row["left_out_km2"] for row in page.costs)
        rest = f"; {over:,.1f} km2 more would be worth having and are left out" if over else ""
        yield f"The quota is {page.quota_km2:,.1f} km2, of which {max(page.quota_km2 - km2, 0):,.1f} km2 stay{rest}."
    empty = [row["area"] for row in page.costs if not row["dates"]]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        yield f"Nothing is taken of {', '.join(empty[:5])}{more}: the reasons stand below."
    if len(page.items) > scenes:
        yield f"{counted(len(page.items) - scenes, 'scene')} that were found would not be fetched, each for a reason."


def _figures(page: PlanPage) -> Iterator[Picture]:
    """Yield the figures of a plan: calendars of at most 40 rows, and a map."""
    dates = pd.DataFrame(
        {
            "area": page.dates["area"],
            "day": [date.fromisoformat(day) for day in page.dates["day"]],
            "seen": page.dates["cover"] * page.dates["clear"].fillna(0),
            "take": page.dates["take"],
        }
    )
    rows = sorted({(area, day.year) for area, day in zip(dates["area"], dates["day"], strict=True)})
    for first in range(0, len(rows), _ROWS):
        sites = list(dict.fromkeys(site for site, _ in rows[first : first + _ROWS]))
        span = sites[0] if len(sites) == 1 else f"{sites[0]} to {sites[-1]}"
        yield picture(
            "Dates" if len(rows) <= _ROWS else f"Dates, {span}",
            draw.calendar(dates, rows[first : first + _ROWS]),
            "Bars by day of the year, a row for each site and year; those of dates that are taken are blue.",
            "A bar is a date; it is as high as the share of the area that it shows without clouds. A row is as high as "
            "all of the area.",
        )
    drawn = page.areas.sort_values("name").iloc[:_MAPS]
    if len(drawn):
        more = f" The first {_MAPS} of {len(page.areas)} sites." if len(page.areas) > _MAPS else ""
        yield picture(
            "Footprints",
            draw.footprints(drawn, page.items),
            "Maps of each area with the footprints of the scenes that are taken.",
            f"The more dates show a place, the darker it is.{more} All, and what is left out, are in plan.gpkg.",
        )


def _taken_rows(dates: gpd.GeoDataFrame) -> list[dict[str, Any]]:
    """Return the dates that are taken as rows of a table."""
    columns = ["area", "day", "date", "scenes", "cover", "clear", "clear_source", "km2"]
    rows: list[dict[str, Any]] = dates.loc[dates["take"], columns].to_dict("records")
    return rows

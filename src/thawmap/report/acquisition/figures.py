"""Figures of a plan: when areas were seen clearly, and the ground that is taken."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from shapely.geometry.base import BaseGeometry

from thawmap.report.style import BLUE, GREY, INK, RULE, SKY, styled, wrapped

_HEIGHT = 0.8  # of a row, for a date of which all the area is seen clearly
_ACROSS = 4  # maps in a row
_MARGIN = 0.8  # around an area on its map, as a share of its longer side
_DARKEST = 0.75  # of a place that all scenes show


@styled
def calendar(dates: pd.DataFrame, rows: Sequence[tuple[str, int]]) -> Figure:
    """Return a figure of dates by day of the year, a row for each site and year.

    Args:
        dates: Rows with ``area``, ``day`` (a date), ``seen`` (clear share of the area, 0..1) and ``take``.
        rows: Site and year of each row, from the top.
    """
    figure = Figure(figsize=(8.6, 0.9 + 0.36 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    place = {row: number for number, row in enumerate(rows)}
    keys = list(zip(dates["area"], (day.year for day in dates["day"]), strict=True))
    own = dates[[key in place for key in keys]]
    base = np.array([place[key] for key in keys if key in place], float) + _HEIGHT / 2
    x = np.array([_day_of_leap_year(day) for day in own["day"]], float)
    taken, seen = own["take"].to_numpy(bool), own["seen"].to_numpy(float)
    axes.hlines(np.arange(len(rows)) + _HEIGHT / 2, *_span(dates), color=RULE, linewidth=0.8, zorder=1)
    for drawn, colour, width, order in ((~taken, GREY, 1.3, 2), (taken, BLUE, 2.6, 3)):
        axes.vlines(x[drawn], base[drawn], (base - _HEIGHT * seen)[drawn], color=colour, linewidth=width, zorder=order)
    axes.plot(x[taken], (base - _HEIGHT * seen)[taken], "o", color=BLUE, markersize=3.4, zorder=4)
    axes.set_yticks(range(len(rows)), _row_labels(rows), color=INK)
    axes.set(xlim=_span(dates), ylim=(len(rows) - 0.45, -0.6))
    _months(axes)
    axes.spines[:].set_visible(False)
    keys_drawn = [
        Line2D([], [], color=BLUE, linewidth=2.6, marker="o", markersize=3.4, label="taken"),
        Line2D([], [], color=GREY, linewidth=1.3, label="left out"),
    ]
    figure.legend(handles=keys_drawn, loc="outside upper right", ncols=2)
    return figure


def _row_labels(rows: Sequence[tuple[str, int]]) -> list[str]:
    """Return labels of rows: the site where it begins, and the year."""
    before = [None, *(site for site, _ in rows)]
    return [
        f"{wrapped(site, 1.9).splitlines()[0]}  {year}" if site != last else str(year)
        for (site, year), last in zip(rows, before, strict=False)
    ]


def _day_of_leap_year(day: date) -> int:
    """Return the day of the year as counted in leap years, so that months are in line."""
    return date(2000, day.month, day.day).timetuple().tm_yday


def _span(dates: pd.DataFrame) -> tuple[float, float]:
    """Return the first and last day of the year to draw, some days beyond the dates."""
    days = [_day_of_leap_year(day) for day in dates["day"]] or [152, 274]
    return min(days) - 3.0, max(days) + 3.0


def _months(axes: Axes) -> None:
    """Label a day axis by months, at their first days."""
    first, last = axes.get_xlim()
    begins = [(_day_of_leap_year(date(2000, month, 1)), f"{date(2000, month, 1):%b}") for month in range(1, 13)]
    middles = [(max(day, first) + min(day + 30, last)) / 2 for day, _ in begins]
    shown = [
        (x, name) for x, (day, name) in zip(middles, begins, strict=True) if day < last - 3 and day + 30 > first + 3
    ]
    axes.set_xticks([x for x, _ in shown], [name for _, name in shown])
    axes.xaxis.tick_top()
    for day, _ in begins:
        if first < day < last:
            axes.axvline(day, color=RULE, linewidth=0.8, zorder=0.5)


@styled
def footprints(areas: gpd.GeoDataFrame, items: gpd.GeoDataFrame) -> Figure:
    """Return a figure of maps, one for each area: its outline, and what is taken.

    The more dates show a ground, the darker it is. North is up in the middle of each map.

    Args:
        areas: Rows with ``name``.
        items: Scenes with ``area`` and ``take``.
    """
    across = min(_ACROSS, len(areas))
    down = -(-len(areas) // across)
    side = min(8.6 / across, 4.2)
    figure = Figure(figsize=(side * across, (side + 0.25) * down + 0.35), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, row in zip(panels, range(len(areas)), strict=False):
        area = areas.iloc[[row]]
        _map(axes, area, items[(items["area"] == area["name"].iloc[0]) & items["take"]])
        axes.set_title(wrapped(str(area["name"].iloc[0]), side - 0.3, letter=0.084), color=INK)
    for axes in panels[len(areas) :]:
        axes.set_visible(False)
    keys = [
        Line2D([], [], color=INK, linewidth=1.4, label="the area"),
        Patch(facecolor=SKY, alpha=0.5, edgecolor=BLUE, label="scenes that are taken"),
    ]
    figure.legend(handles=keys, loc="outside lower left", ncols=2)
    return figure


def _in_one_piece(outline: BaseGeometry) -> BaseGeometry:
    """Return an outline in metres whose parts, cut at the antimeridian, are joined."""
    return shapely.union_all(shapely.get_parts(outline), grid_size=1.0)


def _map(axes: Axes, area: gpd.GeoDataFrame, items: gpd.GeoDataFrame) -> None:
    """Draw an area and its scenes in a projection in metres around its middle."""
    crs = _local_crs(area.geometry.iloc[0])
    outline = _in_one_piece(area.to_crs(crs).geometry.iloc[0])
    west, south, east, north = outline.bounds
    half = (0.5 + _MARGIN) * max(east - west, north - south)
    x, y = (west + east) / 2, (south + north) / 2
    frame = shapely.box(x - half, y - half, x + half, y + half)
    faint = 1 - (1 - _DARKEST) ** (1 / max(len(items), 1))  # so many on top of each other are the darkest
    for cut in shapely.make_valid(np.asarray(items.to_crs(crs).geometry.values)):
        scene = _in_one_piece(cut)
        _draw(axes, shapely.intersection(scene, frame), facecolor=SKY, alpha=faint, linewidth=0)
        _draw(axes, shapely.intersection(scene, frame), fill=False, edgecolor=BLUE, linewidth=0.5, alpha=0.5)
    _draw(axes, outline, fill=False, edgecolor=INK, linewidth=1.4)
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(True)
    _scale(axes, x - 0.94 * half, y - 0.9 * half, half)


def _scale(axes: Axes, x: float, y: float, half: float) -> None:
    """Draw a labelled bar of 1, 2 or 5 x 10^n km, at most half as wide as the map."""
    power = 10.0 ** np.floor(np.log10(half))
    length = max(step * power for step in (0.5, 1, 2, 5) if step * power <= half)
    axes.plot([x, x + length], [y, y], color=INK, linewidth=2, solid_capstyle="butt")
    axes.text(x, y + 0.04 * half, f"{length / 1000:g} km", color=INK, size=7.5)


def _local_crs(outline: Any) -> str:
    """Return a projection in metres around the middle of an outline in degrees."""
    parts = shapely.get_parts(outline)
    lon, lat = np.radians(shapely.get_coordinates(shapely.centroid(parts))).T
    weights = shapely.area(parts) * np.cos(lat)
    middle = np.degrees(np.angle(np.exp(1j * lon) @ weights)), np.degrees(np.average(lat, weights=weights))
    return f"+proj=laea +lon_0={middle[0]:.4f} +lat_0={middle[1]:.4f} +datum=WGS84 +units=m"


def _draw(axes: Axes, shape: Any, **look: Any) -> None:
    """Draw the polygons of a shape, with their holes."""
    rings = [
        shapely.get_coordinates(ring)
        for part in shapely.get_parts(shapely.get_parts(shape))
        if part.geom_type == "Polygon"
        for ring in (part.exterior, *part.interiors)
    ]
    if rings:
        axes.add_patch(PathPatch(Path.make_compound_path(*(Path(ring, closed=True) for ring in rings)), **look))

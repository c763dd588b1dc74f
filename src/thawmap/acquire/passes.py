"""Dates: offers of one pass of a satellite, or of one day by the sun."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from thawmap.acquire.offers import Offer

_GAP = timedelta(seconds=60)  # between scenes of one pass
_DEGREES_PER_HOUR = 15.0


def longitude(outline: BaseGeometry) -> float:
    """Return the longitude of the middle of an outline in degrees, -180..180."""
    parts = shapely.get_parts(outline)
    lon, lat = np.radians(shapely.get_coordinates(shapely.centroid(parts))).T
    east = np.exp(1j * lon) @ (shapely.area(parts) * np.cos(lat))
    return float(np.degrees(np.angle(east)))


def solar_day(acquired: datetime, longitude: float) -> date:
    """Return the day of a UTC time by the sun at a longitude in degrees."""
    return (acquired.astimezone(UTC) + timedelta(hours=longitude / _DEGREES_PER_HOUR)).date()


def group_dates(
    offers: Sequence[Offer], longitude: float, *, by: Literal["pass", "day"] = "pass"
) -> list[tuple[date, list[int]]]:
    """Return the dates of offers: a day each, and the positions of its offers.

    A pass has one ``pass_id``; where that is unknown, one satellite and gaps under a minute. Offers of one
    ``ground_id`` are of one pass, whatever their catalogues call it. No date goes on beyond midnight by the sun.

    Args:
        offers: Offers for one area, by time.
        longitude: Of the area, in degrees.
        by: Whether a pass is a date, or all of a day.

    Returns:
        Dates by their first offer; positions in ``offers``, ascending.
    """
    days = [solar_day(offer.acquired, longitude) for offer in offers]
    if by == "day":
        labels: Sequence[Hashable] = days
    else:
        labels = _joined([_pass_keys(offer, day) for offer, day in zip(offers, _chains(offers, days), strict=True)])
    dates = defaultdict(list)
    for position, label in enumerate(labels):
        dates[label].append(position)
    return [(days[positions[0]], positions) for positions in dates.values()]


def _chains(offers: Sequence[Offer], days: Sequence[date]) -> list[tuple[date, int]]:
    """Return for each offer its day, and the number of its run of scenes in that day."""
    runs: dict[tuple[str, date], tuple[int, datetime]] = {}
    chains = []
    for offer, day in zip(offers, days, strict=True):
        key = (offer.satellite.casefold(), day)
        number, before = runs.get(key, (0, offer.acquired))
        if not offer.pass_id:
            number += offer.acquired - before >= _GAP
            runs[key] = (number, offer.acquired)
        chains.append((day, number))
    return chains


def _pass_keys(offer: Offer, chain: tuple[date, int]) -> list[Hashable]:
    """Return keys of an offer; offers that share one are of one pass."""
    day, number = chain
    keys: list[Hashable] = [("pass", day, offer.pass_id)]
    if not offer.pass_id:
        keys = [("run", day, offer.satellite.casefold(), number)]
    return [*keys, ("ground", day, offer.ground_id)] if offer.ground_id else keys


def _joined(keys: Sequence[Sequence[Hashable]]) -> list[int]:
    """Return for each list of keys the number of its group; lists share a key in one."""
    parent = list(range(len(keys)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    first: dict[Hashable, int] = {}
    for position, own in enumerate(keys):
        for key in own:
            a, b = root(first.setdefault(key, position)), root(position)
            parent[max(a, b)] = min(a, b)
    return [root(position) for position in range(len(keys))]

"""Outlines with fewer vertices that still cover what they covered.

Two steps make a ring simpler and lose no ground: a vertex of an inward corner is left out, or two neighbouring outward
corners become one, where the sides beside them meet. Whichever adds the least ground is done first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

_Points = npt.NDArray[np.float64]
_MOST_POINTS = 20_000  # of a ring that is made simpler step by step; more are thinned out before


def fewer_vertices(polygons: Sequence[BaseGeometry], most: int) -> list[BaseGeometry]:
    """Return polygons that cover the given ones, with ``most`` vertices together if possible.

    Holes are filled, the smallest first, where their corners are needed, and made smaller. Degrees of longitude are
    weighed by the cosine of the latitude.
    """
    lat = np.radians(shapely.get_coordinates(polygons)[:, 1])
    stretch = np.array([max(float(np.cos(lat).mean()), 0.01), 1.0])
    rings = [_Ring.of(ring, stretch, number) for number, polygon in enumerate(polygons) for ring in _rings(polygon)]
    while sum(len(ring.points) for ring in rings) > most:
        cheapest = min(rings, key=lambda ring: ring.cost)
        if not np.isfinite(cheapest.cost):
            break
        if cheapest.is_hole and len(cheapest.points) <= 4:
            rings.remove(cheapest)
        else:
            cheapest.simplify()
    made: list[BaseGeometry] = []
    for number in range(len(polygons)):
        own = [ring for ring in rings if ring.polygon == number]
        shell, *holes = [shapely.LinearRing(ring.points / stretch) for ring in own]
        made.append(shapely.Polygon(shell, holes))
    return made


def _rings(polygon: Any) -> list[tuple[_Points, bool]]:
    """Return the rings of a polygon, each with whether it is a hole.

    Ground on the left.
    """
    oriented: Any = shapely.orient_polygons(polygon)
    rings = [oriented.exterior, *oriented.interiors]
    return [(_thinned(shapely.get_coordinates(ring)[:-1]), number > 0) for number, ring in enumerate(rings)]


def _thinned(points: _Points) -> _Points:
    """Return a ring's points; a ring with very many is drawn around by a coarser one."""
    step = 0.0
    grown: Any = shapely.Polygon(points)
    while shapely.get_num_coordinates(grown) > _MOST_POINTS:
        step = 2 * step or 1e-6
        coarser: Any = shapely.buffer(shapely.Polygon(points), step).simplify(step)
        grown = shapely.Polygon(coarser.exterior)
    if step == 0:
        return points
    oriented: Any = shapely.orient_polygons(grown)
    return shapely.get_coordinates(oriented.exterior)[:-1]


@dataclass
class _Ring:
    """A ring of a polygon, and what each step would add to its ground.

    Attributes:
        points: Vertices (n, 2), with the ground on the left.
        polygon: Number of the polygon.
        is_hole: Whether it bounds a hole.
        cost: Ground that the cheapest step adds.
    """

    points: _Points
    polygon: int
    is_hole: bool
    cost: float = 0.0

    @classmethod
    def of(cls, ring: tuple[_Points, bool], stretch: _Points, polygon: int) -> "_Ring":
        """Return a ring of vertices and whether it is a hole, longitudes stretched."""
        made = cls(ring[0] * stretch, polygon, ring[1])
        made._weigh()
        return made

    def simplify(self) -> None:
        """Do the cheapest step: one vertex fewer."""
        left_out = self._at
        if not self._drops:
            self.points[self._at] = self._meeting
            left_out = (self._at + 1) % len(self.points)
        self.points = np.delete(self.points, left_out, axis=0)
        self._weigh()

    def _weigh(self) -> None:
        """Find the cheapest step."""
        points = self.points
        if len(points) <= (4 if self.is_hole else 3):
            self.cost = _area(points) if self.is_hole else np.inf
            return
        before, after, next_but_one = np.roll(points, 1, 0), np.roll(points, -1, 0), np.roll(points, -2, 0)
        turn = _cross(points - before, after - points)  # above 0: an outward corner, as the ground is on the left
        dropped = np.where(turn <= 0, -turn / 2, np.inf)
        # where the side before a vertex and the side after the next one meet
        side, opposite, edge = points - before, after - next_but_one, after - points
        across = _cross(side, opposite)
        with np.errstate(all="ignore"):
            ahead, back = _cross(edge, opposite) / across, _cross(edge, side) / across
            meeting = points + ahead[:, None] * side
            grown = np.abs(_cross(edge, meeting - points)) / 2
        outward = (turn > 0) & (np.roll(turn, -1) > 0) & (ahead > 0) & (back > 0) & np.isfinite(grown)
        merged = np.where(outward, grown, np.inf)
        self._drops = bool(dropped.min() <= merged.min())
        self._at = int(np.argmin(dropped if self._drops else merged))
        self._meeting = meeting[self._at]
        self.cost = float(min(dropped.min(), merged.min()))


def _cross(first: _Points, second: _Points) -> _Points:
    """Return the cross product of vectors (n, 2)."""
    product: _Points = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    return product


def _area(points: _Points) -> float:
    """Return the area that a ring of vertices encloses."""
    return float(
        abs(np.dot(points[:, 0], np.roll(points[:, 1], -1)) - np.dot(points[:, 1], np.roll(points[:, 0], -1))) / 2
    )

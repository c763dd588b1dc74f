"""The ground of an area that offered scenes show, and what they cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from thawmap.acquire.areas import Area, equal_area
from thawmap.acquire.offers import Offer
from thawmap.geo.shapes import Shapes, polygons_of, repair

_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredOffer:
    """An offered scene, measured against an area.

    Attributes:
        area: The area.
        offer: The scene.
        ground: What it shows of the area, in EPSG:4326; empty where it shows nothing.
        share: The same as a share of the area, 0..1.
        km2: Square kilometres that are charged for it.
    """

    area: Area
    offer: Offer
    ground: BaseGeometry
    share: float
    km2: float


def measure(
    offers: Mapping[str, Sequence[Offer]], areas: Sequence[Area], *, minimum_km2: float = 0.0
) -> list[MeasuredOffer]:
    """Return every offer of every area as a `MeasuredOffer`, by area and time.

    An offer that is given twice is there once, as its catalogue changed it last.

    Args:
        offers: Offers by the name of an area.
        areas: The areas.
        minimum_km2: Least that is charged for a scene that is cut to the area.
    """
    rows = [
        (area, offer)
        for area in sorted(areas, key=lambda area: area.name)
        for offer in _each_once(offers.get(area.name, ()))
    ]
    outlines = repair(np.array([offer.outline for _, offer in rows], object))
    grounds, shares = _cut(outlines, [area for area, _ in rows])
    scene_km2 = np.zeros(len(rows))
    whole = np.array([offer.is_paid and not offer.is_clipped for _, offer in rows], bool)
    scene_km2[whole] = areas_km2(outlines[whole])
    return [
        MeasuredOffer(
            area=area,
            offer=offer,
            ground=ground,
            share=float(share),
            km2=_charged(offer, clipped_km2=max(float(share) * area.km2, minimum_km2), scene_km2=float(scene)),
        )
        for (area, offer), ground, share, scene in zip(rows, grounds, shares, scene_km2, strict=True)
    ]


def areas_km2(shapes: Shapes) -> npt.NDArray[np.float64]:
    """Return the square kilometres of shapes in EPSG:4326."""
    return np.asarray(shapely.area(equal_area(shapes)), np.float64) / 1e6


def _each_once(offers: Iterable[Offer]) -> list[Offer]:
    """Return offers without repetitions, by time, catalogue and id."""
    latest: dict[tuple[datetime, str, str, str], Offer] = {}
    newest: dict[tuple[str, str, str], Offer] = {}
    for offer in offers:
        key = (offer.catalogue, offer.collection, offer.id)
        other = newest.get(key)
        if other is None or _version(offer) > _version(other):
            newest[key] = offer
    for offer in newest.values():
        latest[offer.acquired, offer.catalogue, offer.collection, offer.id] = offer
    return [latest[key] for key in sorted(latest)]


def _version(offer: Offer) -> tuple[datetime, str, bytes]:
    """Return what sorts versions of one offer: the newest last, in any order given."""
    return offer.updated or _LONG_AGO, repr((offer.clear, offer.fault, offer.is_owned)), shapely.to_wkb(offer.outline)


def _cut(outlines: Shapes, areas: Sequence[Area]) -> tuple[Shapes, npt.NDArray[np.float64]]:
    """Return the parts of areas in outlines, a row each, and their shares of the area."""
    wholes = np.array([area.outline for area in areas], object)
    shares = np.asarray(shapely.covers(outlines, wholes), np.float64)
    grounds, partial = wholes.copy(), shares == 0
    grounds[partial] = polygonal(shapely.intersection(outlines[partial], wholes[partial]))
    km2 = np.array([area.km2 for area in areas], np.float64)
    shares[partial] = np.minimum(areas_km2(grounds[partial]) / km2[partial], 1)
    return grounds, shares


def polygonal(shapes: Shapes) -> Shapes:
    """Return shapes without the points and lines in which others only touch."""
    mixed = shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION
    lower = shapely.get_dimensions(shapes) < 2
    if not (mixed | lower).any():
        return shapes
    shapes = shapes.copy()
    shapes[lower] = shapely.Polygon()
    if (mixed & ~lower).any():
        shapes[mixed & ~lower] = polygons_of(shapes[mixed & ~lower])
    return shapes


def _charged(offer: Offer, *, clipped_km2: float, scene_km2: float) -> float:
    """Return the square kilometres that are charged for an offer: none on disk."""
    if offer.is_owned or not offer.is_paid:
        return 0.0
    return clipped_km2 if offer.is_clipped else scene_km2

"""An offer: a scene that a catalogue has for an area, before anything is fetched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from shapely.geometry.base import BaseGeometry

ClearSource = Literal["udm2", "coverage", "clear_percent", "cloud_cover", "unknown"]
"""Where a clear fraction is from, the best first: pixels on disk, the service's look inside the area, the whole scene's
clear or cloudy share, nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A scene that a catalogue offers for one area.

    Attributes:
        id: The catalogue's own name of it.
        catalogue: Name of the catalogue, such as planet or earth-search.
        collection: Collection or type of item in it.
        acquired: UTC time of the image.
        outline: Footprint in EPSG:4326, valid, cut at the antimeridian.
        clear: Clear fraction of what it shows of the area, 0..1; None where unknown.
        clear_source: Where that is from.
        pass_id: Strip or datatake, equal for all scenes of one pass of a satellite; empty where unknown.
        satellite: Name of the satellite; empty where unknown.
        ground_id: Equal for offers that show the same ground at the same time, in whatever catalogue and processing:
            tile and datatake; empty: the id.
        processing: Sorts processings of one ``ground_id``: the newest last.
        updated: UTC time at which the catalogue last changed it; None where unknown.
        is_standard: Whether its quality is standard.
        has_ground_control: Whether it was fitted to points on the ground.
        is_owned: Whether it is on disk already, and costs nothing.
        is_paid: Whether square kilometres are charged for it.
        is_clipped: Whether only the part in the area is charged, else all of it.
        fault: Reason why it cannot be taken at all; empty if it can.
        item: JSON values of the catalogue that fetching needs; no signed addresses.
    """

    id: str
    catalogue: str
    collection: str
    acquired: datetime
    outline: BaseGeometry
    clear: float | None
    clear_source: ClearSource
    pass_id: str = ""
    satellite: str = ""
    ground_id: str = ""
    processing: str = ""
    updated: datetime | None = None
    is_standard: bool = True
    has_ground_control: bool = True
    is_owned: bool = False
    is_paid: bool = False
    is_clipped: bool = True
    fault: str = ""
    item: Mapping[str, Any] = field(default_factory=dict)


def looked_inside(offers: Sequence[Offer], fractions: Sequence[float | None]) -> list[Offer]:
    """Return offers with clear fractions inside the area; None leaves one as it is."""
    return [
        offer if fraction is None else replace(offer, clear=fraction, clear_source="coverage")
        for offer, fraction in zip(offers, fractions, strict=True)
    ]

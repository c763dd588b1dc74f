"""Choosing: the scenes that are taken of what catalogues offer, and why not the others.

The same offers give the same choice, in whatever order they come.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np

from thawmap.acquire.areas import Area
from thawmap.acquire.budget import share_out
from thawmap.acquire.dates import DateOption, FoundDate, find_dates
from thawmap.acquire.measuring import MeasuredOffer, areas_km2, measure
from thawmap.acquire.offers import ClearSource, Offer
from thawmap.acquire.thinning import Spacing, thin
from thawmap.config import ImageRules, PlanetImagery
from thawmap.geo.shapes import Shapes
from thawmap.text import counted

_BEST_FIRST: tuple[ClearSource, ...] = ("udm2", "coverage", "clear_percent", "cloud_cover", "unknown")
_LOOKED_INSIDE = ("udm2", "coverage")
_ROUNDING = 0.005  # of a clear fraction, which catalogues give in hundredths


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedItem:
    """An offered scene with what becomes of it.

    Attributes:
        area: Name of the area.
        date: Name of its date.
        offer: The scene.
        cover: Share of the area that it shows, 0..1.
        km2: Square kilometres that are charged for it.
        part: Whether it is one of the scenes that make its date, if that were taken.
        chosen: Whether the program chose it.
        taken: Whether it is taken: as chosen, or as a person changed that.
        reason: Why the program did not choose it: a fixed phrase, and numbers in brackets; empty if it did.
    """

    area: str
    date: str
    offer: Offer
    cover: float
    km2: float
    part: bool
    chosen: bool
    taken: bool
    reason: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Area, catalogue, collection and id, which no other item of a plan has."""
        return self.area, self.offer.catalogue, self.offer.collection, self.offer.id


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDate:
    """A date of an area: one pass of a satellite, or one day, with what becomes of it.

    Attributes:
        area: Name of the area.
        name: UTC time of its first scene, or its day; no other date of the area has it.
        day: Day by the sun.
        acquired: UTC time of its first scene.
        catalogue: Catalogue that it is taken from; empty if none has a usable scene.
        satellite: Satellites that took it.
        cover: Share of the area that its scenes show together, 0..1.
        clear: Clear fraction of what they show, each scene counted by its ground; None where unknown.
        clear_source: The worst of where their clear fractions are from.
        km2: Square kilometres that are charged for it.
        chosen: Whether the program chose it.
        reason: Why it did not; empty if it did.
    """

    area: str
    name: str
    day: date
    acquired: datetime
    catalogue: str
    satellite: str
    cover: float
    clear: float | None
    clear_source: ClearSource
    km2: float
    chosen: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is taken of all offers.

    Attributes:
        dates: All dates that were found, by area and time.
        items: All offers, by area and time.
    """

    dates: tuple[PlannedDate, ...]
    items: tuple[PlannedItem, ...]

    @property
    def km2(self) -> float:
        """Square kilometres that are charged for what was chosen."""
        return sum(item.km2 for item in self.items if item.chosen)


def choose(
    offers: Mapping[str, Sequence[Offer]],
    areas: Sequence[Area],
    rules: ImageRules,
    *,
    quota_km2: float | None = None,
    minimum_km2: float = 0.0,
    catalogues: Sequence[str] = (),
) -> Choice:
    """Return what is taken of the offers for each area, with a reason for all else.

    Offers that no rule excludes make dates. Of a date, those are taken that show most clear ground of the area for what
    they cost. Dates that obey the rules are thinned within each year, and are taken in turn by the areas while the
    quota lasts: a date is taken whole or not at all.

    Args:
        offers: Offers by the name of their area.
        areas: The areas; their names differ.
        rules: The rules.
        quota_km2: Most square kilometres, all areas together; None: no limit.
        minimum_km2: Least that is charged for a scene that is cut to the area.
        catalogues: Names of catalogues, the preferred first; others follow by name. A date has scenes of one only.
    """
    measured = measure(offers, areas, minimum_km2=minimum_km2)
    reasons = unusable(measured, rules)
    dates = find_dates(measured, reasons, rules, catalogues=catalogues)
    verdicts = {index: date_fault(found, rules) for index, found in enumerate(dates)}
    verdicts |= _thinned(dates, [index for index, fault in verdicts.items() if not fault], rules)
    left = [index for index, fault in verdicts.items() if not fault]
    verdicts |= share_out([dates[index] for index in left], left, quota_km2)
    return Choice(
        dates=tuple(_planned_date(found, verdicts[index]) for index, found in enumerate(dates)),
        items=tuple(_planned_items(measured, reasons, dates, verdicts)),
    )


def undecided(
    offers: Mapping[str, Sequence[Offer]], areas: Sequence[Area], rules: ImageRules
) -> dict[str, list[Offer]]:
    """Return the offers whose clear fraction inside the area could change the choice.

    By area, without areas that have none. Those of which only the whole scene's fraction is known, of dates that show
    enough of the area and could be clear enough: a whole scene's fraction leaves little open where it is near 0 or 1.
    """
    measured = measure(offers, areas)
    open_rules = rules.model_copy(update={"cloud": 1.0})
    reasons = unusable(measured, open_rules)
    bounds = _clear_bounds(measured)
    asked: dict[str, list[Offer]] = {}
    for found in find_dates(measured, reasons, open_rules):
        for option in found.options:
            highest = max((bounds[number][1] for number in option.scenes), default=0.0)
            if option.cover < rules.cover - 1e-9 or highest < 1 - rules.cloud - 1e-9:
                continue
            for number in sorted(option.scenes):
                offer, (low, high) = measured[number].offer, bounds[number]
                if offer.clear_source not in _LOOKED_INSIDE and high - low > 2 * _ROUNDING + 1e-9:
                    asked.setdefault(found.area.name, []).append(offer)
    return asked


def reason_kind(reason: str) -> str:
    """Return the fixed phrase of a reason, without the numbers in brackets after it.

    >>> reason_kind("date too cloudy (0.340 of what it shows, most 0.1)")
    'date too cloudy'
    """
    return reason.partition(" (")[0]


def unusable(measured: Sequence[MeasuredOffer], rules: ImageRules) -> list[str]:
    """Return for each offer why it cannot be used by itself; empty where it can."""
    reasons = [_fault(row, rules) for row in measured]
    newest: dict[tuple[str, str, str], int] = {}
    for number, row in enumerate(measured):
        if reasons[number] or not row.offer.ground_id:
            continue
        other = newest.setdefault((row.area.name, row.offer.catalogue, row.offer.ground_id), number)
        if other == number:
            continue
        best, worse = sorted((other, number), key=lambda each: _processing(measured[each].offer), reverse=True)
        newest[row.area.name, row.offer.catalogue, row.offer.ground_id] = best
        kept = measured[best].offer
        phrase = "other processing on disk" if kept.is_owned else "older processing"
        reasons[worse] = f"{phrase} ({kept.id} is used)"
    return reasons


def _processing(offer: Offer) -> tuple[bool, str, str, str]:
    """Return what sorts processings of one ground: what is on disk, then the newest, last."""
    return offer.is_owned, offer.processing, offer.updated.isoformat() if offer.updated else "", offer.id


def _fault(row: MeasuredOffer, rules: ImageRules) -> str:
    """Return why an offer cannot be used, whatever else is offered; empty if it can."""
    offer = row.offer
    if offer.fault:
        return offer.fault
    if row.share < rules.min_share:
        return f"shows too little of the area ({_down(row.share)} of it, least {rules.min_share:g})"
    if isinstance(rules, PlanetImagery) and not (offer.is_standard or rules.test_quality):
        return "test quality"
    if isinstance(rules, PlanetImagery) and rules.ground_control and not offer.has_ground_control:
        return "no ground control"
    if offer.clear is None and rules.cloud < 1:
        return "clear fraction unknown"
    return ""


def date_fault(found: FoundDate, rules: ImageRules) -> str:
    """Return why a date cannot be taken; empty if it can."""
    option = found.option
    if option is None:
        return "no usable scene"
    if option.members:
        return ""
    if option.cover < rules.cover - 1e-9:
        return f"date shows too little of the area ({_down(option.cover)} of it, least {rules.cover:g})"
    if 1 - option.clear > rules.cloud + 1e-9:
        return f"date too cloudy ({_up(1 - option.clear)} of what it shows, most {rules.cloud:g})"
    return f"date shows too little of the area (without scenes that add less than {rules.min_share:g} of it)"


def _thinned(dates: Sequence[FoundDate], kept: Sequence[int], rules: ImageRules) -> dict[int, str]:
    """Return reasons of dates that are left out so that a season is sampled evenly."""
    seasons: dict[tuple[str, int], list[int]] = {}
    for index in kept:
        seasons.setdefault((dates[index].area.name, dates[index].day.year), []).append(index)
    spacing = Spacing(gap_days=rules.min_gap_days, most=rules.max_dates, per_month=rules.per_month)
    reasons = {}
    for season in seasons.values():
        days = [dates[index].day for index in season]
        chosen = thin(days, [round(100 * dates[index].value) for index in season], spacing)
        taken = [days[position] for position in chosen]
        for position, index in enumerate(season):
            if position not in chosen:
                reasons[index] = _thinning_reason(days[position], taken, rules)
    return reasons


def _thinning_reason(day: date, taken: Sequence[date], rules: ImageRules) -> str:
    """Return why a day is left out beside those that are taken."""
    nearest = min(taken, key=lambda other: (abs((other - day).days), other))
    apart = abs((nearest - day).days)
    if apart < rules.min_gap_days:
        return f"too near a better date ({counted(apart, 'day')} from {nearest}, least {rules.min_gap_days})"
    in_month = sum((other.year, other.month) == (day.year, day.month) for other in taken)
    if rules.per_month is not None and in_month >= rules.per_month:
        return f"enough dates in its month ({day:%Y-%m} has {in_month}, most {rules.per_month})"
    return f"enough dates in its season ({day.year} has {len(taken)}, most {rules.max_dates})"


def _clear_bounds(measured: Sequence[MeasuredOffer]) -> list[tuple[float, float]]:
    """Return lowest and highest clear fraction inside the area that each offer may have.

    Of a scene of which a fraction is clear, the part in the area may be the clear one, or the cloudy one.
    """
    scenes = areas_km2(_outlines(measured)) if measured else ()
    bounds = []
    for row, scene_km2 in zip(measured, scenes, strict=True):
        clear, inside = row.offer.clear, row.share * row.area.km2
        if clear is None or not inside:
            bounds.append((0.0, 1.0))
            continue
        if row.offer.clear_source in _LOOKED_INSIDE:
            bounds.append((clear, clear))
            continue
        outside = max(float(scene_km2) - inside, 0.0)
        low = ((clear - _ROUNDING) * (inside + outside) - outside) / inside
        high = (clear + _ROUNDING) * (inside + outside) / inside
        bounds.append((min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)))
    return bounds


def _planned_date(found: FoundDate, reason: str) -> PlannedDate:
    """Return a date with the numbers of the scenes that make it, or of all usable ones."""
    option = found.option
    scenes = [] if option is None else [found.measured[number] for number in option.members or option.scenes]
    offers = [row.offer for row in scenes]
    unknown = option is None or any(offer.clear is None for offer in offers)
    sources = [offer.clear_source for offer in offers] or ["unknown"]
    return PlannedDate(
        area=found.area.name,
        name=found.name,
        day=found.day,
        acquired=found.acquired,
        catalogue="" if option is None else option.catalogue,
        satellite=", ".join(sorted({offer.satellite for offer in offers} - {""})),
        cover=0.0 if option is None else option.cover,
        clear=None if unknown or option is None else option.clear,
        clear_source=max(sources, key=_BEST_FIRST.index),
        km2=sum(row.km2 for row in scenes),
        chosen=not reason,
        reason=reason,
    )


def _planned_items(
    measured: Sequence[MeasuredOffer], reasons: Sequence[str], dates: Iterable[FoundDate], verdicts: Mapping[int, str]
) -> Iterable[PlannedItem]:
    """Yield all offers with what becomes of them, in their order."""
    items: dict[int, PlannedItem] = {}
    for index, found in enumerate(dates):
        option, verdict = found.option, verdicts[index]
        for number in found.positions:
            part = option is not None and number in option.members
            reason = reasons[number] or _item_reason(measured[number], option, verdict, is_part=part)
            items[number] = PlannedItem(
                area=found.area.name,
                date=found.name,
                offer=measured[number].offer,
                cover=measured[number].share,
                km2=measured[number].km2,
                part=part,
                chosen=not reason,
                taken=not reason,
                reason=reason,
            )
    yield from (items[number] for number in sorted(items))


def _item_reason(row: MeasuredOffer, option: DateOption | None, verdict: str, *, is_part: bool) -> str:
    """Return why a usable offer is not taken; empty if it is."""
    if option is None or row.offer.catalogue != option.catalogue:
        return f"other catalogue ({option.catalogue if option else 'none'} has this date)"
    if option.members and not is_part:
        return f"not needed for its date (the others show {_down(option.cover)} of the area)"
    return verdict


def _outlines(measured: Sequence[MeasuredOffer]) -> Shapes:
    """Return the outlines of offers as an array."""
    return np.array([row.offer.outline for row in measured], object)


def _down(share: float) -> str:
    """Return a share as text, rounded down to thousandths."""
    return f"{math.floor(1000 * share + 1e-6) / 1000:.3f}"


def _up(share: float) -> str:
    """Return a share as text, rounded up to thousandths."""
    return f"{math.ceil(1000 * share - 1e-6) / 1000:.3f}"

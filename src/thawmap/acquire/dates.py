"""Dates of areas with the scenes that make them, one catalogue each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import groupby

import numpy as np
import numpy.typing as npt
import shapely

from thawmap.acquire.areas import Area
from thawmap.acquire.covering import Pool, best_set, split
from thawmap.acquire.measuring import MeasuredOffer, areas_km2
from thawmap.acquire.passes import group_dates, longitude
from thawmap.config import ImageRules
from thawmap.geo.shapes import Shapes

_ENOUGH = 1e-9  # of a share: what is less is rounding


@dataclass(slots=True, kw_only=True)
class DateOption:
    """The usable scenes of one catalogue for a date.

    Attributes:
        catalogue: The catalogue.
        scenes: Positions of its usable scenes, preferred ones first.
        owned: Whether one of them is on disk.
        members: Positions of those that make the date; none if they cannot obey the rules.
        cover: Share of the area that the members show together; without members, that all scenes show.
        clear: Clear fraction of the same, each scene counted by its ground; what is unknown counts as cloudy.
        km2: Square kilometres charged for the members.
    """

    catalogue: str
    scenes: list[int]
    owned: bool
    members: tuple[int, ...] = ()
    cover: float = 0.0
    clear: float = 0.0
    km2: float = 0.0


@dataclass(slots=True, kw_only=True)
class FoundDate:
    """A date of an area.

    Attributes:
        area: The area.
        name: UTC time of its first scene, or its day.
        day: Day by the sun.
        acquired: UTC time of its first scene.
        measured: All offers of all areas.
        positions: Positions in them of those of this date.
        cover_needed: Share of the area that it has to show.
        options: Catalogues that it can be taken from, the preferred first.
    """

    area: Area
    name: str
    day: date
    acquired: datetime
    measured: Sequence[MeasuredOffer]
    positions: list[int]
    cover_needed: float
    options: list[DateOption] = field(default_factory=list)

    @property
    def option(self) -> DateOption | None:
        """Catalogue that the date is taken from: the first that shows enough of the area.

        Where none does, the first. None if no catalogue has a usable scene.
        """
        enough = (option for option in self.options if option.cover >= self.cover_needed - _ENOUGH)
        return next(enough, self.options[0] if self.options else None)

    @property
    def value(self) -> float:
        """Clear share of the area, 0..1, that the date shows."""
        return self.option.cover * self.option.clear if self.option else 0.0


def find_dates(
    measured: Sequence[MeasuredOffer],
    reasons: Sequence[str],
    rules: ImageRules,
    *,
    catalogues: Sequence[str] = (),
) -> list[FoundDate]:
    """Return the dates of all areas, with the scenes that make each.

    None where it cannot obey the rules.

    Args:
        measured: Offers by area and time.
        reasons: Why each cannot be used; empty where it can.
        rules: The rules.
        catalogues: Names of catalogues, the preferred first.
    """
    order = {name: place for place, name in enumerate(catalogues)}
    dates: list[FoundDate] = []
    for _, group in groupby(range(len(measured)), key=lambda number: measured[number].area.name):
        numbers = list(group)
        area = measured[numbers[0]].area
        offers = [measured[number].offer for number in numbers]
        names: dict[str, int] = {}
        for day, positions in group_dates(offers, longitude(area.outline), by=rules.date):
            acquired = offers[positions[0]].acquired
            name = f"{day}" if rules.date == "day" else f"{acquired:%Y-%m-%dT%H:%M:%SZ}"
            names[name] = names.get(name, 0) + 1
            found = FoundDate(
                area=area,
                name=name if names[name] == 1 else f"{name}/{names[name]}",
                day=day,
                acquired=acquired,
                measured=measured,
                positions=[numbers[position] for position in positions],
                cover_needed=rules.cover,
            )
            found.options = _options(found, reasons, order)
            dates.append(found)
    _combine([(found, option) for found in dates for option in found.options], rules)
    return sorted(dates, key=lambda found: (found.area.name, found.day, found.acquired, found.name))


def _options(found: FoundDate, reasons: Sequence[str], order: Mapping[str, int]) -> list[DateOption]:
    """Return the catalogues of a date: those with scenes on disk, then in the order given."""
    scenes: dict[str, list[int]] = {}
    for number in found.positions:
        if not reasons[number]:
            scenes.setdefault(found.measured[number].offer.catalogue, []).append(number)
    options = [
        DateOption(
            catalogue=name,
            scenes=sorted(numbers, key=lambda number: _preference(found.measured[number])),
            owned=any(found.measured[number].offer.is_owned for number in numbers),
        )
        for name, numbers in scenes.items()
    ]
    last = len(order)
    return sorted(options, key=lambda option: (not option.owned, order.get(option.catalogue, last), option.catalogue))


def _preference(row: MeasuredOffer) -> tuple[bool, bool, float, str, str]:
    """Return what sorts scenes that are worth the same, the preferred first."""
    offer = row.offer
    updated = offer.updated.timestamp() if offer.updated else float("-inf")
    return not offer.is_standard, not offer.has_ground_control, -updated, offer.id, offer.collection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """An option whose cells are not measured yet.

    Attributes:
        found: Its date.
        option: The option.
        rows: Its scenes.
        promising: Whether it may obey the rules, so that sets of its scenes are worth a look.
        cells: The cells of its scenes' ground if it is promising, else their union.
        shown: Which scene shows which cell.
    """

    found: FoundDate
    option: DateOption
    rows: list[MeasuredOffer]
    promising: bool
    cells: Shapes
    shown: npt.NDArray[np.bool_]


def _combine(options: Sequence[tuple[FoundDate, DateOption]], rules: ImageRules) -> None:
    """Fill in the members of options that can obey the rules, and cover and clear of all."""
    drafts = [_draft(found, option, rules) for found, option in options]
    if not drafts:
        return
    km2 = areas_km2(np.concatenate([draft.cells for draft in drafts]))  # at once: projecting is quick for many
    for draft, cells in zip(drafts, np.split(km2, np.cumsum([len(draft.cells) for draft in drafts])[:-1]), strict=True):
        shares = cells / draft.found.area.km2
        if len(draft.rows) == 1:
            shares = np.array([draft.rows[0].share])
        draft.option.cover = min(float(shares.sum()), 1.0)
        if draft.promising:
            _fill(draft, shares, rules)


def _draft(found: FoundDate, option: DateOption, rules: ImageRules) -> _Draft:
    """Return an option with the cells of its scenes, its clear fraction filled in."""
    rows = [found.measured[number] for number in option.scenes]
    shares, clear = np.array([row.share for row in rows]), _clear(rows)
    option.clear = float(np.average(clear, weights=np.maximum(shares, 1e-12)))
    promising = bool(shares.sum() >= rules.cover - _ENOUGH and 1 - clear.max() <= rules.cloud + _ENOUGH)
    grounds = np.array([row.ground for row in rows], object)
    if promising and len(rows) > 1:
        cells, shown = split(grounds)
    else:
        cells, shown = np.array([shapely.union_all(grounds)], object), np.ones((len(rows), 1), bool)
    return _Draft(found=found, option=option, rows=rows, promising=promising, cells=cells, shown=shown)


def _clear(rows: Sequence[MeasuredOffer]) -> npt.NDArray[np.float64]:
    """Return the clear fractions of scenes; unknown ones count as cloudy."""
    return np.array([row.offer.clear or 0.0 for row in rows])


def _fill(draft: _Draft, shares: npt.NDArray[np.float64], rules: ImageRules) -> None:
    """Fill in the scenes that make a date, and what they show and cost, if they can."""
    km2 = np.array([row.km2 for row in draft.rows])
    pool = Pool(shown=draft.shown, cells=shares, clear=_clear(draft.rows), km2=km2)
    members, option = list(best_set(pool, rules)), draft.option
    if members:
        option.members = tuple(option.scenes[place] for place in members)
        option.cover, option.clear = min(pool.cover(members), 1.0), pool.clear_of(members)
        option.km2 = float(km2[members].sum())

"""The plan: what is to be ordered and fetched, for a person to read and edit.

    <folder>/plan.json    all of it, an item a line
    <folder>/plan.gpkg    the same to look at, layers areas, dates and items

In both the key ``take`` may be changed, and lines of dates and items may be deleted. Whatever comes after reads the
plan and not the search.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from thawmap.acquire.areas import Area
from thawmap.acquire.choosing import Choice, PlannedDate, PlannedItem, reason_kind
from thawmap.acquire.plan_layers import Key, PlanLayers, Takes, plan_layers, read_takes, taken_as_wholes, write_layers
from thawmap.acquire.plan_rows import (
    FORMAT,
    DateRow,
    PlanRecord,
    area_rows,
    areas_of,
    date_rows,
    dates_of,
    item_rows,
    items_of,
)
from thawmap.errors import ConfigError, DataError
from thawmap.files.atomic import write_text
from thawmap.files.hashes import json_sha256
from thawmap.files.records import checked, read_object
from thawmap.files.results import check_result, result
from thawmap.text import counted

JSON, GEOPACKAGE = "plan.json", "plan.gpkg"
_AGAIN = "plan again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be ordered and fetched, and what is not.

    Attributes:
        areas: The areas.
        dates: All dates that were found.
        items: All scenes that were found.
        rules: JSON values of the rules and settings that chose them.
        settings: JSON values of anything else that fetching must know.
        quota_km2: Most square kilometres that may be asked for; None: no limit.
        elevation: JSON rows of elevation that is to be fetched.
        trends: JSON rows of what trends are computed from.
    """

    areas: tuple[Area, ...]
    dates: tuple[PlannedDate, ...] = ()
    items: tuple[PlannedItem, ...] = ()
    rules: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    quota_km2: float | None = None
    elevation: tuple[Mapping[str, Any], ...] = ()
    trends: tuple[Mapping[str, Any], ...] = ()

    @property
    def taken(self) -> tuple[PlannedItem, ...]:
        """Scenes that are taken, by area and time."""
        return tuple(item for item in self.items if item.taken)

    @property
    def km2(self) -> float:
        """Square kilometres that are charged for what is taken."""
        return sum(item.km2 for item in self.taken)

    @property
    def layers(self) -> PlanLayers:
        """Areas, dates and items as layers, as they stand in the GeoPackage."""
        return plan_layers(self.areas, self.dates, self.items)

    def costs(self) -> list[dict[str, Any]]:
        """Return a row for each area: what is found, taken and charged.

        With ``area``, ``area_km2``, ``found`` and ``dates`` (dates found and taken), ``scenes``, ``owned`` (of these on
        disk), ``km2``, and ``left_out_km2`` (of dates that the quota leaves out).
        """
        taken = self.taken_dates()
        rows = []
        for area in self.areas:
            dates = [each for each in self.dates if each.area == area.name]
            items = [item for item in self.taken if item.area == area.name]
            over = [each for each in dates if each.reason.startswith("left out: quota")]
            rows.append(
                {
                    "area": area.name,
                    "area_km2": area.km2,
                    "found": len(dates),
                    "dates": sum((each.area, each.name) in taken for each in dates),
                    "scenes": len(items),
                    "owned": sum(item.offer.is_owned for item in items),
                    "km2": sum(item.km2 for item in items),
                    "left_out_km2": sum(each.km2 for each in over if (each.area, each.name) not in taken),
                }
            )
        return rows

    def left_out(self) -> Counter[str]:
        """Return how many scenes are not taken, by the phrase of their reason."""
        return Counter(
            reason_kind(item.reason) if item.reason else "struck off the plan" for item in self.items if not item.taken
        )

    def taken_dates(self) -> set[tuple[str, str]]:
        """Return area and name of the dates of which a scene is taken."""
        return {(item.area, item.date) for item in self.taken}

    def edits(self) -> str:
        """Return a clause on what a person changed, such as '2 items struck off'.

        Empty if nothing.
        """
        struck = sum(item.chosen and not item.taken for item in self.items)
        added = sum(item.taken and not item.chosen for item in self.items)
        parts = [f"{counted(struck, 'item')} struck off"] * bool(struck) + [f"{counted(added, 'item')} added"] * bool(
            added
        )
        return " and ".join(parts)


def make_plan(areas: Sequence[Area], choice: Choice, **values: Any) -> Plan:
    """Return the plan of a choice; ``values`` are the other fields of `Plan`."""
    return Plan(areas=tuple(areas), dates=choice.dates, items=choice.items, **values)


def write_plan(folder: Path, plan: Plan, *, replace: bool = False) -> None:
    """Write a plan's files into a folder, whole or not at all.

    Args:
        folder: The folder, made if it is missing.
        plan: The plan.
        replace: Whether files of a plan that a person has edited are replaced too.

    Raises:
        ConfigError: If a person has edited the plan that is there, or has it open.
        DataError: If it cannot be written.
    """
    _check_replaceable(folder, replace=replace)
    rows, identity = _rows(plan)
    with result(folder, last=JSON) as draft:
        write_text(draft / JSON, _as_text(plan, rows, identity))
        write_layers(draft / GEOPACKAGE, plan.layers, identity)
        for name in (JSON, GEOPACKAGE) if replace else ():
            (folder / name).unlink(missing_ok=True)


def read_plan(folder: Path) -> Plan:
    """Read a plan from its files, with what a person has changed in either.

    What differs from what the program chose counts, in whichever file: of an item its own ``take``, else that of its
    date, which takes or strikes off the scenes that make it.

    Raises:
        ConfigError: If there is none, or it was edited into what makes no sense.
    """
    record = _read_json(folder / JSON)
    try:
        areas, dates, items = areas_of(record.areas), dates_of(record.dates), items_of(record.items)
    except ValueError as error:
        msg = f"{folder / JSON} {error}"
        raise ConfigError(msg) from error
    lost_dates, lost_items = record.written.dates - len(dates), record.written.items - len(items)
    _check_keys(folder / JSON, areas, dates, items, lost=(lost_dates, lost_items))
    takes = read_takes(
        folder / GEOPACKAGE,
        areas=[area.name for area in areas],
        dates=[(each.area, each.name) for each in dates],
        items={item.key: item.offer.outline for item in items},
        lost=(lost_dates, lost_items),
        identity=record.id,
    )
    plan = Plan(
        areas=areas,
        dates=dates,
        items=tuple(_edited(record.dates, items, takes)),
        rules=record.rules,
        settings=record.settings,
        quota_km2=record.quota_km2,
        elevation=tuple(record.elevation),
        trends=tuple(record.trends),
    )
    _check_taken(folder, plan)
    return plan


def _check_replaceable(folder: Path, *, replace: bool) -> None:
    """Refuse to replace a plan that a person has edited, or has open.

    Raises:
        ConfigError: If it is so.
    """
    log = folder / f"{GEOPACKAGE}-wal"
    if log.exists() and log.stat().st_size:
        msg = f"{folder / GEOPACKAGE} is open in another program; save what you edited and close it there"
        raise ConfigError(msg)
    if replace:
        return
    try:
        check_result(folder, [JSON, GEOPACKAGE])
    except DataError as error:
        try:
            edits = read_plan(folder).edits() or "a file was changed"
        except ConfigError:
            edits = "a file was changed"
        msg = (
            f"{folder} has a plan that was edited since it was made ({edits}), and a new one would replace it; order "
            f"or fetch what it says, move {JSON} and {GEOPACKAGE} away, or ask for a new one with --replace"
        )
        raise ConfigError(msg) from error


def _rows(plan: Plan) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """Return the lists of rows of a plan's JSON, and a hash that tells the plan from others."""
    rows = {
        "areas": area_rows(plan.areas),
        "dates": date_rows(plan.dates, taken_as_wholes(plan.dates, plan.items)),
        "items": item_rows(plan.items),
        "elevation": [dict(row) for row in plan.elevation],
        "trends": [dict(row) for row in plan.trends],
    }
    return rows, json_sha256([rows, dict(plan.rules)], digits=16)


def _as_text(plan: Plan, rows: Mapping[str, Sequence[Mapping[str, Any]]], identity: str) -> str:
    """Return a plan's JSON as text, an item a line, so that a person can edit it."""
    head = {
        "format": FORMAT,
        "id": identity,
        "quota_km2": plan.quota_km2,
        "rules": dict(plan.rules),
        "settings": dict(plan.settings),
        "totals": {"km2": plan.km2, "dates": len(plan.taken_dates()), "items": len(plan.taken)},
        "written": {name: len(rows[name]) for name in ("areas", "dates", "items")},
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in head.items()]
    for key, table in rows.items():
        body = ",\n".join(f" {json.dumps(row, allow_nan=False)}" for row in table)
        lines.append(f"{json.dumps(key)}: [\n{body}\n]" if table else f"{json.dumps(key)}: []")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _read_json(path: Path) -> PlanRecord:
    """Read a plan's JSON.

    Raises:
        ConfigError: If there is none, or it holds something else.
    """
    try:
        content = read_object(path)
        if content.get("format") != FORMAT:
            msg = f"has the format {content.get('format')!r}, and this version of thawmap reads {FORMAT}"
            raise ValueError(msg)  # noqa: TRY301 - said as any other fault of the file
        return checked(content, PlanRecord)
    except FileNotFoundError as error:
        msg = f"{path.parent} has no plan; make one by 'thawmap acquire plan'"
        raise ConfigError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); {_AGAIN}"
        raise ConfigError(msg) from error
    except ValueError as error:
        msg = f"{path} {error}; undo what was edited, or {_AGAIN}"
        raise ConfigError(msg) from error


def _check_keys(
    path: Path,
    areas: Sequence[Area],
    dates: Sequence[PlannedDate],
    items: Sequence[PlannedItem],
    *,
    lost: tuple[int, int],
) -> None:
    """Refuse areas, dates and items that are there twice, and those of none that is there.

    Args:
        path: The file.
        areas: Its areas.
        dates: Its dates.
        items: Its items.
        lost: Dates and items that a person has deleted.

    Raises:
        ConfigError: If there is one.
    """
    names = [(area.name,) for area in areas]
    date_keys = [(each.area, each.name) for each in dates]
    for what, keys in (("area", names), ("date", date_keys), ("item", [item.key for item in items])):
        twice = _first_twice(keys)
        if twice is not None:
            msg = f"{path} has the {what} {twice[-1]!r} twice; delete one of its lines"
            raise ConfigError(msg)
    if min(lost) < 0:
        msg = f"{path} has lines that were added by hand; a plan takes only what was found: undo that, or {_AGAIN}"
        raise ConfigError(msg)
    orphans = ({each.area for each in dates} | {item.area for item in items}) - {area.name for area in areas}
    if orphans:
        msg = f"{path} has lines of the area {min(orphans)!r}, but not the area; undo that, or {_AGAIN}"
        raise ConfigError(msg)
    without = sorted({(item.area, item.date) for item in items} - set(date_keys))
    if len(without) > lost[0]:
        msg = f"{path} has items of the date {without[0][1]!r}, but not the date; undo that, or {_AGAIN}"
        raise ConfigError(msg)


def _first_twice(keys: Iterable[Key]) -> Key | None:
    """Return the first key that is there twice; None if there is none."""
    return next((key for key, times in Counter(keys).items() if times > 1), None)


def _edited(rows: Sequence[DateRow], items: Sequence[PlannedItem], takes: Takes) -> Iterable[PlannedItem]:
    """Yield items as they are taken after a person's edits in JSON and GeoPackage."""
    in_json = {(row.area, row.name): row for row in rows}
    for item in items:
        row = in_json.get((item.area, item.date))
        taken = item.chosen
        if row is None:  # its date was deleted
            taken = False
        elif row.chosen in (not row.take, not takes.dates[row.area, row.name]):
            taken = item.part and not row.chosen
        if item.chosen in (not item.taken, not takes.items[item.key]):
            taken = not item.chosen
        yield replace(item, taken=taken)


def _check_taken(folder: Path, plan: Plan) -> None:
    """Refuse a plan that takes what cannot be had, or more than the quota.

    Raises:
        ConfigError: If it does.
    """
    faulty = next((item for item in plan.taken if item.offer.fault), None)
    if faulty is not None:
        msg = f"{folder / JSON}: the item {faulty.offer.id!r} cannot be taken: {faulty.offer.fault}; strike it off"
        raise ConfigError(msg)
    if plan.quota_km2 is not None and plan.km2 > plan.quota_km2 + 1e-6:
        msg = (
            f"{folder / JSON} takes {plan.km2:.2f} km2, which is more than the quota of {plan.quota_km2:g} km2 that it "
            f"was made for; strike items off, or {_AGAIN} with more"
        )
        raise ConfigError(msg)

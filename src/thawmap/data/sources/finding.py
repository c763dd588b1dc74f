"""What finding scenes has in common: patterns, folders that are searched, tables, ids, and files half written."""

import csv
import glob
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from thawmap.config import Delivery
from thawmap.data.sources.base import Candidate
from thawmap.errors import ConfigError, DataError
from thawmap.files.listing import files_below, matches

_log = logging.getLogger(__name__)


_RASTERS = frozenset({".tif", ".tiff", ".jp2"})


def copied(file: Path) -> str | None:
    """Why a file's name is not its own but that of a copy; None where it is its own."""
    match = _COPY.fullmatch(file.stem)
    if match is None:
        return None
    return f"{file.name} has a name that browsers and desktops give to copies; rename it to {match[1]}{file.suffix}"


_COPY = re.compile(r"(.+?)(?: ?\(\d+\)| - Copy(?: \(\d+\))?| copy(?: \d+)?)")


def in_delivery(settings: Delivery, places: Sequence[Path]) -> list[Path]:
    """The folders, or files, that are searched for scenes: those at ``places``, else the settings' own.

    Raises:
        ConfigError: If the settings' folder does not exist.
    """
    found = list(places) or matches(str(settings.path))
    if not found:
        msg = f"{settings.path} does not exist; correct 'scenes.path', the folder with the delivered scenes"
        raise ConfigError(msg)
    return found


def as_delivered(found: Iterable[Candidate], settings: Delivery, *, searched: Sequence[Path]) -> list[Candidate]:
    """The scenes of a delivery in order of their ids, with their regions; of two with one id, both are at fault.

    Raises:
        ConfigError: If there is none, or the table of regions cannot be read or names none of them.
    """
    by_id = groupby(sorted(found, key=lambda one: (one.id, str(one.place))), key=lambda one: one.id)
    scenes = [_one_of(list(alike)) for _, alike in by_id]
    if not scenes:
        kind, where = getattr(settings, "kind", ""), ", ".join(map(str, searched))
        raster = next((path for path in files_below(searched) if path.suffix.lower() in _RASTERS), None)
        there = "" if raster is None else f"{copied(raster) or f'{raster.name} is not named as one'}, or "
        msg = f"no {kind} scene is in {where}; {there}correct 'scenes.path' or 'scenes.kind' ('rasters' reads any file)"
        raise ConfigError(msg)
    if settings.table is not None:
        return _of_table(scenes, settings.table)
    return [replace(one, region=_region(one.place, settings)) for one in scenes]


def _one_of(alike: Sequence[Candidate]) -> Candidate:
    """A scene; one at fault where several have its id."""
    if len(alike) == 1:
        return alike[0]
    places = f"{alike[0].place} and {alike[1].place}"
    return replace(alike[0], fault=f"two scenes have the id {alike[0].id!r}: {places}; keep one of them")


def _region(place: Path, settings: Delivery) -> str | None:
    """The region that the settings give a place."""
    if settings.region is None or "{folder}" not in settings.region:
        return settings.region
    roots = [path.absolute() for path in matches(str(settings.path))]
    inside = next((place.absolute().relative_to(root) for root in roots if place.absolute().is_relative_to(root)), None)
    first = inside.parts[0] if inside is not None and len(inside.parts) > 1 else place.absolute().parent.name
    return settings.region.replace("{folder}", first)


def _of_table(scenes: Sequence[Candidate], table: Path) -> list[Candidate]:
    """The scenes that a table names, with its regions; those that are not there are at fault."""
    regions = {row["id"]: row.get("region") or None for _, row in table_rows(table, ("id", "region"))}
    if not regions:
        msg = f"{table} lists no scene; give each a row with id and region, or leave out 'scenes.table'"
        raise ConfigError(msg)
    there = {one.id: one for one in scenes}
    if there.keys().isdisjoint(regions):
        msg = f"{table} names none of the {len(scenes)} scenes, such as {scenes[0].id!r}; correct 'scenes.table'"
        raise ConfigError(msg)
    absent = "is in the table, and nowhere in 'scenes.path'; fetch it, or take it out of the table"
    return [
        replace(there[name], region=region)
        if name in there
        else Candidate(name=name, place=table, id=name, region=region, fault=f"{name} {absent}")
        for name, region in sorted(regions.items())
    ]


def table_rows(table: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a CSV with their numbers: column to text without blanks around it.

    Raises:
        ConfigError: If it cannot be read, or lacks one of ``columns``.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            absent = [column for column in columns if column not in (reader.fieldnames or ())]
            if absent:
                msg = (
                    f"{table} has no column {absent[0]!r}; it needs {' and '.join(columns)}, "
                    f"and separates them by commas"
                )
                raise ConfigError(msg)
            for number, row in enumerate(reader, start=2):
                yield number, {key: (text or "").strip() for key, text in row.items() if key is not None}
    except OSError as error:
        msg = f"{table} cannot be read ({error.strerror}); correct 'scenes.table'"
        raise ConfigError(msg) from error
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{table} is not a table that can be read ({error}); save it as CSV in UTF-8"
        raise ConfigError(msg) from error


def as_time(text: str) -> datetime | None:
    """The time of an image in UTC; None where it is not given, makes no sense, or no image can be of it."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not _FIRST_YEAR <= time.year < _LAST_YEAR:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


_FIRST_YEAR, _LAST_YEAR = 1858, 2200
"""Years of images: from the first photograph from the air on; 0001 and 9999 stand for no time in many tables."""


def warn_of_times(texts: Mapping[int, str], table: Path) -> None:
    """Say once which lines of a table have a time that makes no sense: it is taken as unknown, not guessed."""
    strange = {number: text for number, text in texts.items() if text and as_time(text) is None}
    if strange:
        number, text = next(iter(strange.items()))
        more = f" (and {len(strange) - 1} more lines)" if len(strange) > 1 else ""
        _log.warning(
            "%s:%d: acquired is %r, which is no date of an image such as 2019-07-14; taken as unknown%s",
            table,
            number,
            text,
            more,
        )


def safe_id(name: str, where: str) -> str:
    """An id that can name a folder.

    Raises:
        ConfigError: If it cannot.
    """
    if usable_id(name) != name:
        msg = f"{where}: scene id {name!r} cannot name a folder; use letters, digits, '_', '-', '.', '+' and '@'"
        raise ConfigError(msg)
    return name


def usable_id(name: str) -> str:
    """A name, changed where it cannot name a folder."""
    return re.sub(r"[^\w.+@-]|^\.", "_", name) or "_"


def misnamed(place: Path, name: str) -> str | None:
    """Why the id of a scene that is named by its file or folder cannot name a folder of results; None where it can."""
    if usable_id(name) == name:
        return None
    return copied(place) or f"{name!r} cannot name a folder of results; rename it with letters, digits, '_' and '-'"


def find_file(candidate: Candidate, key: str) -> Path:
    """The one file that ``key`` (a name or pattern, with `{name}`) means for a scene.

    Raises:
        DataError: If there is none, or more than one.
    """
    if not candidate.place.exists():
        msg = f"{candidate.place} does not exist; correct the path in 'scenes.table'"
        raise DataError(msg)
    folder = candidate.place if candidate.place.is_dir() else candidate.place.parent
    wanted = key.replace("{name}", glob.escape(candidate.name))
    found = matches(str(Path(glob.escape(str(folder))) / wanted))
    if len(found) != 1:
        copies = {fault for path in folder.iterdir() if (fault := copied(path)) and fault.endswith(f" {wanted}")}
        if not found and copies:
            raise DataError(min(copies))
        got = "is not there" if not found else f"matches {len(found)} files, such as {found[0].name}, {found[1].name}"
        own = "" if candidate.place.is_dir() else f", and '{{name}}{candidate.place.suffix}' for its own"
        msg = f"file {wanted!r} {got} in {folder}; name exactly one file a scene in 'scenes.files'{own}"
        raise DataError(msg)
    return found[0]

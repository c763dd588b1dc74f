"""Finding scenes: searched folders, tables of regions, ids, times, misnamed files."""

import csv
import glob
import logging
import os
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


TWICE = "two scenes have the id"
"""Begin of the fault of a scene that was found twice."""

_RASTERS = frozenset({".tif", ".tiff", ".jp2"})


def copy_fault(file: Path) -> str | None:
    """Return a message on a file that is named like a copy; None for other names."""
    match = _COPY.fullmatch(file.stem)
    if match is None:
        return None
    return f"{file.name} has a name that browsers and desktops give to copies; rename it to {match[1]}{file.suffix}"


_COPY = re.compile(r"(.+?)(?: ?\(\d+\)| - Copy(?: \(\d+\))?| copy(?: \d+)?)")


def searched_paths(settings: Delivery, paths: Sequence[Path]) -> list[Path]:
    """Return the folders and files to search for scenes: ``paths``, or the settings'.

    Raises:
        ConfigError: If the settings' folder does not exist.
    """
    searched = list(paths) or matches(str(settings.path))
    if not searched:
        msg = f"{settings.path} does not exist; correct 'scenes.path', the folder with the delivered scenes"
        raise ConfigError(msg)
    return searched


def finish_candidates(
    candidates: Iterable[Candidate], settings: Delivery, *, searched: Sequence[Path]
) -> list[Candidate]:
    """Return a delivery's candidates by id, with regions, and with faults if doubtful.

    Of several with one id a single one is left, at fault; so is each that the table of regions names and is not there.
    The table, where there is one, decides which candidates there are.

    Raises:
        ConfigError: If there is none, or the table of regions cannot be read or names none of them.
    """
    in_order = sorted(candidates, key=lambda candidate: (candidate.id, str(candidate.path)))
    unique = []
    for id_, same_id in groupby(in_order, key=lambda candidate: candidate.id):
        first, *others = same_id
        if others:
            paths = f"{first.path} and {others[0].path}"
            first = replace(first, fault=f"{TWICE} {id_!r}: {paths}; keep one of them")
        unique.append(first)
    if not unique:
        kind, folders = getattr(settings, "kind", ""), ", ".join(map(str, searched))
        raster = next((path for path in files_below(searched) if path.suffix.lower() in _RASTERS), None)
        hint = "" if raster is None else f"{copy_fault(raster) or f'{raster.name} is not named as one'}, or "
        msg = (
            f"no {kind} scene is in {folders}; {hint}correct 'scenes.path' or 'scenes.kind' ('rasters' reads any file)"
        )
        raise ConfigError(msg)
    if settings.table is not None:
        return _candidates_of_table(unique, settings.table)
    return _with_regions(unique, settings)


def _with_regions(candidates: Sequence[Candidate], settings: Delivery) -> list[Candidate]:
    """Return candidates with the regions that the settings give their paths, if any.

    `{folder}` stands for the first folder of the path below the settings' own, else for the one that it lies in.
    """
    if settings.region is None:
        return list(candidates)
    if "{folder}" not in settings.region:
        return [replace(candidate, region=settings.region) for candidate in candidates]
    roots = [root.absolute() for root in matches(str(settings.path))]
    folders = [_folder_below(roots, candidate.path.absolute()) for candidate in candidates]
    return [
        replace(candidate, region=settings.region.replace("{folder}", folder))
        for candidate, folder in zip(candidates, folders, strict=True)
    ]


def _folder_below(roots: Sequence[Path], path: Path) -> str:
    """Return the first folder of an absolute path below a root, else its own folder."""
    for root in (os.path.join(root, "") for root in roots):  # noqa: PTH118 - with the slash at its end
        if str(path).startswith(root):
            first, below, _ = str(path)[len(root) :].partition(os.sep)
            if below:
                return first
            break
    return path.parent.name


def _candidates_of_table(candidates: Sequence[Candidate], table: Path) -> list[Candidate]:
    """Return the candidates that a table names, with regions; absent ones at fault.

    In order of their ids. Absent is the candidate of a row that was not found.
    """
    regions = {row["id"]: row.get("region") or None for _, row in read_table_rows(table, ("id", "region"))}
    if not regions:
        msg = f"{table} lists no scene; give each a row with id and region, or leave out 'scenes.table'"
        raise ConfigError(msg)
    by_id = {candidate.id: candidate for candidate in candidates}
    if by_id.keys().isdisjoint(regions):
        msg = f"{table} names none of the {len(by_id)} scenes, such as {candidates[0].id!r}; correct 'scenes.table'"
        raise ConfigError(msg)
    absent = "is in the table, and nowhere in 'scenes.path'; fetch it, or take it out of the table"
    return [
        replace(by_id[name], region=region)
        if name in by_id
        else Candidate(name=name, path=table, id=name, region=region, fault=f"{name} {absent}")
        for name, region in sorted(regions.items())
    ]


def read_table_rows(table: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV: line number, and dict of column to stripped text.

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


def parse_time(text: str) -> datetime | None:
    """Return an ISO 8601 text as a UTC time; None where it is no time of an image.

    A time without a zone is UTC. None also for years of which there can be no image.
    """
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
    """Log one warning of a table's texts, by line, that are no times of an image.

    Such a time is unknown, not guessed.

    ``texts`` are the numbers of the lines to the texts in their column of times.
    """
    senseless = {number: text for number, text in texts.items() if text and parse_time(text) is None}
    if senseless:
        number, text = next(iter(senseless.items()))
        more = f" (and {len(senseless) - 1} more lines)" if len(senseless) > 1 else ""
        _log.warning(
            "%s:%d: acquired is %r, which is no date of an image such as 2019-07-14; taken as unknown%s",
            table,
            number,
            text,
            more,
        )


def check_id(name: str, line: str) -> str:
    """Return an id, and refuse one that cannot name a folder.

    Args:
        name: The id.
        line: File and number of the line that it stands in, for the message.

    Raises:
        ConfigError: If the id cannot name a folder.
    """
    if usable_id(name) != name:
        msg = f"{line}: scene id {name!r} cannot name a folder; use letters, digits, '_', '-', '.', '+' and '@'"
        raise ConfigError(msg)
    return name


def usable_id(name: str) -> str:
    """Return a name as an id, with '_' for what cannot stand in a folder's name."""
    return re.sub(r"[^\w.+@-]|^\.", "_", name) or "_"


def name_fault(path: Path, name: str) -> str | None:
    """Return a message on a scene's name that no folder can have; None for others.

    ``path`` is the scene's file or folder, after which it is named.
    """
    if usable_id(name) == name:
        return None
    return copy_fault(path) or f"{name!r} cannot name a folder of results; rename it with letters, digits, '_' and '-'"


def find_file(candidate: Candidate, key: str) -> Path:
    """Return the one file in a candidate's folder that matches a name or pattern.

    In the key, `{name}` stands for the scene's name.

    Raises:
        DataError: If there is none, or more than one.
    """
    if not candidate.path.exists():
        msg = f"{candidate.path} does not exist; correct the path in 'scenes.table'"
        raise DataError(msg)
    folder = candidate.path if candidate.path.is_dir() else candidate.path.parent
    pattern = key.replace("{name}", glob.escape(candidate.name))
    files = matches(str(Path(glob.escape(str(folder))) / pattern))
    if len(files) != 1:
        copies = {fault for path in folder.iterdir() if (fault := copy_fault(path)) and fault.endswith(f" {pattern}")}
        if not files and copies:
            raise DataError(min(copies))
        got = "is not there" if not files else f"matches {len(files)} files, such as {files[0].name}, {files[1].name}"
        own = "" if candidate.path.is_dir() else f", and '{{name}}{candidate.path.suffix}' for its own"
        msg = f"file {pattern!r} {got} in {folder}; name exactly one file a scene in 'scenes.files'{own}"
        raise DataError(msg)
    return files[0]

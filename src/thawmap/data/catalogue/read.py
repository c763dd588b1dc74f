"""Finding scenes in a catalogue rather than in their files, as far as it is still true.

It is true of a scene if no file in the scene's folders is new, gone or changed in size or time. Where the same files
and folders are there as when it was written, no name is parsed; else scenes are found as always, and those that are as
they were come with their record. Whatever is wrong with a catalogue, scenes are found without it.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from thawmap.config import RasterScenes, SceneSettings
from thawmap.data.catalogue import index, places
from thawmap.data.catalogue.folders import differing, folders_at, folders_below, have_same_names
from thawmap.data.catalogue.layout import FOLDERS, FOUND, INDEX, NAME, PATH, RECORD
from thawmap.data.catalogue.records import KnownScene, RecordedFiles
from thawmap.data.sources import scenes
from thawmap.data.sources.base import Candidate
from thawmap.data.sources.finding import finish_candidates
from thawmap.errors import DataError
from thawmap.text import counted

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A catalogue, and what of it is true.

    Attributes:
        folder: Its folder.
        about: What it says of itself.
        candidates: Its scenes as they were found, by path; with a record where it is true.
        is_complete: Whether it knows all candidates of what is searched.
    """

    folder: Path
    about: index.About
    candidates: dict[str, Candidate]
    is_complete: bool


def candidates(settings: SceneSettings) -> list[Candidate]:
    """Return the candidates that settings name, by id, with records of catalogues.

    The catalogue is the nearest in a searched folder or up to two levels above it. How many scenes it does not know is
    logged as a warning.

    Raises:
        ConfigError: If there is none, or two have one id.
    """
    catalogues = list(_catalogues(settings))
    if not catalogues:
        return scenes.candidates(settings)
    if len(catalogues) == 1 and catalogues[0].is_complete and not isinstance(settings, RasterScenes):
        searched = places.searched_folders(settings)
        found = finish_candidates(_all(catalogues[0]), settings, searched=searched)
    else:
        found = [_with_record(candidate, catalogues) for candidate in scenes.candidates(settings)]
    _tell_differences(found, catalogues)
    return found


def _catalogues(settings: SceneSettings) -> Iterator[_Known]:
    """Yield the usable catalogues of what the settings search, each once."""
    searched = places.searched_folders(settings)
    below: dict[Path, list[str]] = {}
    for folder in searched:
        nearest = places.nearest_index(folder)
        if nearest is not None:
            below.setdefault(nearest[0], []).append(nearest[1])
    for folder, roots in below.items():
        try:
            known = _open(folder, roots, settings)
        except DataError as error:
            _log.warning("%s; until then scenes are opened by their files", error)
            continue
        if known is not None:
            yield known


def _open(folder: Path, roots: Sequence[str], settings: SceneSettings) -> _Known | None:
    """Read a catalogue and compare it with the disk; None if it is of other scenes.

    Raises:
        DataError: If it is damaged, or of another version.
    """
    about = index.read_about(folder / INDEX)
    if about is None or about.kind != settings.kind:
        return None
    is_raster = isinstance(settings, RasterScenes)
    top = str(folder)
    present = folders_at(top, about.folders) if is_raster else folders_below(top, roots)
    changed = differing(about.folders, present)
    is_complete = tuple(sorted(roots)) == about.roots and have_same_names(about.folders, present)
    if about.settings != places.settings_fingerprint(settings):
        _log.warning("%s was written with other settings of 'scenes'; scenes are opened by their files", folder / INDEX)
        changed = set(about.folders)
    names = ("id", NAME, PATH, FOUND, RECORD, *((FOLDERS,) if changed else ()))
    columns = index.read_columns(folder / INDEX, names)
    in_folders = columns.pop(FOLDERS, [()] * len(columns["id"]))
    rows = zip(*columns.values(), in_folders, strict=True)
    return _Known(
        folder=folder,
        about=about,
        candidates={
            row[2]: _candidate(folder, row, is_true=changed.isdisjoint(row[5]), has_files=not is_raster) for row in rows
        },
        is_complete=is_complete,
    )


def _candidate(folder: Path, row: Sequence[Any], *, is_true: bool, has_files: bool) -> Candidate:
    """Return a row of an index as the candidate that was found.

    Args:
        folder: The catalogue's folder.
        row: Id, name, path, time and record.
        is_true: Whether its record is still true.
        has_files: Whether candidates of its kind have files before they are opened.
    """
    id_, name, path, found_text, text = row[:5]
    found = None if found_text is None else datetime.fromisoformat(found_text)
    known = KnownScene(id_, folder, text, found)
    return Candidate(
        name=name,
        path=folder / path,
        id=id_,
        acquired=found,
        files=RecordedFiles(known) if has_files else {},
        record=known if is_true else None,
    )


def _all(known: _Known) -> list[Candidate]:
    """Return all candidates of a catalogue as they were found, without regions."""
    others = [
        Candidate(
            name=other.name,
            path=known.folder / other.path,
            id=other.id,
            acquired=None if other.found is None else datetime.fromisoformat(other.found),
            files={str(known.folder / path): known.folder / path for path in other.files},
            fault=other.fault,
        )
        for other in known.about.others
    ]
    return [*known.candidates.values(), *others]


def _with_record(candidate: Candidate, catalogues: Sequence[_Known]) -> Candidate:
    """Return a candidate with the record of a catalogue that knows just this one."""
    if candidate.fault is not None:
        return candidate
    for known in catalogues:
        recorded = known.candidates.get(places.relative(candidate.path, known.folder) or "")
        if recorded is None or recorded.id != candidate.id or not isinstance(recorded.record, KnownScene):
            continue
        files = {places.relative(path, known.folder) for path in candidate.files.values()}
        if not files or files == set(recorded.record.paths):
            return replace(candidate, record=replace(recorded.record, found=candidate.acquired))
    return candidate


def _tell_differences(found: Sequence[Candidate], catalogues: Sequence[_Known]) -> None:
    """Log a warning of scenes that are not as the catalogues say, if there are any."""
    unknown = sum(candidate.record is None and candidate.fault is None for candidate in found)
    if unknown:
        _log.warning(
            "%s new, or changed since %s was written, and opened by %s",
            counted(unknown, "scene is", "scenes are"),
            catalogues[0].folder / INDEX,
            "its files" if unknown == 1 else "their files",
        )

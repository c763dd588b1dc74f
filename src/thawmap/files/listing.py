"""Files that are asked for by folder or pattern, and signs that one is still being written."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

_HALF_WRITTEN = {".part", ".partial", ".crdownload", ".download", ".tmp", ".temp", ".filepart", ".!ut"}


def matches(pattern: str) -> list[Path]:
    """What a shell would match, in order of names; patterns may be absolute, which `Path.glob` refuses.

    Where that is nothing, what a shell would match that takes capitals for small letters in the last part, as `A.TIF`.
    """
    found = glob.glob(pattern)  # noqa: PTH207
    if not found:
        folder, name = os.path.split(pattern)
        found = glob.glob(os.path.join(folder, _CLASSES.sub(_any_case, name)))  # noqa: PTH118, PTH207
    return sorted(map(Path, found))


_CLASSES = re.compile(r"\[!?\]?[^]]*\]|[^\W\d_]")  # of letters in a pattern, or a letter


def _any_case(match: re.Match[str]) -> str:
    """A part of a pattern that matches letters of either case."""
    letters = match[0]
    return letters if len(letters) > 1 else f"[{letters.lower()}{letters.upper()}]"


def files_below(places: Iterable[Path]) -> list[Path]:
    """Every file at or below the places, in order, each once; hidden ones and those in hidden folders left out."""
    found: set[Path] = set()
    for place in places:
        if place.is_file():
            found.add(place)
        for folder, below, names in os.walk(place, followlinks=True):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if len(Path(folder).parts) > len(place.parts) + _DEEPEST:
                below.clear()  # a link that leads back to a folder above
            found.update(Path(folder) / name for name in names if not name.startswith("."))
    return sorted(found)


_DEEPEST = 12  # levels of folders below a place


def half_written(file: Path) -> str | None:
    """Why a file is still being written, or never was to its end; None where nothing says so."""
    if file.suffix.lower() in _HALF_WRITTEN:
        return f"{file.name} is still being written; wait for it, or fetch it again"
    partial = [file.with_name(file.name + ending) for ending in _HALF_WRITTEN]
    partial = [path for path in partial if path.exists()]
    if partial:
        return f"{partial[0].name} lies beside {file.name}, which is still being written; wait for it"
    if file.stat().st_size == 0:
        return f"{file.name} is empty; wait for it, or fetch it again"
    return None

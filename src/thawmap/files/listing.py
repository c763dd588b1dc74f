"""Lists of files by folder or pattern, and signs that one is half written."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

HALF_WRITTEN = frozenset({".part", ".partial", ".crdownload", ".download", ".tmp", ".temp", ".filepart", ".!ut"})
"""Endings, in small letters, of files that are still being written."""


def matches(pattern: str) -> list[Path]:
    """Return the paths that match a glob pattern, sorted; if none, ignoring capitals.

    The pattern may be absolute. Capitals are ignored in its last part only, as `A.TIF`.
    """
    paths = glob.glob(pattern)  # noqa: PTH207 - `Path.glob` refuses absolute patterns
    if not paths:
        folder, name = os.path.split(pattern)
        paths = glob.glob(os.path.join(folder, _CLASSES.sub(_any_case, name)))  # noqa: PTH118, PTH207
    return sorted(map(Path, paths))


_CLASSES = re.compile(r"\[!?\]?[^]]*\]|[^\W\d_]")  # of letters in a pattern, or a letter


def _any_case(match: re.Match[str]) -> str:
    """Return the pattern of a matched letter in either case, as [aA]; classes stay."""
    letters = match[0]
    return letters if len(letters) > 1 else f"[{letters.lower()}{letters.upper()}]"


def files_below(paths: Iterable[Path]) -> list[Path]:
    """Return the files at and below some paths, sorted, without hidden ones.

    Each once; those in hidden folders are left out too.
    """
    files: set[Path] = set()
    for path in paths:
        if path.is_file():
            files.add(path)
        for folder, below, names in os.walk(path, followlinks=True):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if len(Path(folder).parts) > len(path.parts) + _DEEPEST:
                below.clear()  # a link that leads back to a folder above
            files.update(Path(folder) / name for name in names if not name.startswith("."))
    return sorted(files)


_DEEPEST = 12  # levels of folders below a path


def half_written(file: Path) -> str | None:
    """Return a message if a file is empty or still being written; else None."""
    if file.suffix.lower() in HALF_WRITTEN:
        return f"{file.name} is still being written; wait for it, or fetch it again"
    partial = [file.with_name(file.name + ending) for ending in HALF_WRITTEN]
    partial = [path for path in partial if path.exists()]
    if partial:
        return f"{partial[0].name} lies beside {file.name}, which is still being written; wait for it"
    if file.stat().st_size == 0:
        return f"{file.name} is empty; wait for it, or fetch it again"
    return None

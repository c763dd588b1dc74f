"""Sums of Landsat scenes on disk, from which a run that was broken off goes on."""

import shutil
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from thawmap.acquire.trends import DatedValues, TrendSums
from thawmap.files.atomic import atomic, sync, write_text

_SAVED_EVERY_S = 60.0
_MADE_FROM = "made_from.txt"


class KeptSums:
    """A hidden folder with the observations of each block, and of which passes they are.

    Args:
        folder: The folder.
        made_from: Text that tells of all that decides the sums; what was kept of other ones is dropped.
    """

    def __init__(self, folder: Path, made_from: str) -> None:
        self._folder = folder
        self._saved = time.monotonic()
        path = folder / _MADE_FROM
        if path.exists() and path.read_text(encoding="utf-8") != made_from:
            shutil.rmtree(folder)
        if not path.exists():
            write_text(path, made_from)

    def restore(self, block: int, observations: TrendSums | DatedValues) -> set[str]:
        """Put what is kept of a block into empty observations.

        Return the names of its passes.
        """
        path = self._path(block)
        try:
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files}
        except FileNotFoundError:
            return set()
        except (OSError, ValueError, zipfile.BadZipFile):  # damaged: read again
            return set()
        passes = set(map(str, arrays.pop("passes")))
        if isinstance(observations, DatedValues):
            observations.restore(arrays)
        else:
            for name, array in observations.arrays().items():
                array[...] = arrays[name]
        return passes

    def save_now_and_then(self, block: int, observations: TrendSums | DatedValues, passes: Iterable[str]) -> None:
        """Keep the observations of a block if none were kept for a minute."""
        if time.monotonic() - self._saved > _SAVED_EVERY_S:
            self.save(block, observations, passes)

    def save(self, block: int, observations: TrendSums | DatedValues, passes: Iterable[str]) -> None:
        """Keep the observations of a block."""
        with atomic(self._path(block)) as draft:
            with draft.open("wb") as file:
                np.savez(file, allow_pickle=False, passes=np.array(sorted(passes), np.str_), **observations.arrays())
            sync(draft)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Drop all that is kept."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, block: int) -> Path:
        return self._folder / f"block{block}.npz"

"""What an output may take the place of: nothing that the program did not make, and nothing that it reads."""

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from thawmap.errors import ConfigError
from thawmap.files.hashes import file_sha256

_BESIDE = (".aux.xml", "-wal", "-shm", "-journal")  # what GDAL and SQLite write beside a file that is only looked at
_OF_SYSTEMS = frozenset({".DS_Store", ".directory", "Thumbs.db", "desktop.ini"})
_OF_SHAPEFILES = (".shx", ".dbf", ".prj", ".cpg")
_BOOKKEEPING = ("gpkg_", "rtree_", "sqlite_")  # tables of a GeoPackage in which nobody's work is
_SHOWN = 3  # files that a message names


def check_new(path: Path) -> None:
    """Refuse to write a file that exists, a Shapefile's parts included: nothing is replaced unasked.

    Raises:
        ConfigError: If there is one.
    """
    parts = [path, *(path.with_suffix(ending) for ending in _OF_SHAPEFILES if path.suffix == ".shp")]
    there = next((part for part in parts if os.path.lexists(part)), None)
    if there is not None:
        msg = f"{there} exists; name another file, or remove it"
        raise ConfigError(msg)


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path], *, replaced: Iterable[Path] = ()) -> None:
    """Refuse output folders that are, or lie in, what is read; links and other spellings of a name included.

    Args:
        outputs: Folders that are written into.
        inputs: Files and folders that are read.
        replaced: Folders that are replaced as a whole, which must not hold an input either.

    Raises:
        ConfigError: If one is, or is a file.
    """
    outputs, replaced, real = list(outputs), list(replaced), {path: _real(path) for path in inputs}
    read = {_identity(place): path for path, place in real.items()}
    folders = {folder: path for path, place in real.items() for folder in place.parents}
    holding = {_identity(folder): path for folder, path in folders.items()}
    for out in (*outputs, *replaced):
        for place in (_real(out), *_real(out).parents):
            if _identity(place) in read:
                how = "is" if place == _real(out) else "lies in"
                msg = f"{out} {how} {read[_identity(place)]}, which is read; name another --out"
                raise ConfigError(msg)
    for out in replaced:
        held = holding.get(_identity(_real(out)))
        if held is not None:
            msg = f"{out} would be replaced, and holds {held}, which is read; name another --out"
            raise ConfigError(msg)
    for out in outputs:
        there = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
        if not there.is_dir():
            msg = f"{there} is a file where a folder is due; name another --out"
            raise ConfigError(msg)


def fingerprint(path: Path) -> str:
    """SHA-256 of what a file holds; of a GeoPackage its rows, as reading alone may change its bytes."""
    if path.is_symlink():
        return f"link to {path.readlink()}"  # no file is made as one
    try:
        if path.suffix == ".gpkg":
            with suppress(sqlite3.Error):  # damaged, or no GeoPackage: its bytes tell
                return _of_rows(path)
        return file_sha256(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"  # as no file that was made


def fingerprints(folder: Path, *, but: Iterable[str] = ()) -> dict[str, str]:
    """The `fingerprint` of the files of a folder, and of folders below it, by their names.

    Args:
        folder: Where the files are.
        but: Names of files to leave out.
    """
    return {name: fingerprint(folder / name) for name in _names(folder) if name not in but}


def not_as_made(folder: Path, made: Mapping[str, str], *, but: Iterable[str] = ()) -> list[str]:
    """Names of the files in a folder that are not in ``made`` (`fingerprints`), or were changed since.

    What programs that only show files leave beside them does not count, nor do the names in ``but``.
    """
    mine = [name for name in _names(folder) if name not in but and not _is_beside(name, made)]
    return [name for name in mine if name not in made or fingerprint(folder / name) != made[name]]


def some_of(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    first, more = names[:_SHOWN], len(names[_SHOWN:])
    return ", ".join(first) + (f" and {more} more" if more else "")


def _names(folder: Path) -> Iterator[str]:
    """The files of a folder, those in folders below it too."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


def _is_beside(name: str, made: Mapping[str, str]) -> bool:
    if Path(name).name in _OF_SYSTEMS:
        return True
    return any(name.removesuffix(ending) in made for ending in _BESIDE if name.endswith(ending))


def _real(path: Path) -> Path:
    """Where a path leads, through all links; one that leads nowhere as far as it does."""
    return Path(os.path.realpath(path))


def _identity(path: Path) -> tuple[int, int] | Path:
    """What two names of one file or folder have in common; the path itself where nothing is there."""
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _of_rows(path: Path) -> str:
    """SHA-256 of all rows of a GeoPackage, read in a copy where a log lies beside it, so that it stays as it is."""
    log = path.with_name(f"{path.name}-wal")
    with TemporaryDirectory() as room:
        if log.exists():
            path = Path(shutil.copy2(path, room))
            shutil.copy2(log, room)
        how = "mode=rw" if log.exists() else "immutable=1"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as base:
            base.text_factory = bytes
            return _digest(base)


def _digest(base: sqlite3.Connection) -> str:
    found = hashlib.sha256()
    tables = base.execute("select name, sql from sqlite_master where type = 'table' order by name").fetchall()
    for name, sql in tables:
        if name.decode().startswith(_BOOKKEEPING):
            continue
        found.update(repr((name, sql)).encode())
        quoted = name.decode().replace('"', '""')
        for row in base.execute(f'select * from "{quoted}"'):  # noqa: S608 - a name has no parameter
            found.update(repr(row).encode())
    return found.hexdigest()

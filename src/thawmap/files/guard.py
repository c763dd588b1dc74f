"""Guards of people's files: what was not made here, or is read, stays."""

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

_BESIDE = (".aux.xml", "-wal", "-shm", "-journal")  # what GDAL and SQLite write beside a file that is only opened
_OF_SYSTEMS = frozenset({".DS_Store", ".directory", "Thumbs.db", "desktop.ini"})
_OF_SHAPEFILES = (".shx", ".dbf", ".prj", ".cpg")
_BOOKKEEPING = ("gpkg_", "rtree_", "sqlite_")  # tables of a GeoPackage in which nobody's work is
_SHOWN = 3  # files that a message names


def check_new(path: Path) -> None:
    """Refuse a path at which a file exists, or for a Shapefile any of its files.

    Raises:
        ConfigError: If there is one.
    """
    files = [path, *(path.with_suffix(ending) for ending in _OF_SHAPEFILES if path.suffix == ".shp")]
    existing = next((file for file in files if os.path.lexists(file)), None)
    if existing is not None:
        msg = f"{existing} exists; name another file, or remove it"
        raise ConfigError(msg)


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path], *, replaced: Iterable[Path] = ()) -> None:
    """Refuse output folders that are or lie in an input, or would replace one.

    Files are compared, not names: links and other spellings of a name make no difference.

    Args:
        outputs: Folders that are written into.
        inputs: Files and folders that are read.
        replaced: Folders that are replaced as a whole, which must not hold an input either.

    Raises:
        ConfigError: If one is, or is a file.
    """
    outputs, replaced, real = list(outputs), list(replaced), {path: _real(path) for path in inputs}
    read = {_identity(target): path for path, target in real.items()}
    folders = {folder: path for path, target in real.items() for folder in target.parents}
    holding = {_identity(folder): path for folder, path in folders.items()}
    for out in (*outputs, *replaced):
        for folder in (_real(out), *_real(out).parents):
            if _identity(folder) in read:
                relation = "is" if folder == _real(out) else "lies in"
                msg = f"{out} {relation} {read[_identity(folder)]}, which is read; name another --out"
                raise ConfigError(msg)
    for out in replaced:
        held = holding.get(_identity(_real(out)))
        if held is not None:
            msg = f"{out} would be replaced, and holds {held}, which is read; name another --out"
            raise ConfigError(msg)
    for out in outputs:
        existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
        if not existing.is_dir():
            msg = f"{existing} is a file where a folder is due; name another --out"
            raise ConfigError(msg)


def content_hash(path: Path) -> str:
    """Return a file's SHA-256; for links and unreadable files a text that is no hash.

    So none of these is taken for a file that was made. Of a GeoPackage the rows count, as reading alone may change its
    bytes.
    """
    if path.is_symlink():
        return f"link to {path.readlink()}"  # no file is made as one
    try:
        if path.suffix == ".gpkg":
            with suppress(sqlite3.Error):  # damaged, or no GeoPackage: its bytes tell
                return _rows_sha256(path)
        return file_sha256(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"  # as no file that was made


def content_hashes(folder: Path, *, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """Return a dict of hashes of all files in and below a folder, by relative name.

    They are as `content_hash` gives them.

    Args:
        folder: Where the files are.
        leave_out: Names of files to leave out.
    """
    return {name: content_hash(folder / name) for name in _names(folder) if name not in leave_out}


def changed_files(folder: Path, hashes: Mapping[str, str], *, leave_out: Iterable[str] = ()) -> list[str]:
    """Return the relative names of files that are new or differ from given hashes.

    Compared are their `content_hash` and ``hashes``, those of before. What programs that only show files leave beside
    them does not count, nor do the names in ``leave_out``.
    """
    names = [name for name in _names(folder) if name not in leave_out and not _is_side_file(name, hashes)]
    return [name for name in names if name not in hashes or content_hash(folder / name) != hashes[name]]


def some_of(names: Sequence[str]) -> str:
    """Return a text of the first three names, and of how many more there are."""
    first, more = names[:_SHOWN], len(names[_SHOWN:])
    return ", ".join(first) + (f" and {more} more" if more else "")


def _names(folder: Path) -> Iterator[str]:
    """Yield the relative names of the files in and below a folder, sorted."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


def _is_side_file(name: str, hashes: Mapping[str, str]) -> bool:
    """Return whether a file name is a leftover of a file manager, GDAL or SQLite.

    Of the latter two only where it belongs to a file in ``hashes``.
    """
    if Path(name).name in _OF_SYSTEMS:
        return True
    return any(name.removesuffix(ending) in hashes for ending in _BESIDE if name.endswith(ending))


def _real(path: Path) -> Path:
    """Return the absolute path with all links resolved, existing or not."""
    return Path(os.path.realpath(path))


def _identity(path: Path) -> tuple[int, int] | Path:
    """Return device and inode of an existing path; the path itself of an absent one.

    So all names of one file are the same.
    """
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _rows_sha256(path: Path) -> str:
    """Return the SHA-256 of a GeoPackage file's rows, and leave the file unchanged."""
    log = path.with_name(f"{path.name}-wal")
    with TemporaryDirectory() as folder:
        if log.exists():  # reading would merge it into the file
            path = Path(shutil.copy2(path, folder))
            shutil.copy2(log, folder)
        mode = "mode=rw" if log.exists() else "immutable=1"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as base:
            base.text_factory = bytes
            return _digest(base)


def _digest(base: sqlite3.Connection) -> str:
    """Return the SHA-256 of an SQLite base's tables, without GeoPackage's own."""
    digest = hashlib.sha256()
    tables = base.execute("select name, sql from sqlite_master where type = 'table' order by name").fetchall()
    for name, sql in tables:
        if name.decode().startswith(_BOOKKEEPING):
            continue
        digest.update(repr((name, sql)).encode())
        quoted = name.decode().replace('"', '""')
        for row in base.execute(f'select * from "{quoted}"'):  # noqa: S608 - a name has no parameter
            digest.update(repr(row).encode())
    return digest.hexdigest()

"""Results in a folder of people's: written anew unless people changed them.

Reports, tables, best.yaml.

    <folder>/.made.json     hashes of what every file held when it was written, and of the one that it replaced
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from thawmap.errors import DataError
from thawmap.files.atomic import alone, unwritable, write_json
from thawmap.files.guard import content_hash, content_hashes, some_of
from thawmap.files.records import read_object

_RECORD = ".made.json"


@contextmanager
def result(folder: Path, *, complete: bool = False, last: str = "") -> Iterator[Path]:
    """Yield a draft folder whose files move into ``folder`` when the block ends well.

    Other files there stay.

    Args:
        folder: Where the files are to appear.
        complete: Whether the draft has all files of the result: those of before that it lacks are then removed.
        last: File that takes its place after all others.

    Raises:
        DataError: As `check_result`, or if the folder cannot be written to.
    """
    with alone(folder / _RECORD):
        try:
            folder.mkdir(exist_ok=True)
            draft = Path(mkdtemp(prefix=f".{_RECORD}.", suffix=".tmp", dir=folder))
        except OSError as error:
            raise unwritable(folder, str(error.strerror)) from error
        try:
            yield draft
            _publish(draft, folder, complete=complete, last=last)
        except OSError as error:
            raise unwritable(folder, error.strerror or str(error)) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def check_result(folder: Path, names: Sequence[str] = ()) -> None:
    """Refuse to replace files in a folder that were not made here, or since changed.

    Made here are those that `result` wrote.

    Args:
        folder: The folder, which need not exist.
        names: Files that are going to be written; those that were written before are checked too.

    Raises:
        DataError: If one was changed, or is of somebody else.
    """
    recorded = _recorded(folder)
    existing = [name for name in dict.fromkeys((*names, *recorded)) if os.path.lexists(folder / name)]
    other = [name for name in existing if content_hash(folder / name) not in recorded.get(name, ())]
    if other:
        msg = (
            f"{folder} holds {some_of(other)}, which was not made here, or was changed since, and would be replaced; "
            "move it away to keep it, or name another --out"
        )
        raise DataError(msg)


def _publish(draft: Path, folder: Path, *, complete: bool, last: str) -> None:
    """Move a draft's files into a folder, and record their hashes beside them.

    Of a complete result, earlier files that the draft lacks are removed. What the new ones hold is recorded before,
    beside what they replace: so a kill between two leaves none that is unknown.
    """
    new, recorded = content_hashes(draft), _recorded(folder)
    check_result(folder, list(new))
    gone = [name for name in recorded if complete and name not in new]
    staying = {name: hashes for name, hashes in recorded.items() if name not in gone}
    record = staying | {name: [new_hash, *recorded.get(name, [])[:1]] for name, new_hash in new.items()}
    write_json(folder / _RECORD, dict(sorted(record.items())), indent=1)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    for name in sorted(new, key=lambda name: name == last):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).replace(folder / name)


def _recorded(folder: Path) -> dict[str, list[str]]:
    """Return the recorded hashes of a folder's result by file name; empty if none."""
    try:
        content = read_object(folder / _RECORD)
    except (OSError, ValueError):
        return {}
    return {name: list(map(str, hashes)) for name, hashes in content.items() if isinstance(hashes, list)}

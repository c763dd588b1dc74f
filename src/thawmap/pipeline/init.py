"""The verb init: a commented YAML to start from."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from thawmap.errors import ConfigError
from thawmap.files.atomic import write_text

_SEASON_ENDS = (10, 1)  # month and day by which the default season of a year is over


def init(folder: Path, *, area: Path | None = None, site: str | None = None, years: Sequence[int] = ()) -> Path:
    """Write a commented thawmap.yaml into a folder that has none; return its path.

    Args:
        folder: Where to write it.
        area: Vector file of an area: the YAML then goes from there to maps, with open data.
        site: Column of the file that names the site of each polygon.
        years: Years in which images were taken; none: the last one whose season is over.

    Raises:
        ConfigError: If the folder has a thawmap.yaml, or the area's file has none.
        DataError: If the area's file cannot be read.
    """
    path = folder / "thawmap.yaml"
    if path.exists():
        msg = f"{path} exists; edit it, or name another folder"
        raise ConfigError(msg)
    if area is None and (years or site):
        msg = "'years' and 'site' belong to an area; name its vector file with --area"
        raise ConfigError(msg)
    name = "template.yaml" if area is None else "template_area.yaml"
    text = (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    write_text(path, text if area is None else _filled(text, folder, area, site, years or (_last_season(),)))
    return path


def _filled(text: str, folder: Path, area: Path, site: str | None, years: Sequence[int]) -> str:
    """Return the template of an area with its names and years.

    Raises:
        ConfigError: If the file has no area.
        DataError: If it cannot be read.
    """
    from thawmap.acquire.areas import read_areas  # noqa: PLC0415 - as it loads slowly
    from thawmap.config import AcquireSettings, StacImagery  # noqa: PLC0415

    imagery = StacImagery(provider="stac")
    read_areas(AcquireSettings(area=area.resolve(), site=site, years=tuple(years), imagery=imagery))
    relative = os.path.relpath(area.resolve(), folder.resolve())
    replacements = {
        "PROJECT": json.dumps(area.stem, ensure_ascii=False),
        "AREA": json.dumps(relative, ensure_ascii=False),
        "SITE": "  # site: name              # the column that names the site of each polygon"
        if site is None
        else f"  site: {json.dumps(site, ensure_ascii=False)}",
        "YEARS": str(sorted(set(years))),
    }
    for word, replacement in replacements.items():
        text = text.replace(word, replacement, 1)
    return text


def _last_season() -> int:
    """Return the last year whose season is over."""
    now = datetime.now(UTC)
    return now.year if (now.month, now.day) >= _SEASON_ENDS else now.year - 1

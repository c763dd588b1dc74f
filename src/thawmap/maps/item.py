"""What a map's folder says of itself: reading its STAC item, which others may have written."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from thawmap.errors import DataError
from thawmap.files.records import Record, read

_Named = Annotated[str, Field(pattern=r"^(\./)?[^/\\]+$")]  # a file of the item's own folder


class AssetRecord(Record):
    """A file of the map."""

    href: _Named


class PropertiesRecord(Record):
    """What the map was made from."""

    datetime: str | None = None
    bundle: str | None = Field(default=None, alias="thawmap:bundle")
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(default=None, alias="thawmap:threshold")
    left_out: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict, alias="thawmap:left_out")
    region: str | None = Field(default=None, alias="thawmap:region")
    sensor: str = Field(default="", alias="thawmap:sensor")
    fingerprint: str = Field(default="", alias="thawmap:fingerprint")
    config: dict[str, dict[str, Any] | str] = Field(default_factory=dict, alias="thawmap:config")


class ItemRecord(Record):
    """The keys of an item that are read."""

    properties: PropertiesRecord
    assets: dict[str, AssetRecord] = Field(default_factory=dict)


def read_item(path: Path) -> dict[str, Any]:
    """Read a map's STAC item, with 'properties' and 'assets' of the types that their readers expect.

    Raises:
        DataError: If it cannot be read, or is another file.
    """
    try:
        return {"assets": {}} | read(path, ItemRecord)
    except OSError as error:
        msg = f"{path.parent} is no finished map ({path.name}: {error.strerror}); make it again with 'thawmap predict'"
        raise DataError(msg) from error
    except ValueError as error:
        msg = f"{path} is not a STAC item of a map: it {error}; make the scene's map again with 'thawmap predict'"
        raise DataError(msg) from error

"""The STAC item of a map's folder, read and checked; others may have written it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from thawmap.errors import DataError
from thawmap.files.records import Record, read
from thawmap.maps.layout import (
    BUNDLE,
    CONFIG,
    FILE_NAMES,
    FINGERPRINT,
    ITEM,
    LEFT_OUT,
    REGION,
    SENSOR,
    THRESHOLD,
)

_PLAIN_NAMES = FILE_NAMES["thawmap"]  # of files that an item does not name

_OwnFile = Annotated[str, Field(pattern=r"^(\./)?[^/\\]+$")]  # a file of the item's own folder


class AssetRecord(Record):
    """A file of the map."""

    href: _OwnFile


class PropertiesRecord(Record):
    """Inputs and settings that the map was made from."""

    datetime: str | None = None
    bundle: str | None = Field(default=None, alias=BUNDLE)
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(default=None, alias=THRESHOLD)
    left_out: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict, alias=LEFT_OUT)
    region: str | None = Field(default=None, alias=REGION)
    sensor: str = Field(default="", alias=SENSOR)
    fingerprint: str = Field(default="", alias=FINGERPRINT)
    config: dict[str, dict[str, Any] | str] = Field(default_factory=dict, alias=CONFIG)


class ItemRecord(Record):
    """The keys of an item that are read."""

    properties: PropertiesRecord
    assets: dict[str, AssetRecord] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """The bundle and threshold that made a map.

    Attributes:
        bundle: Id of the bundle, several joined by "+".
        threshold: Slumps are where the probability is above it.
    """

    bundle: str
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MapItem:
    """The STAC item of a map: what the map was made from, and which files it has.

    Attributes:
        folder: The map's folder.
        content: The item's JSON values, checked; it has "properties" and "assets".
    """

    folder: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, *, optional: bool = False) -> Self:
        """Read item.json in a map's folder; refuse a malformed one, or a missing one.

        Args:
            folder: The map's folder.
            optional: A folder without the file has an item that says nothing.

        Raises:
            DataError: If it cannot be read, or is another file.
        """
        path = folder / ITEM
        if optional and not path.exists():
            return cls(folder=folder, content={"properties": {}, "assets": {}})
        try:
            return cls(folder=folder, content={"assets": {}} | read(path, ItemRecord))
        except OSError as error:
            msg = f"{folder} is no finished map ({path.name}: {error.strerror}); make it again with 'thawmap predict'"
            raise DataError(msg) from error
        except ValueError as error:
            msg = f"{path} is not a STAC item of a map: it {error}; make the scene's map again with 'thawmap predict'"
            raise DataError(msg) from error

    @property
    def path(self) -> Path:
        """Path of the item's file, item.json in the map's folder."""
        return self.folder / ITEM

    @property
    def properties(self) -> Mapping[str, Any]:
        """The item's STAC properties, with the map's inputs and settings.

        By the keys of `thawmap.maps.layout`.
        """
        properties: Mapping[str, Any] = self.content["properties"]
        return properties

    @property
    def bundle(self) -> str | None:
        """Id of the bundle that made the map; None where the item names none.

        Several are joined by "+".
        """
        return self.properties.get(BUNDLE)

    @property
    def threshold(self) -> float | None:
        """Threshold of the map's mask and slumps; None where the item names none."""
        return self.properties.get(THRESHOLD)

    @property
    def maker(self) -> Maker | None:
        """Bundle and threshold that made the map; None where the item lacks either."""
        if self.bundle is None or self.threshold is None:
            return None
        return Maker(bundle=self.bundle, threshold=self.threshold)

    @property
    def fingerprint(self) -> str | None:
        """Hash of all that the map was made from; None where the item has none."""
        return self.properties.get(FINGERPRINT)

    @property
    def region(self) -> str | None:
        """Region of the scene; None where it has none."""
        return self.properties.get(REGION)

    @property
    def sensor(self) -> str:
        """Sensor of the scene; "" where the item names none."""
        return str(self.properties.get(SENSOR, ""))

    @property
    def left_out(self) -> dict[str, int]:
        """Number of objects left out of the slumps, by reason; empty where unknown."""
        return dict(self.properties.get(LEFT_OUT) or {})

    @property
    def config(self) -> Mapping[str, Any]:
        """Settings that the map was made with, by section; empty where unknown."""
        return dict(self.properties.get(CONFIG, {}))

    @property
    def follows_decision(self) -> bool:
        """True if its slumps were made by a bundle's decision, not by a threshold alone."""
        decision = self.config.get("decision")
        return isinstance(decision, dict) and decision.get("kind") is not None

    @property
    def is_fused(self) -> bool:
        """True if the map was fused from other maps."""
        return "fuse" in self.config

    @property
    def acquired(self) -> datetime | None:
        """UTC time of the image; None where it is unknown.

        Raises:
            DataError: If it is no time.
        """
        text = self.properties.get("datetime")
        try:
            return None if text is None else datetime.fromisoformat(text)
        except ValueError as error:
            msg = f"{self.path} has the time {text!r}; make the scene's map again with 'thawmap predict'"
            raise DataError(msg) from error

    @property
    def assets(self) -> dict[str, Path]:
        """Paths of the map's files, by the names in the item; they need not exist."""
        return {name: self.folder / str(asset["href"]) for name, asset in self.content["assets"].items()}

    @property
    def probability_path(self) -> Path:
        """Path of the raster of probabilities; it need not exist."""
        return self.assets.get("probability", self.folder / _PLAIN_NAMES["probability"])

    @property
    def mask_path(self) -> Path | None:
        """Path of the raster of slumps; None where not named, or it does not exist."""
        path = self.assets.get("mask")
        return path if path is not None and path.exists() else None

    @property
    def slumps_path(self) -> Path | None:
        """Path of the GeoPackage of slumps; None where it does not exist."""
        path = self.assets.get("slumps_gpkg", self.folder / f"{_PLAIN_NAMES['slumps']}.gpkg")
        return path if path.exists() else None

"""A map that is on the disk: opened once, then read by windows or on other grids."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from thawmap.data.raster.io import raster_info, read_raster
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.maps.item import MapItem
from thawmap.maps.layout import FILE_NAMES, ITEM, from_hundredths

if TYPE_CHECKING:
    import geopandas as gpd


def is_map(folder: Path) -> bool:
    """Return whether a folder has a map's item or probabilities, finished or not.

    Those that are being written begin with a point.
    """
    files = (ITEM, *(names["probability"] for names in FILE_NAMES.values()))
    return not folder.name.startswith(".") and any((folder / file).exists() for file in files)


def maps_in(folder: Path) -> list[str]:
    """Return the sorted names of subfolders with an item: the finished maps."""
    return [path.parent.name for path in sorted(folder.glob(f"*/{ITEM}"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFolder:
    """The map of one scene or fused place.

    Attributes:
        path: Its folder.
        item: Its STAC item.
        grid: The grid of its rasters.
        in_hundredths: Whether its probabilities are stored as hundredths, else as they are.
    """

    path: Path
    item: MapItem = field(compare=False, repr=False)
    grid: GeoBox = field(compare=False, repr=False)
    in_hundredths: bool = field(compare=False)

    @classmethod
    def open(cls, path: Path, *, item: MapItem | None = None) -> Self:
        """Return the map in a folder, with its item and the grid of its probabilities.

        Args:
            path: The folder.
            item: Its item, where it was read already.

        Raises:
            DataError: If its item cannot be read or is none, or it has no readable raster of probabilities.
        """
        item = MapItem.read(path) if item is None else item
        info = raster_info(item.probability_path)
        return cls(path=path, item=item, grid=info.geobox, in_hundredths=not info.dtype.startswith("float"))

    @property
    def id(self) -> str:
        """The scene's id, which is the folder's name."""
        return self.path.name

    @property
    def acquired(self) -> datetime | None:
        """UTC time of the image; None where it is unknown.

        Raises:
            DataError: If the item has no time there.
        """
        return self.item.acquired

    @property
    def bundle(self) -> str | None:
        """Id of the bundle that made the map; None where its item names none.

        Several are joined by "+".
        """
        return self.item.bundle

    @property
    def threshold(self) -> float | None:
        """Threshold of the map's mask and slumps; None where its item names none."""
        return self.item.threshold

    @property
    def fingerprint(self) -> str | None:
        """Hash of all that the map was made from; None where its item has none."""
        return self.item.fingerprint

    @property
    def region(self) -> str | None:
        """Region of the scene; None where it has none."""
        return self.item.region

    @property
    def sensor(self) -> str:
        """Sensor of the scene; "" where the item names none."""
        return self.item.sensor

    @property
    def assets(self) -> dict[str, Path]:
        """Paths of the map's files, by the names in its item; they need not exist."""
        return self.item.assets

    def read(self, onto: GeoBox | Window) -> npt.NDArray[np.float32]:
        """Read the map's probabilities (y, x), 0..1, in a window or resampled to a grid.

        float32; NaN = missing.

        Args:
            onto: A window of its grid, which may reach beyond it, or any grid: as stored on its own, else bilinear.

        Raises:
            DataError: If the file is damaged.
        """
        numbers = read_raster(self.item.probability_path, self._grid(onto), bands=[1], resampling="bilinear")[0]
        return from_hundredths(numbers) if self.in_hundredths else numbers

    def mask(self, onto: GeoBox | Window) -> npt.NDArray[np.bool_] | None:
        """Read the map's mask as bools (y, x), True in slumps; None where it has no mask.

        Args:
            onto: A window of its grid or any grid, as for `read`; beyond the mask are no slumps.

        Raises:
            DataError: If the file is damaged.
        """
        path = self.item.mask_path
        if path is None:
            return None
        return np.asarray(read_raster(path, self._grid(onto), bands=[1], resampling="nearest")[0] == 1)

    def slumps(self) -> "gpd.GeoDataFrame | None":
        """Read the map's slumps as a GeoDataFrame; None where it has no GeoPackage.

        Raises:
            DataError: If the file is damaged.
        """
        from thawmap.data.vector.io import read_vector  # noqa: PLC0415 - geopandas loads slowly

        path = self.item.slumps_path
        return None if path is None else read_vector(path, layer=path.stem)

    def _grid(self, onto: GeoBox | Window) -> GeoBox:
        return window_geobox(self.grid, onto) if isinstance(onto, Window) else onto

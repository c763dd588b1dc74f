"""Masks of usable pixels that Planet delivers beside its images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from affine import Affine

from thawmap.data.raster.io import RasterInfo, raster_info
from thawmap.data.sources.base import Mask
from thawmap.errors import DataError

_UDM2 = ("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "udm1")
_CLASSES = MappingProxyType({
    "cloud": ("cloud",), "shadow": ("shadow",), "snow": ("snow",), "haze": ("haze_light", "haze_heavy"),
})  # fmt: skip
_CLOUD_BIT = 2  # of an old udm; 1 is blackfill, the others are missing or suspect bands


def planet_masks(
    files: Mapping[str, Path], image: RasterInfo, unusable: Sequence[str]
) -> tuple[tuple[Mask, ...], list[str]]:
    """Return a PlanetScope image's masks from udm2, or the older udm, and notes.

    No mask where the scene has neither file; ``unusable`` are the classes of pixels to leave out.

    Raises:
        DataError: If the mask lies on another grid than the image, or lacks bands.
    """
    kind = next((kind for kind in ("udm2", "udm") if kind in files), None)
    if kind is None:
        return (), ["it has no udm2 and no udm: clouds, shadow and snow are not masked, only missing pixels are"]
    mask = raster_info(files[kind])
    _check_grid(mask, image)
    if kind == "udm":
        return (Mask(file=kind, bands=(1,), usable=(0,)),), ["it has an old udm, which knows neither shadow nor haze"]
    return _udm2_masks(mask, unusable), []


def _check_grid(mask: RasterInfo, image: RasterInfo) -> None:
    """Refuse a mask that lies on another grid than its image."""
    sizes = [f"{info.geobox.width} x {info.geobox.height} px" for info in (mask, image)]
    if sizes[0] != sizes[1]:
        msg = f"{mask.path.name} has {sizes[0]}, and {image.path.name} {sizes[1]}; fetch both from one order"
        raise DataError(msg)
    step = ~image.geobox.affine * mask.geobox.affine
    same = step.almost_equals(Affine.identity(), precision=1e-3)
    if not same or mask.geobox.crs != image.geobox.crs:
        msg = f"{mask.path.name} lies on another grid than {image.path.name}; fetch both from one order"
        raise DataError(msg)


def _udm2_masks(mask: RasterInfo, unusable: Sequence[str]) -> tuple[Mask, ...]:
    """Return masks by a udm2 file that leave out unusable classes and suspect pixels.

    The classes exclude each other, and `clear` is none of them, nor missing: it stands for all of them at once.
    Source: Planet, Usable Data Mask 2.1; bits of the last band as in Planet's Imagery Product Specification.
    """
    described = tuple(name.lower() for name in mask.descriptions)
    names = described if set(_UDM2) <= set(described) else _UDM2
    if mask.count < len(_UDM2):
        msg = f"{mask.path.name} has {mask.count} bands, and a udm2 has {len(_UDM2)}; fetch it again"
        raise DataError(msg)
    number = {name: names.index(name) + 1 for name in _UDM2}
    # the old classes' bit for clouds counts only where clouds are unusable
    bits = Mask(file="udm2", bands=(number["udm1"],), usable=(0,) if "cloud" in unusable else (0, _CLOUD_BIT))
    if set(unusable) == set(_CLASSES):
        return Mask(file="udm2", bands=(number["clear"],), usable=(1,)), bits
    classes = tuple(number[band] for name in unusable for band in _CLASSES[name])
    return (Mask(file="udm2", bands=classes, usable=(0,)), bits) if classes else (bits,)

"""Sentinel-2 Level-2A scenes: SAFE folders as they are downloaded, and folders with one file for each band."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from thawmap.config import Sentinel2Scenes
from thawmap.data.raster.io import RasterInfo, raster_info
from thawmap.data.sources.base import Candidate, Mask, Reading, Scene
from thawmap.data.sources.finding import as_delivered, as_time, copied, in_delivery, misnamed, usable_id
from thawmap.data.sources.metadata import Radiometry, about_clouds, baseline_offsets, sentinel_item, sentinel_xml
from thawmap.errors import DataError
from thawmap.files.listing import files_below, half_written

_LAYERS = MappingProxyType({
    "b02": "blue", "b2": "blue", "blue": "blue",
    "b03": "green", "b3": "green", "green": "green",
    "b04": "red", "b4": "red", "red": "red",
    "b08": "nir", "b8": "nir", "nir": "nir",
    "b11": "swir1", "swir16": "swir1", "swir1": "swir1",
    "b12": "swir2", "swir22": "swir2", "swir2": "swir2",
    "scl": "scl",
})  # fmt: skip
"""What files are called, after ESA's bands or STAC's common names, to what they hold."""

_NEEDED = MappingProxyType({"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"})
_BAND = re.compile(rf"(?:(?P<prefix>.+)[_.-])?(?P<band>{'|'.join(_LAYERS)})(?:_(?P<metres>[126]0)m)?", re.IGNORECASE)
_RASTERS = frozenset({".jp2", ".tif", ".tiff"})
_METRES = re.compile(r"R?([126]0)m", re.IGNORECASE)  # folders of a resolution

_CLASSES = (
    "no_data", "saturated", "dark", "cloud_shadow", "vegetation", "bare", "water", "unclassified",
    "cloud_medium", "cloud_high", "cirrus", "snow",
)  # fmt: skip
"""Classes of the scene classification, by their numbers."""

_SENSED = re.compile(r"(?:MSIL\d[AC]_|T\d\d[A-Z]{3}_|_V)(\d{8}T\d{6})", re.IGNORECASE)  # others: of processing
_DATED = re.compile(r"(?:^|_)(\d{8})(?:_|$)")
_BASELINE = re.compile(r"_N(\d\d)\.?(\d\d)(?=_|\.|$)", re.IGNORECASE)
_LEVEL_1 = re.compile(r"MSIL1C|_L1C(?:_|$)", re.IGNORECASE)
_TILE_AND_TIME = re.compile(r"(T\d\d[A-Z]{3})_(\d{8}T\d{6})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """A band in a file of its own.

    Attributes:
        path: The file.
        layer: What it holds.
        metres: Its resolution, where its name or folder tells it; else that of the bands needed.
        folder: The folder of its scene: the granule of a SAFE, else the one with the bands.
        prefix: What its name says before the band.
    """

    path: Path
    layer: str
    metres: int
    folder: Path
    prefix: str

    @property
    def scene(self) -> tuple[Path, str]:
        """What it has in common with the other bands of its scene."""
        return self.folder, "" if _product(self.folder) else self.prefix.lower()


def candidates(settings: Sentinel2Scenes, *, places: Sequence[Path] = ()) -> list[Candidate]:
    """The scenes in the delivery, or at ``places`` instead, in order of their ids; no raster is opened.

    The id is the name of the SAFE; of other scenes what stands before the band in the names of their files, where
    that tells a date or where several scenes lie in the folder; else the folder's name.

    Raises:
        ConfigError: If there is none, the folder does not exist, or the table of regions cannot be used.
    """
    searched = in_delivery(settings, places)
    folders, files = ([place for place in searched if place.is_file() == kind] for kind in (False, True))
    found = [*_in_folders(folders), *_of_files(files)]
    return as_delivered({one.place: one for one in found}.values(), settings, searched=searched)


def open_scene(candidate: Candidate, settings: Sentinel2Scenes) -> Scene:
    """The scene on the grid of its blue band, with its bands, classes and metadata; only headers are read.

    Raises:
        DataError: If a band is missing, damaged, still being written, or covers another place than the others; if
            the product is Level-1C, or nothing tells its offset.
    """
    found = sorted(filter(None, map(_parse, candidate.files.values())), key=lambda one: (-one.metres, one.path))
    images = {one.layer: one for one in found}  # the finest of each, because it comes last
    _check_complete(images, found)
    files = {layer: image.path for layer, image in images.items()}
    facts = _metadata(candidate)
    names = [candidate.id, images["blue"].prefix, images["blue"].folder.absolute().name]
    _check_product(facts, images["blue"])
    infos = {layer: raster_info(path) for layer, path in files.items()}
    _check_places(infos)
    readings, about_offset = _readings(files, facts, names, settings)
    acquired, about_time = _acquired(facts, names)
    masks, about_masks = _masks(files, settings)
    return Scene(
        id=candidate.id,
        sensor=settings.kind,
        geobox=infos["blue"].geobox,
        files={**files, **{one.path.name: one.path for one in facts}},
        acquired=acquired,
        region=candidate.region,
        readings=readings,
        masks=masks,
        notes=(*about_masks, *about_offset, *about_time, *about_clouds(facts)),
    )


def _parse(path: Path) -> _Image | None:
    """What a file's name and folder say; None where it is no band that is of use here."""
    name = path
    if path.suffix.lower() not in _RASTERS:
        name = path.with_suffix("")  # as `.jp2.part`
    match = _BAND.fullmatch(name.stem)
    if match is None or name.suffix.lower() not in _RASTERS or (match["prefix"] or "").lower().startswith("msk_"):
        return None  # quality masks are named after bands too
    if name is not path and half_written(path) is None:
        return None
    folder = path.parent
    told = _METRES.fullmatch(folder.name)
    if told is not None:
        folder = folder.parent
    if folder.name.upper() == "IMG_DATA":
        folder = folder.parent
    layer = _LAYERS[match["band"].lower()]
    metres = match["metres"] or (told and told[1]) or (10 if layer in _NEEDED else 20)
    return _Image(path=path, layer=layer, metres=int(metres), folder=folder, prefix=match["prefix"] or "")


def _product(granule: Path) -> Path | None:
    """The SAFE folder that a granule lies in, whatever its name ends in now; None for other folders."""
    return granule.parent.parent if granule.parent.name.upper() == "GRANULE" else None


def _in_folders(folders: Sequence[Path]) -> Iterator[Candidate]:
    """The scenes at or below folders, and what was to be one: products without bands, or still packed."""
    scenes = defaultdict[tuple[Path, str], list[_Image]](list)
    products = set[Path]()
    for path in files_below(folders):
        image = _parse(path)
        if image is not None:
            scenes[image.scene].append(image)
        products.update(folder for folder in path.parents if folder.suffix.upper() == ".SAFE")
        if path.suffix.lower() == ".zip" and "_MSIL2A_" in path.name.upper():
            fault = f"{path.name} is packed; unpack it"
            yield Candidate(name=path.stem, place=path, id=usable_id(path.stem), fault=fault)
    together = Counter(_product(folder) or folder for folder, _ in scenes)
    beside = {folder: _side_files(folder) for folder in together}
    for (granule, _), images in scenes.items():
        folder = _product(granule) or granule
        yield _candidate(images, beside[folder], alone=together[folder] == 1)
    for product in products.difference(together, *(folder.parents for folder in together)):
        fault = f"{product.name} has no bands in GRANULE/*/IMG_DATA; wait for it, or fetch it again"
        yield Candidate(name=product.stem, place=product, id=usable_id(product.stem), fault=fault)


def _of_files(named: Sequence[Path]) -> Iterator[Candidate]:
    """The scenes of files that a user named: bands, or metadata in the folder of their scene."""
    folders = set[Path]()
    for path in named:
        image = _parse(path)
        if image is None and path.suffix.lower() in _RASTERS:
            fault = f"{path.name} is not named after a band, such as B02; read other files with 'scenes.kind: rasters'"
            yield Candidate(name=path.stem, place=path, id=usable_id(path.stem), fault=fault)
        else:
            folders.add(path.parent if image is None else image.folder)
    wanted = set(named)
    for one in _in_folders(sorted(folders)):
        if not wanted.isdisjoint(one.files.values()):
            yield one


def _candidate(images: Sequence[_Image], beside: Sequence[Path], *, alone: bool) -> Candidate:
    """A scene from its bands and the metadata beside them; ``alone`` where its folder, or SAFE, has no other."""
    first = min(images, key=lambda image: image.path)
    product = _product(first.folder)
    own = re.search(r"\d{8}", first.prefix) is not None or (first.prefix and not alone)
    if product is None:
        name, place = (first.prefix, first.path) if own else (first.folder.absolute().name, first.folder)
    else:
        name = (product.stem if product.suffix.upper() == ".SAFE" else product.name) if alone else first.folder.name
        place = product if alone else first.folder
    beside = [path for path in beside if alone or _alike(path.stem, first.prefix)]
    named = {name, first.prefix, first.folder.name}
    fault = misnamed(place, name)
    if any(map(_LEVEL_1.search, named)) or any(path.name.upper() == "MTD_MSIL1C.XML" for path in beside):
        fault = f"{name} is Level-1C, top-of-atmosphere; fetch its Level-2A, or make it with Sen2Cor"
    return Candidate(
        name=name,
        place=place,
        id=usable_id(name),
        acquired=_time_of([name, first.prefix]),
        files={str(path): path for path in (*(image.path for image in images), *beside)},
        fault=fault,
    )


def _side_files(folder: Path) -> list[Path]:
    """The files of metadata in a folder: the product's XML, and JSON."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".xml", ".json"})
    return [path for path in paths if path.suffix.lower() == ".json" or re.search("MTD_(MSI|SAF)L", path.name.upper())]


def _alike(one: str, other: str) -> bool:
    """Whether one of two names begins with the other."""
    return bool(one and other) and (one.startswith(other) or other.startswith(one))


def _check_complete(images: Mapping[str, _Image], found: Sequence[_Image]) -> None:
    """Every band that is needed must be there, and whole."""
    for image in found:
        fault = half_written(image.path) or _cut_short(image.path)
        if fault is not None:
            raise DataError(fault)
    absent = [f"{layer} ({band})" for layer, band in _NEEDED.items() if layer not in images]
    if absent:
        copies = (copied(path) for image in found for path in sorted(image.path.parent.iterdir()))
        fault = next((fault for fault in copies if fault is not None), None)
        if fault is not None:
            raise DataError(fault)
        there = ", ".join(sorted(image.path.name for image in images.values()))
        msg = f"it has no band {absent[0]}, only {there}; wait for it, or fetch it"
        raise DataError(msg)


def _cut_short(path: Path) -> str | None:
    """Why a JPEG 2000 file lacks its end, which GDAL fills with noise and reads on; None where it does not.

    Source: ISO/IEC 15444-1, annex I: a chain of boxes, each with its length; 0 is the last one's, whose codestream
    ends in a mark of its own.
    """
    if path.suffix.lower() != ".jp2":
        return None
    size, start, length = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while start < size:
            file.seek(start)
            head = file.read(16)
            wide = head[:4] == b"\0\0\0\1"
            length = int.from_bytes(head[8:16] if wide else head[:4])
            start += max(length, 8) if length else size - start
        file.seek(max(size - 2, 0))
        ends = length > 0 or file.read() == b"\xff\xd9"
    return None if start == size and ends else f"{path.name} is cut short; fetch it again"


def _metadata(candidate: Candidate) -> list[Radiometry]:
    """What its files of metadata say, the most certain first.

    A SAFE has its own numbers, as its XML says. Bands by themselves may have been changed, which only a STAC item of
    the same catalogue knows.
    """
    paths = [path for path in candidate.files.values() if path.suffix.lower() in {".xml", ".json"}]
    for path in paths:
        fault = half_written(path)
        if fault is not None:
            raise DataError(fault)
    told = [sentinel_xml(path) if path.suffix.lower() == ".xml" else sentinel_item(path) for path in paths]
    facts = [one for one in told if one is not None]
    in_safe = any(_product(image.folder) for image in filter(None, map(_parse, candidate.files.values())))
    return sorted(facts, key=lambda one: (one.path.suffix.lower() == ".xml") != in_safe)


def _check_product(facts: Iterable[Radiometry], image: _Image) -> None:
    """Metadata must be of Level-2A, and of the tile and time that the names of the bands tell."""
    own = _TILE_AND_TIME.search(image.prefix)
    for one in facts:
        if one.level is not None and not one.level.startswith("2"):
            msg = f"{one.path.name} says Level-{one.level}; fetch Level-2A, or make it with Sen2Cor"
            raise DataError(msg)
        product = one.product or ""
        alike = own is not None and all(part.upper() in product.upper() for part in own.groups())
        if own is not None and _SENSED.search(product) and not alike:
            msg = f"{one.path.name} is of another scene, {product}; fetch the metadata of this one"
            raise DataError(msg)


def _check_places(infos: Mapping[str, RasterInfo]) -> None:
    """All files must cover the same place, to a pixel of the coarser one, and hold one band."""
    blue = infos["blue"]
    for info in infos.values():
        if info.count != 1:
            msg = f"{info.path.name} has {info.count} bands, and its name means one; read it with 'kind: rasters'"
            raise DataError(msg)
        pixel = max(abs(size) for one in (blue, info) for size in (one.geobox.resolution.x, one.geobox.resolution.y))
        boxes = [one.geobox.extent.boundingbox for one in (blue, info)]
        apart = max(abs(ours - theirs) for ours, theirs in zip(*boxes, strict=True))
        if info.geobox.crs != blue.geobox.crs or apart > pixel:
            msg = f"{info.path.name} covers another place than {blue.path.name}; fetch all bands of one scene"
            raise DataError(msg)


def _readings(
    files: Mapping[str, Path], facts: Sequence[Radiometry], names: Iterable[str], settings: Sentinel2Scenes
) -> tuple[dict[str, Reading], list[str]]:
    """How the stored numbers of each band become reflectance, and what to say of it; 0 is missing.

    The offset is the setting's, else the metadata's, else what the processing baseline in a name means. A date does
    not tell it: older images have been processed again.

    Raises:
        DataError: If nothing tells the offset.
    """
    layers = [layer for layer in files if layer != "scl"]
    by_name = [baseline_offsets(float(f"{found[1]}.{found[2]}")) for found in map(_BASELINE.search, names) if found]
    told = next((one for one in (*(one.offsets for one in facts), *by_name) if one is not None), None)
    offsets, notes = told, []
    if settings.offset is not None:
        offsets = dict.fromkeys(layers, settings.offset)
        if told is not None and any(told.get(layer) != settings.offset for layer in layers):
            notes = [f"'scenes.offset' is {settings.offset:g}, and its metadata tell another"]
    absent = [layer for layer in layers if offsets is None or layer not in offsets]
    if offsets is None or absent:
        msg = (
            f"nothing tells the offset of its {absent[0]} band; put its MTD_MSIL2A.xml or STAC item beside it, "
            f"or set 'scenes.offset' to -1000 (processing baseline 04.00 and later) or 0"
        )
        raise DataError(msg)
    unit = facts[0].quantification if facts else 10_000
    readings = {
        layer: Reading(file=layer, band=1, scale=1 / unit, offset=offsets[layer] / unit, nodata=0) for layer in layers
    }
    return readings, notes


def _masks(files: Mapping[str, Path], settings: Sentinel2Scenes) -> tuple[tuple[Mask, ...], list[str]]:
    """What the scene classification leaves usable, and what to say of it; "no data" never is."""
    if "scl" not in files:
        return (), ["it has no SCL: clouds, shadow and snow are not masked, only missing pixels are"]
    usable = [number for number, name in enumerate(_CLASSES) if number and name not in settings.unusable]
    return (Mask(file="scl", bands=(1,), usable=tuple(usable)),), []


def _acquired(facts: Iterable[Radiometry], names: Sequence[str]) -> tuple[datetime | None, list[str]]:
    """When the image was taken, and what to say of it."""
    told = next((one.acquired for one in facts if one.acquired is not None), None) or _time_of(names)
    if told is not None:
        return told, []
    date = next((time for found in map(_DATED.search, names) if found and (time := as_time(found[1]))), None)
    return date, [
        "nothing tells when it was taken"
        if date is None
        else "its name tells the date only, for which 00:00 UTC stands"
    ]


def _time_of(names: Iterable[str]) -> datetime | None:
    """The time, UTC, that names tell; None where they tell none."""
    return next((as_time(found[1]) for found in map(_SENSED.search, names) if found), None)

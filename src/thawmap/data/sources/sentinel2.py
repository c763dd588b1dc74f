"""Sentinel-2 Level-2A scenes: SAFE folders, and folders with a file for each band."""

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
from thawmap.data.sources.finding import (
    copy_fault,
    finish_candidates,
    name_fault,
    parse_time,
    searched_paths,
    usable_id,
)
from thawmap.data.sources.metadata import (
    BASELINE,
    SentinelMetadata,
    baseline_offsets,
    cloud_notes,
    read_sentinel_item,
    read_sentinel_xml,
)
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
"""Names of files, after ESA's bands or STAC's common names, to layers."""

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
_LEVEL_1 = re.compile(r"MSIL1C|_L1C(?:_|$)", re.IGNORECASE)
_TILE_AND_TIME = re.compile(r"(T\d\d[A-Z]{3})_(\d{8}T\d{6})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """A band's file, with its layer, resolution, folder and prefix.

    Attributes:
        path: The file.
        layer: The layer that it holds, or scl.
        metres: Its resolution, as its name or folder says; else that of ESA's band.
        folder: The folder of its scene: the granule of a SAFE, else the one with the bands.
        prefix: The name before the band.
    """

    path: Path
    layer: str
    metres: int
    folder: Path
    prefix: str

    @property
    def scene(self) -> tuple[Path, str]:
        """Key that all bands of a scene share: folder and, outside of a SAFE, prefix."""
        return self.folder, "" if _product(self.folder) else self.prefix.lower()


def candidates(settings: Sentinel2Scenes, *, paths: Sequence[Path] = ()) -> list[Candidate]:
    """Return the candidates in the settings' delivery, or those at ``paths``, by id.

    No raster is opened. The id is the name of the SAFE; of other scenes what stands before the band in their files'
    names, where that tells a date or several scenes lie in the folder; else the folder's name.

    Raises:
        ConfigError: If there is none, the folder does not exist, or the table of regions cannot be used.
    """
    return finish_candidates(find(searched := searched_paths(settings, paths)), settings, searched=searched)


def find(searched: Sequence[Path]) -> list[Candidate]:
    """Return the candidates at and below paths, in no order, without regions."""
    folders, files = ([path for path in searched if path.is_file() == is_file] for is_file in (False, True))
    return list({candidate.path: candidate for candidate in (*_in_folders(folders), *_of_files(files))}.values())


def open_scene(candidate: Candidate, settings: Sentinel2Scenes) -> Scene:
    """Open a candidate as a scene on the grid of its blue band.

    It has the bands, masks by the scene classification, and metadata; only headers are read.

    Raises:
        DataError: If a band is missing, damaged, still being written, or lies apart from the others; if
            the product is Level-1C, or nothing tells its offset.
    """
    images = sorted(filter(None, map(_parse, candidate.files.values())), key=lambda image: (-image.metres, image.path))
    finest = {image.layer: image for image in images}  # which comes last
    _check_complete(finest, images)
    files = {layer: image.path for layer, image in finest.items()}
    metadata = _read_metadata(candidate)
    names = [candidate.id, finest["blue"].prefix, finest["blue"].folder.absolute().name]
    _check_product(metadata, finest["blue"])
    infos = {layer: raster_info(path) for layer, path in files.items()}
    _check_grids(infos)
    readings, offset_notes = _readings(files, metadata, names, settings)
    acquired, time_notes = _acquired(metadata, names)
    masks, mask_notes = _masks(files, settings)
    return Scene(
        id=candidate.id,
        sensor=settings.kind,
        geobox=infos["blue"].geobox,
        files={**files, **{record.path.name: record.path for record in metadata}},
        acquired=acquired,
        region=candidate.region,
        readings=readings,
        masks=masks,
        notes=(*mask_notes, *offset_notes, *time_notes, *cloud_notes(metadata)),
    )


def _parse(path: Path) -> _Image | None:
    """Return a path as a band's image by name and folder; None for files of no use."""
    name = path
    if path.suffix.lower() not in _RASTERS:
        name = path.with_suffix("")  # as `.jp2.part`
    match = _BAND.fullmatch(name.stem)
    if match is None or name.suffix.lower() not in _RASTERS or (match["prefix"] or "").lower().startswith("msk_"):
        return None  # quality masks are named after bands too
    if name is not path and half_written(path) is None:
        return None
    folder = path.parent
    resolution = _METRES.fullmatch(folder.name)
    if resolution is not None:
        folder = folder.parent
    if folder.name.upper() == "IMG_DATA":
        folder = folder.parent
    layer = _LAYERS[match["band"].lower()]
    metres = match["metres"] or (resolution and resolution[1]) or (10 if layer in _NEEDED else 20)
    return _Image(path=path, layer=layer, metres=int(metres), folder=folder, prefix=match["prefix"] or "")


def _product(granule: Path) -> Path | None:
    """Return the SAFE folder of a granule, whatever its name; None for other folders."""
    return granule.parent.parent if granule.parent.name.upper() == "GRANULE" else None


def _in_folders(folders: Sequence[Path]) -> Iterator[Candidate]:
    """Yield the candidates in and below folders, with faults for unusable products.

    At fault are products without bands, and those that are still packed.
    """
    scenes = defaultdict[tuple[Path, str], list[_Image]](list)
    products = set[Path]()
    for path in files_below(folders):
        image = _parse(path)
        if image is not None:
            scenes[image.scene].append(image)
        products.update(folder for folder in path.parents if folder.suffix.upper() == ".SAFE")
        if path.suffix.lower() == ".zip" and "_MSIL2A_" in path.name.upper():
            fault = f"{path.name} is packed; unpack it"
            yield Candidate(name=path.stem, path=path, id=usable_id(path.stem), fault=fault)
    scenes_in = Counter(_product(folder) or folder for folder, _ in scenes)
    beside = {folder: _metadata_files(folder) for folder in scenes_in}
    for (granule, _), images in scenes.items():
        folder = _product(granule) or granule
        yield _candidate(images, beside[folder], alone=scenes_in[folder] == 1)
    for product in products.difference(scenes_in, *(folder.parents for folder in scenes_in)):
        fault = f"{product.name} has no bands in GRANULE/*/IMG_DATA; wait for it, or fetch it again"
        yield Candidate(name=product.stem, path=product, id=usable_id(product.stem), fault=fault)


def _of_files(named: Sequence[Path]) -> Iterator[Candidate]:
    """Yield the candidates of named files: bands, or metadata in a scene's folder."""
    folders = set[Path]()
    for path in named:
        image = _parse(path)
        if image is None and path.suffix.lower() in _RASTERS:
            fault = f"{path.name} is not named after a band, such as B02; read other files with 'scenes.kind: rasters'"
            yield Candidate(name=path.stem, path=path, id=usable_id(path.stem), fault=fault)
        else:
            folders.add(path.parent if image is None else image.folder)
    wanted = set(named)
    for candidate in _in_folders(sorted(folders)):
        if not wanted.isdisjoint(candidate.files.values()):
            yield candidate


def _candidate(images: Sequence[_Image], beside: Sequence[Path], *, alone: bool) -> Candidate:
    """Return the candidate of a scene's bands and the metadata beside them.

    ``alone`` is True where its folder, or SAFE, has no other scene.
    """
    first = min(images, key=lambda image: image.path)
    product = _product(first.folder)
    # a prefix names its scene where it tells a date, or where there are other scenes in the folder
    named_by_prefix = re.search(r"\d{8}", first.prefix) is not None or (first.prefix and not alone)
    if product is None:
        name, scene_path = (
            (first.prefix, first.path) if named_by_prefix else (first.folder.absolute().name, first.folder)
        )
    else:
        name = (product.stem if product.suffix.upper() == ".SAFE" else product.name) if alone else first.folder.name
        scene_path = product if alone else first.folder
    if not alone:  # of the metadata in the folder, those named like the bands are this scene's
        begin_alike = (
            path for path in beside if path.stem.startswith(first.prefix) or first.prefix.startswith(path.stem)
        )
        beside = [path for path in begin_alike if first.prefix]
    fault = name_fault(scene_path, name)
    if any(map(_LEVEL_1.search, (name, first.prefix, first.folder.name))) or any(
        path.name.upper() == "MTD_MSIL1C.XML" for path in beside
    ):
        fault = f"{name} is Level-1C, top-of-atmosphere; fetch its Level-2A, or make it with Sen2Cor"
    return Candidate(
        name=name,
        path=scene_path,
        id=usable_id(name),
        acquired=_time_of([name, first.prefix]),
        files={str(path): path for path in (*(image.path for image in images), *beside)},
        fault=fault,
    )


def _metadata_files(folder: Path) -> list[Path]:
    """Return paths of metadata in a folder: the product's XML, and any JSON."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".xml", ".json"})
    return [path for path in paths if path.suffix.lower() == ".json" or re.search("MTD_(MSI|SAF)L", path.name.upper())]


def _check_complete(finest: Mapping[str, _Image], images: Sequence[_Image]) -> None:
    """Refuse a scene that lacks a needed band, or of which an image is not whole.

    ``finest`` is layer to the image that is read, one of ``images``.
    """
    for image in images:
        fault = half_written(image.path) or _cut_short(image.path)
        if fault is not None:
            raise DataError(fault)
    absent = [f"{layer} ({band})" for layer, band in _NEEDED.items() if layer not in finest]
    if absent:
        copies = (copy_fault(path) for image in images for path in sorted(image.path.parent.iterdir()))
        fault = next((fault for fault in copies if fault is not None), None)
        if fault is not None:
            raise DataError(fault)
        names = ", ".join(sorted(image.path.name for image in finest.values()))
        msg = f"it has no band {absent[0]}, only {names}; wait for it, or fetch it"
        raise DataError(msg)


def _cut_short(path: Path) -> str | None:
    """Return a message on a JPEG 2000 file that lacks its end; None for whole files.

    GDAL would fill the end with noise and read on. Source: ISO/IEC 15444-1, annex I: a chain of boxes, each with its
    length; 0 is the last one's, whose codestream ends in a mark of its own.
    """
    if path.suffix.lower() != ".jp2":
        return None
    size, start, length = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while start < size:
            file.seek(start)
            head = file.read(16)
            wide = head[:4] == b"\0\0\0\1"  # the length then stands behind the type, in 8 bytes
            length = int.from_bytes(head[8:16] if wide else head[:4])
            start += max(length, 8) if length else size - start  # no shorter than its own head, lest this never end
        file.seek(max(size - 2, 0))
        ends = length > 0 or file.read() == b"\xff\xd9"
    return None if start == size and ends else f"{path.name} is cut short; fetch it again"


def _read_metadata(candidate: Candidate) -> list[SentinelMetadata]:
    """Return the metadata in a candidate's XML and JSON files, most certain first.

    A SAFE has its own numbers, as its XML says. Bands by themselves may have been changed, which only a STAC item of
    the same catalogue knows.
    """
    paths = [path for path in candidate.files.values() if path.suffix.lower() in {".xml", ".json"}]
    for path in paths:
        fault = half_written(path)
        if fault is not None:
            raise DataError(fault)
    metadata = [
        read_sentinel_xml(path) if path.suffix.lower() == ".xml" else read_sentinel_item(path) for path in paths
    ]
    in_safe = any(_product(image.folder) for image in filter(None, map(_parse, candidate.files.values())))
    records = [record for record in metadata if record is not None]
    return sorted(records, key=lambda record: (record.path.suffix.lower() == ".xml") != in_safe)


def _check_product(metadata: Iterable[SentinelMetadata], image: _Image) -> None:
    """Refuse metadata of another level than 2A, or of another scene than an image.

    Tile and time in the names of bands tell the scene.
    """
    own = _TILE_AND_TIME.search(image.prefix)
    for record in metadata:
        if record.level is not None and not record.level.startswith("2"):
            msg = f"{record.path.name} says Level-{record.level}; fetch Level-2A, or make it with Sen2Cor"
            raise DataError(msg)
        product = record.product or ""
        is_same = own is not None and all(text.upper() in product.upper() for text in own.groups())
        if own is not None and _SENSED.search(product) and not is_same:  # other names tell no scene
            msg = f"{record.path.name} is of another scene, {product}; fetch the metadata of this one"
            raise DataError(msg)


def _check_grids(infos: Mapping[str, RasterInfo]) -> None:
    """Refuse files of several bands, or that cover other ground than the blue band.

    They may differ by a pixel of the coarser of both.
    """
    blue = infos["blue"]
    for info in infos.values():
        if info.count != 1:
            msg = f"{info.path.name} has {info.count} bands, and its name means one; read it with 'kind: rasters'"
            raise DataError(msg)
        geoboxes = (blue.geobox, info.geobox)
        pixel = max(abs(size) for geobox in geoboxes for size in (geobox.resolution.x, geobox.resolution.y))
        boxes = [geobox.extent.boundingbox for geobox in geoboxes]
        apart = max(abs(first - second) for first, second in zip(*boxes, strict=True))
        if info.geobox.crs != blue.geobox.crs or apart > pixel:
            msg = f"{info.path.name} covers another place than {blue.path.name}; fetch all bands of one scene"
            raise DataError(msg)


def _readings(
    files: Mapping[str, Path], metadata: Sequence[SentinelMetadata], names: Iterable[str], settings: Sentinel2Scenes
) -> tuple[dict[str, Reading], list[str]]:
    """Return a dict of bands' readings as reflectance, by layer, and a list of notes.

    A stored 0 is missing. The offset is the setting's, else the metadata's, else what the processing baseline in a name
    means. A date does not tell it: older images have been processed again.

    Raises:
        DataError: If nothing tells the offset.
    """
    layers = [layer for layer in files if layer != "scl"]
    by_name = [baseline_offsets(float(f"{match[1]}.{match[2]}")) for match in map(BASELINE.search, names) if match]
    known_offsets = (*(record.offsets for record in metadata), *by_name)
    of_metadata = next((offsets for offsets in known_offsets if offsets is not None), None)
    offsets, notes = of_metadata, []
    if settings.offset is not None:
        offsets = dict.fromkeys(layers, settings.offset)
        if of_metadata is not None and any(of_metadata.get(layer) != settings.offset for layer in layers):
            notes = [f"'scenes.offset' is {settings.offset:g}, and its metadata tell another"]
    absent = [layer for layer in layers if offsets is None or layer not in offsets]
    if offsets is None or absent:
        msg = (
            f"nothing tells the offset of its {absent[0]} band; put its MTD_MSIL2A.xml or STAC item beside it, "
            f"or set 'scenes.offset' to -1000 (processing baseline 04.00 and later) or 0"
        )
        raise DataError(msg)
    unit = metadata[0].quantification if metadata else 10_000
    readings = {
        layer: Reading(file=layer, band=1, scale=1 / unit, offset=offsets[layer] / unit, nodata=0) for layer in layers
    }
    return readings, notes


def _masks(files: Mapping[str, Path], settings: Sentinel2Scenes) -> tuple[tuple[Mask, ...], list[str]]:
    """Return the scene classification's mask, if there is one, and a list of notes.

    Its class "no data" is never usable.
    """
    if "scl" not in files:
        return (), ["it has no SCL: clouds, shadow and snow are not masked, only missing pixels are"]
    usable = [number for number, name in enumerate(_CLASSES) if number and name not in settings.unusable]
    return (Mask(file="scl", bands=(1,), usable=tuple(usable)),), []


def _acquired(metadata: Iterable[SentinelMetadata], names: Sequence[str]) -> tuple[datetime | None, list[str]]:
    """Return a UTC time by metadata or else by names, or None, and a list of notes."""
    acquired = next((record.acquired for record in metadata if record.acquired is not None), None) or _time_of(names)
    if acquired is not None:
        return acquired, []
    date = next((time for match in map(_DATED.search, names) if match and (time := parse_time(match[1]))), None)
    if date is None:
        return None, ["nothing tells when it was taken"]
    return date, ["its name tells the date only, for which 00:00 UTC stands"]


def _time_of(names: Iterable[str]) -> datetime | None:
    """Return the time, UTC, in the first of some names that has one; else None."""
    return next((parse_time(match[1]) for match in map(_SENSED.search, names) if match), None)

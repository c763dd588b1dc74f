"""PlanetScope scenes as Planet delivers them, found by its names in any folders.

The Orders API and Explorer deliver alike. A name is the id of the scene, then words: `20190709_042959_08_1057`
`3B_AnalyticMS_SR_8b_harmonized_clip`. Words are taken as a set, because their order differs from one tool of Planet's
to the next.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

from thawmap.config import PlanetScopeScenes
from thawmap.data.raster.io import RasterInfo, raster_info
from thawmap.data.sources.base import Candidate, Reading, Scene
from thawmap.data.sources.finding import copy_fault, finish_candidates, parse_time, searched_paths, usable_id
from thawmap.data.sources.metadata import PlanetMetadata, check_metadata, cloud_notes, read_planet_json, read_planet_xml
from thawmap.data.sources.udm import planet_masks
from thawmap.errors import DataError
from thawmap.files.listing import files_below, half_written

_SCENE = r"\d{8}_\d{6}_(?:[0-9a-z]{1,2}_)?[0-9a-f]{4}"  # PSScene; older ones lack the hundredths of a second
_TILE = r"\d+_\d+_\d{4}-\d{2}-\d{2}_[0-9a-f]{4}"  # PSOrthoTile: strip, tile, date, satellite
_NAME = re.compile(rf"(?P<id>{_SCENE}|{_TILE})(?:_(?P<words>[^.]+))?\.(?P<ending>tiff?|xml|json)", re.IGNORECASE)

_CUTS = re.compile(r"clip\d*|reproject|coreg")  # words of tools that give an image another grid
_TOOLS = re.compile(rf"{_CUTS.pattern}|harmonized|toar|file|format")
_IMAGE = frozenset({"3b", "analyticms", "analytic", "sr", "8b", "bgrn", "bgren"})
_OF_KIND = MappingProxyType({
    "udm2": frozenset({"3b", "udm2"}),
    "udm": frozenset({"3b", "analyticms", "8b", "bgrn", "bgren", "analytic", "dn", "udm"}),
    "xml": _IMAGE | {"metadata"},
    "json": frozenset({"metadata"}),
})  # fmt: skip
"""Words that the names of the files beside an image may have."""

_FOUR = ("blue", "green", "red", "nir")
_BANDS = MappingProxyType({
    4: _FOUR,
    5: ("blue", "green", "red", "rededge", "nir"),
    8: ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
})  # fmt: skip
"""Bands of Planet's products, in order, by their number."""

_SURFACE_SCALE = 1e-4  # of surface reflectance, and of the "toar" tool's
_BUNDLE = "order surface reflectance, bundle analytic_sr_udm2 or analytic_8b_sr_udm2"


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file that Planet delivered, by its name.

    Attributes:
        path: The file.
        id: Id of its scene.
        words: The other words of its name, in small letters.
        kind: image, udm2, udm, xml or json.
    """

    path: Path
    id: str
    words: frozenset[str]
    kind: str

    @cached_property
    def cuts(self) -> frozenset[str]:
        """Words of the tools that gave the image another grid than Planet's own."""
        return frozenset(word for word in self.words if _CUTS.fullmatch(word))

    @cached_property
    def product(self) -> frozenset[str]:
        """Words of the image's product, without those of tools."""
        return frozenset(word for word in self.words if not _TOOLS.fullmatch(word)) - {"metadata"}

    @property
    def is_surface(self) -> bool:
        """True if the image is surface reflectance."""
        return "sr" in self.words

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the image's bands, in order."""
        return _BANDS[8 if "8b" in self.words else 5 if "bgren" in self.words else 4]

    @property
    def is_complete(self) -> bool:
        """True if the name is one of a file that is written to its end."""
        return _NAME.fullmatch(self.path.name) is not None

    @property
    def rank(self) -> tuple[bool, bool, bool, int, bool, Path]:
        """Sort key of an image, the best to read first: surface, harmonized, bands, cuts.

        `open_scene` says why.
        """
        by_bands = (4, 8, 5).index(len(self.bands))
        words = self.words
        return not self.is_surface, "harmonized" not in words, "toar" not in words, by_bands, bool(self.cuts), self.path

    @property
    def refusal(self) -> str | None:
        """Message on an image that cannot be read at all; None where it can be."""
        unknown = sorted(self.product - _IMAGE)
        fault = copy_fault(self.path)
        if fault is not None:
            return fault
        if unknown:
            reasons = {
                "1b": "is not orthorectified, and lies on no grid",
                "dn": "holds raw numbers, which no coefficient makes reflectance",
                "bandmath": "went through band math, so its bands are unknown",
            }
            reason = reasons.get(unknown[0], f"has {unknown[0]!r} in its name, which no image of Planet's has")
            return f"{self.path.name} {reason}; {_BUNDLE}"
        if not self.product & {"analyticms", "bgrn", "bgren"}:
            return f"{self.path.name} has no near infrared band; {_BUNDLE}"
        return None


@dataclass(frozen=True, kw_only=True)
class _Delivery:
    """The files of one scene that belong together."""

    files: tuple[_File, ...]

    def of_kind(self, kind: str) -> list[_File]:
        """Return a list of the files of a kind: image, udm2, udm, xml or json."""
        return [file for file in self.files if file.kind == kind]

    def beside(self, image: _File, kind: str) -> _File | None:
        """Return the file of a kind that belongs to an image; None where there is none.

        Best cut like the image, then nearest to it in the folders.
        """
        return min(
            self.of_kind(kind),
            key=lambda file: (file.cuts != image.cuts, -_shared_folders(file.path, image.path), file.path),
            default=None,
        )


def candidates(settings: PlanetScopeScenes, *, paths: Sequence[Path] = ()) -> list[Candidate]:
    """Return the candidates in the settings' delivery, or those at ``paths``, by id.

    In order of their ids; no raster is opened. A path of a file stands for its scene: of several images, the one that
    is named is read.

    Raises:
        ConfigError: If there is none, the folder does not exist, or the table of regions cannot be used.
    """
    searched = searched_paths(settings, paths)
    return finish_candidates(find(searched), settings, searched=searched)


def find(searched: Sequence[Path]) -> list[Candidate]:
    """Return the candidates at and below paths, in no order, without regions."""
    folders, files = ([path for path in searched if path.is_file() == is_file] for is_file in (False, True))
    by_id = _by_id(filter(None, map(_parse, files_below(folders))))
    below = [_candidate(delivery) for same_id in by_id.values() for delivery in _deliveries(same_id)]
    return [*below, *_beside_named(files)]


def open_scene(candidate: Candidate, settings: PlanetScopeScenes) -> Scene:
    """Open a candidate's best image as a scene with bands, masks and metadata.

    Only headers are read. The best of several images is taken: surface reflectance before top-of-atmosphere, then
    harmonized, then 4 bands before 8 (the four that are wanted are in both, and every generation of satellites has
    them), then uncut. Its time is the metadata's, else the id's; the id of an ortho tile tells a date only, for which
    00:00 UTC stands: noted.

    Raises:
        DataError: If no image can be used, the image lies on another grid than its mask, metadata are of another
            scene, or a file is damaged or still being written.
    """
    delivery = _Delivery(files=tuple(filter(None, map(_parse, candidate.files.values()))))
    image, image_notes = _best_image(delivery, settings)
    files = {"image": image.path, **_files_beside(image, delivery)}
    for path in [*files.values(), *(file.path for file in delivery.files if not file.is_complete)]:
        fault = half_written(path)
        if fault is not None:
            raise DataError(fault)
    info = raster_info(image.path)
    readers = (("json", read_planet_json), ("xml", read_planet_xml))
    metadata = [read(files[kind]) for kind, read in readers if kind in files]
    check_metadata(metadata, candidate.id, info)
    masks, mask_notes = planet_masks(files, info, settings.unusable)
    acquired, time_notes = _acquired(metadata, candidate.id)
    return Scene(
        id=candidate.id,
        sensor=settings.kind,
        geobox=info.geobox,
        files=files,
        acquired=acquired,
        region=candidate.region,
        readings=_readings(image, info, metadata),
        masks=masks,
        notes=(*image_notes, *mask_notes, *time_notes, *cloud_notes(metadata)),
    )


def _parse(path: Path) -> _File | None:
    """Return a path as a file of Planet's by its name; None for files of no use here."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        match = _NAME.fullmatch(path.stem)  # as `.tif.part`
        if match is None or half_written(path) is None:
            return None
    words = frozenset((match["words"] or "").lower().split("_")) - {""}
    kind = match["ending"].lower()
    if kind.startswith("tif"):
        if not words or words & {"visual", "rgb"}:
            return None
        kind = next((mask for mask in ("udm2", "udm") if mask in words), "image")
    file = _File(path=path, id=match["id"].lower(), words=words, kind=kind)
    if kind == "xml" and "metadata" not in words:
        return None
    return file if kind == "image" or file.product <= _OF_KIND[kind] else None


def _by_id(files: Iterable[_File]) -> Mapping[str, list[_File]]:
    """Return lists of files by the id of their scene."""
    scenes = defaultdict[str, list[_File]](list)
    for file in files:
        scenes[file.id].append(file)
    return scenes


def _beside_named(named: Sequence[Path]) -> Iterator[Candidate]:
    """Yield the candidates of given paths, with the scenes' other files beside them.

    A raster whose name is not Planet's becomes one at fault.
    """
    wanted = defaultdict[Path, dict[str, set[Path]]](lambda: defaultdict(set))
    for path in named:
        file = _parse(path)
        if file is not None:
            wanted[path.parent][file.id].add(path)
        elif path.suffix.lower() in {".tif", ".tiff"}:
            fault = f"{path.name} is not named as Planet names images, so its scene is unknown; keep Planet's names"
            yield Candidate(name=path.stem, path=path, id=usable_id(path.stem), fault=fault)
    for folder, scenes in wanted.items():
        in_folder = _by_id(filter(None, map(_parse, sorted(folder.iterdir()))))
        for id_, named_files in scenes.items():
            files = in_folder[id_]
            images = {file.path for file in files if file.kind == "image"}
            # a named image is read and not its neighbours; a named mask or XML stands for all images beside it
            ignored = images - named_files if images & named_files else frozenset()
            yield _candidate([file for file in files if file.path not in ignored])


def _candidate(files: Sequence[_File]) -> Candidate:
    """Return the candidate of one delivery's files, with id and time by their names."""
    first = min(files, key=lambda file: (file.kind != "image", file.path))
    return Candidate(
        name=first.id,
        path=first.path,
        id=first.id,
        acquired=_time_of_id(first.id),
        files={str(file.path): file.path for file in files},
    )


def _deliveries(files: Sequence[_File]) -> Iterator[list[_File]]:
    """Yield lists of one scene's files: a single one, or one for each delivery.

    They are apart where folders hold the same image, as after two orders: each file then belongs to the nearest such
    folder.
    """
    folders = defaultdict[frozenset[str], set[Path]](set)
    for file in files:
        if file.kind == "image":
            folders[file.product | file.words & {"harmonized", "toar"}].add(file.path.parent)
    repeated = sorted(set().union(*(parents for parents in folders.values() if len(parents) > 1)))
    if not repeated:
        yield list(files)
        return
    deliveries = defaultdict[Path, list[_File]](list)
    for file in files:
        deliveries[max(repeated, key=lambda folder: _shared_folders(folder, file.path))].append(file)
    yield from deliveries.values()


def _shared_folders(first: Path, second: Path) -> int:
    """Count the folders that two paths have in common, from the root on."""
    pairs = zip(first.parts, second.parts, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _best_image(delivery: _Delivery, settings: PlanetScopeScenes) -> tuple[_File, list[str]]:
    """Return a delivery's best image and a list of notes; refuse one without any.

    Raises:
        DataError: If there is no image, or none can be used.
    """
    images = sorted(delivery.of_kind("image"), key=lambda file: file.rank)
    best = next((image for image in images if image.refusal is None), None)
    if best is None:
        raise DataError(images[0].refusal if images else _no_image_fault(delivery.files[0].path))
    if not best.is_surface and not settings.top_of_atmosphere:
        msg = f"{best.path.name} is top-of-atmosphere; {_BUNDLE}, or allow it with 'scenes.top_of_atmosphere: true'"
        raise DataError(msg)
    others = ", ".join(image.path.name for image in images if image is not best)
    notes = [f"{best.path.name} is read, and left aside: {others}"] if others else []
    return best, notes if best.is_surface else [*notes, "its reflectance is top-of-atmosphere"]


def _no_image_fault(path: Path) -> str | None:
    """Return a message on a scene of which only a mask or metadata are there."""
    rasters = [file for file in sorted(path.parent.iterdir()) if file.suffix.lower() in {".tif", ".tiff"}]
    composite = next((file for file in rasters if "composite" in file.stem.lower()), None)
    if composite is not None:
        return (
            f"there is {path.name}, and beside it {composite.name}, a composite of scenes, which belongs to none of "
            f"them; order without the 'composite' tool, or read it with 'scenes.kind: rasters'"
        )
    return f"there is {path.name}, and no image that belongs to it; fetch it, or {_BUNDLE}"


def _files_beside(image: _File, delivery: _Delivery) -> dict[str, Path]:
    """Return a dict of kind to path of the mask and metadata that belong to an image.

    Raises:
        DataError: If the image needs an XML and has none.
    """
    files = {kind: delivery.beside(image, kind) for kind in _OF_KIND}
    if not image.is_surface and "toar" not in image.words:
        # top-of-atmosphere coefficients are those of one product, not of every image of the scene
        same_product = [file for file in delivery.of_kind("xml") if file.product == image.product]
        files["xml"] = _Delivery(files=tuple(same_product)).beside(image, "xml")
        if files["xml"] is None:
            msg = f"{image.path.name} has no XML of its own, whose coefficients make it reflectance; fetch the XML"
            raise DataError(msg)
    if files["udm2"] is not None:
        del files["udm"]
    return {kind: file.path for kind, file in files.items() if file is not None}


def _acquired(metadata: Iterable[PlanetMetadata], scene: str) -> tuple[datetime | None, list[str]]:
    """Return an image's UTC time by metadata or else id, or None, and a list of notes."""
    acquired = next((record.acquired for record in metadata if record.acquired is not None), None)
    if acquired is not None:
        return acquired, []
    time = _time_of_id(scene)
    if time is None:
        return None, ["nothing tells when it was taken"]
    return time, ["its id tells the date only, for which 00:00 UTC stands"] if "-" in scene else []


def _time_of_id(scene: str) -> datetime | None:
    """Return the time, UTC, in a scene's id; None where that is no date.

    Midnight where the id has a date only.
    """
    return parse_time(scene.split("_")[2] if "-" in scene else f"{scene[:8]}T{scene[9:15]}")


def _readings(image: _File, info: RasterInfo, metadata: Iterable[PlanetMetadata]) -> dict[str, Reading]:
    """Return a dict of the four bands' readings as reflectance, by layer.

    0 is missing in all of Planet's products.

    Raises:
        DataError: If the file lacks a band, or its XML a coefficient.
    """
    numbers = _band_numbers(image, info)
    if image.is_surface or "toar" in image.words:
        scales: Mapping[int, float] = dict.fromkeys(numbers.values(), _SURFACE_SCALE)
    else:
        scales = next((record.coefficients for record in metadata if record.coefficients), {})
    absent = sorted(name for name, number in numbers.items() if not scales.get(number, 0) > 0)
    if absent:
        msg = f"the XML of {image.path.name} has no reflectance coefficient of {absent[0]}; fetch the XML again"
        raise DataError(msg)
    return {
        name: Reading(file="image", band=number, scale=scales[number], nodata=0) for name, number in numbers.items()
    }


def _band_numbers(image: _File, info: RasterInfo) -> dict[str, int]:
    """Return a dict of the four layers' band numbers, from 1; refuse absent ones.

    As the file describes its bands, else in the order of the product.
    """
    names = tuple(name.lower() for name in info.descriptions)
    if not set(names) & set(_FOUR):
        if info.count != len(image.bands):
            msg = f"{image.path.name} has {info.count} bands, and its name means {len(image.bands)}; fetch it again"
            raise DataError(msg)
        names = image.bands
    absent = [name for name in _FOUR if name not in names]
    if absent:
        msg = f"{image.path.name} calls its bands {', '.join(names)}, and none {absent[0]}; fetch it again"
        raise DataError(msg)
    return {name: names.index(name) + 1 for name in _FOUR}

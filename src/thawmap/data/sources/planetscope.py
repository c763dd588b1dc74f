"""PlanetScope scenes, as the Orders API and Explorer deliver them: found by Planet's names, in any folders.

A name is the id of the scene, then words: `20190709_042959_08_1057` `3B_AnalyticMS_SR_8b_harmonized_clip`. Words are
taken as a set, because their order differs from one tool of Planet's to the next.
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
from thawmap.data.sources.finding import as_delivered, as_time, copied, in_delivery, usable_id
from thawmap.data.sources.metadata import Facts, about_clouds, check_facts, planet_json, planet_xml
from thawmap.data.sources.udm import masks_of
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
    """A file that Planet delivered.

    Attributes:
        path: The file.
        id: The scene that it is of.
        words: What its name says besides, in small letters.
        kind: image, udm2, udm, xml or json.
    """

    path: Path
    id: str
    words: frozenset[str]
    kind: str

    @cached_property
    def cuts(self) -> frozenset[str]:
        """What gave the image another grid than Planet's own."""
        return frozenset(word for word in self.words if _CUTS.fullmatch(word))

    @cached_property
    def product(self) -> frozenset[str]:
        """What the image is, however it was cut."""
        return frozenset(word for word in self.words if not _TOOLS.fullmatch(word)) - {"metadata"}

    @property
    def surface(self) -> bool:
        """Whether the image is surface reflectance."""
        return "sr" in self.words

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the image's bands, in order."""
        return _BANDS[8 if "8b" in self.words else 5 if "bgren" in self.words else 4]

    @property
    def finished(self) -> bool:
        """Whether its name is one of a file that is complete."""
        return _NAME.fullmatch(self.path.name) is not None

    @property
    def rank(self) -> tuple[bool, bool, bool, int, bool, Path]:
        """Images sort by what is best to read: see `open_scene`."""
        by_bands = (4, 8, 5).index(len(self.bands))
        words = self.words
        return not self.surface, "harmonized" not in words, "toar" not in words, by_bands, bool(self.cuts), self.path

    @property
    def refusal(self) -> str | None:
        """Why the image cannot be read at all; None where it can."""
        strange = sorted(self.product - _IMAGE)
        fault = copied(self.path)
        if fault is not None:
            return fault
        if strange:
            known = {
                "1b": "is not orthorectified, and lies on no grid",
                "dn": "holds raw numbers, which no coefficient makes reflectance",
                "bandmath": "went through band math, so its bands are unknown",
            }
            say = known.get(strange[0], f"has {strange[0]!r} in its name, which no image of Planet's has")
            return f"{self.path.name} {say}; {_BUNDLE}"
        if not self.product & {"analyticms", "bgrn", "bgren"}:
            return f"{self.path.name} has no near infrared band; {_BUNDLE}"
        return None


@dataclass(frozen=True, kw_only=True)
class _Delivery:
    """The files of one scene that belong together."""

    files: tuple[_File, ...]

    def of_kind(self, kind: str) -> list[_File]:
        """Files of a kind, in order of their names."""
        return [file for file in self.files if file.kind == kind]

    def beside(self, image: _File, kind: str) -> _File | None:
        """The file of a kind that belongs to an image: cut like it, and near to it in the folders."""
        return min(
            self.of_kind(kind),
            key=lambda file: (file.cuts != image.cuts, -_shared(file.path, image.path), file.path),
            default=None,
        )


def candidates(settings: PlanetScopeScenes, *, places: Sequence[Path] = ()) -> list[Candidate]:
    """The scenes in the delivery, or at ``places`` instead, in order of their ids; no raster is opened.

    A place that is a file stands for its scene: of several images, the one that is named is read.

    Raises:
        ConfigError: If there is none, the folder does not exist, or the table of regions cannot be used.
    """
    searched = in_delivery(settings, places)
    folders, files = ([place for place in searched if place.is_file() == kind] for kind in (False, True))
    return as_delivered([*_in_folders(folders), *_beside_named(files)], settings, searched=searched)


def open_scene(candidate: Candidate, settings: PlanetScopeScenes) -> Scene:
    """The scene with its bands, masks and metadata; only headers are read.

    The best of several images is taken: surface reflectance before top-of-atmosphere, then harmonized, then 4 bands
    before 8 (the four that are wanted are in both, and every generation of satellites has them), then uncut. Its time
    is the metadata's, else the id's; the id of an ortho tile tells a date only, for which 00:00 UTC stands: noted.

    Raises:
        DataError: If no image can be used, the image lies on another grid than its mask, metadata are of another
            scene, or a file is damaged or still being written.
    """
    delivery = _Delivery(files=tuple(filter(None, map(_parse, candidate.files.values()))))
    image, about_image = _best_image(delivery, settings)
    files = {"image": image.path, **_beside(image, delivery)}
    _check_whole([*files.values(), *(file.path for file in delivery.files if not file.finished)])
    info = raster_info(image.path)
    facts = [read(files[kind]) for kind, read in (("json", planet_json), ("xml", planet_xml)) if kind in files]
    check_facts(facts, candidate.id, info)
    masks, about_masks = masks_of(files, info, settings.unusable)
    acquired, about_time = _acquired(facts, candidate.id)
    return Scene(
        id=candidate.id,
        sensor=settings.kind,
        geobox=info.geobox,
        files=files,
        acquired=acquired,
        region=candidate.region,
        readings=_readings(image, info, facts),
        masks=masks,
        notes=(*about_image, *about_masks, *about_time, *about_clouds(facts)),
    )


def _parse(path: Path) -> _File | None:
    """What a file's name says; None where Planet delivers none like it, or none that is of use here."""
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


def _in_folders(folders: Sequence[Path]) -> Iterator[Candidate]:
    """The scenes at or below folders."""
    for files in _by_id(filter(None, map(_parse, files_below(folders)))).values():
        yield from map(_candidate, _deliveries(files))


def _by_id(files: Iterable[_File]) -> Mapping[str, list[_File]]:
    """Scene to its files."""
    scenes = defaultdict[str, list[_File]](list)
    for file in files:
        scenes[file.id].append(file)
    return scenes


def _beside_named(named: Sequence[Path]) -> Iterator[Candidate]:
    """The scenes of files that a user named, with what lies in the same folders."""
    wanted = defaultdict[Path, dict[str, set[Path]]](lambda: defaultdict(set))
    for path in named:
        file = _parse(path)
        if file is not None:
            wanted[path.parent][file.id].add(path)
        elif path.suffix.lower() in {".tif", ".tiff"}:
            fault = f"{path.name} is not named as Planet names images, so its scene is unknown; keep Planet's names"
            yield Candidate(name=path.stem, place=path, id=usable_id(path.stem), fault=fault)
    for folder, scenes in wanted.items():
        there = _by_id(filter(None, map(_parse, sorted(folder.iterdir()))))
        for id_, named_files in scenes.items():
            files = there[id_]
            images = {file.path for file in files if file.kind == "image"}
            aside = images - named_files if images & named_files else frozenset()
            yield _candidate([file for file in files if file.path not in aside])


def _candidate(files: Sequence[_File]) -> Candidate:
    """A scene, from the files of one delivery."""
    first = min(files, key=lambda file: (file.kind != "image", file.path))
    return Candidate(
        name=first.id,
        place=first.path,
        id=first.id,
        acquired=_time_of_id(first.id),
        files={str(file.path): file.path for file in files},
    )


def _deliveries(files: Sequence[_File]) -> Iterator[list[_File]]:
    """The files of one scene, together; apart where folders hold the same image, as after two orders."""
    folders = defaultdict[frozenset[str], set[Path]](set)
    for file in files:
        if file.kind == "image":
            folders[file.product | file.words & {"harmonized", "toar"}].add(file.path.parent)
    repeated = sorted(set().union(*(places for places in folders.values() if len(places) > 1)))
    if not repeated:
        yield list(files)
        return
    parts = defaultdict[Path, list[_File]](list)
    for file in files:
        parts[max(repeated, key=lambda folder: _shared(folder, file.path))].append(file)
    yield from parts.values()


def _shared(one: Path, other: Path) -> int:
    """Number of folders that two paths have in common."""
    pairs = zip(one.parts, other.parts, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _best_image(delivery: _Delivery, settings: PlanetScopeScenes) -> tuple[_File, list[str]]:
    """The image to read, and what to say of the choice."""
    images = sorted(delivery.of_kind("image"), key=lambda file: file.rank)
    best = next((image for image in images if image.refusal is None), None)
    if best is None:
        raise DataError(images[0].refusal if images else _without_image(delivery.files[0].path))
    if not best.surface and not settings.top_of_atmosphere:
        msg = f"{best.path.name} is top-of-atmosphere; {_BUNDLE}, or allow it with 'scenes.top_of_atmosphere: true'"
        raise DataError(msg)
    aside = ", ".join(image.path.name for image in images if image is not best)
    notes = [f"{best.path.name} is read, and left aside: {aside}"] if aside else []
    return best, notes if best.surface else [*notes, "its reflectance is top-of-atmosphere"]


def _without_image(path: Path) -> str | None:
    """What to say of a scene of which only a mask or metadata are there."""
    rasters = [file for file in sorted(path.parent.iterdir()) if file.suffix.lower() in {".tif", ".tiff"}]
    composite = next((file for file in rasters if "composite" in file.stem.lower()), None)
    if composite is not None:
        return (
            f"there is {path.name}, and beside it {composite.name}, a composite of scenes, which belongs to none of "
            f"them; order without the 'composite' tool, or read it with 'scenes.kind: rasters'"
        )
    return f"there is {path.name}, and no image that belongs to it; fetch it, or {_BUNDLE}"


def _beside(image: _File, delivery: _Delivery) -> dict[str, Path]:
    """The mask and the metadata that belong to an image."""
    found = {kind: delivery.beside(image, kind) for kind in _OF_KIND}
    if not image.surface and "toar" not in image.words:
        alike = [file for file in delivery.of_kind("xml") if file.product == image.product]
        found["xml"] = _Delivery(files=tuple(alike)).beside(image, "xml")
        if found["xml"] is None:
            msg = f"{image.path.name} has no XML of its own, whose coefficients make it reflectance; fetch the XML"
            raise DataError(msg)
    if found["udm2"] is not None:
        del found["udm"]
    return {kind: file.path for kind, file in found.items() if file is not None}


def _check_whole(files: Iterable[Path]) -> None:
    for fault in map(half_written, files):
        if fault is not None:
            raise DataError(fault)


def _acquired(facts: Iterable[Facts], scene: str) -> tuple[datetime | None, list[str]]:
    """When the image was taken, and what to say of it."""
    told = next((one.acquired for one in facts if one.acquired is not None), None)
    if told is not None:
        return told, []
    time = _time_of_id(scene)
    if time is None:
        return None, ["nothing tells when it was taken"]
    return time, ["its id tells the date only, for which 00:00 UTC stands"] if "-" in scene else []


def _time_of_id(scene: str) -> datetime | None:
    """The time, UTC, that an id tells; midnight where it tells a date; None where that is no date."""
    return as_time(scene.split("_")[2] if "-" in scene else f"{scene[:8]}T{scene[9:15]}")


def _readings(image: _File, info: RasterInfo, facts: Iterable[Facts]) -> dict[str, Reading]:
    """Where the four bands lie, and how their numbers become reflectance; 0 is missing in all of Planet's products."""
    numbers = _band_numbers(image, info)
    if image.surface or "toar" in image.words:
        scales: Mapping[int, float] = dict.fromkeys(numbers.values(), _SURFACE_SCALE)
    else:
        scales = next((one.coefficients for one in facts if one.coefficients), {})
    absent = sorted(name for name, number in numbers.items() if not scales.get(number, 0) > 0)
    if absent:
        msg = f"the XML of {image.path.name} has no reflectance coefficient of {absent[0]}; fetch the XML again"
        raise DataError(msg)
    return {
        name: Reading(file="image", band=number, scale=scales[number], nodata=0) for name, number in numbers.items()
    }


def _band_numbers(image: _File, info: RasterInfo) -> dict[str, int]:
    """Name of each wanted band to its number, from 1: as the file describes them, else as the product has them."""
    told = tuple(name.lower() for name in info.descriptions)
    if not set(told) & set(_FOUR):
        if info.count != len(image.bands):
            msg = f"{image.path.name} has {info.count} bands, and its name means {len(image.bands)}; fetch it again"
            raise DataError(msg)
        told = image.bands
    absent = [name for name in _FOUR if name not in told]
    if absent:
        msg = f"{image.path.name} calls its bands {', '.join(told)}, and none {absent[0]}; fetch it again"
        raise DataError(msg)
    return {name: told.index(name) + 1 for name in _FOUR}

"""Entries made of scenes on disk: opened and looked at by thawmap's own readers."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import shapely
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from thawmap.config import SceneSettings
from thawmap.data.catalogue.layout import Entry, File
from thawmap.data.catalogue.places import folder_of, relative
from thawmap.data.catalogue.records import masks_of, readings_of
from thawmap.data.overview import Overview, look
from thawmap.data.sources import scenes
from thawmap.data.sources.bands import BandSource
from thawmap.data.sources.base import Candidate, Scene
from thawmap.data.sources.processing import processing
from thawmap.errors import DataError
from thawmap.geo.crs import crs_of
from thawmap.layers import LAYERS

_LONGEST_ID = 200  # bytes, as names of files have at most 255


def make_entry(candidate: Candidate, settings: SceneSettings, folder: Path, *, with_overview: bool = True) -> Entry:
    """Open a candidate's scene, look at its pixels, and return it as an entry.

    Args:
        candidate: The scene.
        settings: How it is read.
        folder: The catalogue's folder.
        with_overview: Whether its pixels are looked at; else nothing is known of them.

    Raises:
        DataError: If it cannot be opened, or one of its files lies elsewhere or has a name that is no text.
    """
    if len(candidate.id.encode(errors="surrogateescape")) > _LONGEST_ID:
        msg = f"its id is longer than the {_LONGEST_ID} bytes that names of files leave; rename it"
        raise DataError(msg)
    before = {path: _stamp(path) for path in candidate.files.values()}
    scene = scenes.open_scene(candidate, settings)
    overview = _overview(scene) if with_overview else None
    files = _files(scene, before, folder)
    own = _inside(candidate.path, folder)
    outline = _outline(scene)
    return Entry(
        id=scene.id,
        name=_text(candidate.name),
        path=own,
        kind=scene.sensor,
        region=None if candidate.region is None else _text(candidate.region),
        found=candidate.acquired,
        acquired=scene.acquired,
        processing=processing(scene),
        files=files,
        folders=_folders(own if candidate.path.is_dir() else folder_of(own), files),
        crs=crs_of(scene.geobox),
        shape=(scene.geobox.height, scene.geobox.width),
        transform=tuple(scene.geobox.affine)[:6],
        outline=shapely.to_wkb(outline),
        bbox=_bbox(outline),
        readings=readings_of(scene),
        masks=masks_of(scene),
        scene_notes=scene.notes,
        notes=scene.notes if overview is None else (*scene.notes, *overview.notes),
        usable=None if overview is None else overview.usable,
    )


def _files(scene: Scene, before: Mapping[Path, tuple[int, int]], folder: Path) -> tuple[File, ...]:
    """Return the files of a scene and of its candidate, with their stamps.

    Args:
        scene: The scene.
        before: The candidate's files with their stamps of before the scene was opened.
        folder: The catalogue's folder.
    """
    used = set(scene.files.values())
    named = [*scene.files.items(), *((path.name, path) for path in before if path not in used)]
    stamps = [before.get(path) or _stamp(path) for _, path in named]
    return tuple(
        File(key=key, path=_inside(path, folder), size=size, mtime_ns=mtime, is_used=path in used)
        for (key, path), (size, mtime) in zip(_distinct(named), stamps, strict=True)
    )


def _overview(scene: Scene) -> Overview | None:
    """Return a look at a scene's own layers; None if it fails, or knows none of them."""
    layers = [LAYERS[name] for name in scene.readings if name in LAYERS]
    if not layers:
        return None
    try:
        return look(scene, layers, (BandSource(frozenset(scene.readings)),))
    except DataError:  # who uses the scene looks at it again, and is told
        return None


def _stamp(path: Path) -> tuple[int, int]:
    """Return a file's size and time of last change.

    Raises:
        DataError: If it is gone.
    """
    try:
        status = path.stat()
    except OSError as error:
        msg = f"{path.name} cannot be read ({error.strerror}); fetch it again"
        raise DataError(msg) from error
    return status.st_size, status.st_mtime_ns


def _distinct(named: Iterable[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Return keys and paths, with a number behind a key that is there before."""
    keys: list[str] = []
    pairs = []
    for key, path in named:
        unique = next(name for name in (key, *(f"{key} {number}" for number in range(2, 10_000))) if name not in keys)
        keys.append(unique)
        pairs.append((unique, path))
    return pairs


def _inside(path: Path, folder: Path) -> str:
    """Return a path from the catalogue's folder; refuse one that lies elsewhere.

    Raises:
        DataError: If it is not below the folder, or no text.
    """
    below = relative(path, folder)
    if below is None:
        msg = f"{path} lies outside of {folder}, whose catalogue knows only what is in it; move or link it there"
        raise DataError(msg)
    return _text(below)


def _text(name: str) -> str:
    """Return a name; refuse one with bytes that are no letters.

    Raises:
        DataError: If it is no UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        msg = f"{name!a} is not written in UTF-8, which a catalogue needs; rename it"
        raise DataError(msg) from error
    return name


def _folders(own: str, files: Iterable[File]) -> tuple[str, ...]:
    """Return the folders of a scene's files, and those between them and its own."""
    folders = {own}
    for file in files:
        folder = folder_of(file.path)
        folders.add(folder)
        while folder != own and (folder.startswith(f"{own}/") or not own) and folder:
            folder = folder_of(folder)
            folders.add(folder)
    return tuple(sorted(folders))


def _outline(scene: Scene) -> BaseGeometry:
    """Return a scene's outline in degrees of lon, lat, cut at the antimeridian."""
    from thawmap.geo.shapes import to_lonlat  # noqa: PLC0415 - loads slowly, and only writing needs it

    return shapely.orient_polygons(to_lonlat(scene.geobox.extent.geom, crs_of(scene.geobox)))


def _bbox(outline: BaseGeometry) -> tuple[float, float, float, float]:
    """Return west, south, east, north of an outline in degrees.

    Across the antimeridian west is the larger number (RFC 7946).
    """
    west, south, east, north = outline.bounds
    if isinstance(outline, MultiPolygon):
        west = min((part.bounds[0] for part in outline.geoms if part.bounds[0] > 0), default=west)
        east = max((part.bounds[2] for part in outline.geoms if part.bounds[2] < 0), default=east)
    return west, south, east, north

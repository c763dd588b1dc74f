"""The verb fuse: open maps, check that they go together, fuse each place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from thawmap import __version__
from thawmap.config import Config, OutputSettings, PolygonSettings
from thawmap.config.inputs import Settings
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.data.stack import Stack, assemble
from thawmap.errors import ConfigError, DataError
from thawmap.files.atomic import alone
from thawmap.files.guard import check_apart
from thawmap.geo.crs import crs_of
from thawmap.maps.colours import FALSE_COLOUR
from thawmap.maps.decide import DECISIONS, decide, record, recorded
from thawmap.maps.item import Maker
from thawmap.maps.job import MapJob, Provenance
from thawmap.maps.layout import BUNDLE, THRESHOLD
from thawmap.maps.read import MapFolder, is_map, maps_in
from thawmap.maps.replacing import is_due, is_finished
from thawmap.model.decision import Decision, Kind, from_json
from thawmap.pipeline.progress import Progress, Summary, run_all, still_due
from thawmap.provenance import stamp
from thawmap.series import fuse as fusing
from thawmap.series.fuse import Recipe
from thawmap.series.places import Place, open_map, places
from thawmap.text import before, counted

Section = TypeVar("Section", bound=Settings)

_WITHOUT_RULES = "name the YAML with --config, and put --set 'polygons.drop=[]' over it"


def fuse(
    maps: Sequence[Path],
    out: Path,
    recipe: Recipe | None = None,
    *,
    config: Config | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Fuse the maps of several dates into one map for each place.

    Only what is missing, or was made from something else, is made.

    Args:
        maps: Folders that `predict` made.
        out: Folder of the fused maps; every place gets a folder in it.
        recipe: How they are fused; None: the mean of all dates of each place.
        config: Says how polygons are made and what is written, and where the images are that the pictures show; None:
            as the maps were made, with the probabilities as pictures.
        dry_run: Say what would be fused, and fuse nothing.
        progress: Is told what happens.

    Raises:
        ConfigError: If the maps lie in no folder, or in the one that is written to; or polygons are to obey rules on
            other layers.
        DataError: If there is no map, or they are of several bundles or thresholds, or made with several settings.
    """
    recipe = recipe or Recipe()
    opened, failed = _open(maps, out)
    maker = _maker(opened)
    polygons = _section("polygons", PolygonSettings, opened) if config is None else config.polygons
    outputs = _section("outputs", OutputSettings, opened) if config is None else config.outputs
    if polygons.layers:
        msg = f"polygons.drop asks for {polygons.layers[0]!r}, which fused maps have not; {_WITHOUT_RULES}"
        raise ConfigError(msg)
    decisions = _decisions(opened)
    grounds = places(opened, by=recipe.by)
    project = None if config is None else Project(config)
    read, written = [scene_map.path for scene_map in opened], [out / place.id for place in grounds]
    if project is None:
        check_apart([out], read, replaced=written)
    else:
        project.check_outputs([out], inputs=read, replaced=written)
    settings = _FusedSettings(polygons=polygons, outputs=outputs, decisions=decisions, maker=maker)
    job_of = partial(_job, recipe=recipe, settings=settings)
    todo, stuck = still_due(lambda place: is_due(job_of(place), out / place.id), grounds)
    finished, failed = len(grounds) - len(todo) - len(stuck), {**failed, **stuck}
    subject = f"{counted(len(opened), 'map')} on {counted(len(grounds), recipe.by)}"
    if dry_run:
        pixels = sum(place.geobox.height * place.geobox.width for place in todo)
        line = f"would fuse {subject} into {out}: {pixels / 1e6:.1f} million pixels; {finished} are finished"
        return Summary(lines=(line,), skipped=finished, failed=failed, rows=_rows(todo))
    work = partial(_write, out=out, recipe=recipe, job_of=job_of, project=project)
    _, broken = run_all(work, todo, config, progress, "fusing")
    notes = [*_notes(grounds, out, recipe), *_undecided(grounds, settings, recipe)]
    lines = (f"{subject}: {recipe.how} of dates in {out}{before(finished)}", *notes)
    return Summary(lines=lines, done=len(todo) - len(broken), skipped=finished, failed={**failed, **broken})


def _open(folders: Sequence[Path], out: Path) -> tuple[list[MapFolder], dict[str, str]]:
    """Open the maps in folders; return them, and a message for each broken one by id."""
    opened: dict[str, MapFolder] = {}
    failed: dict[str, str] = {}
    for folder in folders:
        if not folder.is_dir():
            msg = f"{folder} is no folder; name one that 'thawmap predict' made"
            raise ConfigError(msg)
        if folder.resolve() == out.resolve():
            msg = f"{out} holds the maps themselves, which are never changed; name another folder with --out"
            raise ConfigError(msg)
        for path in filter(is_map, sorted(folder.iterdir())):
            if path.name in opened:
                msg = f"{path} and {opened[path.name].path} are maps of one scene; name one of their folders"
                raise DataError(msg)
            try:
                opened[path.name] = open_map(path)
            except DataError as error:
                failed[path.name] = str(error)
    if not opened:
        hint = f"; the first: {next(iter(failed.values()))}" if failed else "; make some with 'thawmap predict'"
        msg = f"{' and '.join(str(folder) for folder in folders)} has no map that can be used{hint}"
        raise DataError(msg)
    return list(opened.values()), failed


def _maker(maps: Sequence[MapFolder]) -> Maker:
    """Return the one bundle and threshold that made all maps; refuse several.

    Raises:
        DataError: If they do not say the same.
    """
    for name in (BUNDLE, THRESHOLD):
        by = {scene_map.item.properties[name]: scene_map.id for scene_map in maps}
        if len(by) > 1:
            listed = " and ".join(sorted(f"{value} ({scene})" for value, scene in by.items()))
            msg = f"the maps are of {name} {listed}, which make no common probability; fuse those of one model"
            raise DataError(msg)
    maker = maps[0].item.maker
    assert maker is not None, "open_map refuses maps that do not say it"
    return maker


def _section(name: str, kind: type[Section], maps: Sequence[MapFolder]) -> Section:
    """Return the section of settings that all maps share; refuse maps that differ.

    Raises:
        DataError: If they were not made with the same, or not by this version.
    """
    settings = {scene_map.id: scene_map.item.config.get(name, {}) for scene_map in maps}
    first = next(iter(settings))
    other = next((scene for scene in settings if settings[scene] != settings[first]), None)
    if other is not None:
        msg = f"{first} and {other} were made with different {name!r} settings; name the YAML to obey with --config"
        raise DataError(msg)
    try:
        return kind.model_validate(settings[first])
    except ValidationError as error:
        msg = f"{first} was made with {name!r} settings of another version; name the YAML to obey with --config"
        raise DataError(msg) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _FusedSettings:
    """What fused maps are made with.

    Attributes:
        polygons: How objects become slumps.
        outputs: Which files are written.
        decisions: The bundle's decisions by kind; empty where the maps do not follow them.
        maker: The bundle of the maps, and their threshold.
    """

    polygons: PolygonSettings
    outputs: OutputSettings
    decisions: Mapping[Kind, Decision]
    maker: Maker


def _decisions(maps: Sequence[MapFolder]) -> dict[Kind, Decision]:
    """Return the decisions that maps bring along.

    {} where any map does not follow one.

    Such maps are not smoothed as the decisions ask for.
    """
    if not all(scene_map.item.follows_decision for scene_map in maps):
        return {}
    stored = maps[0].item.config.get(DECISIONS, {})
    return from_json(stored) if isinstance(stored, dict) else {}


def _kind(place: Place, recipe: Recipe) -> Kind:
    """Return what the probabilities of a fused place are the mean of, at most."""
    if recipe.how != "mean" or len(place.maps) == 1:
        return "tile"
    return "dates" if len(place.dates) > 1 else "overlap"


def _undecided(grounds: Sequence[Place], settings: _FusedSettings, recipe: Recipe) -> Iterator[str]:
    """Yield a sentence where thresholds of single tiles are used for means of several."""
    kinds = {_kind(place, recipe) for place in grounds}
    if settings.decisions and settings.polygons.leaves_to_bundle and not kinds <= set(settings.decisions):
        yield "no threshold was chosen on means of as many maps, so that of single ones is used; it may be too low"


def _job(place: Place, recipe: Recipe, settings: _FusedSettings) -> MapJob:
    """Return the `MapJob` of a place's fused map: settings, threshold, maps' stamps."""
    maker, decisions = settings.maker, settings.decisions
    recipe_settings = {name: getattr(recipe, name) for name in ("how", "by", "min_dates", "spread")}
    if recipe.weights != "none":  # so that means made before there were weights stay finished
        recipe_settings["weights"] = recipe.weights
    ground = {
        "shape": list(place.geobox.shape),
        "transform": list(place.geobox.affine)[:6],
        "crs": crs_of(place.geobox),
    }
    decided = decide(settings.polygons, decisions, _kind(place, recipe), plain=maker.threshold)
    polygons = recorded(settings.polygons.model_dump(mode="json"), decisions)
    sections = {"polygons": polygons, "outputs": settings.outputs.model_dump(mode="json")}
    sections |= record(decided, decisions)
    return fusing.fusing_job(
        place,
        recipe,
        decided=decided,
        outputs=settings.outputs,
        provenance=Provenance(
            bundle=maker.bundle,
            config={"fuse": recipe_settings, "grid": ground, **sections, "version": __version__},
            inputs=[_stamp(scene_map) for scene_map in place.maps],
        ),
    )


def _stamp(scene_map: MapFolder) -> dict[str, Any]:
    """Return a map's size, time, fingerprint and date as a dict, to notice changes."""
    path = scene_map.item.probability_path
    try:
        file = stamp(path)
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); make its map again with 'thawmap predict'"
        raise DataError(msg) from error
    return file | {
        "name": f"{scene_map.id}/{path.name}",
        "fingerprint": scene_map.fingerprint,
        "acquired": None if scene_map.acquired is None else scene_map.acquired.isoformat(),
    }


def _write(
    place: Place, *, out: Path, recipe: Recipe, job_of: Callable[[Place], MapJob], project: Project | None
) -> None:
    """Write a place's fused map into ``out``, unless it is finished there.

    Another process that fuses it is waited for.
    """
    job = job_of(place)
    with alone(out / place.id):
        if is_finished(job, out / place.id):
            return
        picture = fusing.preview(place) if project is None else _picture(place, project)
        fusing.write(place, out, recipe, job, picture=picture)


def _picture(place: Place, project: Project) -> Stack:
    """Return a coarse false-colour stack of a place, its latest clear images on top.

    Its probability where no image can be opened.
    """
    probability = fusing.preview(place)
    shape = tuple(probability.geobox.shape)
    images = {name: np.full(shape, np.nan, np.float32) for name in FALSE_COLOUR}
    is_filled, any_image = np.zeros(shape, bool), False
    for scene in _scenes(place, project):
        try:
            stack = assemble(scene, FALSE_COLOUR, probability.geobox, project.sources)
        except DataError:
            continue
        fresh, any_image = stack["valid"] & ~is_filled, True
        for name, values in images.items():
            values[fresh] = stack[name][fresh]
        is_filled |= fresh
    return Stack(probability.geobox, {**images, "valid": is_filled}) if any_image else probability


def _scenes(place: Place, project: Project) -> Iterator[Scene]:
    """Yield the scenes of a place's maps, opened, latest first; skip unreadable ones."""
    try:
        candidates = {candidate.id: candidate for candidate in project.candidates()}
    except ConfigError:
        return
    for scene_map in sorted(place.maps, key=lambda item: (str(item.acquired or ""), item.id), reverse=True):
        try:
            yield project.open(candidates[scene_map.id], labelled=False)
        except (KeyError, DataError):
            continue


def _rows(grounds: Sequence[Place]) -> list[dict[str, Any]]:
    """Return a table row for each place that would be fused: maps, dates, pixels, CRS."""
    return [
        {
            "place": place.id,
            "maps": len(place.maps),
            "dates": len(place.dates),
            "warped": place.warped,
            "px": f"{place.geobox.width}x{place.geobox.height}",
            "crs": crs_of(place.geobox),
        }
        for place in grounds
    ]


def _notes(grounds: Sequence[Place], out: Path, recipe: Recipe) -> Iterator[str]:
    """Yield sentences on places of one date, warped maps and outdated maps in ``out``."""
    alone = sum(len(place.dates) == 1 for place in grounds)
    if alone:
        yield f"{counted(alone, recipe.by)} with one date only: nothing is fused there"
    warped = sum(place.warped for place in grounds)
    if warped:
        yield f"{counted(warped, 'map')} on other pixels than the {recipe.by}'s: warped, bilinear"
    now = {place.id for place in grounds}
    others = [name for name in maps_in(out) if name not in now]
    if others:
        yield f"{out} holds {len(others)} more that are not of these maps, such as {others[0]}; delete the outdated"

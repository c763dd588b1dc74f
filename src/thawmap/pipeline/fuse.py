"""The recipe of fusing: which maps there are, whether they go together, and what is made of each place."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
from thawmap.maps.item import Maker
from thawmap.maps.job import MapJob, Provenance
from thawmap.maps.layout import BUNDLE, THRESHOLD
from thawmap.maps.read import MapFolder, is_map, maps_in
from thawmap.maps.replacing import is_due, is_finished
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
    """Make one map of all that lie over each other; only what is missing or made from something else is made.

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
    found, failed = _open(maps, out)
    made = _maker(found)
    polygons = _section("polygons", PolygonSettings, found) if config is None else config.polygons
    outputs = _section("outputs", OutputSettings, found) if config is None else config.outputs
    if polygons.layers:
        msg = f"polygons.drop asks for {polygons.layers[0]!r}, which fused maps have not; {_WITHOUT_RULES}"
        raise ConfigError(msg)
    threshold = made.threshold if polygons.threshold == "bundle" else polygons.threshold
    grounds = places(found, by=recipe.by)
    project = None if config is None else Project(config)
    read, written = [one.path for one in found], [out / place.id for place in grounds]
    if project is None:
        check_apart([out], read, replaced=written)
    else:
        project.check_outputs([out], inputs=read, replaced=written)
    job = partial(_job, recipe=recipe, settings=(polygons, outputs), maker=replace(made, threshold=threshold))
    todo, stuck = still_due(lambda place: is_due(job(place), out / place.id), grounds)
    kept, failed = len(grounds) - len(todo) - len(stuck), {**failed, **stuck}
    what = f"{counted(len(found), 'map')} on {counted(len(grounds), recipe.by)}"
    if dry_run:
        pixels = sum(place.geobox.height * place.geobox.width for place in todo)
        line = f"would fuse {what} into {out}: {pixels / 1e6:.1f} million pixels; {kept} are finished"
        return Summary(lines=(line,), skipped=kept, failed=failed, rows=_rows(todo))
    work = partial(_write, out=out, recipe=recipe, job=job, project=project)
    _, broken = run_all(work, todo, config, progress, "fusing")
    lines = (f"{what}: {recipe.how} of dates in {out}{before(kept)}", *_notes(grounds, out, recipe))
    return Summary(lines=lines, done=len(todo) - len(broken), skipped=kept, failed={**failed, **broken})


def _open(folders: Sequence[Path], out: Path) -> tuple[list[MapFolder], dict[str, str]]:
    """The maps in the folders, and why others cannot be used, by id."""
    found: dict[str, MapFolder] = {}
    failed: dict[str, str] = {}
    for folder in folders:
        if not folder.is_dir():
            msg = f"{folder} is no folder; name one that 'thawmap predict' made"
            raise ConfigError(msg)
        if folder.resolve() == out.resolve():
            msg = f"{out} holds the maps themselves, which are never changed; name another folder with --out"
            raise ConfigError(msg)
        for place in sorted(folder.iterdir()):
            if not is_map(place):
                continue
            if place.name in found:
                msg = f"{place} and {found[place.name].path} are maps of one scene; name one of their folders"
                raise DataError(msg)
            try:
                found[place.name] = open_map(place)
            except DataError as error:
                failed[place.name] = str(error)
    if not found:
        why = f"; the first: {next(iter(failed.values()))}" if failed else "; make some with 'thawmap predict'"
        msg = f"{' and '.join(str(folder) for folder in folders)} has no map that can be used{why}"
        raise DataError(msg)
    return list(found.values()), failed


def _maker(maps: Sequence[MapFolder]) -> Maker:
    """Return the one bundle and threshold that made all maps.

    Raises:
        DataError: If they do not say the same.
    """
    for name in (BUNDLE, THRESHOLD):
        by = {one.item.properties[name]: one.id for one in maps}
        if len(by) > 1:
            said = " and ".join(sorted(f"{value} ({scene})" for value, scene in by.items()))
            msg = f"the maps are of {name} {said}, which make no common probability; fuse those of one model"
            raise DataError(msg)
    maker = maps[0].item.maker
    assert maker is not None, "open_map refuses maps that do not say it"
    return maker


def _section(name: str, kind: type[Section], maps: Sequence[MapFolder]) -> Section:
    """The settings of this name that all maps were made with.

    Raises:
        DataError: If they were not made with the same, or not by this version.
    """
    said = {one.id: one.item.config.get(name, {}) for one in maps}
    first = next(iter(said))
    other = next((scene for scene in said if said[scene] != said[first]), None)
    if other is not None:
        msg = f"{first} and {other} were made with different {name!r} settings; name the YAML to obey with --config"
        raise DataError(msg)
    try:
        return kind.model_validate(said[first])
    except ValidationError as error:
        msg = f"{first} was made with {name!r} settings of another version; name the YAML to obey with --config"
        raise DataError(msg) from error


def _job(place: Place, recipe: Recipe, settings: tuple[PolygonSettings, OutputSettings], *, maker: Maker) -> MapJob:
    """Return what a place's fused map is to be, with all that it is made from."""
    polygons, outputs = settings
    own = {name: getattr(recipe, name) for name in ("how", "by", "min_dates", "spread")}
    ground = {
        "shape": list(place.geobox.shape),
        "transform": list(place.geobox.affine)[:6],
        "crs": crs_of(place.geobox),
    }
    asked = {"polygons": polygons.model_dump(mode="json"), "outputs": outputs.model_dump(mode="json")}
    return fusing.fusing_job(
        place,
        recipe,
        polygons=polygons.model_copy(update={"threshold": maker.threshold}),
        outputs=outputs,
        provenance=Provenance(
            bundle=maker.bundle,
            config={"fuse": own, "grid": ground, **asked, "version": __version__},
            inputs=[_stamp(scene_map) for scene_map in place.maps],
        ),
    )


def _stamp(one: MapFolder) -> dict[str, Any]:
    """What tells that a map has changed."""
    path = one.item.probability_path
    try:
        file = stamp(path)
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); make its map again with 'thawmap predict'"
        raise DataError(msg) from error
    return file | {
        "name": f"{one.id}/{path.name}",
        "fingerprint": one.fingerprint,
        "acquired": None if one.acquired is None else one.acquired.isoformat(),
    }


def _write(place: Place, *, out: Path, recipe: Recipe, job: Callable[[Place], MapJob], project: Project | None) -> None:
    """Fuse one place: an item of the engine; another process that fuses it is waited for."""
    asked = job(place)
    with alone(out / place.id):
        if is_finished(asked, out / place.id):
            return
        picture = fusing.preview(place) if project is None else _picture(place, project)
        fusing.write(place, out, recipe, asked, picture=picture)


def _picture(place: Place, project: Project) -> Stack:
    """The latest clear images of a place in false colour on a coarse grid; its probability where none is at hand."""
    probability = fusing.preview(place)
    shape = tuple(probability.geobox.shape)
    images = {name: np.full(shape, np.nan, np.float32) for name in FALSE_COLOUR}
    seen, opened = np.zeros(shape, bool), False
    for scene in _scenes(place, project):
        try:
            stack = assemble(scene, FALSE_COLOUR, probability.geobox, project.sources)
        except DataError:
            continue
        fresh, opened = stack["valid"] & ~seen, True
        for name, values in images.items():
            values[fresh] = stack[name][fresh]
        seen |= fresh
    return Stack(probability.geobox, {**images, "valid": seen}) if opened else probability


def _scenes(place: Place, project: Project) -> Iterator[Scene]:
    """The scenes behind a place's maps that are at hand, the latest first."""
    try:
        known = {one.id: one for one in project.candidates()}
    except ConfigError:
        return
    for one in sorted(place.maps, key=lambda item: (str(item.acquired or ""), item.id), reverse=True):
        try:
            yield project.open(known[one.id], labelled=False)
        except (KeyError, DataError):
            continue


def _rows(grounds: Sequence[Place]) -> list[dict[str, Any]]:
    """One row for each place that would be fused."""
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
    """What a user should know of the places, and of others that an earlier run has left in the folder."""
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

"""The verb predict: choose the scenes that are to be mapped, and map them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from thawmap.config import Config
from thawmap.data.derive import RECIPES, obtainable
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.errors import BundleError, ConfigError
from thawmap.maps.layout import FILE_NAMES, QUICKLOOK
from thawmap.model.bundle import Bundle
from thawmap.pipeline import _predict_scene
from thawmap.pipeline._inputs import data_versions, version_note
from thawmap.pipeline.progress import Progress, Silence, Summary, run_all, still_due
from thawmap.pipeline.scenes import notes as scene_notes
from thawmap.text import before, counted


def predict(
    config: Config,
    model: Path | Sequence[Path],
    out: Path,
    *,
    places: Sequence[Path] = (),
    part: Literal["train", "validation", "test"] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Map scenes with a bundle, or the mean of several, into a folder for each.

    Only what is missing, or was made from something else, is mapped.

    Args:
        config: Which scenes, and how they are read.
        model: Folder of the bundle, or of each of several.
        out: Folder of the maps.
        places: Files or folders of scenes to map instead of the configuration's.
        part: Only the scenes of this part of the split.
        dry_run: Say what would be mapped, and map nothing.
        progress: Is told what happens.

    Raises:
        ConfigError: If no scene is found, a rule asks for a layer that nothing has, or ``out`` is where inputs lie.
        BundleError: If a bundle is damaged, or was trained on layers that are made in another way.
    """
    models = (model,) if isinstance(model, Path) else tuple(model)
    check_distinct(models)
    project, bundles = Project(config), [_predict_scene.load_bundle(folder) for folder in models]
    for bundle in bundles:
        _check_recipes(config, bundle)
    _check_rules(project)
    open_scene = partial(project.open, labelled=False)
    opened, failed = run_all(open_scene, project.candidates(places), config, progress, "scenes", in_process=True)
    chosen = [scene for scene in opened if part in (None, project.part(scene))]
    if not chosen and not failed:
        msg = f"no scene belongs to the {part} part; name regions or scenes in 'split.{part}'"
        raise ConfigError(msg)
    for line in scene_notes({scene.id: scene.notes for scene in chosen}):
        (progress or Silence()).say(line)
    for bundle in bundles:
        note = version_note(bundle, data_versions(chosen, config)) if "data" in bundle.provenance else None
        if note is not None:
            (progress or Silence()).say(note)
    project.check_outputs([out], chosen, inputs=models, replaced=[out / scene.id for scene in chosen])
    todo, stuck = still_due(partial(_predict_scene.is_due, config=config, bundles=bundles, out=out), chosen)
    finished, failed = len(chosen) - len(todo) - len(stuck), {**failed, **stuck}
    if todo:
        # before hours of mapping, and before a dry run promises what cannot be done
        _predict_scene.check_answers(models, config)
    if dry_run:
        return _planned(todo, project, models, out, finished=finished, failed=failed, progress=progress)
    for line in _predict_scene.choose_backends(models, project, todo):
        (progress or Silence()).say(line)
    mapping = partial(_predict_scene.map_scene, project=project, models=models, out=out)
    _, broken = run_all(mapping, todo, config, progress, "mapping")
    mapped = [scene.id for scene in chosen if scene.id not in {**stuck, **broken}]
    lines = [f"{counted(len(mapped), 'scene is', 'scenes are')} mapped{before(finished)}: {out}"]
    if mapped:
        polygons = f"{FILE_NAMES[config.outputs.names]['slumps']}.{config.outputs.vectors[0]}"
        others = f" and {len(mapped) - 1} more" if len(mapped) > 1 else ""
        lines.append(f"look at {out / mapped[0] / QUICKLOOK}{others}; {polygons} beside it opens in QGIS")
    return Summary(lines=tuple(lines), done=len(todo) - len(broken), skipped=finished, failed={**failed, **broken})


def check_distinct(models: Sequence[Path]) -> None:
    """Refuse an ensemble that names a bundle twice: that would only weigh it more.

    Raises:
        ConfigError: If a bundle is named twice.
    """
    resolved = [model.resolve() for model in models]
    for model in models:
        if resolved.count(model.resolve()) > 1:
            msg = f"--model {model} is named twice; name each bundle once, two or more for their mean"
            raise ConfigError(msg)


def _planned(
    todo: Sequence[Scene],
    project: Project,
    models: Sequence[Path],
    out: Path,
    *,
    finished: int,
    failed: dict[str, str],
    progress: Progress | None,
) -> Summary:
    """Return a summary of what mapping would take, by scene and in all; map nothing."""
    estimate = partial(_predict_scene.cost, project=project, models=models)
    costs, faults = run_all(estimate, todo, project.config, progress, "plan", in_process=True)
    rows = [cost.row() for cost in costs]
    windows, pixels, stored = (sum(getattr(cost, name) for cost in costs) for name in ("windows", "computed", "stored"))
    peak = max((cost.memory for cost in costs), default=0)
    seconds = [cost.seconds for cost in costs]
    minutes = "" if None in seconds or not costs else f", {sum(filter(None, seconds)) / 60:.0f} minutes of the networks"
    line = (
        f"would map {counted(len(costs), 'scene')} into {out}: {pixels / 1e6:.1f} million pixels in "
        f"{counted(windows, 'window')}, at most {stored / 1e9:.2g} GB on disk, {peak / 1e9:.1f} GB of memory"
        f"{minutes}; {finished} are finished"
    )
    return Summary(lines=(line,), skipped=finished, failed={**failed, **faults}, rows=rows)


def _check_recipes(config: Config, bundle: Bundle) -> None:
    """Refuse a configuration that makes a layer otherwise than the bundle's (law 14).

    Raises:
        BundleError: If a layer is made in another way.
    """
    for layer in bundle.layers:
        recipe = config.made_as(layer.name)
        if recipe and layer.recipe and recipe != layer.recipe:
            msg = (
                f"bundle {bundle.id} was trained on {layer.name} made with {layer.recipe!r}, the configuration makes "
                f"it with {recipe!r}; correct 'sources.elevation'"
            )
            raise BundleError(msg)


def _check_rules(project: Project) -> None:
    """Refuse polygon rules over layers that are in no source and that no recipe makes.

    Raises:
        ConfigError: If there is such a rule.
    """
    available = frozenset[str]().union(*(source.layers for source in project.sources))
    for name in project.config.polygons.layers:
        if not obtainable(name, available=available):
            msg = (
                f"polygons.drop asks for {name!r}, which is in no source and no recipe makes; sources have "
                f"{', '.join(sorted(available))}, recipes make {', '.join(RECIPES)}"
            )
            raise ConfigError(msg)

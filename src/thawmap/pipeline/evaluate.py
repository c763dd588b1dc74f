"""The verb evaluate: score maps against labels, and make a page of it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.errors import ConfigError, DataError
from thawmap.files.results import check_result, result
from thawmap.maps.item import Maker, MapItem
from thawmap.maps.layout import BUNDLE, THRESHOLD
from thawmap.model.bundle import Bundle
from thawmap.pipeline._predict_scene import load_bundle
from thawmap.pipeline.labels import lost_labels
from thawmap.pipeline.progress import Progress, Silence, Summary, run_all
from thawmap.report.evaluation import examples, page
from thawmap.report.evaluation import result as scoring
from thawmap.report.evaluation.score import MAPPED
from thawmap.text import counted


def evaluate(
    config: Config, maps: Path, out: Path, *, model: Path | None = None, progress: Progress | None = None
) -> Summary:
    """Score maps against labels, by scene and region; write tables and a page.

    Args:
        config: The scenes and their labels.
        maps: Folder that `predict` made; scenes of the configuration without a map in it are not scored.
        out: Folder of the report.
        model: Folder of the bundle, for its training curves and its threshold.
        progress: Is told what happens.

    Raises:
        ConfigError: If the configuration has no labels, or no scene is found.
        DataError: If no scene could be scored.
    """
    project, progress = Project(config), progress or Silence()
    labels = project.labels
    mapped = [candidate for candidate in project.labelled_candidates() if (maps / candidate.id).is_dir()]
    scenes, failed = run_all(project.open, mapped, config, progress, "scenes", in_process=True)
    read = [*(maps / candidate.id for candidate in mapped), *([] if model is None else [model])]
    project.check_outputs([out], scenes, inputs=read)
    check_result(out, [*scoring.FILES, "index.html"])
    lost = lost_labels(project, scenes, needed=False)
    makers, unreadable = run_all(partial(_maker_of, maps=maps), scenes, config, None, "", in_process=True)
    failed, scenes = {**failed, **unreadable}, [scene for scene in scenes if scene.id not in unreadable]
    follows = bool(scenes) and all(MapItem.read(maps / scene.id).follows_decision for scene in scenes)
    maker = _common_maker(maps, makers, follows=follows)
    bundle = _bundle_of(model, maker)
    thresholds = {"polygons": maker.threshold, "paper": 0.5} if bundle is None else bundle.thresholds
    if follows:
        thresholds = {MAPPED: maker.threshold} | {key: at for key, at in thresholds.items() if key != "polygons"}
    evaluation = scoring.evaluate(maps, scenes, labels, thresholds=thresholds)
    about = page.About(
        project=config.project, made=datetime.now(UTC), roles=region_roles(scenes, bundle), facts=model_facts(bundle)
    )
    chosen = examples.choose_examples(
        evaluation,
        threshold_name=page.main_threshold(evaluation),
        regions=page.regions_that_count(evaluation, about),
    )
    ranks = {scored.scene: (rank, scored) for rank, scored in chosen.items()}

    def open_example(scene: Scene) -> examples.Example:
        rank, scored = ranks[scene.id]
        return examples.open_example(scored, scene, rank=rank, maps=maps, labels=labels, sources=project.sources)

    ranked = sorted((scene for scene in scenes if scene.id in ranks), key=lambda scene: list(ranks).index(scene.id))
    pictures, unpictured = run_all(open_example, ranked, config, None, "", in_process=True)
    with result(out, complete=True) as draft:
        scoring.write_scores(evaluation, draft)
        page.write_page(draft / "index.html", evaluation, about, examples=pictures, training=_training_log(model))
    unmapped = len(project.candidates()) - len(mapped)
    unscored = f"not scored, having no map in {maps}: {counted(unmapped, 'scene')} of the configuration"
    lines = (
        *(f"{sentence}: all that is mapped counts as false" for sentence in lost),
        *page.summary(evaluation, about),
        *([unscored] if unmapped else []),
        f"page: {out / 'index.html'}; table: {out / 'scores.csv'}",
    )
    return Summary(lines=lines, done=len(evaluation.scenes), failed={**failed, **evaluation.left_out, **unpictured})


def region_roles(scenes: Sequence[Scene], bundle: Bundle | None) -> dict[str, str]:
    """Return a dict of region to role in training: train, validation or test.

    Of the scenes' regions, as the bundle says; test where it does not know one; empty if it was not split by region.
    """
    provenance = {} if bundle is None else bundle.provenance
    if provenance.get("config", {}).get("split", {}).get("by") != "region":
        return {}
    roles = {
        region: role
        for role, regions in provenance.get("regions", {}).items()
        for region in regions
        if role != "dropped"
    }
    return {scene.region: roles.get(scene.region, "test") for scene in scenes if scene.region is not None}


def model_facts(bundle: Bundle | None) -> dict[str, str]:
    """Return texts on a bundle's network, layers and training regions; {} for None."""
    if bundle is None:
        return {}
    return {
        "Network": bundle.network_name,
        "Layers": ", ".join(layer.name for layer in bundle.layers),
        "Trained in": ", ".join(bundle.provenance.get("regions", {}).get("train", [])),
    }


def _maker_of(scene: Scene, maps: Path) -> Maker:
    """Read the bundle's id and the threshold of a scene's map from its folder.

    Raises:
        DataError: If it cannot be read, or does not say which bundle and threshold made it.
    """
    item = MapItem.read(maps / scene.id)
    if item.maker is None:
        msg = f"{item.path} does not say which bundle and threshold made the map; make it again with 'thawmap predict'"
        raise DataError(msg)
    return item.maker


def _common_maker(maps: Path, makers: Sequence[Maker], *, follows: bool) -> Maker:
    """Return the one bundle and threshold that made all maps of a folder, or refuse.

    Maps that follow the decisions of their bundle may have several thresholds, as single dates and means of several
    have; then it is the lowest.

    Raises:
        DataError: If there is no map, or they are of several bundles or thresholds.
    """
    if not makers:
        msg = f"{maps} has no map of the configuration's scenes; make some with 'thawmap predict'"
        raise DataError(msg)
    bundles, thresholds = {maker.bundle for maker in makers}, {maker.threshold for maker in makers}
    for key, values in ((BUNDLE, bundles), (THRESHOLD, thresholds)):
        if len(values) > 1 and not (follows and key == THRESHOLD):
            listed = " and ".join(sorted(map(str, values)))
            msg = f"{maps} holds maps with {key} {listed}, which make no common score; predict into another folder"
            raise DataError(msg)
    return min(makers, key=lambda maker: maker.threshold)


def _bundle_of(model: Path | None, maker: Maker) -> Bundle | None:
    """Load the bundle that made the maps, and refuse another; None without a folder.

    Raises:
        ConfigError: If another one made them.
    """
    if model is None:
        return None
    bundle = load_bundle(model)
    if bundle.id != maker.bundle:
        msg = f"the maps were made by bundle {maker.bundle}, and {model} is {bundle.id}; predict again"
        raise ConfigError(msg)
    return bundle


def _training_log(model: Path | None) -> pd.DataFrame | None:
    """Read the table of training epochs beside a bundle; None where there is none."""
    path = None if model is None else model / "metrics.csv"
    return pd.read_csv(path) if path is not None and path.exists() else None

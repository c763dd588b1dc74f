"""The verb evaluate: score maps against labels, and make a page of it."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.files.results import check_result, result
from thawmap.pipeline import _origin
from thawmap.pipeline.labels import lost_labels
from thawmap.pipeline.progress import Progress, Silence, Summary, run_all
from thawmap.report.evaluation import examples, page
from thawmap.report.evaluation import result as scoring
from thawmap.text import counted


def evaluate(
    config: Config, maps: Path, out: Path, *, model: Path | None = None, progress: Progress | None = None
) -> Summary:
    """Score maps against labels, by scene and region: tables and a page with pictures.

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
    labelled = project.labels
    mapped = [one for one in project.labelled_candidates() if (maps / one.id).is_dir()]
    opened, failed = run_all(project.open, mapped, config, progress, "scenes", in_process=True)
    read = [*(maps / one.id for one in mapped), *([] if model is None else [model])]
    project.check_outputs([out], opened, inputs=read)
    check_result(out, [*scoring.FILES, "index.html"])
    lost = lost_labels(project, opened, needed=False)
    described, strange = run_all(partial(_origin.described, maps=maps), opened, config, None, "", in_process=True)
    failed, opened = {**failed, **strange}, [scene for scene in opened if scene.id not in strange]
    made = _origin.maker(maps, described)
    bundle = _origin.bundle_of(model, made)
    thresholds = {"polygons": made.threshold, "paper": 0.5} if bundle is None else bundle.thresholds
    evaluation = scoring.evaluate(maps, opened, labelled, thresholds=thresholds)
    about = page.About(
        project=config.project,
        made=datetime.now(UTC),
        roles=_origin.roles(opened, bundle),
        facts=_origin.facts(bundle),
    )
    chosen = examples.choose_examples(
        evaluation,
        threshold_name=page.main_threshold(evaluation),
        regions=page.regions_that_count(evaluation, about),
    )
    ranks = {scored.scene: (rank, scored) for rank, scored in chosen.items()}

    def show(scene: Scene) -> examples.Example:
        rank, scored = ranks[scene.id]
        return examples.open_example(scored, scene, rank=rank, maps=maps, labels=labelled, sources=project.sources)

    shown = sorted((scene for scene in opened if scene.id in ranks), key=lambda scene: list(ranks).index(scene.id))
    places, unseen = run_all(show, shown, config, None, "", in_process=True)
    with result(out, complete=True) as draft:
        scoring.write_scores(evaluation, draft)
        page.write_page(draft / "index.html", evaluation, about, examples=places, training=_origin.training(model))
    unmapped = len(project.candidates()) - len(mapped)
    aside = f"not scored, having no map in {maps}: {counted(unmapped, 'scene')} of the configuration"
    lines = (
        *(f"{said}: all that is mapped counts as false" for said in lost),
        *page.summary(evaluation, about),
        *([aside] if unmapped else []),
        f"page: {out / 'index.html'}; table: {out / 'scores.csv'}",
    )
    return Summary(lines=lines, done=len(evaluation.scenes), failed={**failed, **evaluation.left_out, **unseen})

"""The verb evaluate: score maps against labels, and make a page of it."""

from datetime import UTC, datetime
from pathlib import Path

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.pipeline import look, origin
from thawmap.pipeline.progress import Progress, Silence, Summary, run_all
from thawmap.report import evaluate as scoring
from thawmap.report import gallery, page
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
    opened, failed = run_all(project.open, mapped, config, progress, "scenes", here=True)
    lost = look.lost_labels(project, opened, needed=False)
    made = origin.maker(maps, opened)
    bundle = origin.bundle_of(model, made)
    thresholds = {"polygons": made["thawmap:threshold"], "paper": 0.5} if bundle is None else bundle.thresholds
    evaluation = scoring.evaluate(maps, opened, labelled, thresholds=thresholds)
    scoring.write_scores(evaluation, out)
    about = page.About(
        project=config.project,
        made=datetime.now(UTC),
        roles=origin.roles(opened, bundle),
        facts=origin.facts(bundle),
    )
    scenes = {scene.id: scene for scene in opened}
    chosen = gallery.examples(
        evaluation,
        threshold_name=page.main_threshold(evaluation),
        regions=page.regions_that_count(evaluation, about),
    )
    places = [
        gallery.look(scored, scenes[scored.scene], rank=rank, maps=maps, labels=labelled, sources=project.sources)
        for rank, scored in chosen.items()
    ]
    page.write_page(out / "index.html", evaluation, about, places=places, training=origin.training(model))
    unmapped = len(project.candidates()) - len(mapped)
    aside = f"not scored, having no map in {maps}: {counted(unmapped, 'scene')} of the configuration"
    lines = (
        *(f"{said}: all that is mapped counts as false" for said in lost),
        *page.summary(evaluation, about),
        *([aside] if unmapped else []),
        f"page: {out / 'index.html'}; table: {out / 'scores.csv'}",
    )
    return Summary(lines=lines, done=len(evaluation.scenes), failed={**failed, **evaluation.left_out})

"""The verb train: tiles, split, network, report."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.engine.run import run
from thawmap.errors import ConfigError
from thawmap.model.backends.devices import find_device
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import load as load_bundle
from thawmap.pipeline._inputs import data_versions
from thawmap.pipeline.labels import labelled_scenes
from thawmap.pipeline.progress import Progress, Silence, Summary
from thawmap.pipeline.tiles import cut_tiles, footprints
from thawmap.provenance import differences
from thawmap.report.evaluation.examples import composite, stretch
from thawmap.report.training import page as report
from thawmap.report.training.page import Tile
from thawmap.text import counted
from thawmap.train.augment import check_augmentation
from thawmap.train.checkpoint import DECIDING, UNFINISHED, check_free
from thawmap.train.fit import fit
from thawmap.train.inference import predict_tiles
from thawmap.train.initial import initial_network
from thawmap.train.split import split_tiles
from thawmap.train.tiles.store import TileStore


def train(
    config: Config,
    out: Path,
    *,
    store: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Cut tiles, split them, train, write the best and last model, and report.

    Both models are bundles. The report on the best, in ``out``/report, is made at the end, or made again by the same
    call where it is missing; where it cannot be made, the bundle stays, and the summary names the failure.

    Args:
        config: Everything that decides the result.
        out: Folder of the bundle.
        store: Folder of the tile store; by default 'tiles' in ``out``.
        resume: Go on with a training that was interrupted in ``out``; without one, begin.
        dry_run: Say what would be trained on, and train nothing.
        progress: Is told what happens.

    Raises:
        ConfigError: If the configuration has no labels, no scene is found, the split names what is not there, or
            ``out`` holds files of somebody's.
        LabelError: If the labels cannot be used.
        TrainingError: If the training cannot go on.
    """
    project, progress = Project(config), progress or Silence()
    initial_network(config)  # what is wrong should not cost an hour of cutting
    check_augmentation(config.augment, config.input_layers)
    find_device(config.training.device)
    scenes, unusable = labelled_scenes(project, progress)
    _check_split(config, scenes)
    tile_folder = store or out / "tiles"
    project.check_outputs([out, tile_folder], scenes)
    check_free(out)
    cut = cut_tiles(project, scenes, unusable, tile_folder, dry_run=dry_run, progress=progress)
    if dry_run:
        epochs = sum(phase.epochs for phase in config.training.phases)
        network = f"{config.model.architecture} with {config.model.encoder}"
        line = f"would train {network} for {counted(epochs, 'epoch')} into {out}"
        return Summary(lines=(*cut.lines, line), failed=cut.failed)
    tile_store = TileStore.open(tile_folder)
    before = _trained(out, config, tile_store.identity)
    split = split_tiles(tile_store.index, config.split, scenes=footprints(scenes))
    bundle = before or fit(
        tile_store,
        split,
        config,
        out,
        resume=resume,
        versions=data_versions(scenes, config),
        report=progress.say,
    )
    report_lines, failed = _report(bundle, out, split.validation, config, tile_store)
    line = f"bundle {bundle.id}, threshold {bundle.threshold:.2f}{', trained before' if before else ''}: {out}"
    lines, failed = (*cut.lines, line, *report_lines), {**cut.failed, **failed}
    return Summary(lines=lines, done=int(not before), skipped=int(bool(before)), failed=failed)


def _report(
    bundle: Bundle, out: Path, tiles: pd.DataFrame, config: Config, store: TileStore
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Write the report of a training, unless there is one; return its line or failure.

    The line is in a tuple, empty where the report failed; then its name and message are in the mapping.
    """
    folder = out / "report"

    def write(folder: Path) -> None:
        log, now = pd.read_csv(out / "metrics.csv"), datetime.now(UTC)
        report.write(folder, bundle, log, _pictured(bundle, tiles, config, store), project=config.project, made=now)

    error = None
    if not report.is_made(folder, bundle):
        (outcome,) = run(write, [folder])
        error = outcome.error
    if error is not None:
        return (), {f"report in {folder}": error}
    return (f"report: {folder / 'index.html'}",), {}


def _pictured(bundle: Bundle, tiles: pd.DataFrame, config: Config, store: TileStore) -> Iterator[Tile]:
    """Yield tiles for the report: image, probability that a bundle computes, target."""
    device, size = find_device(config.training.device), config.training.batch_size
    stored = [code.name for code in store.codes]
    colour_bands = [stored.index(name) for name in composite(stored)]
    for prediction in predict_tiles(bundle, store, tiles, device=device, batch_size=size):
        batch = prediction.batch
        probability = prediction.probability.masked_fill(~batch.valid, math.nan)
        colours = batch.image[:, colour_bands].permute(0, 2, 3, 1)
        for number, row in enumerate(prediction.rows[["scene", "number", "region"]].to_dict("records")):
            yield Tile(
                scene=row["scene"],
                number=row["number"],
                region="" if pd.isna(row["region"]) else row["region"],
                image=stretch(colours[number].cpu().numpy()),
                probability=probability[number].cpu().numpy(),
                target=batch.target[number].cpu().numpy(),
            )


def _check_split(config: Config, scenes: Sequence[Scene]) -> None:
    """Refuse a split that names a region or scene which does not exist."""
    names = {scene.region if config.split.by == "region" else scene.id for scene in scenes} - {None}
    for key in ("validation", "test"):
        for name in getattr(config.split, key):
            if name not in names:
                listed = ", ".join(sorted(map(str, names))) or "none"
                msg = f"split.{key} names the {config.split.by} {name!r}, which no scene has; there are {listed}"
                raise ConfigError(msg)


def _trained(out: Path, config: Config, tiles: str) -> Bundle | None:
    """Load the finished bundle in ``out``, or None; refuse one of another training.

    Raises:
        ConfigError: If it is of another training than this one, which nobody has asked to replace.
    """
    if not (out / "bundle.json").exists() or (out / UNFINISHED).exists():
        return None
    bundle, resolved = load_bundle(out), config.as_json()
    used, wanted = dict(bundle.provenance.get("config", {})), {name: resolved[name] for name in DECIDING}
    changed = differences({name: used[name] for name in DECIDING if name in used}, wanted)
    if bundle.provenance.get("tile_store") != tiles:
        changed.append("tiles")
    if changed:
        msg = (
            f"{out} holds a bundle with other {' and '.join(dict.fromkeys(changed))}; name another --out, or remove it"
        )
        raise ConfigError(msg)
    return bundle

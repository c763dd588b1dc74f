"""Training as a recipe: tiles, split, network, report."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.errors import ConfigError
from thawmap.pipeline.progress import Progress, Silence, Summary, run_all
from thawmap.provenance import differences
from thawmap.text import counted

if TYPE_CHECKING:
    from thawmap.model.bundle import Bundle
    from thawmap.report.training.page import Tile
    from thawmap.train.split import Split
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
    """Cut tiles, split them by region, train, keep the best and the last model as bundles, and report on the best.

    The report, in ``out``/report, is made at the end, or made again by the same call where it is missing; where it
    cannot be made, the bundle stays, and the summary names the failure.

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
    from thawmap.model.backends.devices import find_device  # noqa: PLC0415 - torch loads slowly, here and below
    from thawmap.pipeline.tiles import tiles  # noqa: PLC0415
    from thawmap.train.augment import check_augmentation  # noqa: PLC0415
    from thawmap.train.checkpoint import check_free  # noqa: PLC0415
    from thawmap.train.fit import fit  # noqa: PLC0415
    from thawmap.train.initial import initial_network  # noqa: PLC0415
    from thawmap.train.tiles.store import TileStore  # noqa: PLC0415

    progress = progress or Silence()
    initial_network(config)  # what is wrong should not cost an hour of cutting
    check_augmentation(config.augment, config.input_layers)
    find_device(config.training.device)
    scenes, _ = run_all(Project(config).open, Project(config).candidates(), config, None, "scenes", here=True)
    _check_split(config, scenes)
    place = store or out / "tiles"
    Project(config).check_outputs([out, place], scenes)
    check_free(out)
    cut = tiles(config, place, dry_run=dry_run, progress=progress)
    if dry_run:
        epochs = sum(phase.epochs for phase in config.training.phases)
        network = f"{config.model.architecture} with {config.model.encoder}"
        line = f"would train {network} for {counted(epochs, 'epoch')} into {out}"
        return Summary(lines=(*cut.lines, line), failed=cut.failed)
    opened = TileStore.open(place)
    there = _trained(out, config, opened.identity)
    split = _split(config, opened, scenes)
    made = there or fit(opened, split, config, out, resume=resume, report=progress.say)
    told, failed = _report(made, out, split.validation, config, opened)
    line = f"bundle {made.id}, threshold {made.threshold:.2f}{', trained before' if there else ''}: {out}"
    lines, failed = (*cut.lines, line, *told), {**cut.failed, **failed}
    return Summary(lines=lines, done=int(not there), skipped=int(bool(there)), failed=failed)


@dataclass(frozen=True, slots=True)
class _Item:
    """What the engine works on."""

    id: str


def _report(
    bundle: "Bundle", out: Path, tiles: pd.DataFrame, config: Config, store: "TileStore"
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Make the report of a training, unless it is there: where it is, and why it could not be made."""
    from thawmap.report.training import page as report  # noqa: PLC0415 - figures load slowly

    folder = out / "report"

    def write(_: _Item) -> None:
        log, made = pd.read_csv(out / "metrics.csv"), datetime.now(UTC)
        report.write(folder, bundle, log, _looked(bundle, tiles, config, store), project=config.project, made=made)

    todo = [] if report.is_made(folder, bundle) else [_Item(f"report in {folder}")]
    _, failed = run_all(write, todo, config, None, "report", here=True)
    return (() if failed else (f"report: {folder / 'index.html'}",)), failed


def _looked(bundle: "Bundle", tiles: pd.DataFrame, config: Config, store: "TileStore") -> Iterator["Tile"]:
    """The tiles with what the network says of each, a batch at a time."""
    from thawmap.model.backends.devices import find_device  # noqa: PLC0415
    from thawmap.report.evaluation.examples import composite, stretch  # noqa: PLC0415
    from thawmap.report.training.page import Tile  # noqa: PLC0415
    from thawmap.train.inference import predict_tiles  # noqa: PLC0415

    device, size = find_device(config.training.device), config.training.batch_size
    stored = [code.name for code in store.codes]
    pictured = [stored.index(name) for name in composite(stored)]
    for prediction in predict_tiles(bundle, store, tiles, device=device, batch_size=size):
        batch = prediction.batch
        probability = prediction.probability.masked_fill(~batch.valid, math.nan)
        colours = batch.image[:, pictured].permute(0, 2, 3, 1)
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
    """Refuse a split that names what no scene is, before anything is cut."""
    known = {scene.region if config.split.by == "region" else scene.id for scene in scenes} - {None}
    for key in ("validation", "test"):
        for name in getattr(config.split, key):
            if name not in known:
                there = ", ".join(sorted(map(str, known))) or "none"
                msg = f"split.{key} names the {config.split.by} {name!r}, which no scene has; there are {there}"
                raise ConfigError(msg)


def _split(config: Config, store: "TileStore", scenes: Sequence[Scene]) -> "Split":
    """The tiles, split; every scene that is left out keeps all of its ground for itself."""
    from thawmap.pipeline._tiles import footprints  # noqa: PLC0415
    from thawmap.train.split import split_tiles  # noqa: PLC0415

    return split_tiles(store.index, config.split, scenes=footprints(scenes))


def _trained(out: Path, config: Config, tiles: str) -> "Bundle | None":
    """The bundle in ``out`` when its training has ended and would be the same again; None where there is none.

    Raises:
        ConfigError: If there is one of another training, which nobody has asked to replace.
    """
    from thawmap.model.bundle_folder import load as load_bundle  # noqa: PLC0415
    from thawmap.train.checkpoint import DECIDING, UNFINISHED  # noqa: PLC0415

    if not (out / "bundle.json").exists() or (out / UNFINISHED).exists():
        return None
    bundle, resolved = load_bundle(out), config.as_json()
    made, wanted = dict(bundle.provenance.get("config", {})), {name: resolved[name] for name in DECIDING}
    other = differences({name: made[name] for name in DECIDING if name in made}, wanted)
    if bundle.provenance.get("tile_store") != tiles:
        other.append("tiles")
    if other:
        msg = f"{out} holds a bundle with other {' and '.join(dict.fromkeys(other))}; name another --out, or remove it"
        raise ConfigError(msg)
    return bundle

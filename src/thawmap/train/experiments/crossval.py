"""Many trainings as one experiment: every fold, with every setting of a grid and every seed.

    <out>/crossval.json                        the configuration, and the tiles that all share
    <out>/fits/<fold>/<setting>/seed-<n>/      one training: the best epoch's bundle, metrics.csv, and fit.json when it
                                               is finished; the last epoch's bundle is then taken away
    <out>/metrics.parquet                      fold, configuration, seed, phase, epoch, split, metric, value
    <out>/fits.parquet                         a row per training: what it chose, and what it did where it was held out

Epochs are numbered through all phases, from 1. Epoch and threshold of a training are chosen on its inner folds; what
is held out is looked at after every epoch (split "test"), and chooses nothing.
"""

import gc
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import torch
from pydantic import Field, ValidationError

from thawmap.config import Config, CrossvalSettings, SplitSettings
from thawmap.config.plan import read_plan
from thawmap.errors import ConfigError
from thawmap.files.atomic import atomic, write_json
from thawmap.files.guard import some_of
from thawmap.files.records import Record, read
from thawmap.model.backends.devices import find_device
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import remove
from thawmap.model.metrics.pixels import Histogram, histogram
from thawmap.provenance import differences
from thawmap.system import forget_peak_memory, peak_memory, threads_each
from thawmap.train.augment import check_augmentation
from thawmap.train.checkpoint import DECIDING
from thawmap.train.experiments.grid import Setting, folder_name, settings
from thawmap.train.fit import fit as train
from thawmap.train.inference import predict_tiles
from thawmap.train.initial import initial_network
from thawmap.train.split import Fold, deal_folds, split_tiles
from thawmap.train.tiles.store import TileStore

_PLAN, _DONE = "crossval.json", "fit.json"
_TABLES = ("metrics.parquet", "fits.parquet")
_KEYS = ["fold", "configuration", "seed"]
_LOG = ["phase", "epoch", "split"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One training of a cross-validation.

    Attributes:
        fold: What it holds out.
        setting: Its values for the keys of the grid.
        seed: Its seed.
    """

    fold: Fold
    setting: Setting
    seed: int

    @property
    def id(self) -> str:
        """What it is called in messages."""
        return f"{self.setting.name}, {self.fold.name} held out, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where it is, in the folder of the cross-validation."""
        return Path("fits", folder_name(self.fold.name), folder_name(self.setting.name), f"seed-{self.seed}")

    @property
    def identity(self) -> dict[str, Any]:
        """All that tells it from others of the same cross-validation, as JSON values."""
        names = {"test": list(self.fold.test), "validation": list(self.fold.validation)}
        return {"fold": self.fold.name, **names, "changes": dict(self.setting.changes), "seed": self.seed}

    def config(self, config: Config) -> Config:
        """The configuration of this training."""
        chosen = self.setting.apply(config)
        by = self.fold.by
        known = {} if by == "place" else {"by": by, "validation": self.fold.validation, "test": self.fold.test}
        changes = {
            "training": chosen.training.model_copy(update={"seed": self.seed}),
            "split": SplitSettings.model_validate(known),
            "crossval": CrossvalSettings(),
        }
        return chosen.model_copy(update=changes)


def fits(config: Config, index: pd.DataFrame) -> tuple[Fit, ...]:
    """All trainings, one seed after the other, so that the first results are of all folds and settings.

    Raises:
        ConfigError: If the tiles of ``index`` cannot be dealt into folds.
    """
    folds, chosen = deal_folds(index, config.crossval), settings(config)
    return tuple(
        Fit(fold=fold, setting=one, seed=seed) for seed in config.crossval.seeds for one in chosen for fold in folds
    )


def check(config: Config) -> None:
    """Refuse what would fail after hours of cutting and training.

    Raises:
        ConfigError: If a setting of the grid, a network or the device cannot be had.
    """
    for one in settings(config):
        applied = one.apply(config)
        initial_network(applied)
        check_augmentation(applied.augment, applied.input_layers)
        find_device(applied.training.device)


def to_cut(config: Config) -> Config:
    """The configuration that tiles for all settings are cut with: with the layers of each.

    A pixel is usable where all of these are known, so that every setting is scored on the same pixels.
    """
    wanted = {
        layer if isinstance(layer, str) else layer.name: layer
        for one in settings(config)
        for layer in one.apply(config).layers
    }
    return config.model_copy(update={"layers": tuple(wanted.values())})


def is_begun(out: Path) -> bool:
    """Whether there is a cross-validation."""
    return (out / _PLAN).exists()


def check_begun(out: Path, config: Config, *, tiles: str | None = None, resume: bool) -> None:
    """Refuse a folder that holds another cross-validation; settings and seeds may be added to what was begun.

    Args:
        out: Folder of the cross-validation.
        config: Its configuration.
        tiles: The identity of the tile store; None before it is known.
        resume: Whether to go on with what is there.

    Raises:
        ConfigError: If there is one and nobody asked to go on with it, or it is another.
    """
    if not is_begun(out):
        there = [name for name in _TABLES if os.path.lexists(out / name)]
        if there:
            msg = f"{out} holds {some_of(there)}, and no cross-validation has been there; name another --out"
            raise ConfigError(msg)
        return
    if not resume:
        msg = f"{out} holds a cross-validation; add --resume to go on with it, or name another --out"
        raise ConfigError(msg)
    begun = read_plan(out / _PLAN)
    begun["config"] = _as_known_today(begun["config"])
    wanted = {"config": config.as_json(), "tile_store": tiles or begun["tile_store"]}
    other = differences(_deciding(begun), _deciding(wanted))
    if other:
        msg = f"{out} holds a cross-validation with other {' and '.join(other)}; set it back, or name another --out"
        raise ConfigError(msg)


def begin(out: Path, config: Config, tiles: str) -> None:
    """Say in ``out`` what is done there, with the tiles of which store."""
    write_json(out / _PLAN, {"config": config.as_json(), "tile_store": tiles})


def is_finished(out: Path, fit: Fit) -> bool:
    """Whether the training has ended, and what it gave is known."""
    return _result(out, fit) is not None


def run(fit: Fit, *, config: Config, store: Path, scenes: gpd.GeoDataFrame, out: Path) -> None:
    """One training, from where it was interrupted, and its look at what it held out.

    Args:
        fit: Which.
        config: The configuration of the cross-validation.
        store: Folder of the tile store.
        scenes: One row per scene, as `thawmap.train.split.split_tiles` takes them.
        out: Folder of the cross-validation.

    Raises:
        TrainingError: If the training cannot start or go on.
    """
    begun, chosen, place = time.perf_counter(), fit.config(config), out / fit.folder
    opened, device = TileStore.open(store), find_device(chosen.training.device)
    split = split_tiles(opened.index, fit.fold, scenes=scenes, buffer_m=config.crossval.folds.buffer_m)
    # Trainings side by side leave each other threads; who asks for fewer by OMP_NUM_THREADS gets fewer.
    torch.set_num_threads(min(torch.get_num_threads(), threads_each(config.engine.workers)))
    held = _forget_peak(device)
    bundle = train(opened, split, chosen, place, resume=True, score_test=True)
    memory = _peak_memory(device) - held
    seen = look(bundle, opened, split.test, device=device, batch_size=chosen.training.batch_size)
    result = {
        "made_from": fit.identity,
        "bundle": bundle.id,
        "from": bundle.provenance["from"],
        "threshold": bundle.threshold,
        "negative": seen.negative.tolist(),
        "positive": seen.positive.tolist(),
        "peak_memory_mb": memory / 2**20,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "seconds": time.perf_counter() - begun,
    }
    write_json(place / _DONE, result, indent=None)
    remove(place / "last")


def look(bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int) -> Histogram:
    """Pixels of tiles by probability and label; ground that tiles share counts in each of them, as in training."""
    answers = predict_tiles(bundle, store, tiles, device=device, batch_size=batch_size)
    parts = (histogram(answer.probability, answer.batch.target, answer.batch.valid) for answer in answers)
    return sum(parts, Histogram.empty())


def gather(out: Path, planned: Sequence[Fit]) -> None:
    """Put what all finished trainings gave into two tables, `metrics.parquet` and `fits.parquet`."""
    rows, logs = [], []
    for fit in planned:
        about: dict[str, Any] = {"fold": fit.fold.name, "configuration": fit.setting.name, "seed": fit.seed}
        changes = {key: _plain(value) for key, value in fit.setting.changes}
        held_out = {"test": list(fit.fold.test), "validation": list(fit.fold.validation)}
        row = {**about, **changes, **held_out, "folder": str(fit.folder), "finished": False}
        result = _result(out, fit)
        if result is not None:
            log = _numbered(pd.read_csv(out / fit.folder / "metrics.csv"))
            chosen = log[("phase " + log["phase"] + ", epoch " + log["epoch"].astype(str)) == result.pop("from")]
            row |= result | {"finished": True, "phase": chosen["phase"].iloc[0], "epoch": int(chosen["number"].iloc[0])}
            logs.append(_tidy(log).assign(**about))
        rows.append(row)
    columns = [*_KEYS, *_LOG, "metric", "value"]
    metrics = pd.concat(logs)[columns] if logs else pd.DataFrame(columns=columns)
    for path, frame in zip(_TABLES, (metrics, pd.DataFrame(rows)), strict=True):
        with atomic(out / path) as draft:
            frame.to_parquet(draft, index=False)


def _numbered(log: pd.DataFrame) -> pd.DataFrame:
    """A training's log, with the epochs of all phases numbered from 1."""
    return log.assign(number=(log["split"] == "train").cumsum())


def _tidy(log: pd.DataFrame) -> pd.DataFrame:
    """A row per number of a numbered log; those that are not known are left out."""
    long = log.drop(columns="epoch").rename(columns={"number": "epoch"})
    return long.melt(_LOG, var_name="metric", value_name="value").dropna(subset="value")


class _ResultRecord(Record):
    """What a finished training leaves in `fit.json`."""

    made_from: dict[str, Any]
    bundle: str
    origin: str = Field(alias="from")
    threshold: float
    negative: list[int]
    positive: list[int]
    seconds: float


def _result(out: Path, fit: Fit) -> dict[str, Any] | None:
    """What a finished training gave; None where it is not finished, or another."""
    try:
        found = read(out / fit.folder / _DONE, _ResultRecord)
    except (OSError, ValueError):
        return None
    return found if found.pop("made_from", None) == fit.identity else None


def _deciding(plan: dict[str, Any]) -> dict[str, Any]:
    """What must not change: everything but the settings and seeds that are asked for, which are trainings each."""
    resolved = plan["config"]
    kept = {name: resolved.get(name) for name in DECIDING if name != "split"}
    free = ("grid", "seeds")
    kept["crossval"] = {name: value for name, value in resolved.get("crossval", {}).items() if name not in free}
    return kept | {"tile store": plan["tile_store"]}


def _as_known_today(resolved: dict[str, Any]) -> dict[str, Any]:
    """A configuration that was kept, with the defaults of keys that are younger than it; as it is if it is none now."""
    try:
        return Config.model_validate(resolved).as_json()
    except (ValidationError, ConfigError):
        return resolved


def _plain(value: str) -> str:
    """A value of a grid where people read it."""
    known = json.loads(value)
    return known if isinstance(known, str) else value


def _forget_peak(device: torch.device) -> float:
    """Begin to count a device's memory anew; return the bytes that are used before a training begins."""
    gc.collect()  # what trainings before it freed does not count
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    return float(forget_peak_memory())


def _peak_memory(device: torch.device) -> float:
    """Return the most bytes that were used since they were forgotten: of the GPU, else of this process."""
    return float(torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory())

"""Cross-validation: a training for every fold, grid setting and seed.

    <out>/crossval.json                        the configuration, and the tiles that all share
    <out>/fits/<fold>/<setting>/seed-<n>/      one training: the best epoch's bundle, metrics.csv, and fit.json when it
                                               is finished; the last epoch's bundle is then taken away
    <out>/metrics.parquet                      fold, configuration, seed, phase, epoch, split, metric, value
    <out>/fits.parquet                         a row per training: what it chose, and its pixels on the held-out fold

Epochs are numbered through all phases, from 1. Epoch and threshold of a training are chosen on its inner folds; what
is held out is evaluated after every epoch (split "test"), and chooses nothing.
"""

import gc
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
import torch
from pydantic import Field

from thawmap.config import Config, CrossvalSettings, SplitSettings
from thawmap.data.labels.polygons import IGNORE
from thawmap.errors import ConfigError
from thawmap.files.atomic import atomic, write_json
from thawmap.files.guard import some_of
from thawmap.files.records import Record, read
from thawmap.model.backends.devices import find_device
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import remove
from thawmap.model.decision import Kind
from thawmap.model.metrics.objects import Comparison
from thawmap.model.metrics.pixels import Counts, Histogram, histogram
from thawmap.model.metrics.sizes import SizeCounts
from thawmap.system import forget_peak_memory, peak_memory, threads_each
from thawmap.train.augment import check_augmentation
from thawmap.train.checkpoint import DECIDING
from thawmap.train.decision import count_decided
from thawmap.train.experiments.folder import check_plan, with_all_layers
from thawmap.train.experiments.grid import Setting, folder_name, grid_settings
from thawmap.train.fit import fit as train
from thawmap.train.inference import predict_tiles
from thawmap.train.initial import initial_network
from thawmap.train.split import Fold, deal_folds, split_tiles
from thawmap.train.tiles.store import TileStore
from thawmap.train.views import views_by_place

PLAN = "crossval.json"
"""File with the configuration and tile store that a cross-validation was begun with."""

_RESULT = "fit.json"
_TABLES = ("metrics.parquet", "fits.parquet")
_KEYS = ["fold", "configuration", "seed"]
_LOG = ["phase", "epoch", "split"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One training of a cross-validation.

    Attributes:
        fold: The fold that it holds out.
        setting: Its values for the keys of the grid.
        seed: Its seed.
    """

    fold: Fold
    setting: Setting
    seed: int

    @property
    def id(self) -> str:
        """The fit's setting, fold and seed as a phrase for messages."""
        return f"{self.setting.name}, {self.fold.name} held out, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """The fit's folder, a path relative to that of the cross-validation."""
        return Path("fits", folder_name(self.fold.name), folder_name(self.setting.name), f"seed-{self.seed}")

    @property
    def identity(self) -> dict[str, Any]:
        """A dict of the fit's fold, left-out names, changed settings and seed, for JSON."""
        names = {"test": list(self.fold.test), "validation": list(self.fold.validation)}
        return {"fold": self.fold.name, **names, "changes": dict(self.setting.changes), "seed": self.seed}

    def config(self, config: Config) -> Config:
        """Return a configuration with this training's setting, seed and split."""
        chosen = self.setting.apply(config)
        by = self.fold.by
        # The split of a configuration has no places; the fold itself divides the tiles.
        left_out = {} if by == "place" else {"by": by, "validation": self.fold.validation, "test": self.fold.test}
        changes = {
            "training": chosen.training.model_copy(update={"seed": self.seed}),
            "split": SplitSettings.model_validate(left_out),
            "crossval": CrossvalSettings(),
        }
        return chosen.model_copy(update=changes)


def plan_fits(config: Config, index: pd.DataFrame) -> tuple[Fit, ...]:
    """Return a fit for every seed, grid setting and fold of a tile index.

    They are ordered by seed, so that the first results are of all folds and settings.

    Raises:
        ConfigError: If the tiles of ``index`` cannot be dealt into folds.
    """
    folds, settings = deal_folds(index, config.crossval), grid_settings(config)
    return tuple(
        Fit(fold=fold, setting=setting, seed=seed)
        for seed in config.crossval.seeds
        for setting in settings
        for fold in folds
    )


def check(config: Config) -> None:
    """Refuse grid settings whose network, augmentation or device cannot be had.

    Each network is built once, before tiles are cut.

    Raises:
        ConfigError: If a setting of the grid, a network or the device cannot be had.
    """
    for setting in grid_settings(config):
        variant = setting.apply(config)
        initial_network(variant)
        check_augmentation(variant.augment, variant.input_layers)
        find_device(variant.training.device)


def tiling_config(config: Config) -> Config:
    """Return a configuration with the layers of all its grid settings, to cut tiles."""
    return with_all_layers(config, (setting.apply(config) for setting in grid_settings(config)))


def check_begun(out: Path, config: Config, *, store: str | None = None, resume: bool) -> None:
    """Refuse a folder of another cross-validation, one not to be resumed, or of none.

    Of none is one that holds tables without a plan. Settings and seeds may be added to the one that was begun.

    Args:
        out: Folder of the cross-validation.
        config: Its configuration.
        store: The identity of the tile store; None before it is known.
        resume: Whether to go on with the one in the folder.

    Raises:
        ConfigError: If there is one and nobody asked to go on with it, or it is another.
    """
    if (out / PLAN).exists():
        check_plan(out / PLAN, config, _deciding, kind="cross-validation", store=store, resume=resume)
        return
    names = [name for name in _TABLES if os.path.lexists(out / name)]
    if names:
        msg = f"{out} holds {some_of(names)}, and no cross-validation has been there; name another --out"
        raise ConfigError(msg)


def is_finished(out: Path, fit: Fit) -> bool:
    """Return True if the result file of this very training is there to be read."""
    return _read_result(out, fit) is not None


def run_fit(fit: Fit, *, config: Config, store: Path, scenes: gpd.GeoDataFrame, out: Path) -> None:
    """Train or resume one fit, count its held-out pixels and write fit.json.

    Pixels are counted by probability and label, objects by size. The last epoch's bundle is removed.

    Args:
        fit: The training.
        config: The configuration of the cross-validation.
        store: Folder of the tile store.
        scenes: One row per scene, as `thawmap.train.split.split_tiles` takes them.
        out: Folder of the cross-validation.

    Raises:
        TrainingError: If the training cannot start or go on.
    """
    begin, variant, folder = time.perf_counter(), fit.config(config), out / fit.folder
    tile_store, device = TileStore.open(store), find_device(variant.training.device)
    split = split_tiles(tile_store.index, fit.fold, scenes=scenes, buffer_m=config.crossval.folds.buffer_m)
    # Trainings side by side leave each other some threads; OMP_NUM_THREADS may ask for fewer.
    torch.set_num_threads(min(torch.get_num_threads(), threads_each(config.engine.workers)))
    held = _reset_peak_memory(device)
    bundle = train(tile_store, split, variant, folder, resume=True, score_test=True)
    memory = _peak_memory(device) - held
    counted = count_held_out(bundle, tile_store, split.test, device=device, batch_size=variant.training.batch_size)
    result = {
        "made_from": fit.identity,
        "bundle": bundle.id,
        "from": bundle.provenance["from"],
        "threshold": bundle.threshold,
        "negative": counted.pixels.negative.tolist(),
        "positive": counted.pixels.positive.tolist(),
        "sizes": {name: numbers.tolist() for name, numbers in asdict(counted.sizes).items()},
        "ground_m2": counted.ground_m2,
        "decided": {kind: asdict(pixels) for kind, pixels in counted.decided.items()},
        "decisions": {kind: decision.as_json() for kind, decision in bundle.decisions.items()},
        "peak_memory_mb": memory / 2**20,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "seconds": time.perf_counter() - begin,
    }
    write_json(folder / _RESULT, result, indent=None)
    remove(folder / "last")


def _pixels_of_scene(target: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_]) -> int:
    """Return the number of a tile's pixels that lie in its scene, as its footprint does.

    A scene smaller than a tile is followed, below and on the right, by what is neither labelled nor valid.
    """
    row, col = np.nonzero(valid | (target != IGNORE))
    return (int(row.max(initial=0)) + 1) * (int(col.max(initial=0)) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Counts of what a fit holds out: pixels by probability, and objects by size.

    Attributes:
        pixels: Usable pixels by probability and label.
        sizes: Objects at the bundle's threshold, as far as they lie in one tile.
        ground_m2: Area of the usable pixels.
        decided: Pixels by the bundle's decisions, for each kind of views.
    """

    pixels: Histogram
    sizes: SizeCounts
    ground_m2: float
    decided: Mapping[Kind, Counts]


def count_held_out(
    bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int
) -> HeldOut:
    """Run a bundle over tiles; return counts of their pixels and of their objects.

    Ground that tiles share counts in each of them, as in training.
    """
    pixels, sizes, ground_m2 = Histogram.empty(), SizeCounts.empty(), 0.0
    for prediction in predict_tiles(bundle, store, tiles, device=device, batch_size=batch_size):
        batch = prediction.batch
        pixels += histogram(prediction.probability, batch.target, batch.valid)
        target, valid = batch.target.cpu().numpy(), batch.valid.cpu().numpy()
        predicted = (prediction.probability > bundle.threshold).cpu().numpy()
        for number, area_m2 in enumerate(shapely.area(prediction.rows.geometry.to_numpy())):
            tile = (predicted[number], target[number], valid[number])
            pixel_m2 = float(area_m2) / _pixels_of_scene(*tile[1:])
            sizes += SizeCounts.of(Comparison.of(*tile), pixel_m2=pixel_m2)
            ground_m2 += float((valid[number] & (target[number] <= 1)).sum() * pixel_m2)
    views = views_by_place(bundle, store, tiles, device=device, batch_size=batch_size) if bundle.decisions else ()
    decided = count_decided(views, bundle.decisions)
    return HeldOut(pixels=pixels, sizes=sizes, ground_m2=ground_m2, decided=decided)


def write_tables(out: Path, planned: Sequence[Fit]) -> None:
    """Write metrics.parquet of finished trainings, fits.parquet of planned ones."""
    rows, logs = [], []
    for fit in planned:
        identity: dict[str, Any] = {"fold": fit.fold.name, "configuration": fit.setting.name, "seed": fit.seed}
        changes = {key: _readable(value) for key, value in fit.setting.changes}
        held_out = {"test": list(fit.fold.test), "validation": list(fit.fold.validation)}
        row = {**identity, **changes, **held_out, "folder": str(fit.folder), "finished": False}
        result = _read_result(out, fit)
        if result is not None:
            log = pd.read_csv(out / fit.folder / "metrics.csv")
            log = log.assign(number=(log["split"] == "train").cumsum())  # epochs of all phases, from 1
            chosen = log[("phase " + log["phase"] + ", epoch " + log["epoch"].astype(str)) == result.pop("from")]
            for name in ("decided", "decisions"):  # whose keys differ between trainings
                result[name] = json.dumps(result.get(name) or {})
            row |= result | {"finished": True, "phase": chosen["phase"].iloc[0], "epoch": int(chosen["number"].iloc[0])}
            long = log.drop(columns="epoch").rename(columns={"number": "epoch"})
            long = long.melt(_LOG, var_name="metric", value_name="value").dropna(subset="value")
            logs.append(long.assign(**identity))
        rows.append(row)
    columns = [*_KEYS, *_LOG, "metric", "value"]
    metrics = pd.concat(logs)[columns] if logs else pd.DataFrame(columns=columns)
    for path, frame in zip(_TABLES, (metrics, pd.DataFrame(rows)), strict=True):
        with atomic(out / path) as draft:
            frame.to_parquet(draft, index=False)


class _ResultRecord(Record):
    """The fit.json of a finished training."""

    made_from: dict[str, Any]
    bundle: str
    origin: str = Field(alias="from")
    threshold: float
    negative: list[int]
    positive: list[int]
    seconds: float
    sizes: dict[str, list[int]] | None = None  # not counted before 2026-12
    ground_m2: float | None = None
    decided: dict[str, dict[str, int]] | None = None
    decisions: dict[str, dict[str, float]] | None = None


def _read_result(out: Path, fit: Fit) -> dict[str, Any] | None:
    """Read a fit's result as a dict; None where it is unfinished or another fit's."""
    try:
        result = read(out / fit.folder / _RESULT, _ResultRecord)
    except (OSError, ValueError):
        return None
    return result if result.pop("made_from", None) == fit.identity else None


def _deciding(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return, of a configuration as a dict, what decides but grid, seeds and split.

    It must not change when a cross-validation is resumed. Values of grid and seeds are trainings each, which may be
    added.
    """
    settings = {name: resolved.get(name) for name in DECIDING if name != "split"}
    free = ("grid", "seeds")
    settings["crossval"] = {name: value for name, value in resolved.get("crossval", {}).items() if name not in free}
    return settings


def _readable(json_value: str) -> str:
    """Return JSON text for people: a string without quotes, anything else as it is."""
    value = json.loads(json_value)
    return value if isinstance(value, str) else json_value


def _reset_peak_memory(device: torch.device) -> float:
    """Collect garbage, reset the count of peak memory; return the bytes used now.

    They are the GPU's, else this process's.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    return float(forget_peak_memory())


def _peak_memory(device: torch.device) -> float:
    """Return the peak of used bytes since the reset: of the GPU, else of this process."""
    return float(torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory())

"""The bundle that a training makes of its network, and its calibration."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thawmap.config import Config
from thawmap.model.bundle import Bundle, library_versions
from thawmap.model.bundle_folder import load, save
from thawmap.model.metrics.pixels import SCORES
from thawmap.model.network import Traits
from thawmap.train.augment import optional_layers
from thawmap.train.calibration import calibrate
from thawmap.train.decision import choose_decisions
from thawmap.train.log import EpochResult, validation_result
from thawmap.train.split import Split
from thawmap.train.tiles.store import TileStore


def make_bundle(
    network: nn.Module,
    results: Sequence[EpochResult],
    *,
    config: Config,
    store: TileStore,
    split: Split,
    traits: Traits,
    provenance: Mapping[str, Any],
) -> Bundle:
    """Return a network as a bundle, with the scores of its epoch and its provenance.

    Args:
        network: The network, which is left in evaluation mode.
        results: Of the epoch that it is from.
        config: All settings.
        store: The tiles that it was trained on.
        split: Tiles of each part.
        traits: Stride of the network, and whether its answer depends on the whole tile.
        provenance: What is to be said beside configuration, tiles and versions.
    """
    validation = validation_result(results)
    names = ("loss", *SCORES, "object_f1")
    metrics = {f"{result.split}_{name}": result.row()[name] for result in results for name in names}
    metrics["validation_iou_at_threshold"] = validation.score
    regions = {name: sorted({str(region) for region in tiles["region"].dropna()}) for name, tiles in split.parts()}
    return Bundle(
        layers=config.input_layers,
        optional=optional_layers(config.augment.drop, [layer.name for layer in config.input_layers]),
        architecture=config.model.architecture.lower(),
        encoder="" if config.model.has_trees else config.model.encoder,
        tile=store.size,
        stride=traits.stride,
        fixed_tile=traits.fixed_tile,
        fill=config.model.fill,
        thresholds={"paper": 0.5} | ({} if math.isnan(validation.threshold) else {"validation": validation.threshold}),
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        provenance={
            "made_by": "thawmap train",
            **provenance,
            "config": config.as_json(),
            "tile_store": store.identity,
            "versions": library_versions(),
            "regions": regions,
            "tiles": {name: len(tiles) for name, tiles in split.parts()},
        },
        network=network.eval(),
    )


def data_versions(versions: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return versions of sources' data as a dict for provenance; {} without any."""
    return {"data": {name: list(names) for name, names in versions.items()}} if versions else {}


def calibrate_folder(
    out: Path, store: TileStore, split: Split, *, device: torch.device, batch_size: int, report: Callable[[str], None]
) -> None:
    """Calibrate and decide a folder's bundle on validation tiles; write it anew."""
    if split.validation.empty:
        return
    best = replace(load(out), temperature=1.0)
    bundle = calibrate(best, store, split.validation, device=device, batch_size=batch_size)
    decisions = choose_decisions(bundle, store, split.validation, device=device, batch_size=batch_size)
    bundle = replace(bundle, decisions=decisions)
    save(bundle, out)
    if bundle.temperature != 1:
        report(f"calibrated: logits are divided by {bundle.temperature:g}, threshold {bundle.threshold:.2f}")

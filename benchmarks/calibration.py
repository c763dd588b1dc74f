"""What calibration does on regions that a model has never seen: error before and after, from one bundle.

python benchmarks/calibration.py MODEL YAML [--tiles STORE]

MODEL is a bundle that `thawmap train YAML --out MODEL` made; its validation and test tiles are looked at once.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from thawmap.config import load as load_config
from thawmap.model.bundle_folder import load
from thawmap.model.metrics.pixels import best_threshold, calibration_error, plateau_threshold, scores
from thawmap.train.calibration import LogitHistogram, logits_by
from thawmap.train.split import split_tiles
from thawmap.train.tiles.store import TileStore


def row(name: str, part: str, counted: LogitHistogram, temperature: float, threshold: float) -> None:
    """Print a line of the table."""
    seen = counted.histogram(temperature)
    share = seen.positive.sum() / seen.total
    hundredths = np.arange(101) / 100
    mean = (seen.positive + seen.negative) @ hundredths / seen.total
    reached = [scores(seen.counts(value))["iou"] for value in (threshold, best_threshold(seen))]
    numbers = (share, mean, calibration_error(seen), counted.loss(temperature))
    told = " | ".join(f"{number:.4f}" for number in numbers)
    chosen, best = f"{threshold:.2f} | {reached[0]:.3f}", f"{best_threshold(seen):.2f} | {reached[1]:.3f}"
    print(f"| {name} | {part} | {told} | {chosen} | {best} |")


def main() -> None:
    """Look at validation and test tiles, and print a row for each region, before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("yaml", type=Path)
    parser.add_argument("--tiles", type=Path)
    asked = parser.parse_args()
    bundle, config = load(asked.model), load_config(asked.yaml)
    store = TileStore.open(asked.tiles or asked.model / "tiles")
    split = split_tiles(store.index, config.split)
    plain = replace(bundle, temperature=1.0)
    print(f"temperature {bundle.temperature:g}, from {', '.join(config.split.validation)}", file=sys.stderr)
    print("| region | | slump share | mean probability | ECE | cross-entropy | threshold | IoU | best | IoU |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    looked_at = {
        part: logits_by("region", plain, store, dict(split.parts())[part], device=torch.device("cpu"), batch_size=8)
        for part in ("validation", "test")
    }
    chosen = plateau_threshold([one.histogram(1.0) for one in looked_at["validation"].values()])
    for part, regions in looked_at.items():
        for name, counted in sorted(regions.items()):
            row(f"{name} ({part})", "before", counted, 1.0, chosen)
            row(f"{name} ({part})", "after", counted, bundle.temperature, bundle.threshold)


if __name__ == "__main__":
    main()

"""Boosted trees: processor time for a million pixels, of their layers and of themselves.

python benchmarks/boosting.py MODEL [side of the image in pixels]

MODEL is a bundle of boosting. Its layers are derived from made-up bands, slope and relative elevation of 10 m.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from thawmap.data.derive import derive, plan_layers
from thawmap.model.bundle_folder import load
from thawmap.model.network import probability

READ = ("blue", "green", "red", "nir", "slope", "relative_elevation")


def seconds(work: Callable[[], object], pixels: int) -> float:
    """Processor time for a million pixels, the best of three runs."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return 1e6 * min(times) / pixels


def main() -> None:
    """Print seconds of a processor for a million pixels."""
    side = int(sys.argv[2]) if len(sys.argv) > 2 else 1024
    bundle, rng, pixels = load(Path(sys.argv[1])), np.random.default_rng(0), side**2
    rough = {name: ndimage.gaussian_filter(rng.uniform(0, 2, (side, side)), 2).astype(np.float32) for name in READ}
    layers = {name: values * (0.2 if name in READ[:4] else 20) for name, values in rough.items()}
    names = [layer.name for layer in bundle.layers]
    _, derived = plan_layers(names, available=frozenset(READ))
    usable = np.ones((side, side), bool)
    made = derive(layers, derived, usable=usable, pixel_m=10.0)
    image = torch.from_numpy(np.stack([made[name] for name in names])[None])
    of_layers = seconds(lambda: derive(layers, derived, usable=usable, pixel_m=10.0), pixels)
    with torch.inference_mode():
        of_trees = seconds(lambda: probability(bundle.network, image, bundle.reading), pixels)
    trees = bundle.network.trees
    nodes = sum(len(tree.layer) for tree in trees)
    print(f"{len(names)} layers: {of_layers:.2f} s; {len(trees)} trees of {nodes} nodes: {of_trees:.2f} s")
    print(f"together {of_layers + of_trees:.2f} s: {1 / (of_layers + of_trees):.2f} million pixels a second and core")


if __name__ == "__main__":
    main()

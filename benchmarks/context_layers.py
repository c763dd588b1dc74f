"""Context layers: processor time for a million pixels and layer, each alone and many together.

python benchmarks/context_layers.py [side of the image in pixels]

Each is made of an image with gaps, where counting costs most, and of one without. Alone, a layer pays for its running
sums; together they share them.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from thawmap.data.derive import derive, plan_layers

PIXEL_M = 10.0
BASES = ("ndvi", "visible", "nir", "redness", "slope")
STATISTICS = ("mean_15m", "minus_mean_40m", "minus_mean_100m", "minus_mean_250m", "deviation_30m", "gradient_15m")
WATER = ("water_share_150m", "water_distance_300m")
READ = ("blue", "green", "red", "nir", "slope")


def image(side: int, *, gaps: bool) -> dict[str, np.ndarray]:
    """Smooth layers (y, x) by name, some with a gap."""
    rng = np.random.default_rng(0)
    layers = {name: ndimage.gaussian_filter(rng.uniform(0, 1, (side, side)), 3).astype(np.float32) for name in READ}
    if gaps:
        for values in layers.values():
            values[side // 3 : side // 2, : side // 3] = np.nan
    return layers


def seconds(layers: dict[str, np.ndarray], names: Sequence[str]) -> float:
    """Processor time for a million pixels, the best of three runs."""
    _, derived = plan_layers(names, available=frozenset(READ))
    usable, times = np.ones(layers["red"].shape, bool), []
    for _ in range(3):
        begin = time.process_time()
        derive(layers, derived, usable=usable, pixel_m=PIXEL_M)
        times.append(time.process_time() - begin)
    return 1e6 * min(times) / usable.size


def main() -> None:
    """Print seconds per million pixels of single layers, and of many."""
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    for gaps in (False, True):
        layers = image(side, gaps=gaps)
        print(f"{side} x {side} px, {'with' if gaps else 'without'} gaps")
        for name in (*(f"slope_{statistic}" for statistic in STATISTICS), *WATER):
            print(f"  {name:24} {seconds(layers, [name]):.3f} s")
        names = [f"{base}_{statistic}" for base in BASES for statistic in STATISTICS]
        together = seconds(layers, [*names, *WATER])
        print(f"  {len(names) + 2} together: {together:.3f} s, {together / (len(names) + 2):.4f} s each")


if __name__ == "__main__":
    main()

"""What a second worker saves: the same cross-validation by one process and by two, one thread each, in one run.

python benchmarks/crossval.py [REGIONS] [PIXELS] [EPOCHS]

The simulated Arctic is cut into tiles once, outside of the times; each time is of a whole `thawmap crossval`, from its
start to its report, and starting two processes is part of it. Rounds take turns, and the mean counts.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS, TARGET = 2, 0.6
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def thawmap(*words: object) -> float:
    """Seconds that a command takes."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "thawmap", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | ONE_THREAD)
    return time.perf_counter() - begin


def settings(epochs: int) -> list[str]:
    """A U-Net and a U-Net++ for each region, all tiles."""
    chosen = (
        "tiles={size: 64, overlap: 8}",
        f"training.phases=[{{name: all, epochs: {epochs}}}]",
        "training.device=cpu",
        "crossval.grid={model.architecture: [unet, unetplusplus]}",
    )
    return [word for one in chosen for word in ("--set", one)]


def main(regions: int = 4, pixels: int = 256, epochs: int = 8) -> None:
    """Print the times of one and two workers, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        thawmap("simulate", place / "arctic", "--regions", regions, "--scenes", 1, "--size", pixels)
        yaml, tiles, chosen = place / "arctic" / "thawmap.yaml", place / "tiles", settings(epochs)
        thawmap("tiles", yaml, "--out", tiles, *chosen)
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for number in range(ROUNDS):
            for workers, found in seconds.items():
                out = place / f"{workers}-{number}"
                rest = ("--out", out, "--tiles", tiles, "--set", f"engine.workers={workers}")
                found.append(thawmap("crossval", yaml, *rest, *chosen))
    means = {workers: statistics.fmean(found) for workers, found in seconds.items()}
    print(f"{2 * regions} trainings of {epochs} epochs each, one thread each")
    for workers, found in seconds.items():
        each = ", ".join(f"{one:.1f}" for one in found)
        print(f"{workers} worker{'s' if workers > 1 else ' '}   {means[workers]:6.1f} s   ({each})")
    print(f"ratio       {means[2] / means[1]:6.2f}     (target: at most {TARGET})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

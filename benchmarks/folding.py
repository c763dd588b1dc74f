"""A network alone: as it was trained, folded (`thawmap.model.backends.folding`), and with freed memory kept.

python benchmarks/folding.py --side 1760 --architecture unet

Every way runs in a process of its own, in turn; printed are the seconds for a million pixels of an image of ten layers,
the median of all runs but the first of each process. Random weights, float32.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from thawmap.model.backends import open as backends
from thawmap.model.backends import openvino, tracing
from thawmap.pipeline._speeds import random_bundle

WAYS = {
    "eager, as trained": ("eager", "plain", "freed"),
    "eager, folded": ("eager", "folded", "freed"),
    "eager, folded, memory kept": ("eager", "folded", "kept"),
    "openvino, as trained": ("openvino", "plain", "freed"),
    "openvino, folded": ("openvino", "folded", "freed"),
    "openvino, folded, memory kept": ("openvino", "folded", "kept"),
}
RUNS = 4


def opened(architecture: str, backend: str, form: str) -> backends.Backend:
    """A network with random weights, ready to run."""
    bundle = random_bundle(architecture)
    if form == "plain":
        backends.folded = tracing.folded = lambda network, *, channels: network  # noqa: ARG005
    if backend == "eager":
        return backends.open_unchecked(bundle, torch.device("cpu"), "eager", "float32")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "converted" / "network.xml"
        tracing.trace(bundle, path)
        return openvino.OpenVinoBackend(path, "float32", bundle.fill)


def seconds(network: backends.Backend, side: int) -> list[float]:
    """For a million pixels, each run but the first."""
    image = np.random.default_rng(0).random((1, 10, side, side), np.float32) * 0.3
    taken = []
    for _ in range(1 + RUNS):
        begin = time.perf_counter()
        network(image)
        taken.append((time.perf_counter() - begin) / side**2 * 1e6)
    return taken[1:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1760)
    parser.add_argument("--architecture", default="unet")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", choices=list(WAYS))
    options = parser.parse_args()
    if options.run:
        backend, form, _ = WAYS[options.run]
        print(json.dumps(seconds(opened(options.architecture, backend, form), options.side)))
        return
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(options.repeats):
        for name, (_, _, memory) in WAYS.items():
            keep = "from thawmap.system import keep_freed_memory; keep_freed_memory(); " if memory == "kept" else ""
            script = (
                f"import sys; {keep}import runpy; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
            )
            words = ["--run", name, "--side", str(options.side), "--architecture", options.architecture]
            command = [sys.executable, "-c", script, __file__, *words]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name] += json.loads(done.stdout.splitlines()[-1])
    for name, taken in found.items():
        print(f"{name:32} {statistics.median(taken):.3f} s for a million pixels")


if __name__ == "__main__":
    main()

"""Backends on this machine: seconds and memory per pixel, and how near they come to what the machine can multiply.

python benchmarks/backends.py --architectures unet unetplusplus deeplabv3 --sides 1024 1760 --json backends.json

Networks have ten layers, ResNet-34 and random weights. Backends of one network take turns in one process, after a first
run that is not counted; what is printed is the median of `--repeats`, and the seconds of processor time, which hold
where something else keeps the machine busy. The limit is the operations per pixel (counted by PyTorch, one
multiplication and one addition are two) over the rate of a product of two matrices of 4096 x 4096, by the faster of
PyTorch and OpenVINO, in the same turns. Memory is the peak of a process of its own for each backend, less what it held
after an image of 128 px, and less the image.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thawmap.layers import PAPER_LAYERS, layer
from thawmap.model.backends.agreement import synthetic_image
from thawmap.model.backends.memory import bytes_per_pixel
from thawmap.model.backends.open import open_backend
from thawmap.model.backends.openvino import convert, import_openvino
from thawmap.model.backends.speed import operations_per_pixel
from thawmap.model.bundle import Bundle
from thawmap.pipeline._speeds import random_bundle

LAYERS = tuple(layer(name) for name in PAPER_LAYERS)
MATRIX = 4096
WAYS = ("eager", "compile", "openvino", "eager bfloat16", "openvino bfloat16")


def opened(bundle: Bundle, way: str) -> Callable[[Any], Any]:
    """A backend by name and precision; bfloat16 is not checked: random weights answer nearly one thing."""
    backend, _, precision = way.partition(" ")
    if not precision:
        return open_backend(bundle, device="cpu", backend=backend)
    eager = open_backend(bundle, device="cpu")
    if backend == "eager":
        return type(eager)(eager.answer, eager.device, "bfloat16")
    return type(open_backend(bundle, device="cpu", backend="openvino"))(convert(bundle), "bfloat16")


def products() -> dict[str, Callable[[], Any]]:
    """Products of two matrices, by library."""
    openvino = import_openvino()
    left, right = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    operations = openvino.opset13
    given = operations.parameter([MATRIX, MATRIX], np.float32)
    model = openvino.Model([operations.matmul(given, operations.constant(right.numpy()), False, False)], [given])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return {"matrix product, torch": lambda: left @ right, "matrix product, openvino": lambda: compiled(left.numpy())}


def times(architecture: str, side: int, ways: list[str], repeats: int) -> dict[str, Any]:
    """Median seconds and processor seconds of every way, in turns."""
    bundle, image = random_bundle(architecture), synthetic_image(LAYERS, side)
    backends = {way: opened(bundle, way) for way in ways}
    tasks = {way: lambda one=one: one(image) for way, one in backends.items()} | products()
    truth = open_backend(bundle, device="cpu")(image)
    for way in ways:
        print(f"  {way}: differs by up to {np.abs(backends[way](image) - truth).max():.1e}", file=sys.stderr)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            begin, worked = time.perf_counter(), time.process_time()
            task()
            if repeat:
                runs[name].append((time.perf_counter() - begin, time.process_time() - worked))
    medians = {name: [statistics.median(found) for found in zip(*each, strict=True)] for name, each in runs.items()}
    return {"operations": operations_per_pixel(bundle), "runs": medians}


def peak(architecture: str, side: int, way: str) -> dict[str, float]:
    """Bytes per pixel and MB of this process."""
    backend = opened(random_bundle(architecture), way)
    backend(synthetic_image(LAYERS, 128))
    image = np.random.default_rng(0).random((1, len(LAYERS), side, side), np.float32)  # and nothing beside it
    before = memory("VmRSS") - image.nbytes
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    backend(image)
    backend(image)
    return {"MB": memory("VmHWM") / 1e6, "bytes": (memory("VmHWM") - before - image.nbytes) / side**2}


def memory(what: str) -> int:
    """Bytes of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024


def aside(options: argparse.Namespace, *what: str) -> Any:
    """The answer of a process of its own."""
    command = [sys.executable, __file__, "--threads", str(options.threads), "--repeats", str(options.repeats)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run([*command, "--inside", *what], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


def show(architecture: str, side: int, found: dict[str, Any], peaks: dict[str, Any]) -> None:
    """The table of one network."""
    pixels = side**2 / 1e6
    rates = {name: 2 * MATRIX**3 / run[0] for name, run in found["runs"].items() if name.startswith("matrix")}
    limit = found["operations"] * 1e6 / max(rates.values())
    rated = ", ".join(f"{rate / 1e9:.0f} GFLOP/s by {name.split()[-1]}" for name, rate in rates.items())
    print(f"\n{architecture}, {side} px: {found['operations'] / 1e3:.0f} thousand operations per pixel; {rated}")
    print(f"{'':20}{'s/Mpx':>8}{'cpu s/Mpx':>11}{'of limit':>10}{'B/px':>7}{'planned':>9}{'MB':>7}")
    bundle = random_bundle(architecture)
    for way, (wall, cpu) in found["runs"].items():
        if way in rates:
            continue
        backend, _, precision = way.partition(" ")
        planned = bytes_per_pixel(bundle, backend, "bfloat16" if precision else "float32")
        row = f"{way:20}{wall / pixels:8.2f}{cpu / pixels:11.2f}{limit / (wall / pixels):10.2f}"
        print(f"{row}{peaks[way]['bytes']:7.0f}{planned:9}{peaks[way]['MB']:7.0f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=["unet"])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024])
    parser.add_argument("--backends", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.inside:
        architecture, side, *ways = options.inside
        many = ways[0] == "times"
        found = (
            times(architecture, int(side), ways[1:], options.repeats) if many else peak(architecture, int(side), *ways)
        )
        print(json.dumps(found))
        return
    results = {}
    for architecture in options.architectures:
        for side in options.sides:
            place = (architecture, str(side))
            found = aside(options, *place, "times", *options.backends)
            peaks = {way: aside(options, *place, way) for way in options.backends}
            show(architecture, side, found, peaks)
            results[f"{architecture} {side}"] = found | {"peaks": peaks}
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""Processor time from the start of a command to its answer, as ratios that another machine has too.

What a command loads decides it, so seconds of the processor are counted, not of the clock: the least of some runs.

python benchmarks/startup.py
"""

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import torch
from affine import Affine

from thawmap.config import ModelSettings
from thawmap.layers import layer
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import save
from thawmap.model.network import build, traits

REPEATS = 5
LAYERS = ("blue", "green", "red", "nir", "ndvi")
BANDS = ", ".join(f"{name}: {{band: {band}, scale: 0.0001}}" for band, name in enumerate(LAYERS[:4], start=1))
YAML = (
    f'scenes: {{kind: rasters, path: "*.tif", files: {{"{{name}}.tif": {{{BANDS}}}}}}}\nlayers: [{", ".join(LAYERS)}]\n'
)
WRONG = ("--set", "tiles.sise=3")
HELP, SCHEMA, TORCH = "thawmap --help", "thawmap config --schema", "import torch"

UNTIL_READ = """
import os, sys
import thawmap.infer.predict as predicting
predicting._read = lambda *_: os._exit(0)
from thawmap.cli import _run
_run(sys.argv[1:])
"""
"""The command line, until the first window of a scene is read."""


def seconds(*words: object, until_read: bool = False, repeats: int = REPEATS) -> float:
    """Processor time of a command line in its own process; ``until_read`` ends it at the first window."""
    program = ("-c", UNTIL_READ) if until_read else ("-m", "thawmap")
    return processor_time([*program, *map(str, words)], repeats)


def processor_time(words: Sequence[str], repeats: int = REPEATS) -> float:
    """The least that a Python process takes, of all its threads, in some runs after one that fills the caches."""
    taken = []
    for _ in range(repeats + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=False, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken[1:] or taken)


def prepare(folder: Path) -> Path:
    """Write a scene of 512 px, a YAML and bundles of two networks; the path of the YAML."""
    values = np.random.default_rng(0).integers(300, 3000, (4, 512, 512)).astype(np.uint16)
    place = {"crs": "EPSG:32608", "transform": Affine(3, 0, 500_000, 0, -3, 7_700_000)}
    with rasterio.open(
        folder / "a.tif", "w", driver="GTiff", count=4, height=512, width=512, dtype="uint16", **place
    ) as file:
        file.write(values)
    for architecture in ("pixel", "unet"):
        torch.manual_seed(0)
        network = build(ModelSettings(architecture=architecture), channels=len(LAYERS)).eval()
        about = traits(network, channels=len(LAYERS))
        save(
            Bundle(
                layers=tuple(map(layer, LAYERS)), architecture=architecture, encoder="resnet34", tile=256,
                stride=about.stride, fixed_tile=about.fixed_tile, network=network,
            ),
            folder / architecture,
        )  # fmt: skip
    (folder / "thawmap.yaml").write_text(YAML, encoding="utf-8")
    return folder / "thawmap.yaml"


def main() -> None:
    """Measure and print."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        yaml, model = prepare(folder), ("--model", folder / "pixel", "--out", folder / "maps")
        verbs: dict[str, Sequence[object]] = {
            "config": (yaml,), "scenes": (yaml,), "labels": (yaml,), "tiles": (yaml, "--out", folder / "tiles"),
            "train": (yaml, "--out", folder / "x"), "crossval": (yaml, "--out", folder / "x"),
            "tune": (yaml, "--out", folder / "x"), "predict": (yaml, *model),
            "evaluate": (folder, "--config", yaml, "--out", folder / "x"),
            "fuse": (folder, "--config", yaml, "--out", folder / "x"), "bench": ("--config", yaml),
        }  # fmt: skip
        base = seconds("--help")
        print(f"{HELP:<44} {base:6.2f} s of the processor")
        print(f"{SCHEMA:<44} {seconds('config', '--schema') / base:6.1f} x")
        for verb, words in verbs.items():
            print(f"{f'a wrong key, told by thawmap {verb}':<44} {seconds(verb, *words, *WRONG) / base:6.1f} x")
        print(f"{'thawmap scenes, one scene of 512 px':<44} {seconds('scenes', yaml) / base:6.1f} x")
        torch_alone = processor_time(["-c", TORCH])
        print(f"{TORCH:<44} {torch_alone:6.2f} s of the processor")
        for network in ("pixel", "unet"):
            words = ("predict", yaml, "--model", folder / network, "--out", folder / "maps")
            ratio = seconds(*words, until_read=True) / torch_alone
            print(f"{f'thawmap predict, until it reads ({network})':<44} {ratio:6.2f} x")
        ready = ("--set", "inference.backend=openvino", "--set", "inference.device=cpu")
        words = ("predict", yaml, "--model", folder / "unet", "--out")
        seconds(*words, folder / "first", *ready, repeats=0)  # which converts the network
        ratio = seconds(*words, folder / "maps", *ready, until_read=True) / torch_alone
        print(f"{'the same, OpenVINO has the U-Net ready':<44} {ratio:6.2f} x")


if __name__ == "__main__":
    main()

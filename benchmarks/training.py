"""Training: tiles per second of our loop against a plain one, and peak memory by architecture.

python benchmarks/training.py --work /tmp/training --json training.json
python benchmarks/training.py --precision float32

A simulated project is made in the work folder when it is not there, its tiles are cut, and its scenes are written as
plain GeoTIFFs too: bands, NDVI, elevation, slope, trends, usable pixels and labels, one file each, tiled and deflated.

Both loops train the same network (random weights, focal loss, Adam, batches of 6 tiles of 256 px with 10 layers) on the
same tiles with the paper's augmentation, in turns, each in a process of its own with the same number of threads; the
first pass of each warms up and is not counted. The plain loop is what most people write first: for every sample it
opens the files, reads the window with rasterio, scales, flips, turns and blurs in numpy, one after the other in the
thread that trains; float32, PyTorch's default memory format, and the loss fetched at every step. Ours is
`thawmap.train.learner`, with all that it counts. On a busy machine compare the seconds of the processor, which do not
see what others do.

Peak memory is that of a process of its own for each architecture, all libraries included, over a few steps (Linux).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
import segmentation_models_pytorch as smp
import torch
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

import thawmap
from thawmap.config import Config, load
from thawmap.data.project import Project
from thawmap.data.stack import assemble
from thawmap.layers import Layer
from thawmap.model.backends.devices import find_device
from thawmap.system import keep_freed_tensors
from thawmap.train.devices import fabric_of, precision
from thawmap.train.learner import Epoch, Learner
from thawmap.train.tiles.store import TileStore

SPEED = ("unet", "unetplusplus")
MEMORY = ("unet", "unetplusplus", "deeplabv3")
FILES = {
    "bands": ("blue", "green", "red", "nir"),
    "ndvi": ("ndvi",),
    "relative_elevation": ("relative_elevation",),
    "slope": ("slope",),
    "trends": ("tc_brightness", "tc_greenness", "tc_wetness"),
}
STEPS = 10000  # of a layer's range in its file


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    options = _options()
    torch.set_num_threads(options.threads)
    yaml = options.work / "project" / "thawmap.yaml"
    if not yaml.exists():
        thawmap.simulate(yaml.parent, regions=2, scenes=1, size=options.size)
    if options.peak is not None:
        print(json.dumps(peak(_config(yaml, options, options.peak), options.work / "tiles")))
        return
    config = _config(yaml, options, SPEED[0])
    thawmap.tiles(config, options.work / "tiles")
    write_scenes(Project(config), options.work / "scenes")
    found: dict[str, Any] = {"threads": options.threads, "precision": options.precision, "torch": torch.__version__}
    found["speed"] = {name: compare(_config(yaml, options, name), options) for name in options.architectures}
    found["peak_gb"] = {name: _measured_peak(name, options) for name in MEMORY} if options.memory else {}
    print(_table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/thawmap-training"))
    parser.add_argument("--size", type=int, default=1024, help="side of a simulated scene in pixels")
    parser.add_argument("--batches", type=int, default=4, help="batches of a pass")
    parser.add_argument("--repeats", type=int, default=3, help="passes that count")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--compile", action="store_true", help="compile our network")
    parser.add_argument("--architectures", nargs="+", default=SPEED)
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    return parser.parse_args()


def _config(yaml: Path, options: argparse.Namespace, architecture: str) -> Config:
    phases, compiled = "[{name: all, epochs: 100}]", str(options.compile).lower()
    about = f"device: {options.device}, precision: {options.precision}, compile: {compiled}"
    overrides = [
        "tiles={size: 256, overlap: 64, min_valid: 0.5}",
        f"model={{architecture: {architecture}, encoder: resnet34}}",
        "augment={}",
        f"training={{batch_size: 6, {about}, phases: {phases}}}",
    ]
    return load(yaml, overrides=overrides)


def write_scenes(project: Project, folder: Path) -> None:
    """Every scene as plain GeoTIFFs: layers as steps of their range in 16 bits, 65535 = missing."""
    layers = {layer.name: layer for layer in project.config.input_layers}
    for candidate in project.candidates():
        scene = project.open(candidate)
        place = folder / scene.id
        if (place / "target.tif").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        stack = assemble(scene, list(layers), scene.geobox, project.sources)
        for file, names in FILES.items():
            planes = [_encoded(stack[name], layers[name]) for name in names]
            _write(place / f"{file}.tif", np.stack(planes), scene.geobox)
        _write(place / "valid.tif", stack["valid"].astype(np.uint8)[np.newaxis], scene.geobox)
        _write(place / "target.tif", project.labels.burn(scene, scene.geobox)[np.newaxis], scene.geobox)


def _encoded(values: npt.NDArray[np.float32], layer: Layer) -> npt.NDArray[np.uint16]:
    steps = (values - layer.low) / (layer.high - layer.low) * STEPS + STEPS
    return np.where(np.isnan(steps), 65535, np.clip(np.nan_to_num(steps), 0, 65534)).astype(np.uint16)


def _write(path: Path, values: npt.NDArray[Any], geobox: Any) -> None:
    about = {"driver": "GTiff", "count": len(values), "dtype": values.dtype, "compress": "deflate", "tiled": True}
    height, width = values.shape[1:]
    with rasterio.open(
        path, "w", height=height, width=width, crs=str(geobox.crs), transform=geobox.affine, **about
    ) as file:
        file.write(values)


@dataclass
class Plain:
    """The loop that most people write first."""

    scenes: Path
    config: Config
    device: torch.device

    def __post_init__(self) -> None:
        """The network, its loss and its optimiser."""
        torch.manual_seed(0)
        self.rng = np.random.default_rng(0)
        model = self.config.model
        channels = len(self.config.input_layers)
        self.network = smp.create_model(model.architecture, model.encoder, None, channels, 1).to(self.device).train()
        self.loss = smp.losses.FocalLoss("binary", gamma=2.0, ignore_index=255)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=0.001)

    def __call__(self, tiles: pd.DataFrame) -> None:
        """One pass over the tiles."""
        for images, targets in self._batches(tiles):
            answer = self.network(images.to(self.device))
            loss = self.loss(answer, targets.to(self.device).unsqueeze(1))
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            loss.item()

    def _batches(self, tiles: pd.DataFrame) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order, size = self.rng.permutation(len(tiles)), self.config.training.batch_size
        for first in range(0, len(tiles), size):
            samples = [self.sample(row) for row in tiles.iloc[order[first : first + size]].itertuples()]
            images, targets = zip(*samples, strict=True)
            yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets)).long()

    def sample(self, row: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """A tile (C, H, W), 0..1, and its target (H, W), both augmented."""
        size = self.config.tiles.size
        window = Window(row.col, row.row, size, size)
        read = {}
        for name in (*FILES, "valid", "target"):
            with rasterio.open(self.scenes / row.scene / f"{name}.tif") as file:
                read[name] = file.read(window=window)
        codes = np.concatenate([read[name] for name in FILES])
        image = np.clip((codes.astype(np.float32) - STEPS) / STEPS, 0, 1)
        image[codes == 65535] = 0
        target = np.where(read["valid"][0] == 1, read["target"][0], 255)
        for axis in (1, 2):
            if self.rng.random() < 0.5:
                image, target = np.flip(image, axis), np.flip(target, axis - 1)
        if self.rng.random() < 0.5:
            turns = int(self.rng.integers(1, 4))
            image, target = np.rot90(image, turns, (1, 2)), np.rot90(target, turns)
        if self.rng.random() < 0.5:
            reach = int(self.rng.integers(1, 3))
            image = gaussian_filter(
                image, (0, 0.3 * (reach - 1) + 0.8, 0.3 * (reach - 1) + 0.8), radius=(0, reach, reach)
            )
        return np.ascontiguousarray(image, dtype=np.float32), np.ascontiguousarray(target)


class Ours:
    """The loop of thawmap."""

    def __init__(self, config: Config, tiles: Path) -> None:
        """A learner at the begin of its phase."""
        torch.manual_seed(0)
        keep_freed_tensors()
        self.store = TileStore.open(tiles)
        self.learner = Learner.of(self.store, config, fabric_of(config.training))
        self.phase = config.training.phases[0]
        self.learner.begin_phase(self.phase)
        self.done = 0

    def __call__(self, tiles: pd.DataFrame) -> None:
        """One epoch of the tiles."""
        self.done += 1
        self.learner.train(Epoch(phase=self.phase, position=(0, self.done), tiles=tiles, history=()))


def compare(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Tiles in a second of both loops, by the clock and by the processor, and how often ours is faster."""
    number = options.batches * config.training.batch_size
    index = TileStore.open(options.work / "tiles").index
    tiles = index.sample(number, random_state=0, replace=len(index) < number)
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "ours": []}
    with ExitStack() as stack:
        loops = {name: stack.enter_context(_process(name, config, options)) for name in taken}
        for _ in range(options.repeats + 1):
            for name, loop in loops.items():
                taken[name].append(loop.submit(_pass, tiles).result())
    found: dict[str, Any] = {}
    for place, measure in enumerate(("clock", "processor")):
        seconds = {name: statistics.median(one[place] for one in every[1:]) for name, every in taken.items()}
        found[measure] = {name: number / one for name, one in seconds.items()}
        found[f"ratio_{measure}"] = seconds["plain"] / seconds["ours"]
    settings, device = config.training, find_device(config.training.device)
    return found | {"device": device.type, "precision": precision(settings, device)}


def _process(name: str, config: Config, options: argparse.Namespace) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), _begin, (name, config, options.work, options.threads))


_loop: dict[str, Callable[[pd.DataFrame], None]] = {}


def _begin(name: str, config: Config, work: Path, threads: int) -> None:
    """Make a loop in a process of its own."""
    torch.set_num_threads(threads)
    device = find_device(config.training.device)
    made = Ours(config, work / "tiles") if name == "ours" else Plain(work / "scenes", config, device)
    _loop["here"] = made


def _pass(tiles: pd.DataFrame) -> tuple[float, float]:
    """Seconds of one pass by the clock and by the processor."""
    begin = time.perf_counter(), time.process_time()
    _loop["here"](tiles)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def peak(config: Config, tiles: Path) -> dict[str, float]:
    """Most memory of this process over some steps, in GB."""
    ours = Ours(config, tiles)
    ours(ours.store.index.sample(18, random_state=0, replace=True))
    if ours.learner.fabric.device.type == "cuda":
        return {"peak_gb": torch.cuda.max_memory_allocated() / 1e9}
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return {"peak_gb": next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM"))}


def _measured_peak(name: str, options: argparse.Namespace) -> float:
    words = [sys.executable, __file__, "--work", str(options.work), "--peak", name, "--device", options.device]
    words += ["--threads", str(options.threads), "--precision", options.precision]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_gb"])


def _table(found: dict[str, Any]) -> str:
    lines = [f"{found['threads']} thread(s), torch {found['torch']}"]
    lines.append(f"{'tiles in a second':<16} {'':<12} {'plain':>8} {'ours':>8} {'ratio':>7}")
    for name, one in found["speed"].items():
        for measure in ("clock", "processor"):
            speed = one[measure]
            lines.append(
                f"{name:<16} {measure:<12} {speed['plain']:8.2f} {speed['ours']:8.2f} {one[f'ratio_{measure}']:7.2f}"
                f"   {one['device']}, {one['precision']}"
            )
    lines += [f"peak memory of {name:<16} {size:6.2f} GB" for name, size in found["peak_gb"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""The tile store: how fast scenes are cut, how much they take, and how fast random tiles are read for training.

python benchmarks/tiles.py --work /tmp/tiles --json tiles.json
python benchmarks/tiles.py --work /tmp/tiles --project my/thawmap.yaml

A simulated project is made in the work folder when it is not there. Cutting runs in a process of its own, timed after
its imports, from files in the page cache; memory is the peak of that process when it does the work itself (Linux only),
GDAL's cache and all libraries included.

Reading is timed in one run, the ways in turn, each the median of `--repeats` passes over the same random tiles:
"sources" assembles each tile's window from the source GeoTIFFs and burns its labels, as a training without a store
would have to; "one file" only reads the window of the scene's own bands, held open, with rasterio: no mask, elevation,
trends, labels or scaling; "store" reads the tile, "decoded" makes float32 layers in physical units of it as well, with
NDVI, in PyTorch on one thread.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import rasterio
import torch
from rasterio.windows import Window as FileWindow

import thawmap
from thawmap.config import Config, load
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.data.stack import as_array, assemble
from thawmap.engine.run import in_order
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.train.tiles.store import TileStore, derive_layers

TILES = "tiles={size: 256, overlap: 25, min_valid: 0.5}"
BATCH = 6  # tiles a step, as the paper's
THREADS = 4  # as the store's readers
WORKERS = (1, 2)


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    options = _options()
    if options.cut is not None:
        print(json.dumps(cut(options.project, options.cut, options.workers)))
        return
    yaml = options.project or options.work / "project" / "thawmap.yaml"
    if not yaml.exists():
        thawmap.simulate(yaml.parent, regions=2, scenes=options.scenes, size=options.size)
    config = load(yaml, overrides=[TILES])
    scenes = [Project(config).open(one) for one in Project(config).candidates()]
    found: dict[str, Any] = {"scene_mpx": sum(scene.geobox.height * scene.geobox.width for scene in scenes) / 1e6}
    for workers in WORKERS:
        store = options.work / f"store-{workers}"
        shutil.rmtree(store, ignore_errors=True)
        command = [sys.executable, __file__, "--cut", store, "--project", yaml, "--workers", str(workers)]
        found[f"cut_{workers}"] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found |= _read(options, config, scenes)
    print(_table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/thawmap-tiles"))
    parser.add_argument("--project", type=Path, help="a YAML of your own instead of simulated scenes")
    parser.add_argument("--scenes", type=int, default=2, help="simulated scenes in each of two regions")
    parser.add_argument("--size", type=int, default=2048, help="side of a simulated scene in pixels")
    parser.add_argument("--tiles", type=int, default=120, help="random tiles that are read")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cut", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def cut(yaml: Path, store: Path, workers: int) -> dict[str, float | None]:
    """Cut a project in this process; seconds, and the peak of memory in GB."""
    config = load(yaml, overrides=[TILES, f"engine.workers={workers}"])
    begin = time.perf_counter()
    thawmap.tiles(config, store)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_gb": _peak_gb() if workers == 1 else None}


def _peak_gb() -> float:
    """Most memory that this process had; unlike rusage it does not count what its parent had before."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM"))


@dataclass(frozen=True, slots=True)
class Windows:
    """Random tiles of a store, and the scenes that they were cut from."""

    config: Config
    scenes: dict[str, Scene]
    project: Project
    rows: pd.DataFrame

    def source(self, row: Any) -> object:
        """A tile as it comes from the sources."""
        scene, names = self.scenes[row.scene], self.project.layers
        size = self.config.tiles.size
        geobox = window_geobox(scene.geobox, Window(row=row.row, col=row.col, height=size, width=size))
        stack = assemble(scene, names, geobox, self.project.sources)
        return as_array(stack, names), stack["valid"], self.project.labels.burn(scene, geobox)

    def bare(self) -> None:
        """The scene's own bands under every tile, from files that stay open."""
        files: dict[Path, Any] = {}
        size = self.config.tiles.size
        for row in self.rows.itertuples():
            scene = self.scenes[row.scene]
            for key in {reading.file for reading in scene.readings.values()}:
                path = scene.files[key]
                file = files.get(path) or files.setdefault(path, rasterio.open(path))
                bands = [reading.band for reading in scene.readings.values() if reading.file == key]
                file.read(bands, window=FileWindow(row.col, row.row, size, size))
        for file in files.values():
            file.close()


def _read(options: argparse.Namespace, config: Config, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Tiles read in a second by every way, and what the store takes."""
    path = options.work / f"store-{WORKERS[0]}"
    store = TileStore.open(path)
    rows = store.index.sample(options.tiles, random_state=0, replace=len(store.index) < options.tiles)
    windows = Windows(config, {scene.id: scene for scene in scenes}, Project(config), rows)
    parts = [rows.iloc[first : first + BATCH] for first in range(0, len(rows), BATCH)]
    stored, wanted = [code.name for code in store.codes], list(windows.project.layers)

    def decoded(part: pd.DataFrame) -> object:
        batch = store.to_device(store.read(part), torch.device("cpu"))
        return derive_layers(batch.image, stored=stored, wanted=wanted)

    ways: dict[str, Callable[[], object]] = {
        "sources": lambda: [windows.source(row) for row in rows.itertuples()],
        "one file": windows.bare,
        "store": lambda: [store.read(part) for part in parts],
        "store, decoded": lambda: [decoded(part) for part in parts],
        "sources, threads": lambda: list(_threaded(windows.source, list(rows.itertuples()))),
        "store, threads": lambda: list(store.stream(parts)),
        "store, threads, decoded": lambda: list(_threaded(decoded, parts)),
    }
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - begin)
    seconds = {name: statistics.median(taken[1:]) for name, taken in times.items()}  # the first fills the caches
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {
        "tiles": len(store.index),
        "store_mb": size / 1e6,
        "layers": stored,
        "milliseconds_per_tile": {name: 1000 * taken / len(rows) for name, taken in seconds.items()},
    }


def _threaded(work: Callable[[Any], object], items: Sequence[Any]) -> Sequence[object]:
    return list(in_order(work, items, threads=THREADS, ahead=THREADS))


def _table(found: dict[str, Any]) -> str:
    lines = [f"{found['scene_mpx']:.1f} million scene pixels, {found['tiles']} tiles, {len(found['layers'])} layers"]
    for workers in WORKERS:
        made = found[f"cut_{workers}"]
        speed = found["scene_mpx"] / made["seconds"]
        memory = f"   {made['peak_gb']:.2f} GB" if made["peak_gb"] else ""
        lines.append(f"cut, {workers} worker(s)        {made['seconds']:7.1f} s   {speed:6.2f} Mpx/s{memory}")
    lines.append(f"store                    {found['store_mb'] / found['scene_mpx']:7.1f} MB per million scene pixels")
    took = found["milliseconds_per_tile"]
    lines.append(f"{'reading a random tile':<24} {'ms':>9}   as fast as from the sources")
    for name, taken in took.items():
        base = took["sources, threads" if "threads" in name else "sources"]
        lines.append(f"{name:<24} {taken:9.2f}   {base / taken:6.1f} x")
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

"""Mapping a scene, from files to finished maps: the published algorithm written down plainly, against thawmap.

python benchmarks/inference.py --work /tmp/inference --side 3333 --memory 3 6 --backends eager openvino
python benchmarks/inference.py --work /tmp/inference --side 3333 --architecture unetplusplus --memory 6
python benchmarks/inference.py --work /tmp/inference --side 16000 --no-reference --repeats 1
python benchmarks/inference.py --work /tmp/inference --side 8000 --half --no-reference
python benchmarks/inference.py --work /tmp/inference --side 3333 --delivery

A scene of ten layers on one grid is made in the work folder when it is not there: smooth random fields with noise,
stored as Cloud-Optimised GeoTIFFs, as images are delivered. The network has the size of a trained one, and random
weights; where it sees a slump is of no meaning. The reference reads the whole scene as float32, asks the network
(PyTorch, eager) for one patch after the other, with a step of patch less margin and the last patch moved back, adds
the answers up with weights that rise over the margin, and writes probability, mask and polygons. Both run in
processes of their own, in turn; seconds are from the first byte read to the last file written, after libraries and
network are loaded and one small window is computed. Memory is the peak of the process. What is printed is the median
of `--repeats`. With `--delivery` the scene is a simulated PlanetScope delivery, with a DEM instead of elevation layers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
import torch
from rasterio.features import shapes
from rasterio.windows import Window as FileWindow
from shapely.geometry import shape

from thawmap.config import load
from thawmap.data.project import Project
from thawmap.layers import PAPER_LAYERS
from thawmap.model import bundle_folder
from thawmap.model.backends.speed import operations_per_pixel, product_rate
from thawmap.model.network import probability
from thawmap.pipeline import _predict_scene
from thawmap.pipeline._speeds import random_bundle
from thawmap.simulate.project import Simulation, simulate

OPTICAL = ("blue", "green", "red", "nir")
STORED = {
    "optical.tif": (OPTICAL, "uint16", 1e-4, 0.0),
    "elevation.tif": (("relative_elevation", "slope"), "uint16", 0.01, 0.0),
    "trends.tif": (("tc_brightness", "tc_greenness", "tc_wetness"), "uint8", 0.24 / 255, -0.12),
}  # file: layers, type, scale, offset
PATCH = 1024
MARGINS = (128, 256)
BLOCK = 512

Floats = npt.NDArray[np.float32]


def make_scene(folder: Path, side: int, *, half: bool = False) -> None:
    """Files of a scene of ``side`` px; with ``half`` a diagonal half of it is nodata, as at a swath's edge."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (layers, dtype, _, _)) in enumerate(STORED.items()):
        profile = {
            "driver": "GTiff", "width": side, "height": side, "count": len(layers), "dtype": dtype, "nodata": 0,
            "crs": "EPSG:32608", "transform": rasterio.Affine(3, 0, 570_000, 0, -3, 7_720_000), "tiled": True,
            "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "predictor": 2,
        }  # fmt: skip
        draft = folder / f"{name}.draft"
        with rasterio.open(draft, "w", **profile) as file:
            for row in range(0, side, BLOCK):
                strip = _fields(number, row, min(BLOCK, side - row), side, len(layers), dtype)
                if half:
                    rows = np.arange(row, row + strip.shape[1])[:, None]
                    strip[:, rows > np.arange(side)] = 0
                file.write(strip, window=FileWindow(0, row, side, strip.shape[1]))
        rasterio.shutil.copy(draft, folder / name, driver="COG", compress="deflate", predictor="yes", blocksize=BLOCK)
        draft.unlink()


def _fields(seed: int, row: int, height: int, side: int, count: int, dtype: str) -> npt.NDArray[Any]:
    """Smooth waves and noise, never 0."""
    random = np.random.default_rng([seed, row])
    y, x = np.arange(row, row + height)[:, None], np.arange(side)
    most = 4000 if dtype == "uint16" else 200
    waves = [
        0.5 + 0.2 * np.sin(x / (37 + 11 * band)) * np.cos(y / (53 + 7 * band)) + 0.1 * np.sin((x + y) / 290)
        for band in range(count)
    ]
    noisy = np.stack(waves) * most + random.normal(0, most / 60, (count, height, side))
    return np.clip(noisy, 1, most).astype(dtype)


def make_project(folder: Path, side: int, *, half: bool) -> Path:
    """The YAML of a scene."""
    name = f"{side}{'-half' if half else ''}"
    place = folder / name
    if not (place / "done").exists():
        make_scene(place / "scene", side, half=half)
        (place / "done").touch()
    lines = [f"project: side-{name}", "scenes:", "  kind: rasters", f"  path: {place}/scene", "  files:"]
    for file, (layers, _, scale, offset) in STORED.items():
        lines.append(f"    {file}:")
        lines += [
            f"      {layer}: {{band: {band}, scale: {scale}, offset: {offset}}}"
            for band, layer in enumerate(layers, start=1)
        ]
    lines.append(f"layers: [{', '.join(PAPER_LAYERS)}]")
    path = place / "thawmap.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_delivery(folder: Path, side: int) -> Path:
    """The YAML of a simulated PlanetScope delivery of 3 m with its DEM of 2 m and trends of 30 m."""
    place = folder / f"{side}-delivery"
    if not (place / "thawmap.yaml").exists():
        simulate(place, Simulation(regions=2, scenes_per_region=1, size=side))
    return place / "thawmap.yaml"


def make_bundle(folder: Path, architecture: str, encoder: str) -> Path:
    """A bundle with random weights, which sees few slumps."""
    place = folder / f"{architecture}-{encoder}"
    if not (place / "bundle.json").exists():
        bundle_folder.save(random_bundle(architecture, encoder), place)
    return place


def reference(project: Path, model: Path, out: Path, margin: int) -> dict[str, float]:
    """The published algorithm, plainly."""
    bundle = bundle_folder.load(model)
    network = bundle.network.eval()
    with torch.inference_mode():
        probability(network, torch.zeros(1, len(PAPER_LAYERS), 64, 64), bundle.reading)
    begin = time.perf_counter()
    image, profile = _whole(project.parent / "scene")
    known = np.isfinite(image).all(axis=0)
    height, width = known.shape
    patch = (min(PATCH, height), min(PATCH, width))
    total, weight = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    ramp = np.minimum(np.minimum(np.arange(1, PATCH + 1), np.arange(PATCH, 0, -1)) / (margin + 1), 1)
    taper = np.outer(ramp[: patch[0]], ramp[: patch[1]]).astype(np.float32)
    with torch.inference_mode():
        for row in _firsts(height, PATCH, margin):
            for col in _firsts(width, PATCH, margin):
                place = np.s_[row : row + patch[0], col : col + patch[1]]
                batch = torch.from_numpy(image[(slice(None), *place)][None].copy())
                answer = probability(network, batch, bundle.reading)[0].numpy()
                total[place] += answer * taper
                weight[place] += taper
    found = total / weight
    found[~known] = np.nan
    mask = (found > 0.5).astype(np.uint8)
    out.mkdir(parents=True, exist_ok=True)
    options = {"driver": "COG", "compress": "deflate", "count": 1, **profile}
    with rasterio.open(out / "probability.tif", "w", dtype="uint8", nodata=255, **options) as file:
        file.write(np.where(known, np.round(found * 100), 255).astype(np.uint8), 1)
    with rasterio.open(out / "mask.tif", "w", dtype="uint8", nodata=255, **options) as file:
        file.write(np.where(known, mask, 255).astype(np.uint8), 1)
    outlines = [shape(one) for one, _ in shapes(mask, mask=mask == 1, transform=profile["transform"])]
    gpd.GeoDataFrame(geometry=outlines, crs=profile["crs"]).to_file(out / "slumps.gpkg")
    return {"seconds": time.perf_counter() - begin, "objects": float(len(outlines))}


def _whole(scene: Path) -> tuple[Floats, dict[str, Any]]:
    """All layers of the scene (10, y, x) in physical units, and its grid."""
    found: dict[str, Floats] = {}
    for name, (layers, _, scale, offset) in STORED.items():
        with rasterio.open(scene / name) as file:
            profile = {"width": file.width, "height": file.height, "crs": file.crs, "transform": file.transform}
            stored = file.read()
        for one, band in zip(layers, stored, strict=True):
            found[one] = np.where(band == 0, np.nan, band * np.float32(scale) + np.float32(offset)).astype(np.float32)
    found["ndvi"] = (found["nir"] - found["red"]) / (found["nir"] + found["red"])
    return np.stack([found[name] for name in PAPER_LAYERS]), profile


def _firsts(length: int, patch: int, margin: int) -> list[int]:
    if length <= patch:
        return [0]
    return [*range(0, length - patch, patch - margin), length - patch]


def ours(project: Path, model: Path, out: Path, sets: list[str]) -> dict[str, float]:
    """thawmap, as its command line maps one scene."""
    config = load(project, overrides=tuple(sets))
    opened = Project(config)
    scene = opened.open(opened.candidates()[0], labelled=False)
    member = _predict_scene.member_of(model, config.inference)
    member.network(np.full((1, len(PAPER_LAYERS), member.tile, member.tile), 0.1, np.float32))
    timed = _Timed(member.network)
    _predict_scene.member_of = lambda *_: replace(member, network=timed)
    begin = time.perf_counter()
    _predict_scene.map_scene(scene, opened, (model,), out)
    return {"seconds": time.perf_counter() - begin, "network": timed.seconds, "pixels": float(timed.pixels)}


class _Timed:
    """A network that knows how long it took, for how many pixels."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.seconds = 0.0
        self.pixels = 0

    def __call__(self, images: Floats) -> Floats:
        begin = time.perf_counter()
        answer: Floats = self.network(images)
        self.seconds += time.perf_counter() - begin
        self.pixels += len(images) * images.shape[2] * images.shape[3]
        return answer


def limit(model: Path) -> float:
    """Seconds for a million pixels, each once, if the network were nothing but matrix products of the best speed."""
    return operations_per_pixel(bundle_folder.load(model)) * 1e6 / product_rate(torch.device("cpu"))


def in_a_process(*words: str) -> dict[str, float]:
    """What one way of doing it took, in a process of its own, which begins as thawmap's command line does if it is."""
    begin = "from thawmap.system import keep_freed_memory; keep_freed_memory(); " if "ours" in words else ""
    script = f"import runpy, sys; {begin}runpy.run_path(sys.argv[0], run_name='__main__')"
    script = f"import sys; sys.argv = sys.argv[1:]; {script}"
    command = [sys.executable, "-c", script, str(Path(__file__)), *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def peak_gb() -> float:
    """The most memory of this process until now."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024 / 1e9


def compare(options: argparse.Namespace, ways: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Medians of every way, which take turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for repeat in range(options.repeats):
        for name, words in ways.items():
            out = options.work / "out" / f"{name.replace(' ', '-')}-{repeat}-{time.time_ns()}"
            found[name].append(in_a_process(*words, "--out", str(out)))
    return {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--side", type=int, default=3333)
    parser.add_argument("--half", action="store_true", help="a diagonal half of the scene is nodata")
    parser.add_argument("--delivery", action="store_true", help="as PlanetScope delivers it; thawmap alone")
    parser.add_argument("--architecture", default="unet")
    parser.add_argument("--encoder", default="resnet34")
    parser.add_argument("--memory", type=float, nargs="+", default=[3.0])
    parser.add_argument("--backends", nargs="+", default=["auto"], help="inference.backend of ours")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="put over the YAML of ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-reference", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", choices=["reference", "ours", "limit"])
    parser.add_argument("--margin", type=int, default=128)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    alone = options.no_reference or options.delivery
    project = (
        make_delivery(options.work, options.side)
        if options.delivery
        else make_project(options.work, options.side, half=options.half)
    )
    model = make_bundle(options.work, options.architecture, options.encoder)
    if options.run == "limit":
        print(json.dumps({"seconds": limit(model)}))
        return
    if options.run:
        work = (
            partial(reference, margin=options.margin)
            if options.run == "reference"
            else partial(ours, sets=options.sets)
        )
        print(json.dumps({**work(project, model, options.out), "memory_gb": peak_gb()}))
        return
    kinds = [f"--{kind}" for kind in ("half", "delivery") if getattr(options, kind)]
    same = ["--work", str(options.work), "--side", str(options.side), *kinds]
    same += ["--architecture", options.architecture, "--encoder", options.encoder]
    sets = [word for one in options.sets for word in ("--set", one)]
    margins = () if alone else MARGINS
    ways = {f"reference, margin {margin}": [*same, "--run", "reference", "--margin", str(margin)] for margin in margins}
    for backend, gb in product(options.backends, options.memory):
        asked = ("--set", f"inference.memory_gb={gb:g}", "--set", f"inference.backend={backend}")
        ways[f"thawmap, {backend}, {gb:g} GB"] = [*same, "--run", "ours", *asked, *sets]
    report(options, compare(options, ways), in_a_process(*same, "--run", "limit")["seconds"])


def report(options: argparse.Namespace, found: dict[str, dict[str, float]], limit_s: float) -> None:
    """The table."""
    area = options.side**2 / 1e6
    kind = f"{', half nodata' * options.half}{', a PlanetScope delivery' * options.delivery}"
    print(f"{options.architecture} + {options.encoder}, {options.side} px{kind}, {options.repeats} repeats")
    print(f"arithmetic limit {limit_s:.2f} s for a million pixels\n")
    columns = [name for name in found if name.startswith("reference")]
    print(
        "| | s | s/Mpx | of the limit | outside the network | GB |", *(f" times {name} |" for name in columns), sep=""
    )
    print("|---|---|---|---|---|---|", *("---|" for _ in columns), sep="")
    for name, one in found.items():
        outside = f"{1 - one['network'] / one['seconds']:.1%}" if "network" in one else ""
        ratios = "".join(f" {found[other]['seconds'] / one['seconds']:.2f} |" for other in columns)
        print(
            f"| {name} | {one['seconds']:.1f} | {one['seconds'] / area:.2f} | {limit_s * area / one['seconds']:.2f} "
            f"| {outside} | {one['memory_gb']:.2f} |{ratios}"
        )
    if options.json:
        about = {key: str(value) for key, value in vars(options).items()}
        options.json.write_text(
            json.dumps({"options": about, "limit_s_per_mpx": limit_s, "found": found}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()

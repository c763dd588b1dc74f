"""From files to the stack: one PlanetScope scene with elevation and trends, against GDAL's programs one after another.

python benchmarks/stack.py --work /tmp/stack --sides 4000 16000

Inputs are made in the work folder when they are not there: smooth random fields with a sensor's noise, on the grids of
real deliveries (3 m in UTM; 2 m in polar stereographic, turned against it; 30 m in degrees), compressed as those are.
The chain is the one of the paper's code: `gdalwarp -r cubic` for both elevation layers and the trends, NDVI, labels,
the mask out of udm2, the mask burnt into every layer; every step a file, and read in the end. It needs GDAL's programs
(Debian: gdal-bin and python3-gdal), and is left out where they are missing. "Deflate" compresses every step as the
published code does, "plain" writes no compression and lets gdalwarp use all processors.

Every way runs in processes of its own; what is printed is the median of `--repeats`, and memory is the peak of the
process that assembles, GDAL's cache included. All files are in the page cache, for both. Where something else keeps the
machine busy, ratios of processor time still hold.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window as FileWindow

from thawmap.config import load
from thawmap.data.project import Project
from thawmap.data.raster.resample import footprint
from thawmap.data.stack import assemble, check_ranges
from thawmap.engine.run import in_order
from thawmap.geo.crs import crs_of
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.layers import layer

SCENE = "20210715_205312_1005"
SR, UDM2 = f"{SCENE}_3B_AnalyticMS_SR.tif", f"{SCENE}_3B_udm2.tif"
LAYERS = (
    "blue", "green", "red", "nir", "ndvi", "relative_elevation", "slope", "tc_brightness", "tc_greenness", "tc_wetness"
)  # fmt: skip
CORNER = (570_000, 7_720_000)  # Herschel Island, UTM zone 8
TEXTURE_PX = 1024  # fields repeat after so many pixels
PROGRAMS = ("gdalwarp", "gdal_rasterize", "gdal_calc.py")
OLD_MASKS = (2, 3, 5, 6)  # bands of udm2 that make a pixel unusable: snow, shadow, heavy haze, cloud

Texture = npt.NDArray[np.float32]


def texture(seed: int, smooth_px: float, noise: float = 0.0) -> Texture:
    """A periodic random field (y, x), mean 0 and deviation 1, smooth over some pixels, and white noise on top."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(TEXTURE_PX), np.fft.fftfreq(TEXTURE_PX)))
    field = np.fft.ifft2(
        np.fft.fft2(rng.normal(size=frequency.shape)) * np.exp(-((frequency * smooth_px * 3) ** 2))
    ).real
    return (field / field.std() + noise * rng.normal(size=field.shape)).astype(np.float32)


def repeated(fields: list[Texture], window: Any) -> Texture:
    """A window (band, y, x) of the fields, repeated for ever."""
    rows = np.arange(window.row, window.row + window.height) % TEXTURE_PX
    cols = np.arange(window.col, window.col + window.width) % TEXTURE_PX
    return np.stack([field[np.ix_(rows, cols)] for field in fields])


def write(path: Path, geobox: GeoBox, values: Callable[[Any], npt.NDArray[Any]], **options: Any) -> None:
    """A raster of what ``values`` gives for every block of it."""
    first = values(next(Window.of_shape(geobox.shape).blocks(8)))
    profile = {
        "driver": "GTiff", "tiled": True, "bigtiff": "if_safer", "num_threads": "all_cpus", "sparse_ok": True,
        "width": geobox.width, "height": geobox.height, "crs": crs_of(geobox), "transform": geobox.affine,
        "count": len(first), "dtype": first.dtype,
    }  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=256 * 2**20), rasterio.open(path, "w", **profile | options) as file:
        for block in Window.of_shape(geobox.shape).blocks(2048):
            file.write(values(block), window=FileWindow(block.col, block.row, block.width, block.height))


def around(geobox: GeoBox, crs: str, pixel: tuple[float, float]) -> GeoBox:
    """A north-up grid of another CRS that holds ``geobox`` and a little more."""
    extent = geobox.extent.to_crs(crs).boundingbox
    left, top = (np.floor(extent.left / pixel[0]) - 64) * pixel[0], (np.ceil(extent.top / pixel[1]) + 64) * pixel[1]
    cols, rows = (extent.right - left) / pixel[0] + 64, (top - extent.bottom) / pixel[1] + 64
    return GeoBox((int(rows), int(cols)), Affine(pixel[0], 0, left, 0, -pixel[1], top), crs)


def make(folder: Path, side: int) -> None:
    """The scene and everything beside it."""
    grid = GeoBox((side, side), Affine(3, 0, CORNER[0], 0, -3, CORNER[1]), "EPSG:32608")
    draft = folder.with_suffix(".part")
    shutil.rmtree(draft, ignore_errors=True)
    for name in ("scenes", "relative_elevation", "slope", "dem", "trends"):
        (draft / name).mkdir(parents=True)
    make_optical(draft, grid)
    make_elevation(draft, grid)
    make_trends(draft, grid)
    make_labels(draft, grid)
    draft.rename(folder)


def make_optical(folder: Path, grid: GeoBox) -> None:
    """Surface reflectance and udm2, compressed as Planet does."""
    bands = [texture(seed, 6, noise=0.1) for seed in range(4)]
    means = np.array([500, 700, 800, 2200], np.float32)[:, None, None]
    cloud = texture(9, 60)

    def reflectance(window: Any) -> npt.NDArray[np.uint16]:
        return (means * (1 + 0.15 * repeated(bands, window))).clip(1).astype(np.uint16)

    def udm2(window: Any) -> npt.NDArray[np.uint8]:
        here = repeated([cloud], window)[0]
        clouded, shaded = here > 1.5, (here > 1.2) & (here <= 1.5)
        nothing = np.zeros(here.shape, bool)
        sure = (here * 20 + 70).clip(0, 100)
        return np.stack([~(clouded | shaded), nothing, shaded, nothing, nothing, clouded, sure, nothing]).astype(
            np.uint8
        )

    tiles = {"blockxsize": 256, "blockysize": 256, "compress": "lzw"}
    write(folder / "scenes" / SR, grid, reflectance, nodata=0, interleave="pixel", **tiles)
    write(folder / "scenes" / UDM2, grid, udm2, interleave="band", **tiles)


def make_elevation(folder: Path, grid: GeoBox) -> None:
    """Relative elevation and slope in the published encodings, and a DEM, where the scene lies."""
    polar = around(grid, "EPSG:3413", (2, 2))
    rough, hills = texture(20, 8, noise=0.02), texture(21, 25, noise=0.002)

    def under(window: Any) -> bool:
        there = footprint(grid, window_geobox(polar, window))
        assert there is not None
        inside = there.row < grid.height and there.col < grid.width
        return inside and there.row + there.height > 0 and there.col + there.width > 0

    def stored(field: Texture, scale: float, offset: float, missing: float, dtype: str) -> Callable[[Any], Any]:
        def values(window: Any) -> npt.NDArray[Any]:
            if not under(window):
                return np.full((1, window.height, window.width), missing, dtype)
            return (repeated([field], window) * scale + offset).astype(dtype)

        return values

    tiles = {"blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 6}
    for name, field, scale, offset in (("relative_elevation", rough, 900, 15000), ("slope", rough, 150, 800)):
        values = stored(field, scale, offset, 65535, "uint16")
        write(folder / name / f"{name}.tif", polar, values, nodata=65535, predictor=2, **tiles)
    dem = stored(hills, 30, 200, -9999, "float32")
    write(folder / "dem" / "dem.tif", polar, dem, nodata=-9999, predictor=3, **tiles)


def make_trends(folder: Path, grid: GeoBox) -> None:
    """Three trends, 0 .. 255."""
    fields = [texture(seed, 3, noise=0.1) for seed in range(30, 33)]
    degrees = around(grid, "EPSG:4326", (0.00072, 0.00027))

    def values(window: Any) -> npt.NDArray[np.uint8]:
        return (repeated(fields, window) * 30 + 128).clip(0, 255).astype(np.uint8)

    write(folder / "trends" / "tcvis.tif", degrees, values, compress="deflate", blockxsize=256, blockysize=256)


def make_labels(folder: Path, grid: GeoBox) -> None:
    """Slumps: one for every square kilometre."""
    rng = np.random.default_rng(40)
    count = max(4, int((grid.height * 3 / 1000) ** 2))
    places = rng.uniform(0, grid.height * 3, (count, 2)) * (1, -1) + CORNER
    slumps = [shapely.Point(place).buffer(rng.uniform(30, 150)) for place in places]
    frame = gpd.GeoDataFrame({"image_id": [SCENE] * count}, geometry=slumps, crs=crs_of(grid))
    frame.to_file(folder / "labels.gpkg", layer="labels")


def yaml(folder: Path, *, raw: bool) -> Path:
    """The project: elevation layers made before, or made from the DEM."""
    elevation = (
        "path: dem"
        if raw
        else "relative_elevation: {path: relative_elevation}, slope_degrees: {path: slope, scale: 0.01}"
    )
    path = folder / ("raw.yaml" if raw else "made.yaml")
    path.write_text(
        f"project: benchmark\n"
        f"scenes: {{kind: planetscope, path: scenes}}\n"
        f"sources: {{elevation: {{{elevation}}}, trends: {{path: trends}}}}\n"
        f"labels: {{path: labels.gpkg, scene: image_id}}\n"
    )
    return path


def assembled(path: Path, *, side: int, threads: int) -> Iterator[int]:
    """The usable pixels of every window of the stack, with its target."""
    project = Project(load(path))
    scene = project.open(project.candidates()[0])
    sources, labels = project.sources, project.labels

    def read(window: Any) -> int:
        geobox = window_geobox(scene.geobox, window)
        stack = assemble(scene, LAYERS, geobox, sources)
        if (window.row, window.col) == (0, 0):
            check_ranges(stack, [layer(name) for name in LAYERS], scene_id=scene.id)
        return int((stack["valid"] & (labels.burn(scene, geobox) <= 1)).sum())

    yield from in_order(read, Window.of_shape(scene.geobox.shape).blocks(side), threads=threads, ahead=threads)


def peak_mb() -> float:
    """The most memory that this process ever held, as Linux counts it, without what its parent held."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def measure_inside(path: Path, side: int, threads: int) -> None:
    """What the process that assembles does and prints."""
    begin, worked = time.perf_counter(), time.process_time()
    usable = sum(assembled(path, side=side, threads=threads))
    times = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - worked}
    print(json.dumps(times | {"peak_mb": peak_mb(), "usable": usable}))


def measure(path: Path, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds and largest memory of a process that assembles the whole scene."""
    command = [sys.executable, __file__, "--inside", str(path), "--window", str(options.window)]
    command += ["--threads", str(options.threads)]
    runs = []
    for _ in range(options.repeats):
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        runs.append(json.loads(done.stdout))
    return {
        "seconds": statistics.median(run["seconds"] for run in runs),
        "cpu": statistics.median(run["cpu"] for run in runs),
        "peak_mb": max(run["peak_mb"] for run in runs),
        "usable": runs[0]["usable"],
    }


def steps(folder: Path, room: Path, *, deflate: bool) -> Iterator[tuple[str, list[str]]]:
    """The chain's commands, by name, in order."""
    scene, udm2 = folder / "scenes" / SR, folder / "scenes" / UDM2
    with rasterio.open(scene) as file:
        bounds, (width, height), crs = file.bounds, (file.width, file.height), str(file.crs)
    packed = ["-co", "COMPRESS=DEFLATE"] if deflate else []
    calc_packed = ["--co=COMPRESS=DEFLATE"] if deflate else []
    many = [] if deflate else ["-multi", "-wo", "NUM_THREADS=ALL_CPUS"]
    extent, size = ["-te", *map(str, bounds)], ["-ts", str(width), str(height)]
    for name in ("relative_elevation/relative_elevation", "slope/slope", "trends/tcvis"):
        target = room / f"{Path(name).name}.tif"
        warp = ["gdalwarp", "-q", *extent, *size, "-t_srs", crs, "-r", "cubic", *many, *packed]
        yield f"gdalwarp {target.stem}", [*warp, str(folder / f"{name}.tif"), str(target)]
    burn = ["gdal_rasterize", "-q", "-burn", "1", "-init", "0", "-ot", "Byte", *extent, *size, *packed]
    yield "gdal_rasterize labels", [*burn, str(folder / "labels.gpkg"), str(room / "labels.tif")]
    calc = ["gdal_calc.py", "--quiet", *calc_packed]
    ndvi = "--calc=(A.astype(float32)-B)/maximum(A.astype(float32)+B,1)*10000+10000"
    bands = ["-A", str(scene), "--A_band=4", "-B", str(scene), "--B_band=3"]
    yield "gdal_calc ndvi", [*calc, *bands, ndvi, "--type=UInt16", f"--outfile={room / 'ndvi.tif'}"]
    letters = dict(zip("BCDE", OLD_MASKS, strict=True))
    bands = [
        "-A",
        str(udm2),
        *(text for one, band in letters.items() for text in (f"-{one}", str(udm2), f"--{one}_band={band}")),
    ]
    usable = f"--calc=logical_and(A==1,({'+'.join(letters)})==0)"
    yield "gdal_calc udm2", [*calc, *bands, usable, "--type=Byte", f"--outfile={room / 'usable.tif'}"]
    for image in (scene, *(room / f"{name}.tif" for name in ("ndvi", "relative_elevation", "slope", "tcvis"))):
        bands = ["-A", str(image), "--allBands=A", "-B", str(room / "usable.tif"), "--calc=A*B"]
        kind = "Byte" if image.stem == "tcvis" else "UInt16"
        target = room / f"masked_{'scene' if image == scene else image.stem}.tif"
        yield f"gdal_calc {target.stem}", [*calc, *bands, f"--type={kind}", f"--outfile={target}"]


def read_back(room: Path) -> None:
    """What the chain made, in physical units."""
    scales = {"scene": (1e-4, 0), "ndvi": (1e-4, -1), "relative_elevation": (1 / 300, -50), "slope": (0.01, 0)}
    for path in sorted(room.glob("masked_*.tif")):
        scale, offset = scales.get(path.stem.removeprefix("masked_"), (0.24 / 255, -0.12))
        with rasterio.open(path) as file:
            values = file.read(out_dtype="float32")
        values *= np.float32(scale)
        values += np.float32(offset)


def processors() -> float:
    """Seconds of processor time that this process and those it waited for have had."""
    return sum(os.times()[:4])


def chain(folder: Path, *, deflate: bool) -> dict[str, Any]:
    """Seconds of the whole and of every step, done once."""
    room = folder / "chain"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    seconds, worked = {}, processors()
    for name, command in steps(folder, room, deflate=deflate):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        seconds[name] = time.perf_counter() - begin
    begin = time.perf_counter()
    read_back(room)
    seconds["read"] = time.perf_counter() - begin
    shutil.rmtree(room)
    return {"seconds": sum(seconds.values()), "cpu": processors() - worked, "steps": seconds}


def ours(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The stack of one scene, in both ways."""
    return {
        "elevation made before": measure(yaml(folder, raw=False), options),
        "elevation from a DEM": measure(yaml(folder, raw=True), options),
    }


def chains(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """GDAL's programs for one scene, in both ways; nothing where they are missing."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        print(f"no {', '.join(missing)}: the chain is left out; apt-get install gdal-bin python3-gdal")
        return {}
    version = subprocess.run(["gdalwarp", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    print(f"the chain by {version}, the stack by GDAL {rasterio.__gdal_version__}, {os.cpu_count()} processors")
    found = {}
    for name, deflate in (("chain, deflate", True), ("chain, plain", False)):
        runs = [chain(folder, deflate=deflate) for _ in range(options.repeats)]
        found[name] = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    return found


def show(side: int, found: dict[str, Any]) -> None:
    """The table of one scene."""
    first = found["elevation made before"]
    print(f"\n{f'{side} x {side} px':33}{'s':>8}{'ratio':>7}{'cpu s':>8}{'ratio':>7}{'ns/px':>8}{'peak MB':>9}")
    for name, row in found.items():
        wall, cpu = row["seconds"], row["cpu"]
        peak = f"{row['peak_mb']:9.0f}" if "peak_mb" in row else ""
        ratios = wall / first["seconds"], cpu / first["cpu"]
        print(f"{name:33}{wall:8.2f}{ratios[0]:7.2f}{cpu:8.2f}{ratios[1]:7.2f}{wall / side**2 * 1e9:8.0f}{peak}")
        for step, seconds in row.get("steps", {}).items():
            print(f"    {step:29}{seconds:8.2f}")


def main() -> None:
    """Make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for inputs, some GB for 16 000 px; kept")
    parser.add_argument("--sides", type=int, nargs="+", default=[4000], help="sides of the scene in pixels")
    parser.add_argument("--chain-up-to", type=int, default=4000, help="largest side for which GDAL's chain is run")
    parser.add_argument("--window", type=int, default=1024, help="side of the windows in pixels")
    parser.add_argument("--threads", type=int, default=2, help="windows that are read at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        measure_inside(options.inside, options.window, options.threads)
        return
    results = {}
    for side in options.sides:
        folder = options.work / str(side)
        if not folder.exists():
            make(folder, side)
        results[side] = ours(folder, options) | (chains(folder, options) if side <= options.chain_up_to else {})
        show(side, results[side])
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

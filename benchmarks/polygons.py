"""Polygons of a large mask: time and memory against `rasterio.features.shapes` on the whole of it.

python benchmarks/polygons.py [side of the mask in pixels] [objects] [repeats]

Each runs in processes of its own. The reference has the mask in memory and makes shapely polygons of it, and no more;
thawmap takes the mask from a file in rows, and makes slumps of it: polygons on the ground with areas on the ellipsoid,
statistics of their probabilities and names. Memory is what a process needs beyond what it has after a first, tiny
mask: libraries and projections are loaded by then. What both have in the end, the polygons, is told apart.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy import ndimage

STEP = 16  # rows that come at a time
PIXEL_M = 3.0


def blob(rng: np.random.Generator, cell: int) -> npt.NDArray[np.bool_]:
    """One object with a wavy outline, inside of a square."""
    radius = rng.uniform(0.07, 0.32) * cell
    row, col = rng.uniform(radius + 3, cell - radius - 3, 2)
    y, x = np.mgrid[:cell, :cell]
    angle, distance = np.arctan2(y - row, x - col), np.hypot(y - row, x - col)
    waves = sum(rng.normal(0, 0.25 / n) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 5, 8))
    inside = distance < radius * (1 + waves)
    inside[[0, -1]] = inside[:, [0, -1]] = False
    labels, _ = ndimage.label(inside)
    largest: npt.NDArray[np.bool_] = labels == np.argmax(np.bincount(labels.ravel(), weights=inside.ravel()))
    return largest


def make(path: Path, side: int, objects: int) -> None:
    """A mask (y, x) of bytes with so many objects."""
    rng = np.random.default_rng(0)
    across = int(np.ceil(np.sqrt(objects)))
    cell = side // across
    mask = np.zeros((side, side), np.uint8)
    for number in range(objects):
        row, col = (place * cell for place in divmod(number, across))
        mask[row : row + cell, col : col + cell] = blob(rng, cell)
    path.write_bytes(mask.tobytes())


def whole(mask: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Number and pixels of the polygons that rasterio and shapely make of a whole mask."""
    from rasterio.features import shapes  # noqa: PLC0415 - each process loads what it runs
    from shapely.geometry import shape  # noqa: PLC0415

    polygons = [shape(outline) for outline, _ in shapes(mask, mask=mask > 0, connectivity=4)]
    return len(polygons), int(sum(polygon.area for polygon in polygons))


def streamed(rows: Iterator[npt.NDArray[np.uint8]], side: int) -> tuple[int, int]:
    """Number and pixels of the slumps that thawmap makes of a mask that comes in rows."""
    from thawmap.data.sources.base import Scene  # noqa: PLC0415
    from thawmap.maps.polygons.threshold import Disc, masks  # noqa: PLC0415
    from thawmap.maps.polygons.vectorise import Vectoriser  # noqa: PLC0415
    from thawmap.maps.rows import Rows  # noqa: PLC0415

    grid = GeoBox((side, side), Affine(PIXEL_M, 0, 5e5, 0, -PIXEL_M, 7.7e6), "EPSG:32608")
    vectoriser = Vectoriser(Scene(id="s", sensor="bench", geobox=grid, files={}), bundle_id="b")
    parts = (
        Rows(first_row=number * STEP, probability=np.multiply(part, np.float32(0.9)))
        for number, part in enumerate(rows)
    )
    for part, mask in masks(parts, 0.5, Disc()):
        vectoriser.add(part, mask)
    slumps = vectoriser.finish().slumps
    return len(slumps), round(slumps.area.sum() / PIXEL_M**2)


def rows_of(path: Path, side: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The mask in parts of some rows."""
    with path.open("rb") as file:
        while part := file.read(side * STEP):
            yield np.frombuffer(part, np.uint8).reshape(-1, side)


def peak_mb() -> float:
    """Most memory that this program has held; what getrusage says counts the one that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(how: str, path: Path, side: int) -> None:
    """Run one of the two in this process and print what it took."""
    tiny = np.pad(np.ones((8, 8), np.uint8), 4)
    if how == "whole":
        whole(tiny)
    else:
        streamed(iter([tiny]), 16)
    before = peak_mb()
    begin, processor = time.perf_counter(), time.process_time()
    if how == "whole":
        count, pixels = whole(np.fromfile(path, np.uint8).reshape(side, side))
    else:
        count, pixels = streamed(rows_of(path, side), side)
    took = {"seconds": time.perf_counter() - begin, "processor": time.process_time() - processor}
    print(json.dumps(took | {"mb": peak_mb() - before, "count": count, "pixels": pixels}))


def polygons_mb(path: Path, side: int) -> float:
    """Memory of the polygons alone, read back from WKB in a process that does nothing else."""
    from rasterio.features import shapes  # noqa: PLC0415
    from shapely import to_wkb  # noqa: PLC0415
    from shapely.geometry import shape  # noqa: PLC0415

    mask = np.fromfile(path, np.uint8).reshape(side, side)
    stored = path.with_suffix(".npy")
    np.save(stored, to_wkb([shape(outline) for outline, _ in shapes(mask, mask=mask > 0, connectivity=4)]))
    done = subprocess.run([sys.executable, __file__, "--read", str(stored)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def read(path: Path) -> None:
    """Make the polygons of a file in this process and print what they took."""
    import shapely  # noqa: PLC0415

    stored = np.load(path, allow_pickle=True)
    shapely.from_wkb(stored[:1])
    before = peak_mb()
    polygons = shapely.from_wkb(stored)
    assert len(polygons) == len(stored)
    print(peak_mb() - before)


def compare(side: int, objects: int, repeats: int) -> None:
    """Print a table of both, medians of several runs by turns, and their ratios as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.bin"
        make(path, side, objects)
        runs: dict[str, list[dict[str, float]]] = {"whole": [], "streamed": []}
        for _ in range(repeats):
            for how, taken in runs.items():
                command = [sys.executable, __file__, "--one", how, str(path), str(side)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                taken.append(json.loads(done.stdout))
        result = polygons_mb(path, side)
    middle: Callable[[str, str], float] = lambda how, what: statistics.median(run[what] for run in runs[how])  # noqa: E731
    print("| | seconds | processor s | MB beyond start | of it working memory | polygons | pixels |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for how in runs:
        seconds, processor, mb = (middle(how, what) for what in ("seconds", "processor", "mb"))
        last = runs[how][-1]
        numbers = f"{seconds:.2f} | {processor:.2f} | {mb:.0f} | {mb - result:.0f} | {last['count']} | {last['pixels']}"
        print(f"| {how} | {numbers} |")
    ratios = {what: middle("streamed", what) / middle("whole", what) for what in ("seconds", "processor", "mb")}
    ratios["working_mb"] = (middle("streamed", "mb") - result) / (middle("whole", "mb") - result)
    print(json.dumps({"side": side, "objects": objects, "polygons_mb": result, "ratios": ratios, "runs": runs}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["--read"]:
        read(Path(sys.argv[2]))
    else:
        given = [int(number) for number in sys.argv[1:]]
        compare(*(given + [8000, 20_000, 3][len(given) :]))

"""Speed and memory of Landsat trends: reading windows of local scenes alone, into trends, and an area of 100 x 100 km.

    python benchmarks/acquire_trends.py [WINDOWS] [--large]

Reads WINDOWS (default 1000) windows of 10 x 10 km from 20 scenes on disk, with 2 readers: without sums, then with.
--large sums one synthetic day after another over 3354 x 3354 pixels in blocks as `fetch` does, and tells peak memory;
nothing is read there, so to the peak come the scenes that are being read, 34 bytes a pixel of a block and reader.
"""

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import shapely

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from landsat_catalogue import CORNER, numbers, put_catalogue, put_scene

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http
from thawmap.acquire.landsat_reading import BlockReader, trend_grid
from thawmap.acquire.landsat_scenes import SceneRow, find, rows_of
from thawmap.acquire.trends import TrendSums, day_of, rows_at_once
from thawmap.acquire.windows import read_window
from thawmap.config.acquire import LandsatTrends
from thawmap.geo.shapes import to_lonlat
from thawmap.system import peak_memory

SIDE, SCENES, READERS = 400, 20, 2


def windows(count: int) -> None:
    """Compare reading alone with reading into sums."""
    with tempfile.TemporaryDirectory() as folder:
        for year in range(2000, 2000 + SCENES):
            when = datetime(year, 7, 10, 20, tzinfo=UTC) + timedelta(days=year % 9)
            put_scene(Path(folder), time=when, stored=numbers(20 * (year - 2000), year, side=SIDE))
        x, y = CORNER[0] + 15 * SIDE, CORNER[1] - 15 * SIDE
        area = Area("x", to_lonlat(shapely.box(x - 5000, y - 5000, x + 5000, y + 5000), "EPSG:32608"))
        settings = LandsatTrends(address=str(put_catalogue(Path(folder))))
        with Http() as http, ThreadPoolExecutor(READERS) as pool:
            scenes = rows_of(find(http, settings, area, print), area)
            grid = trend_grid(area)
            reader = BlockReader(http, settings, grid, slice(0, grid.height))
            outline = to_lonlat(grid.extent.geom, "EPSG:32608")
            jobs = [scenes[number % len(scenes)] for number in range(count)]

            def read_all(scene: SceneRow) -> None:
                for href in scene.assets.values():
                    read_window(href, outline, margin_px=2, http=http)

            started = time.perf_counter()
            list(pool.map(read_all, jobs))
            alone = time.perf_counter() - started
            sums = TrendSums.empty(reader.shape)
            started = time.perf_counter()
            for scene, seen in zip(jobs, pool.map(lambda scene: reader.read(scene, None), jobs), strict=True):
                sums.add(day_of(scene.time), seen.values, seen.valid, row=seen.row, col=seen.col)
            both = time.perf_counter() - started
    print(f"{count} windows of {grid.width} px: read in {alone:.1f} s, into trends in {both:.1f} s: {alone / both:.2f}")


def large(days: int = 10) -> None:
    """Tell the memory and time of sums of an area of 100 x 100 km."""
    side = 3354
    step = rows_at_once(side, dates=400, method="least-squares", readers=8, memory=1.2e9)
    values = np.full((3, step, side), 0.2, np.float32)
    valid = np.ones((step, side), bool)
    started = time.perf_counter()
    for top in range(0, side, step):
        height = min(step, side - top)
        sums = TrendSums.empty((height, side))
        for day in range(days):
            sums.add(700 * day, values[:, :height], valid[:height])
        sums.slopes(min_observations=5, min_span_years=5)
    each = (time.perf_counter() - started) / days
    reading = 34 * 8 * step * side
    print(
        f"{side} x {side} px in blocks of {step} rows: peak {peak_memory() / 1e9:.2f} GB, and at most "
        f"{reading / 1e9:.2f} GB of scenes that 8 readers hold; {each:.2f} s a date"
    )


if __name__ == "__main__":
    numbers_given = [int(word) for word in sys.argv[1:] if word.isdigit()]
    if "--large" in sys.argv:
        large()
    else:
        windows(*(numbers_given or [1000]))

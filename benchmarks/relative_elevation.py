"""Height against its mean in a circle: time for each diameter, against scipy's convolutions, and truth.

python benchmarks/relative_elevation.py [side of the DEM in pixels]

The time for a pixel grows at most linearly with the diameter. scipy's direct convolution, whose time grows with its
square, runs on a part of the DEM, and counts by the pixel; its FFT convolution is fast too, but rounds, so that the
values of a window differ from those of the whole.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from thawmap.data.terrain import relative_elevation

PIXEL_M = 2.0
DIAMETERS_M = (20, 50, 100, 200, 400)
PART = 512  # side of the part for the direct convolution


def heights(side: int) -> npt.NDArray[np.float32]:
    """Rolling ground (y, x) in metres, with the roughness of a stereo DEM."""
    rng = np.random.default_rng(0)
    coarse = ndimage.zoom(rng.normal(0, 40, (side // 100 + 2, side // 100 + 2)), 100, order=1)[:side, :side]
    return (200 + coarse + rng.normal(0, 0.2, (side, side))).astype(np.float32)


def circle(diameter_m: float) -> npt.NDArray[np.float64]:
    """The circle's pixels, each of one and the same weight."""
    reach = int(diameter_m / 2 / PIXEL_M)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * PIXEL_M
    inside = (y**2 + x**2 <= (diameter_m / 2) ** 2).astype(np.float64)
    return inside / inside.sum()


def by_fft(height: npt.NDArray[np.float32], kernel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Relative elevation by scipy's overlap-add convolution."""
    return height - signal.oaconvolve(height.astype(np.float64), kernel, mode="same")


def directly(height: npt.NDArray[np.float32], kernel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Relative elevation by scipy's direct convolution."""
    return height - ndimage.convolve(height.astype(np.float64), kernel, mode="constant")


def nanoseconds(work: Callable[[], object], pixels: int) -> float:
    """Processor time for each pixel, the best of two runs."""
    times = []
    for _ in range(2):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return 1e9 * min(times) / pixels


def measure(height: npt.NDArray[np.float32], diameter_m: float) -> dict[str, float]:
    """Times in nanoseconds for a pixel, and the largest difference from the direct convolution in metres."""
    kernel = circle(diameter_m)
    part, reach = height[:PART, :PART], len(kernel) // 2
    inner = np.s_[reach:-reach, reach:-reach]
    off = relative_elevation(part, pixel_m=PIXEL_M, diameter_m=diameter_m) - directly(part, kernel)
    return {
        "diameter_px": len(kernel),
        "thawmap_ns": nanoseconds(
            lambda: relative_elevation(height, pixel_m=PIXEL_M, diameter_m=diameter_m), height.size
        ),
        "fft_ns": nanoseconds(lambda: by_fft(height, kernel), height.size),
        "direct_ns": nanoseconds(lambda: directly(part, kernel), part.size),
        "largest_difference_m": float(np.abs(off[inner]).max()),
    }


if __name__ == "__main__":
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    ground = heights(side)
    rows = [measure(ground, diameter_m) for diameter_m in DIAMETERS_M]
    print(f"relative elevation of {side} x {side} px, nanoseconds of one core for a pixel")
    print(f"{'diameter':>9}  {'thawmap':>8}  {'FFT':>8}  {'direct':>9}  {'faster than direct':>18}  largest difference")
    for row in rows:
        print(
            f"{row['diameter_px']:>6.0f} px  {row['thawmap_ns']:8.1f}  {row['fft_ns']:8.1f}  {row['direct_ns']:9.0f}  "
            f"{row['direct_ns'] / row['thawmap_ns']:>16.0f} x  {1000 * row['largest_difference_m']:.2f} mm"
        )
    print(json.dumps({"side_px": side, "rows": rows}))

"""How the synthetic Arctic compares with the real one: sizes and numbers of slumps, and what they look like.

python benchmarks/realism.py examples/s2-rts.yaml docs/images/simulated.png

Prints two tables, and draws the second: the slumps of six simulated regions beside those of the paper's sites
(Nitze et al. 2021, Table 2); and, layer by layer, what a slump has less what lies around it, beside real slumps. The
real scenes are at 10 m with elevation against a circle of 100 m radius, so simulated ones are read like that too.
Only distributions over slumps are drawn and printed, no pixel of a real scene.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from scipy import ndimage

from thawmap.config import Config, load
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.data.stack import assemble
from thawmap.simulate.landscape import visible
from thawmap.simulate.noise import PIXEL_M, Lattice
from thawmap.simulate.project import Simulation, simulate
from thawmap.simulate.regions import REGIONS, Region
from thawmap.simulate.slumps import REFERENCE_YEAR, slumps_within

PAPER = {  # Table 2: sites, median areas in m2, slumps on one date
    "moraine": ("Banks Island 01, 02", "22 032, 22 203", "24 to 103"),
    "lake_plain": ("Tuktoyaktuk Peninsula", "2 229", "30 to 55"),
    "coast": ("Kolguev Island 01, 02", "78 786, 13 840", "3 to 41"),
    "island": ("Herschel Island", "5 175", "15 to 40"),
    "cliffs": ("Horton Delta 01, 02", "5 562, 7 981", "35 to 67"),
    "river_terrace": ("Lena River", "14 470", "5 to 13"),
}
ARCTICS = 10
SITE_PX = 3400  # a site of about 100 km2

LAYERS = {
    "blue": ("Blue reflectance", (-0.04, 0.08), 0.04),
    "red": ("Red reflectance", (-0.06, 0.10), 0.04),
    "nir": ("Near-infrared reflectance", (-0.24, 0.08), 0.08),
    "ndvi": ("NDVI", (-0.6, 0.2), 0.2),
    "slope": ("Slope (degrees)", (-6, 14), 4),
    "relative_elevation": ("Relative elevation (m)", (-5, 4), 2),
}
COARSE_M = 10.0
SMALLEST_PX = 8
RING_PX = (3, 9)
CUT_PX = 300
BLUE, ORANGE, YELLOW, INK, MUTED = "#0072b2", "#d55e00", "#f0e442", "#1b2733", "#5b6875"

Differences = dict[str, npt.NDArray[np.float64]]


def sizes(region: Region) -> tuple[float, list[float]]:
    """Median area in m2 of the active slumps of a region, over several Arctics; and how many each has on a site."""
    areas, numbers = [], []
    for seed in range(ARCTICS):
        site = Lattice(row=-SITE_PX // 2, col=-SITE_PX // 2, height=SITE_PX, width=SITE_PX)
        active = visible(slumps_within(region.country(seed), site), year=REFERENCE_YEAR)
        areas += [slump.outline(REFERENCE_YEAR).area * PIXEL_M**2 for slump in active]
        numbers.append(len(active) / (SITE_PX * PIXEL_M / 1000) ** 2 * 100)
    return float(np.median(areas)), numbers


def table_of_sizes() -> str:
    """The regions beside the paper's sites, as Markdown."""
    lines = [
        "| region | after | median m2, paper | median m2, simulated | slumps, paper | slumps on 100 km2, simulated |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for region in REGIONS:
        median, numbers = sizes(region)
        site, paper_m2, paper_number = PAPER[region.name]
        low, middle, high = np.percentile(numbers, [0, 50, 100])
        found = f"{middle:.0f} ({low:.0f} to {high:.0f})"
        area = f"{median:,.0f}".replace(",", " ")
        lines.append(f"| {region.name} | {site} | {paper_m2} | {area} | {paper_number} | {found} |")
    return "\n".join(lines)


def differences(config: Config) -> Differences:
    """Median inside less median around, of every slump of every labelled scene, by layer."""
    project = Project(config)
    rows = [row for candidate in project.labelled_candidates() for row in _of_scene(project, project.open(candidate))]
    return {name: np.array([row[name] for row in rows]) for name in LAYERS}


def _of_scene(project: Project, scene: Scene) -> Iterator[dict[str, float]]:
    """The differences of each slump of a scene that is large enough."""
    geobox = scene.geobox.zoom_to(resolution=COARSE_M)
    stack = assemble(scene, tuple(LAYERS), geobox, project.sources)
    labels = project.labels.burn(scene, geobox)
    land = stack["valid"] & (stack["ndvi"] > 0)
    slumps, count = ndimage.label(labels == 1)
    away = labels == 0
    for number in range(1, count + 1):
        inside = slumps == number
        near, far = (ndimage.binary_dilation(inside, iterations=px) for px in RING_PX)
        ring, inside = far & ~near & away & land, inside & stack["valid"]
        if min(inside.sum(), ring.sum()) >= SMALLEST_PX:
            yield {name: float(np.median(stack[name][inside]) - np.median(stack[name][ring])) for name in LAYERS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A piece of a simulated image.

    Attributes:
        name: Its region.
        colour: Reflectance (row, column, band) in red, green and blue.
        slumps: True (row, column) in labelled slumps.
    """

    name: str
    colour: npt.NDArray[np.float32]
    slumps: npt.NDArray[np.bool_]


def looks(config: Config) -> list[Look]:
    """A corner of each region, of the image that shows most of it clear, and slumps."""
    project = Project(config)
    best: dict[str, tuple[float, Scene]] = {}
    for candidate in project.labelled_candidates():
        scene = project.open(candidate)
        labels = project.labels.burn(scene, scene.geobox) == 1
        stack = assemble(scene, ("red",), scene.geobox, project.sources)
        corner = (slice(-CUT_PX, None), slice(-CUT_PX, None))
        score = float(stack["valid"][corner].mean()) + min(float(labels[corner].mean()), 0.08)
        best[str(scene.region)] = max(
            best.get(str(scene.region), (-1.0, scene)), (score, scene), key=lambda one: one[0]
        )
    found = []
    for region in REGIONS:
        scene = best[region.name][1]
        stack = assemble(scene, ("red", "green", "blue"), scene.geobox, project.sources)
        colour = np.stack([stack[band] for band in ("red", "green", "blue")], axis=-1)[-CUT_PX:, -CUT_PX:]
        slumps = (project.labels.burn(scene, scene.geobox) == 1)[-CUT_PX:, -CUT_PX:]
        found.append(Look(name=region.name, colour=colour, slumps=slumps))
    return found


def draw(seen: list[Look], real: Differences, simulated: Differences) -> Figure:
    """A piece of each region above; below, densities of both, layer by layer, and the medians."""
    figure = Figure(figsize=(10, 7.4), layout="constrained")
    above, below = np.ravel(np.array(figure.subfigures(2, 1, height_ratios=[1, 2.1])))
    _draw_looks(above, seen)
    grid = below.subplots(2, 3)
    for axes, (name, (title, span, tick)) in zip(grid.flat, LAYERS.items(), strict=True):
        _draw_layer(axes, {"real": real[name], "simulated": simulated[name]}, span, tick)
        axes.set_title(title, fontsize=11, loc="left", color=INK)
    below.legend(
        handles=[
            Patch(facecolor=f"{colour}38", edgecolor=colour, label=f"{label}, {len(values['ndvi'])} slumps")
            for label, values, colour in (("real", real, ORANGE), ("simulated", simulated, BLUE))
        ],
        loc="upper right", ncols=2, fontsize=10, frameon=False, handlelength=1.2, borderaxespad=0.1,
    )  # fmt: skip
    below.suptitle(
        "A slump less what lies 30 to 90 m around it (lines: medians)", fontsize=12, fontweight="bold",
        x=0.01, ha="left", color=INK,
    )  # fmt: skip
    return figure


def _draw_looks(figure: SubFigure, seen: list[Look]) -> None:
    """True colours, slumps outlined."""
    for axes, look in zip(figure.subplots(1, len(seen)), seen, strict=True):
        axes.imshow(np.clip((look.colour - 0.01) / 0.16, 0, 1) ** 0.8)
        axes.contour(look.slumps, [0.5], colors=YELLOW, linewidths=0.8)
        axes.set_title(look.name.replace("_", " "), fontsize=11, loc="left", color=INK)
        axes.set_axis_off()
    figure.suptitle(
        f"Six simulated regions, {CUT_PX * 3} m wide; labelled slumps in yellow", fontsize=12, fontweight="bold",
        x=0.01, ha="left", color=INK,
    )  # fmt: skip


def _draw_layer(
    axes: Axes, both: Mapping[str, npt.NDArray[np.float64]], span: tuple[float, float], tick: float
) -> None:
    """Densities of a layer's differences; what lies beyond the axis is in its last bins."""
    bins = np.linspace(*span, 25).tolist()
    for values, colour in zip(both.values(), (ORANGE, BLUE), strict=True):
        shown = np.clip(values, *span)
        axes.hist(shown, bins, density=True, histtype="stepfilled", facecolor=f"{colour}38", edgecolor=colour)
        axes.axvline(np.median(values), color=colour, linewidth=1.8, linestyle=(0, (4, 2)))
    axes.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
    axes.set_xticks([step * tick for step in range(int(span[0] / tick), int(span[1] / tick) + 1)])
    axes.set_xlim(span)
    axes.set_yticks([])
    axes.tick_params(labelsize=10, colors=MUTED)
    axes.spines[["top", "right", "left"]].set_visible(False)


def table_of_differences(found: Mapping[str, Differences]) -> str:
    """Quartiles of both, layer by layer, as Markdown."""
    lines = [
        "| layer | " + " | ".join(f"{name}: 25, **50**, 75 %" for name in found) + " |",
        "| --- |" + " --- |" * len(found),
    ]
    for layer in LAYERS:
        digits = 1 if layer == "slope" else 2 if layer == "relative_elevation" else 3
        cells = []
        for values in found.values():
            low, middle, high = (f"{one:.{digits}f}" for one in np.percentile(values[layer], [25, 50, 75]))
            cells.append(f"{low}, **{middle}**, {high}")
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(real: Path, picture: Path) -> None:
    """Compare, print and draw."""
    print(table_of_sizes(), flush=True)
    with tempfile.TemporaryDirectory() as room:
        yaml = simulate(Path(room) / "arctic", Simulation(regions=6, scenes_per_region=6, size=448))
        arctic = load(yaml, overrides=["sources.elevation.window_m=200"])
        found = {"real": differences(load(real)), "simulated": differences(arctic)}
        seen = looks(arctic)
    print("\n" + table_of_differences(found))
    draw(seen, found["real"], found["simulated"]).savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""The verbs demo, simulate, init and doctor, which need no YAML."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import thawmap
from thawmap.cli.options import Out, finish
from thawmap.cli.terminal import Terminal

Area = Annotated[Path | None, Parameter(name="--area")]
Site = Annotated[str | None, Parameter(name="--site")]
Years = Annotated[tuple[int, ...], Parameter(name="--years", negative="", consume_multiple=True)]


def demo(*, out: Out = Path("demo")) -> int:
    """Show the whole flow on simulated scenes.

    It simulates, trains, maps a region that was left out, and makes polygons, scores and a page.

    Args:
        out: Folder for everything that the demo makes; what is already there and still true is kept.
    """
    return finish(thawmap.demo(out, progress=Terminal()))


def simulate(out: Path, /, *, regions: int = 4, scenes: int = 2, dates: int = 1, size: int = 384, seed: int = 0) -> int:
    """Make a project of simulated scenes with thaw slumps and labels.

    Its thawmap.yaml runs as it is.

    Args:
        out: Folder to make.
        regions: Number of regions that look different, 2 to 6.
        scenes: Places in each region, 1 to 20.
        dates: Images of each place, 1 to 10, a year apart: slumps grow, begin and end.
        size: Side of an image in pixels of 3 m, 96 to 20000; made strip by strip.
        seed: Another number, another Arctic.
    """
    path = thawmap.simulate(out, regions=regions, scenes=scenes, dates=dates, size=size, seed=seed, progress=Terminal())
    print(f"{path} is ready; next: thawmap train {path} --out {out / 'model'}")
    return 0


def init(folder: Path = Path(), /, *, area: Area = None, site: Site = None, years: Years = ()) -> int:
    """Write a commented thawmap.yaml to start from; a file is never replaced.

    Args:
        folder: Where to write it.
        area: Vector file of an area: the YAML then fetches open data for it, from images to a map.
        site: Column of that file that names the site of each polygon.
        years: Years in which images were taken; by default the last one whose season is over.
    """
    path = thawmap.init(folder, area=area, site=site, years=years)
    if area is None:
        print(f"{path} is written; name your files in it, then: thawmap scenes {path}")
    else:
        print(f"{path} is written; look at it, then: thawmap acquire plan {path}")
    return 0


def doctor() -> int:
    """Tell what this machine has: processors, memory, GPU, libraries, optional parts."""
    for name, value in thawmap.doctor().items():
        print(f"{name:<28} {value}")
    return 0

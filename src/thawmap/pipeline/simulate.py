"""The verb simulate: a project of simulated scenes with labels."""

from functools import partial
from pathlib import Path

from thawmap.pipeline.progress import Progress, Silence
from thawmap.simulate.project import Simulation
from thawmap.simulate.project import simulate as make_project


def simulate(
    folder: Path,
    *,
    regions: int = 4,
    scenes: int = 2,
    dates: int = 1,
    size: int = 384,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write a project of simulated scenes with labels; return the path of its YAML.

    Args:
        folder: Folder to make.
        regions: Number of regions, 2 to 6.
        scenes: Places in each region, 1 to 20.
        dates: Images of each place, 1 to 10, a year apart.
        size: Side of an image in pixels of 3 m, 96 to 20000.
        seed: Another number, another Arctic.
        progress: Is told what happens.

    Raises:
        ConfigError: If the folder is not empty, or a number is out of bounds.
    """
    settings = Simulation(regions=regions, scenes_per_region=scenes, dates=dates, size=size, seed=seed)
    return make_project(folder, settings, progress=partial((progress or Silence()).step, "places"))

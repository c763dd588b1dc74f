"""A synthetic Arctic as a whole project that runs as it is.

PlanetScope deliveries, ArcticDEM, Landsat trends and digitised slumps, for tests, demos and benchmarks. Every region is
endless ground of its own; its sites lie along its shore, do not overlap, and are seen once or on several dates, a year
apart, in the season of 2018 or 2019 and after, while slumps grow, begin and stabilise. The elevation is that of 2017.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd

from thawmap.data.vector.io import write_vector
from thawmap.errors import ConfigError
from thawmap.files.atomic import atomic, write_text
from thawmap.simulate.products import digitise, image_of, write_elevation, write_image, write_trends
from thawmap.simulate.regions import REGIONS, Region
from thawmap.simulate.sites import find_site

_FIRST_SATELLITE = 0x1001

_YAML = """\
# Simulated PlanetScope scenes with thaw slumps: a project that runs as it is, in minutes on a laptop.
project: simulated
scenes: {{kind: planetscope, path: scenes, region: "{{folder}}"}}
sources: {{elevation: {{path: aux/arcticdem}}, trends: {{path: aux/tcvis}}}}
layers: [blue, green, red, nir, ndvi, relative_elevation, slope, tc_brightness, tc_greenness, tc_wetness]
labels: {{path: labels.gpkg, scene: image_id, region: region, target: label}}
tiles: {{size: 128, overlap: 16}}
model: {{architecture: unet, encoder: resnet18}}
training:
  batch_size: 4
  schedule: cosine
  ema: 0.95
  phases:
    - {{name: sparse, epochs: 14, tiles: positive}}
    - {{name: full, epochs: 6, tiles: all, lr: 0.0003}}
split: {{by: region, validation: [{validation}], test: [{test}]}}
inference: {{overlap: 64}}
polygons: {{seed: 0.9}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Settings of a simulated project.

    Attributes:
        seed: Seed of everything random; the ground depends on it, its region and its position alone.
        regions: Number of regions, 2..6; of the first four the last is for test, the one before for validation.
        scenes_per_region: Sites in each region, 1..20.
        dates: Images of each site, 1..10, a year apart.
        size: Side of the square scenes in pixels of 3 m, 96..20000.

    Raises:
        ConfigError: If a number is out of its range.
    """

    seed: int = 0
    regions: int = 4
    scenes_per_region: int = 2
    dates: int = 1
    size: int = 384

    def __post_init__(self) -> None:
        """Refuse a number that is out of its range."""
        allowed = {
            "seed": (0, 2**63),
            "regions": (2, 6),
            "scenes_per_region": (1, 20),
            "dates": (1, 10),
            "size": (96, 20000),
        }
        for name, (low, high) in allowed.items():
            number = getattr(self, name)
            if not low <= number <= high:
                msg = f"the simulation's {name} is {number}; choose a number from {low} to {high}"
                raise ConfigError(msg)


def simulate(folder: Path, settings: Simulation, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write a project of simulated scenes into a new folder; return its YAML's path.

    The folder appears whole or not at all: ``scenes/<region>/PSScene/`` with the images, ``aux/arcticdem/`` and
    ``aux/tcvis/``, ``labels.gpkg`` and ``thawmap.yaml``. The same settings give the same pixels.

    Args:
        folder: A new or empty folder.
        settings: Numbers of regions, sites, dates and pixels, and the seed.
        progress: Is called after each site with the number of those that are written, and of all.

    Raises:
        ConfigError: If the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} exists and is not an empty folder; name a new one for the simulated scenes"
        raise ConfigError(msg)
    if folder.exists() and folder.samefile(Path.cwd()):
        msg = f"{folder} is the folder that you are in, and would be replaced; name a new one in it"
        raise ConfigError(msg)
    regions = REGIONS[: settings.regions]
    sites = [(region, number) for region in regions for number in range(settings.scenes_per_region)]
    labels: list[gpd.GeoDataFrame] = []
    with atomic(folder) as draft:
        draft.mkdir(parents=True)
        for written, (region, number) in enumerate(sites, start=1):
            labels += _write_site(draft, region, number, settings)
            if progress is not None:
                progress(written, len(sites))
        table = pd.concat([frame for frame in labels if len(frame)], ignore_index=True)
        columns = ["image_id", "image_date", "region", "site", "label", "geometry"]  # those of the paper's labels
        write_vector(draft / "labels.gpkg", table[columns])
        # Of the first four regions the last tests; the one before validates if another one is left to train.
        *others, test = [region.name for region in regions[:4]]
        write_text(draft / "thawmap.yaml", _YAML.format(validation=others[-1] if len(others) > 1 else "", test=test))
    return folder / "thawmap.yaml"


def _write_site(folder: Path, region: Region, number: int, settings: Simulation) -> list[gpd.GeoDataFrame]:
    """Write a site's images, elevation and trends; return each image's labels.

    A GeoDataFrame of polygons for each image.
    """
    site = find_site(region.country(settings.seed), number, settings.size)
    satellite = _FIRST_SATELLITE + REGIONS.index(region) * 20 + number
    images = [image_of(site, date, satellite) for date in range(settings.dates)]
    for image in images:
        write_image(folder / "scenes" / region.name / "PSScene", image)
    write_elevation(folder / "aux" / "arcticdem", site)
    write_trends(folder / "aux" / "tcvis", site)
    return [digitise(image) for image in images]

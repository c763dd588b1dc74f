"""A synthetic Arctic as a whole project: PlanetScope deliveries, ArcticDEM, Landsat trends and digitised slumps.

For tests, demos and benchmarks: what is written runs as it is. Every region is endless ground of its own; its places
lie along its shore, do not overlap, and are seen once or on several dates, a year apart, in the season of 2018
or 2019 and after, while slumps grow, begin and stabilise. The elevation is that of 2017.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd

from thawmap.data.vector.io import write_vector
from thawmap.errors import ConfigError
from thawmap.files.atomic import atomic, write_text
from thawmap.simulate.products import digitise, take, write_elevation, write_image, write_trends
from thawmap.simulate.reflectance import REGIONS, Region
from thawmap.simulate.sites import find_place

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
    """What to invent.

    Attributes:
        seed: Seed of everything random; the ground depends on it, its region and its position alone.
        regions: Number of regions, 2..6; of the first four the last is for test, the one before for validation.
        scenes_per_region: Places in each region, 1..20.
        dates: Images of each place, 1..10, a year apart.
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
        """Check every number."""
        allowed = {
            "seed": (0, 2**63),
            "regions": (2, 6),
            "scenes_per_region": (1, 20),
            "dates": (1, 10),
            "size": (96, 20000),
        }
        for name, (low, high) in allowed.items():
            got = getattr(self, name)
            if not low <= got <= high:
                msg = f"the simulation's {name} is {got}; choose a number from {low} to {high}"
                raise ConfigError(msg)


def simulate(folder: Path, settings: Simulation, *, made: Callable[[int, int], None] | None = None) -> Path:
    """Write a project of simulated scenes that runs as it is; the path of its ``thawmap.yaml``.

    The folder appears whole or not at all: ``scenes/<region>/PSScene/`` with the images, ``aux/arcticdem/`` and
    ``aux/tcvis/``, ``labels.gpkg`` and ``thawmap.yaml``. The same settings give the same pixels.

    Args:
        folder: Where to write.
        settings: What to invent.
        made: Is told, place by place, how many are written, and of how many.

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
    numbered = [(region, number) for region in regions for number in range(settings.scenes_per_region)]
    drawn: list[gpd.GeoDataFrame] = []
    with atomic(folder) as partial:
        partial.mkdir(parents=True)
        for done, (region, number) in enumerate(numbered, start=1):
            drawn += _write_place(partial, region, number, settings)
            if made is not None:
                made(done, len(numbered))
        write_vector(partial / "labels.gpkg", _one_table(drawn))
        write_text(partial / "thawmap.yaml", _yaml([region.name for region in regions]))
    return folder / "thawmap.yaml"


def _write_place(folder: Path, region: Region, number: int, settings: Simulation) -> list[gpd.GeoDataFrame]:
    """Invent one place and write its images, elevation and trends; its labels, image by image."""
    place = find_place(region, region.country(settings.seed), number, settings.size)
    satellite = _FIRST_SATELLITE + REGIONS.index(region) * 20 + number
    images = [take(place, date, satellite) for date in range(settings.dates)]
    for image in images:
        write_image(folder / "scenes" / region.name / "PSScene", image)
    write_elevation(folder / "aux" / "arcticdem", place)
    write_trends(folder / "aux" / "tcvis", place)
    return [digitise(image) for image in images]


def _one_table(drawn: Sequence[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    """All labels; the columns of the paper's."""
    table = pd.concat([labels for labels in drawn if len(labels)], ignore_index=True)
    return table[["image_id", "image_date", "region", "site", "label", "geometry"]]


def _yaml(regions: Sequence[str]) -> str:
    """The text of ``thawmap.yaml``: of the first four regions the last tests, the one before validates if one is left.

    More regions train.
    """
    *others, test = regions[:4]
    return _YAML.format(validation=others[-1] if len(others) > 1 else "", test=test)

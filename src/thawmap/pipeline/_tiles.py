"""What cutting does to one scene, an item of the engine; and what tiles and maps are made from.

Loads no PyTorch: processes that only cut stay small.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.geo.crs import crs_of
from thawmap.provenance import fingerprint, stamps, without

if TYPE_CHECKING:
    import geopandas as gpd


def cut(scene: Scene, project: Project, out: Path) -> int:
    """Cut one scene; the number of its tiles."""
    from thawmap.train.tiles.cut import write_tiles  # noqa: PLC0415 - zarr loads slowly

    config = project.config
    return write_tiles(
        out,
        scene,
        config=config,
        sources=project.sources,
        labels=project.labels,
        fingerprint=tiles_from(scene, config),
    )


def is_due(scene: Scene, config: Config, out: Path) -> bool:
    """Whether a scene is still to be cut.

    Raises:
        DataError: If its inputs cannot be found, or what stands at its place must stay.
    """
    from thawmap.train.tiles.cut import check_replaceable, is_finished  # noqa: PLC0415 - zarr loads slowly

    if is_finished(out, scene, tiles_from(scene, config)):
        return False
    check_replaceable(out, scene.id)
    return True


def footprints(scenes: Sequence[Scene]) -> "gpd.GeoDataFrame":
    """One row per scene with its region and its whole ground, in the CRS of the tiles' footprints."""
    import geopandas as gpd  # noqa: PLC0415 - it loads slowly, and mapping does without
    import pandas as pd  # noqa: PLC0415

    from thawmap.train.tiles.cut import FOOTPRINT_CRS  # noqa: PLC0415 - zarr loads slowly

    frames = [
        gpd.GeoDataFrame(
            {"scene": [scene.id], "region": [scene.region]},
            geometry=[scene.geobox.extent.geom],
            crs=crs_of(scene.geobox),
        ).to_crs(FOOTPRINT_CRS)
        for scene in scenes
    ]
    return gpd.GeoDataFrame(pd.concat(frames, ignore_index=True))


def tiles_from(scene: Scene, config: Config) -> str:
    """A hash of all that a scene's tiles are made from."""
    from thawmap.train.tiles.cut import FORMAT  # noqa: PLC0415 - zarr loads slowly

    assert config.labels is not None
    resolved = config.as_json()
    made_from = {
        "format": FORMAT,
        "scene": identity(scene),
        "files": [*inputs(scene, config), *(stamps(path) for path in Project(config).label_files)],
        **{name: resolved[name] for name in ("layers", "labels", "tiles")},
        **how_read(resolved),
    }
    return fingerprint(made_from)


def inputs(scene: Scene, config: Config) -> list[list[dict[str, Any]]]:
    """Every file that a scene's layers and labels come from, each with those that belong to it."""
    paths = {path for source in Project(config).sources for path in source.files(scene)} | set(scene.files.values())
    return [stamps(path) for path in sorted(paths)]


def how_read(resolved: dict[str, Any]) -> dict[str, Any]:
    """What of the scenes' and sources' settings decides the values, not where the files lie: they have their stamps."""
    return {name: without(resolved[name], {"path", "table", "region"}) for name in ("scenes", "sources")}


def identity(scene: Scene) -> dict[str, Any]:
    """What is known of a scene beside its files' content: it stands in results."""
    return {
        "acquired": None if scene.acquired is None else scene.acquired.isoformat(),
        "region": scene.region,
        "crs": crs_of(scene.geobox),
        "shape": list(scene.geobox.shape),
        "transform": list(scene.geobox.transform)[:6],
    }

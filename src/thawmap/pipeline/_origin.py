"""Where maps come from: the bundle that made them, and what it had seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from thawmap.data.sources.base import Scene
from thawmap.errors import ConfigError, DataError
from thawmap.maps.item import Maker, MapItem
from thawmap.maps.layout import BUNDLE, THRESHOLD

if TYPE_CHECKING:
    from thawmap.model.bundle import Bundle


def described(scene: Scene, maps: Path) -> Maker:
    """Return the bundle and threshold that made the map of a scene.

    Raises:
        DataError: If it cannot be read, or does not say which bundle and threshold made it.
    """
    item = MapItem.read(maps / scene.id)
    if item.maker is None:
        msg = f"{item.path} does not say which bundle and threshold made the map; make it again with 'thawmap predict'"
        raise DataError(msg)
    return item.maker


def maker(maps: Path, makers: Sequence[Maker]) -> Maker:
    """Return the one bundle and threshold that made all maps of a folder.

    Raises:
        DataError: If there is no map, or they are of several bundles or thresholds.
    """
    if not makers:
        msg = f"{maps} has no map of the configuration's scenes; make some with 'thawmap predict'"
        raise DataError(msg)
    bundles, thresholds = {maker.bundle for maker in makers}, {maker.threshold for maker in makers}
    for name, kinds in ((BUNDLE, bundles), (THRESHOLD, thresholds)):
        if len(kinds) > 1:
            found = " and ".join(sorted(str(kind) for kind in kinds))
            msg = f"{maps} holds maps with {name} {found}, which make no common score; predict into another folder"
            raise DataError(msg)
    return makers[0]


def bundle_of(model: Path | None, maker: Maker) -> "Bundle | None":
    """The bundle in ``model``, when it made the maps.

    Raises:
        ConfigError: If another one made them.
    """
    if model is None:
        return None
    from thawmap.pipeline import _predict_scene  # noqa: PLC0415

    bundle = _predict_scene.load_bundle(model)
    if bundle.id != maker.bundle:
        msg = f"the maps were made by bundle {maker.bundle}, and {model} is {bundle.id}; predict again"
        raise ConfigError(msg)
    return bundle


def roles(scenes: Sequence[Scene], bundle: "Bundle | None") -> dict[str, str]:
    """Region to train, validation or test, as the bundle was made; empty where nobody can say."""
    made = {} if bundle is None else bundle.provenance
    if made.get("config", {}).get("split", {}).get("by") != "region":
        return {}
    parts = {
        region: part for part, regions in made.get("regions", {}).items() for region in regions if part != "dropped"
    }
    return {scene.region: parts.get(scene.region, "test") for scene in scenes if scene.region is not None}


def facts(bundle: "Bundle | None") -> dict[str, str]:
    """What else the page tells of the model."""
    if bundle is None:
        return {}
    return {
        "Network": f"{bundle.architecture} with {bundle.encoder}",
        "Layers": ", ".join(layer.name for layer in bundle.layers),
        "Trained in": ", ".join(bundle.provenance.get("regions", {}).get("train", [])),
    }


def training(model: Path | None) -> pd.DataFrame | None:
    """The training's figures, where the bundle's folder has them."""
    path = None if model is None else model / "metrics.csv"
    return pd.read_csv(path) if path is not None and path.exists() else None

"""What training and mapping do to one scene: items of the engine, which can be sent to other processes."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from thawmap import __version__
from thawmap.config import Config
from thawmap.data.io import crs_of
from thawmap.data.project import Project, stamp
from thawmap.data.sources.base import Scene
from thawmap.data.stack import preview
from thawmap.infer.export import Provenance, export
from thawmap.infer.predict import Member
from thawmap.infer.predict import predict as stream
from thawmap.model import bundle as bundles
from thawmap.model.backends import open_backend


def cut(scene: Scene, project: Project, out: Path) -> int:
    """Cut one scene; the number of its tiles."""
    from thawmap.train.tiles import write_tiles  # noqa: PLC0415 - zarr loads slowly

    config = project.config
    fingerprint = tiles_from(scene, config)
    return write_tiles(
        out, scene, config=config, sources=project.sources, labels=project.labels, fingerprint=fingerprint
    )


def tiles_from(scene: Scene, config: Config) -> str:
    """A hash of all that a scene's tiles are made from."""
    assert config.labels is not None
    resolved = config.as_json()
    made_from = {
        "format": 1,
        "scene": _identity(scene),
        "files": [*_inputs(scene, config), *(stamp(path) for path in Project(config).label_files)],
        **{name: resolved[name] for name in ("layers", "labels", "tiles")},
        **_how_read(resolved),
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def map_scene(scene: Scene, project: Project, model: Path, out: Path) -> None:
    """Map one scene."""
    config, bundle = project.config, load_bundle(model)
    if config.engine.workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.engine.workers))
    member = member_of(model, project.config.inference.device)
    rows = stream(scene, member, project.sources, config.inference)
    export(
        scene,
        rows,
        out,
        picture=preview(scene, _picture_layers(project, bundle), project.sources, size=1024),
        polygons=config.polygons,
        outputs=config.outputs,
        provenance=made_from(scene, config, bundle),
    )


def made_from(scene: Scene, config: Config, bundle: bundles.Bundle) -> Provenance:
    """All that a scene's map is made from."""
    resolved = config.as_json()
    settings = {name: resolved[name] for name in ("inference", "polygons", "outputs")}
    settings["project"], settings["version"] = config.project, __version__
    settings["scene"] = _identity(scene)
    settings |= _how_read(resolved)
    chosen = config.polygons.threshold
    return Provenance(
        bundle=bundle.id,
        threshold=bundle.threshold if chosen == "bundle" else chosen,
        config=settings,
        inputs=[file for files in _inputs(scene, config) for file in files],
    )


def _inputs(scene: Scene, config: Config) -> list[list[dict[str, Any]]]:
    """Every file that a scene's layers and labels come from, each with those that belong to it."""
    paths = {path for source in Project(config).sources for path in source.files(scene)} | set(scene.files.values())
    return [stamp(path) for path in sorted(paths)]


def _how_read(resolved: dict[str, Any]) -> dict[str, Any]:
    """What of the scenes' and sources' settings decides the values, not where the files lie: they have their stamps."""
    return {name: _without(resolved[name], {"path", "table", "region"}) for name in ("scenes", "sources")}


def _without(settings: Any, keys: set[str]) -> Any:
    """Settings without some keys, on every level."""
    if not isinstance(settings, dict):
        return settings
    return {key: _without(value, keys) for key, value in settings.items() if key not in keys}


def _identity(scene: Scene) -> dict[str, Any]:
    """What is known of a scene beside its files' content: it stands in results."""
    return {
        "acquired": None if scene.acquired is None else scene.acquired.isoformat(),
        "region": scene.region,
        "crs": crs_of(scene.geobox),
        "shape": list(scene.geobox.shape),
        "transform": list(scene.geobox.transform)[:6],
    }


def _picture_layers(project: Project, bundle: bundles.Bundle) -> Sequence[str]:
    """Layers of a quicklook: false colour where the scene has it, else what the bundle sees."""
    colours = ("nir", "red", "green")
    mapped = frozenset[str]().union(*(source.layers for source in project.sources))
    return colours if set(colours) <= mapped else [bundle.layers[0].name]


def load_bundle(model: Path) -> bundles.Bundle:
    """A bundle, loaded and checked once in a process, and again when it was trained anew."""
    return _load_once(model, _stamp_of_bundle(model))


def member_of(model: Path, device: str) -> Member:
    """A bundle that is ready to run, once in a process."""
    return _open_once(model, device, _stamp_of_bundle(model))


@lru_cache(maxsize=2)
def _load_once(model: Path, _stamp: int) -> bundles.Bundle:
    return bundles.load(model)


@lru_cache(maxsize=2)
def _open_once(model: Path, device: str, _stamp: int) -> Member:
    bundle = load_bundle(model)
    return Member.of(bundle, open_backend(bundle, device=device))


def _stamp_of_bundle(model: Path) -> int:
    path = model / "bundle.json"
    return path.stat().st_mtime_ns if path.exists() else 0

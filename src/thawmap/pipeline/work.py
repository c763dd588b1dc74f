"""What mapping does to one scene: an item of the engine, which can be sent to other processes."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch

from thawmap import __version__
from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.data.stack import preview
from thawmap.infer.export import Provenance, export
from thawmap.infer.predict import Member
from thawmap.infer.predict import predict as stream
from thawmap.model import bundle as bundles
from thawmap.model.backends import open_backend
from thawmap.pipeline.cut import how_read, identity, inputs


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
    settings["scene"] = identity(scene)
    settings |= how_read(resolved)
    chosen = config.polygons.threshold
    return Provenance(
        bundle=bundle.id,
        threshold=bundle.threshold if chosen == "bundle" else chosen,
        config=settings,
        inputs=[file for files in inputs(scene, config) for file in files],
    )


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

"""Mapping of one scene: an item of the engine, in any process."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt

from thawmap import __version__
from thawmap.config import Config, InferenceSettings
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.data.stack import Stack
from thawmap.files.atomic import alone
from thawmap.infer.ensemble import plan_scene, read_overview
from thawmap.infer.member import Member, Network
from thawmap.infer.plan import memory
from thawmap.infer.predict import predict as stream
from thawmap.infer.sample import cut_out, first_cut_out
from thawmap.maps.colours import FALSE_COLOUR
from thawmap.maps.decide import decide, record, recorded
from thawmap.maps.job import MapJob, Provenance
from thawmap.maps.replacing import is_due as map_is_due
from thawmap.maps.replacing import is_finished
from thawmap.maps.smooth import smoothed
from thawmap.maps.write import write_map
from thawmap.model import bundle_folder
from thawmap.model.backends import prepared
from thawmap.model.backends.agreement import RealImage, synthetic_image
from thawmap.model.backends.devices import device_type, resolve_device, set_threads
from thawmap.model.backends.memory import BASE_BYTES, bytes_per_pixel
from thawmap.model.backends.select import choose
from thawmap.model.bundle import Bundle
from thawmap.model.decision import common
from thawmap.pipeline._inputs import how_read, identity, inputs
from thawmap.system import threads_each

_MOST_READERS = 8  # threads that keep a GPU fed; on a CPU the network needs the processors
_MOST_OPEN = 16  # bundles that a process holds ready
_opened: dict[tuple[Path, InferenceSettings, int], Member] = {}


def map_scene(scene: Scene, project: Project, models: Sequence[Path], out: Path) -> None:
    """Write a scene's map into ``out``, from the mean of bundles, unless it is there.

    Another process that maps it is waited for; a map that it finished is left alone.
    """
    config, bundles = project.config, [load_bundle(model) for model in models]
    job = map_job(scene, config, bundles)
    with alone(out / scene.id):
        if is_finished(job, out / scene.id):
            return
        _share_processors(config.engine.workers)
        extra_layers, picture = config.polygons.layers, _picture_layers(project, bundles[0])
        blank = [Member.of(bundle, _unready) for bundle in bundles]
        overview = read_overview(scene, blank, project.sources, extra_layers=extra_layers, picture=picture)
        members = [
            member_of(model, config.inference, partial(_image_of_scene, scene, bundle, project, overview))
            for model, bundle in zip(models, bundles, strict=True)
        ]
        rows = stream(scene, members, project.sources, config.inference, extra_layers=extra_layers, overview=overview)
        write_map(
            job,
            smoothed(rows, job.smoothing_px),
            out,
            picture=Stack(overview.geobox, {name: overview[name] for name in (*picture, "valid")}),
        )


def is_due(scene: Scene, config: Config, bundles: Sequence[Bundle], out: Path) -> bool:
    """Return whether a scene's map in ``out`` is missing or made from something else.

    Raises:
        DataError: If its inputs cannot be found, or what stands at its place must stay.
    """
    return map_is_due(map_job(scene, config, bundles), out / scene.id)


def check_answers(models: Sequence[Path], config: Config) -> None:
    """Refuse bundles whose network does not give the answers stored with it.

    That is its self-test. Of a bundle that OpenVINO has ready, OpenVINO answers, and no network is built.

    Raises:
        BundleError: If one does not, or cannot be rebuilt.
        ConfigError: If there is no such device.
    """
    settings = config.inference
    for bundle in map(load_bundle, models):
        backend = _backend(bundle, settings)
        if prepared.recall(bundle, device=settings.device, backend=backend, precision=settings.precision) is None:
            _ = bundle.network  # which is built now, and asked


def choose_backends(models: Sequence[Path], project: Project, scenes: Sequence[Scene]) -> list[str]:
    """Time backends with each bundle, record the fastest; return messages on them.

    Nothing is measured unless `backend: auto` asks for it, nor where it would take longer than it saves. Workers then
    find the answer, so this is done before they begin.
    """
    config = project.config
    if config.inference.backend != "auto":
        return []
    _share_processors(config.engine.workers)
    pixels = config.inference.symmetries * sum(scene.geobox.height * scene.geobox.width for scene in scenes)
    device, precision = config.inference.device, config.inference.precision
    lines = []
    for bundle in map(load_bundle, models):
        image = partial(_image_of_first, scenes, bundle, project)
        lines.append(choose(bundle, device=device, precision=precision, pixels=pixels, image=image).message)
    return [line for line in lines if line]


def _image_of_first(scenes: Sequence[Scene], bundle: Bundle, project: Project, side: int) -> npt.NDArray[np.float32]:
    """Return an image (C, H, W) from the first usable scene, or else a synthetic one.

    Backends are timed on it; a scene is usable that has a valid pixel.
    """
    cut = first_cut_out(scenes, bundle, project.sources, side)
    return synthetic_image(bundle.layers, side)[0] if cut is None else cut[1]


def _image_of_scene(
    scene: Scene, bundle: Bundle, project: Project, overview: Stack, side: int
) -> npt.NDArray[np.float32]:
    """Return an image (C, H, W) from a scene, or a synthetic one if nothing is valid.

    A backend is compared on it.
    """
    image = cut_out(scene, bundle, project.sources, side, overview=overview)
    return synthetic_image(bundle.layers, side)[0] if image is None else image


def _share_processors(workers: int) -> None:
    """Limit this process's networks to its share of threads, if workers are several."""
    if workers > 1:
        set_threads(threads_each(workers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Windows, disk, memory and time that mapping a scene takes.

    Attributes:
        scene: Its id.
        shape: Its rows and columns.
        tile: Rows and columns of the largest window.
        windows: Number of windows.
        computed: Pixels that networks compute.
        stored: Bytes of the rasters before they are compressed.
        memory: Bytes of the process.
        seconds: Time of the networks, as measured once on this machine; None where it was not.
    """

    scene: str
    shape: tuple[int, int]
    tile: tuple[int, int]
    windows: int
    computed: int
    stored: int
    memory: float
    seconds: float | None

    def row(self) -> dict[str, str]:
        """Return the cost as a row of a table: a dict of column to text."""
        return {
            "scene": self.scene,
            "px": "x".join(map(str, self.shape)),
            "windows": str(self.windows),
            "largest": "x".join(map(str, self.tile)),
            "computed Mpx": f"{self.computed / 1e6:.1f}",
            "memory GB": f"{self.memory / 1e9:.1f}",
            "minutes": "" if self.seconds is None else f"{self.seconds / 60:.1f}",
        }


def cost(scene: Scene, project: Project, models: Sequence[Path]) -> Cost:
    """Estimate windows, disk, memory and time of mapping a scene; no network runs."""
    config = project.config
    settings, bundles = config.inference, [load_bundle(model) for model in models]
    on_cpu = settings.model_copy(update={"device": "cpu"})  # plans for a GPU are made where there is none
    members = [_member(bundle, on_cpu, ready=False) for bundle in bundles]
    extra_layers = config.polygons.layers
    overview = read_overview(scene, members, project.sources, extra_layers=extra_layers, size=512)
    tiling = plan_scene(scene, members, settings, overview, extra_layers=len(extra_layers))
    choices = [choose(bundle, device=settings.device, precision=settings.precision, pixels=0) for bundle in bundles]
    backends = [choice.backend if settings.backend == "auto" else settings.backend for choice in choices]
    rates = [choice.seconds.get(backend) for choice, backend in zip(choices, backends, strict=True)]
    bytes_each = 4 if config.outputs.probability == "float32" else 1
    rasters = 1 if len(models) == 1 else 2  # probability, and the spread of several bundles
    return Cost(
        scene=scene.id,
        shape=tiling.shape,
        tile=tiling.largest,
        windows=len(list(tiling.tiles)),
        computed=tiling.pixels * len(models) * settings.symmetries,
        stored=tiling.shape[0] * tiling.shape[1] * (rasters * bytes_each + 1),
        memory=memory(tiling.largest, members, settings, width=tiling.shape[1], extra_layers=len(extra_layers)),
        seconds=None if None in rates else tiling.pixels * settings.symmetries / 1e6 * sum(filter(None, rates)),
    )


def map_job(scene: Scene, config: Config, bundles: Sequence[Bundle]) -> MapJob:
    """Return the `MapJob` of a scene: settings, threshold as a number, provenance.

    What is left to the bundles is the mean of theirs.

    Raises:
        DataError: If an input of the scene cannot be found.
    """
    resolved = config.as_json()
    settings = {name: resolved[name] for name in ("inference", "outputs")}
    settings["project"], settings["version"] = config.project, __version__
    settings["scene"] = identity(scene)
    settings |= how_read(resolved)
    decisions = common([bundle.decisions for bundle in bundles])
    settings["polygons"] = recorded(resolved["polygons"], decisions)
    decided = decide(config.polygons, decisions, "tile", plain=fmean(bundle.threshold for bundle in bundles))
    provenance = Provenance(
        bundle="+".join(bundle.id for bundle in bundles),
        config=settings | record(decided, decisions),
        inputs=[file for files in inputs(scene, config) for file in files],
    )
    return MapJob(
        scene=scene,
        polygons=decided.polygons,
        outputs=config.outputs,
        provenance=provenance,
        least_m2=decided.least_m2,
    )


def _picture_layers(project: Project, bundle: Bundle) -> Sequence[str]:
    """Return layer names for a quicklook: false colour, or else the bundle's first."""
    mapped = frozenset[str]().union(*(source.layers for source in project.sources))
    return FALSE_COLOUR if set(FALSE_COLOUR) <= mapped else [bundle.layers[0].name]


def load_bundle(model: Path) -> Bundle:
    """Read a bundle from its folder and check its files; cached in the process.

    It is read again when it was trained anew.
    """
    return _load_once(model, _stamp_of_bundle(model))


def member_of(model: Path, settings: InferenceSettings, image: RealImage | None = None) -> Member:
    """Return a bundle opened with its backend, ready to compute; cached in a process.

    `backend: auto` takes what was measured, and measures nothing. The first scene's ``image`` shows whether a backend
    agrees with PyTorch; PyTorch itself in float32 needs none, and what is open is not compared again.

    Raises:
        ConfigError: If there is no such device, or the backend does not work here.
    """
    key = (model, settings, _stamp_of_bundle(model))
    if key not in _opened:
        while len(_opened) >= _MOST_OPEN:
            _opened.pop(next(iter(_opened)))
        _opened[key] = _member(load_bundle(model), settings, image=image)
    return _opened[key]


def unready_member(bundle: Bundle, settings: InferenceSettings) -> Member:
    """Return a bundle with its backend's memory need, for plans; it cannot compute."""
    return _member(bundle, settings, ready=False)


def _member(
    bundle: Bundle, settings: InferenceSettings, *, ready: bool = True, image: RealImage | None = None
) -> Member:
    """Return a bundle with its backend and memory need; for plans, leave it unopened.

    One that is not ready cannot compute.
    """
    device, precision, backend = settings.device, settings.precision, _backend(bundle, settings)
    size = prepared.recall(bundle, device=device, backend=backend, precision=precision)
    opened: Network = _unready
    if size is not None and ready:
        opened = prepared.PreparedBackend(bundle)
    elif size is None:
        size = bytes_per_pixel(bundle, backend, precision)
        if ready:
            from thawmap.model.backends.open import open_backend  # noqa: PLC0415 - torch loads slowly

            opened = open_backend(bundle, device=device, backend=backend, precision=precision, image=image)
            prepared.remember(bundle, backend=backend, precision=precision, bytes_per_pixel=size)
    return replace(
        Member.of(bundle, opened),
        bytes_per_pixel=size,
        base_bytes=BASE_BYTES[backend],
        readers=2 if device_type(resolve_device(device)) == "cpu" else min(max(2, os.cpu_count() or 2), _MOST_READERS),
    )


def _backend(bundle: Bundle, settings: InferenceSettings) -> str:
    """Return the name of the backend that is set, or was measured as the fastest."""
    if settings.backend != "auto":
        return str(settings.backend)
    return choose(bundle, device=settings.device, precision=settings.precision, pixels=0).backend


def _unready(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    msg = f"a plan does not compute {len(images)} images"
    raise AssertionError(msg)


@lru_cache(maxsize=16)
def _load_once(model: Path, _stamp: int) -> Bundle:
    return bundle_folder.read(model)


def _stamp_of_bundle(model: Path) -> int:
    path = model / "bundle.json"
    return path.stat().st_mtime_ns if path.exists() else 0

"""Speed and agreement of every backend with a bundle, for `thawmap bench`."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from thawmap.config import Config, InferenceSettings, ModelSettings
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.errors import ConfigError, DataError
from thawmap.infer.plan import plan
from thawmap.infer.sample import first_cut_out
from thawmap.layers import PAPER_LAYERS, layer
from thawmap.model.backends.agreement import Precision, central_square, synthetic_image
from thawmap.model.backends.select import TILE_PX, Trial, candidates, hardware_name, timed_side, trials
from thawmap.model.backends.speed import operations_per_pixel, product_rate
from thawmap.model.bundle import Bundle
from thawmap.model.network import build, traits
from thawmap.pipeline._predict_scene import load_bundle, unready_member
from thawmap.system import installed_versions
from thawmap.text import counted

SITE_PX = 8000
"""Side in pixels of a PlanetScope site, some 24 km."""

_FEW = -3.0  # bias of random weights: masks are small then, as those of slumps, and half of 1 is not all there is


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The device that computes, and its speed in matrix products.

    Attributes:
        device: Name of the processor or the GPU.
        threads: PyTorch's.
        versions: Of the libraries.
        operations_per_s: Of its matrix products in float32.
    """

    device: str
    threads: int
    versions: dict[str, str]
    operations_per_s: float

    @classmethod
    def of(cls, device: torch.device) -> "Machine":
        """Return a device's name, threads, library versions, and its speed measured now."""
        return cls(
            device=hardware_name(str(device)),
            threads=torch.get_num_threads(),
            versions={"torch": str(torch.__version__)} | installed_versions(["openvino"]),
            operations_per_s=product_rate(device),
        )

    @property
    def line(self) -> str:
        """Sentence on the device, its threads, libraries and speed."""
        libraries = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        rate = f"{self.operations_per_s / 1e9:.0f} GFLOP/s in float32 matrix products"
        return f"{self.device}, {threads}, {libraries}; {rate}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A bundle, and the image that it is timed and compared on.

    Attributes:
        name: Its folder.
        bundle: The model.
        image: (1, C, H, W) in physical units, NaN = missing.
        scene: The scene that the image is the middle of; None: it is made up.
        operations: Of the network, for each pixel.
    """

    name: str
    bundle: Bundle
    image: npt.NDArray[np.float32]
    scene: str | None
    operations: float

    @property
    def line(self) -> str:
        """Sentence on the bundle's network, and on the image that it is measured on."""
        bundle, (height, width) = self.bundle, self.image.shape[2:]
        network = f"{bundle.network_name}, {counted(len(bundle.layers), 'layer')}"
        image = "a made-up image" if self.scene is None else f"the middle of {self.scene}"
        return (
            f"{self.name}: {network}, {self.operations / 1e3:.0f} thousand operations for a pixel; "
            f"measured on {image}, {height} x {width} px"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Speed and agreement of one backend with a bundle; None where it gave no answer.

    Attributes:
        model: Folder of the bundle.
        backend: Its name.
        precision: Of its multiplications.
        seconds_per_mpx: For a million pixels, each once.
        times_faster: Than PyTorch in float32.
        largest_difference: In probability, from PyTorch in float32; None also where one answers with no number.
        within: Share of pixels that differ by at most 0.02.
        mask_iou: Intersection over union of its mask and PyTorch's in float32.
        of_limit: What its operations would take as matrix products in float32, over what it takes.
        site_minutes: For a site of `SITE_PX` rows and columns, cut as for a map.
        refused: Why maps are not made with it; None where they may be.
    """

    model: str
    backend: str
    precision: Precision
    seconds_per_mpx: float | None = None
    times_faster: float | None = None
    largest_difference: float | None = None
    within: float | None = None
    mask_iou: float | None = None
    of_limit: float | None = None
    site_minutes: float | None = None
    refused: str | None = None

    def row(self) -> dict[str, str]:
        """Return the speed as a row of a table: a dict of column to text."""
        seconds = self.seconds_per_mpx
        return {
            "model": self.model,
            "backend": self.backend,
            "precision": self.precision,
            "s/Mpx": _text(seconds, "#.3g"),
            "Mpx/s": _text(seconds and 1 / seconds, "#.3g"),
            "times faster": _text(self.times_faster, ".2f"),
            "of limit": _text(self.of_limit, ".0%"),
            "site, min": _text(self.site_minutes, ".1f"),
            "differs by": _text(self.largest_difference, ".1g"),
            "within 0.02": _text(self.within, ".2%"),
            "mask IoU": _text(self.mask_iou, ".3f"),
            "agrees": "yes" if self.refused is None else "no",
        }


def random_bundle(architecture: str = "unet", encoder: str = "resnet34") -> Bundle:
    """Make a bundle with random weights for the paper's layers, the same each time.

    It finds few slumps.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = ModelSettings(architecture=architecture, encoder=encoder)
        network = build(settings, channels=len(PAPER_LAYERS)).eval()
    parameters = network.named_parameters()
    heads = [bias for name, bias in parameters if name.startswith("segmentation_head") and bias.ndim == 1]
    torch.nn.init.constant_(heads[-1], _FEW)
    about = traits(network, channels=len(PAPER_LAYERS))
    return Bundle(
        architecture=architecture,
        encoder=encoder,
        layers=tuple(map(layer, PAPER_LAYERS)),
        tile=TILE_PX if about.fixed_tile else 256,
        stride=about.stride,
        fixed_tile=about.fixed_tile,
        network=network,
    )


def subject(model: Path | None, config: Config | None) -> Subject:
    """Load a bundle, or make a random one, with an image to time it on.

    Without ``model`` it is U-Net with ResNet-34 and random weights. Without a configuration the image is made up, else
    it is the middle of its first usable scene.

    Raises:
        BundleError: If the bundle is damaged.
        ConfigError: If the configuration has no scenes.
        DataError: If nothing of its scenes is valid, or none can be read.
    """
    bundle = random_bundle() if model is None else load_bundle(model)
    name = "random weights" if model is None else str(model)
    side, operations = timed_side(bundle), operations_per_pixel(bundle)
    if config is None:
        made_up = synthetic_image(bundle.layers, side)
        return Subject(name=name, bundle=bundle, image=made_up, scene=None, operations=operations)
    project = Project(config)
    first = first_cut_out(_openable(project), bundle, project.sources, side)
    if first is None:
        msg = f"no scene of {config.project} can be read and has a usable pixel; see 'thawmap scenes'"
        raise DataError(msg)
    scene, image = first
    return Subject(name=name, bundle=bundle, image=central_square(image, side), scene=scene.id, operations=operations)


def number_of_trials(device: torch.device, precisions: Sequence[Precision]) -> int:
    """Return how many pairs of backend and precision are timed for a bundle."""
    pairs = {(backend, precision) for backend in candidates(str(device)) for precision in precisions}
    return len({("eager", "float32"), *pairs})


def speeds(
    subject: Subject,
    machine: Machine,
    device: torch.device,
    precisions: Sequence[Precision],
    settings: InferenceSettings,
) -> Iterator[Speed]:
    """Time every backend with a bundle; yield a `Speed` each, PyTorch float32 first.

    Where that fails, nothing else is measured.

    Raises:
        ConfigError: If the cache folder cannot be written.
        BundleError: If the network's answers are not numbers.
    """
    limit_s = subject.operations * 1e6 / machine.operations_per_s
    eager_s: float | None = None
    for trial in trials(subject.bundle, subject.image, device=str(device), precisions=precisions):
        if trial.seconds is None or trial.agreement is None:
            yield Speed(model=subject.name, backend=trial.backend, precision=trial.precision, refused=trial.refused)
            continue
        eager_s = eager_s or trial.seconds
        yield Speed(
            model=subject.name,
            backend=trial.backend,
            precision=trial.precision,
            seconds_per_mpx=trial.seconds,
            times_faster=eager_s / trial.seconds,
            largest_difference=largest if math.isfinite(largest := trial.agreement.largest_difference) else None,
            within=trial.agreement.close_share,
            mask_iou=trial.agreement.mask_iou,
            of_limit=limit_s / trial.seconds,
            site_minutes=_site_minutes(subject.bundle, trial, settings),
            refused=trial.refused,
        )


def as_json(machine: Machine, subjects: Sequence[Subject], speeds: Sequence[Speed]) -> dict[str, Any]:
    """Return machine, models and speeds as one dict of JSON values."""
    models = {
        subject.name: {
            "bundle": subject.bundle.id,
            "architecture": subject.bundle.architecture,
            "encoder": subject.bundle.encoder,
            "layers": [layer.name for layer in subject.bundle.layers],
            "operations_per_px": subject.operations,
            "scene": subject.scene,
            "image_px": list(subject.image.shape[2:]),
        }
        for subject in subjects
    }
    rows = [asdict(speed) for speed in speeds]
    return {"machine": asdict(machine), "models": models, "site_px": SITE_PX, "speeds": rows}


def _site_minutes(bundle: Bundle, trial: Trial, settings: InferenceSettings) -> float | None:
    """Estimate minutes for a site of 8000 x 8000 pixels; None if it cannot be tiled.

    From the seconds of a trial, overlaps too; None also where it has none.
    """
    on_cpu = settings.model_copy(update={"device": "cpu", "backend": trial.backend, "precision": trial.precision})
    try:
        tiling = plan((SITE_PX, SITE_PX), [unready_member(bundle, on_cpu)], on_cpu)
    except ConfigError:
        return None
    return None if trial.seconds is None else tiling.pixels / 1e6 * settings.symmetries * trial.seconds / 60


def _openable(project: Project) -> Iterator[Scene]:
    """Open a project's scenes one by one; skip those that cannot be opened.

    Yields each scene.
    """
    for candidate in project.candidates():
        try:
            yield project.open(candidate, labelled=False)
        except DataError:
            continue


def _text(value: float | None, form: str) -> str:
    """Return a number in a format of Python's `format`; "" for None."""
    return "" if value is None else format(value, form)

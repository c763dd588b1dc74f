"""Random changes of training tiles: image, target and valid move together, exactly (law 5).

They work on batches, on whatever device those are, in physical units, before anything is scaled or clipped. What is
missing, ignored or not valid moves along and stays so. All randomness comes from a generator on the CPU, so a seed
means the same on every device.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Generator, Tensor

from thawmap.config import AugmentSettings, DropSettings, GapSettings
from thawmap.data.derive import RECIPES
from thawmap.errors import ConfigError
from thawmap.layers import LAYERS, Layer
from thawmap.train.tiles.store import Batch

BLUR_PX = (3, 5)
"""Sides of the blurs, each as likely as the other."""

_CLOUD_PX = (8.0, 64.0)  # about how far the middles of clouds are from each other
_SWATH_SHARE = 0.25  # of the gaps that are the end of a swath


def check(settings: AugmentSettings, layers: Sequence[Layer]) -> None:
    """Refuse what the input layers do not suit: moves of those with a direction, changes of what is not there.

    Raises:
        ConfigError: If there is such a setting.
    """
    turned = [layer.name for layer in layers if layer.directional]
    if turned and (settings.flip or settings.rotate90):
        msg = (
            f"layer {turned[0]!r} has a direction, which flips and quarter turns would falsify; set "
            "augment.flip and augment.rotate90 to 0, or leave the layer out"
        )
        raise ConfigError(msg)
    names = [layer.name for layer in layers]
    if settings.changes_values and not any(_optical(need) for name in names for need in _ancestors(name)):
        msg = (
            f"augment.{settings.changes_values[0]} changes optical layers, and there is none among the layers "
            f"{', '.join(names)}; leave it out, or add one"
        )
        raise ConfigError(msg)
    if settings.drop is not None:
        _check_drop(settings.drop, names)


def _check_drop(settings: DropSettings, names: Sequence[str]) -> None:
    dropped = [name for group in _groups(settings, names) for name in group]
    for name in dropped:
        if name not in names:
            msg = f"augment.drop names the layer {name!r}, which is not an input; inputs are {', '.join(names)}"
            raise ConfigError(msg)
        if name in RECIPES:
            needs = " and ".join(RECIPES[name].needs)
            msg = f"augment.drop names the layer {name!r}, which follows from {needs}; name one of these instead"
            raise ConfigError(msg)
    left = set(names) - optional(settings, names)
    if not dropped or not left:
        msg = f"augment.drop leaves {'nothing' if dropped else 'every one'} of the layers {', '.join(names)}; "
        msg += "name some of them in augment.drop.layers, and not all"
        raise ConfigError(msg)


def optional(settings: DropSettings | None, names: Sequence[str]) -> frozenset[str]:
    """Those of the input layers that a network learns to do without, with what is made from them."""
    if settings is None:
        return frozenset()
    dropped = {name for group in _groups(settings, names) for name in group}
    return frozenset(name for name in names if dropped & _ancestors(name))


def augment(batch: Batch, stored: Sequence[str], settings: AugmentSettings, generator: Generator) -> Batch:
    """The batch with every tile changed by chance, each on its own, in the order that the settings say.

    Tiles must be square.

    Args:
        batch: The tiles, their layers as they are stored.
        stored: Names of the layers.
        settings: What changes, and how often.
        generator: On the CPU.
    """
    moved = _paste(_move(batch, settings, generator), settings.paste, generator)
    number = len(moved.image)
    sides = torch.tensor(BLUR_PX)[torch.randint(len(BLUR_PX), (number,), generator=generator)]
    sides = sides * _chosen(number, settings.blur, generator)
    image = torch.stack([blur(one, side) for one, side in zip(moved.image, sides.tolist(), strict=True)])
    changed = replace(moved, image=image)
    if settings.gaps is not None:
        changed = _lay_gaps(changed, settings.gaps, generator)
    image = _change(changed, stored, settings, generator)
    if settings.drop is not None:
        image = _drop(image, stored, settings.drop, generator)
    return replace(changed, image=image)


def blur(image: Tensor, side: int) -> Tensor:
    """An image (C, H, W) under a Gaussian of ``side`` x ``side`` px; 0 leaves it as it is.

    NaN = missing, and stays so: a missing pixel, or one beyond the border, gives its weight to the others.
    The width follows from the side as in OpenCV: sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8.
    """
    if not side:
        return image
    known = ~torch.isnan(image)
    weights = _smooth(known.float(), side)
    values = _smooth(torch.where(known, image, 0.0), side)
    return torch.where(known, values / weights, torch.nan)


def _smooth(values: Tensor, side: int) -> Tensor:
    """Weighted sums of (C, H, W), zeros beyond the border; sums and no convolution, so GPUs keep all digits."""
    reach = side // 2
    sigma = 0.3 * (reach - 1) + 0.8
    weights = [math.exp(-(step**2) / (2 * sigma**2)) for step in range(-reach, reach + 1)]
    for axis in (-2, -1):
        length = values.shape[axis]
        padded = F.pad(values, (0, 0, reach, reach) if axis == -2 else (reach, reach))
        values = torch.zeros_like(values)
        for first, weight in enumerate(weights):
            values.add_(padded.narrow(axis, first, length), alpha=weight / sum(weights))
    return values


def _move(batch: Batch, settings: AugmentSettings, generator: Generator) -> Batch:
    """Every tile turned by quarters against the clock, then mirrored."""
    number = len(batch.image)
    leftright = _chosen(number, settings.flip, generator).tolist()
    topbottom = _chosen(number, settings.flip, generator).tolist()
    turned = _chosen(number, settings.rotate90, generator)
    quarters = (torch.randint(1, 4, (number,), generator=generator) * turned).tolist()
    mirrored = [
        [axis for axis, wanted in ((-1, one), (-2, other)) if wanted]
        for one, other in zip(leftright, topbottom, strict=True)
    ]

    def move(values: Tensor) -> Tensor:
        moves = zip(values, quarters, mirrored, strict=True)
        return torch.stack([torch.rot90(one, turn, (-2, -1)).flip(axes) for one, turn, axes in moves])

    return Batch(image=move(batch.image), target=move(batch.target), valid=move(batch.valid))


def _paste(batch: Batch, probability: float, generator: Generator) -> Batch:
    """Objects of another tile of the batch over each that is chosen: values, target and valid of their pixels."""
    if not probability:
        return batch
    number = len(batch.image)
    donors = (torch.arange(number) + torch.randint(1, max(number, 2), (number,), generator=generator)) % number
    chosen = _chosen(number, probability, generator).to(batch.image.device)
    donors = donors.to(batch.image.device)
    pasted = (batch.target[donors] == 1) & chosen.view(-1, 1, 1)
    return Batch(
        image=torch.where(pasted.unsqueeze(1), batch.image[donors], batch.image),
        target=torch.where(pasted, batch.target[donors], batch.target),
        valid=torch.where(pasted, batch.valid[donors], batch.valid),
    )


def _lay_gaps(batch: Batch, settings: GapSettings, generator: Generator) -> Batch:
    """Lay gaps over tiles that are chosen: their pixels are missing in all layers, and not valid.

    Where a smooth random field is highest: patches like clouds of 8 to 64 px with frayed rims; or all that lies beyond
    a straight line, like the end of a swath.
    """
    number, _, height, width = batch.image.shape
    shares = settings.share * torch.rand(number, generator=generator) * _chosen(number, settings.probability, generator)
    fields = torch.stack([_field(height, width, generator) for _ in range(number)])
    cuts = torch.stack([field.quantile(1 - share) for field, share in zip(fields, shares, strict=True)])
    gaps = ((fields > cuts.view(-1, 1, 1)) & (shares > 0).view(-1, 1, 1)).to(batch.image.device)
    image = batch.image.masked_fill(gaps.unsqueeze(1), torch.nan)
    return replace(batch, image=image, valid=batch.valid & ~gaps)


def _field(height: int, width: int, generator: Generator) -> Tensor:
    """A random field (H, W) whose highest parts are a gap: as of clouds, and one in four times of a swath's end."""
    kind, angle, size = torch.rand(3, generator=generator).tolist()
    if kind < _SWATH_SHARE:
        rows, cols = torch.arange(height).view(-1, 1), torch.arange(width)
        return math.cos(2 * math.pi * angle) * rows + math.sin(2 * math.pi * angle) * cols
    field = torch.zeros(1, 1, height, width)
    side = _CLOUD_PX[0] * (_CLOUD_PX[1] / _CLOUD_PX[0]) ** size
    for octave, weight in ((1, 1.0), (3, 0.3)):
        cells = [max(2, round(octave * length / side) + 1) for length in (height, width)]
        coarse = torch.randn((1, 1, *cells), generator=generator)
        field += weight * F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    return field[0, 0]


@dataclass(frozen=True, slots=True)
class _Chance:
    """Numbers for the tiles of a batch, drawn on the CPU and brought to the device."""

    number: int
    device: torch.device
    generator: Generator

    def chosen(self, probability: float) -> Tensor:
        """1 for tiles that are changed, 0 for others, (N, 1, 1, 1)."""
        return _chosen(self.number, probability, self.generator).view(-1, 1, 1, 1).float().to(self.device)

    def even(self, largest: float, *, layers: int = 1) -> Tensor:
        """Evenly from -``largest`` to ``largest``, (N, ``layers``, 1, 1)."""
        return largest * (2 * torch.rand((self.number, layers, 1, 1), generator=self.generator) - 1).to(self.device)

    def white(self, shape: Sequence[int], largest: float) -> Tensor:
        """Noise (N, C, H, W) of standard deviations evenly from 0 to ``largest``, one for each tile."""
        deviation = largest * torch.rand((self.number, 1, 1, 1), generator=self.generator)
        return (deviation * torch.randn(tuple(shape), generator=self.generator)).to(self.device)


def _change(batch: Batch, stored: Sequence[str], settings: AugmentSettings, generator: Generator) -> Tensor:
    """The layers (N, C, H, W) after all changes of value, of the optical ones and of what is made from them."""
    places = [place for place, name in enumerate(stored) if _optical(name)]
    if not settings.changes_values or not places:
        return batch.image
    values = batch.image[:, places]
    chance = _Chance(len(values), values.device, generator)
    if settings.contrast is not None:
        factor = chance.chosen(settings.contrast.probability) * chance.even(settings.contrast.change)
        values = values + factor * (values - _mean(values, batch.valid))
    if settings.brightness is not None:
        values = values + chance.chosen(settings.brightness.probability) * chance.even(settings.brightness.offset)
    if settings.radiometry is not None:
        gain, offset = settings.radiometry.gain, settings.radiometry.offset
        change = chance.even(gain, layers=len(places)) * values + chance.even(offset, layers=len(places))
        values = values + chance.chosen(settings.radiometry.probability) * change
    if settings.noise is not None:
        noise = chance.white(values.shape, settings.noise.deviation)
        values = values + chance.chosen(settings.noise.probability) * noise
    return _follow(batch.image, stored, dict(zip(places, values.unbind(1), strict=True)))


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of each layer of each tile over its valid pixels, (N, C, 1, 1); 0 where there is none."""
    known = valid.unsqueeze(1) & ~torch.isnan(values)
    return torch.where(known, values, 0.0).sum((-2, -1), keepdim=True) / known.sum((-2, -1), keepdim=True).clamp(min=1)


def _follow(image: Tensor, stored: Sequence[str], changed: Mapping[int, Tensor]) -> Tensor:
    """The layers with the changed ones in their place, and anew those that follow from them and are stored."""
    planes = list(image.unbind(1))
    for place, values in changed.items():
        planes[place] = values
    known = dict(zip(stored, range(len(stored)), strict=True))
    for name, place in known.items():
        recipe = RECIPES.get(name)
        if recipe is None or not all(need in known for need in recipe.needs):
            continue
        needs = [known[need] for need in recipe.needs]
        made, old = recipe.function(*(planes[need] for need in needs)), image[:, place]
        same = torch.stack([planes[need] == image[:, need] for need in needs]).all(0)
        planes[place] = torch.where(same | torch.isnan(made + old), old, made)
    return torch.stack(planes, dim=1)


def _drop(image: Tensor, stored: Sequence[str], settings: DropSettings, generator: Generator) -> Tensor:
    """The layers, some of them missing in some tiles, and so what is stored and made from them."""
    gone = torch.zeros(image.shape[:2], dtype=torch.bool)
    for group in _groups(settings, stored):
        follows = torch.tensor([bool(set(group) & _ancestors(name)) for name in stored])
        gone |= _chosen(len(image), settings.probability, generator).unsqueeze(1) & follows
    return image.masked_fill(gone.to(image.device).view(*gone.shape, 1, 1), torch.nan)


def _groups(settings: DropSettings, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Layers that are missing together."""
    if settings.layers is not None:
        return [(group,) if isinstance(group, str) else group for group in settings.layers]
    others = tuple(name for name in names if not any(_optical(one) for one in _ancestors(name)))
    return [others] if others else []


def _ancestors(name: str) -> set[str]:
    """A layer, and all that recipes make it from."""
    needs = RECIPES[name].needs if name in RECIPES else ()
    return {name}.union(*(_ancestors(need) for need in needs))


def _optical(name: str) -> bool:
    return name in LAYERS and LAYERS[name].optical


def _chosen(number: int, probability: float, generator: Generator) -> Tensor:
    """Which of ``number`` tiles are changed, bool."""
    return torch.rand(number, generator=generator) < probability

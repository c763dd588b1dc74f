"""Random augmentation of training tiles (law 5).

Image, target and valid move together.

It works on batches, on whatever device those are, in physical units, before anything is scaled or clipped. What is
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
from thawmap.data.derive import RECIPES, recipe_of
from thawmap.errors import ConfigError
from thawmap.layers import LAYERS, Layer
from thawmap.train.tiles.store import Batch

BLUR_PX = (3, 5)
"""Sides of the blurs in pixels, equally likely."""

_CLOUD_PX = (8.0, 64.0)  # range of the distance between the middles of clouds
_SWATH_SHARE = 0.25  # of gaps that look like the end of a swath; the others look like clouds


def check_augmentation(settings: AugmentSettings, layers: Sequence[Layer]) -> None:
    """Refuse augmentation that turns directional layers, or alters ones not there.

    Layers that are to be dropped must be inputs, and some must be left.

    Raises:
        ConfigError: If there is such a setting.
    """
    directional = [layer.name for layer in layers if layer.directional]
    if directional and (settings.flip or settings.rotate90):
        msg = (
            f"layer {directional[0]!r} has a direction, which flips and quarter turns would falsify; set "
            "augment.flip and augment.rotate90 to 0, or leave the layer out"
        )
        raise ConfigError(msg)
    names = [layer.name for layer in layers]
    if settings.changes_values and not any(_is_optical(need) for name in names for need in _ancestors(name)):
        msg = (
            f"augment.{settings.changes_values[0]} changes optical layers, and there is none among the layers "
            f"{', '.join(names)}; leave it out, or add one"
        )
        raise ConfigError(msg)
    around = [name for name in names if any(_is_optical(need) for need in _ancestors(name)) and _looks_around(name)]
    if settings.changes_values and around:
        msg = (
            f"augment.{settings.changes_values[0]} changes optical layers, and {around[0]} follows from such beyond a "
            "tile's border, where nothing is known; leave one of them out"
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
        recipe = recipe_of(name)
        if recipe is not None:
            needs = " and ".join(recipe.needs)
            msg = f"augment.drop names the layer {name!r}, which follows from {needs}; name one of these instead"
            raise ConfigError(msg)
    left = set(names) - optional_layers(settings, names)
    if not dropped or not left:
        msg = f"augment.drop leaves {'nothing' if dropped else 'every one'} of the layers {', '.join(names)}; "
        msg += "name some of them in augment.drop.layers, and not all"
        raise ConfigError(msg)


def optional_layers(settings: DropSettings | None, names: Sequence[str]) -> frozenset[str]:
    """Return the names of layers that augmentation drops, and of layers made of them.

    A network learns to do without them. Empty without settings.
    """
    if settings is None:
        return frozenset()
    dropped = {name for group in _groups(settings, names) for name in group}
    return frozenset(name for name in names if dropped & _ancestors(name))


def augment(batch: Batch, stored: Sequence[str], settings: AugmentSettings, generator: Generator) -> Batch:
    """Return a new batch of tiles, each moved, pasted over or changed at random.

    Tiles must be square. They are moved, pasted over, blurred, given gaps, changed in value, and lose layers, in this
    order.

    Args:
        batch: The tiles, their layers as they are stored.
        stored: Names of the layers.
        settings: What changes, and how often.
        generator: On the CPU.
    """
    batch = _paste(_move(batch, settings, generator), settings.paste, generator)
    number = len(batch.image)
    sides = torch.tensor(BLUR_PX)[torch.randint(len(BLUR_PX), (number,), generator=generator)]
    sides = sides * _draw_chosen(number, settings.blur, generator)
    blurred = torch.stack([blur(image, side) for image, side in zip(batch.image, sides.tolist(), strict=True)])
    batch = replace(batch, image=blurred)
    if settings.gaps is not None:
        batch = _lay_gaps(batch, settings.gaps, generator)
    image = _change_values(batch, stored, settings, generator)
    if settings.drop is not None:
        image = _drop_layers(image, stored, settings.drop, generator)
    return replace(batch, image=image)


def blur(image: Tensor, side: int) -> Tensor:
    """Return an image (C, H, W), blurred by a Gaussian of ``side`` px; NaN stays.

    A side of 0 leaves it unchanged. NaN = missing: a missing pixel, or one beyond the border, gives its weight to the
    others. The width follows from the side as in OpenCV: sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8.
    """
    if not side:
        return image
    finite = ~torch.isnan(image)
    weights = _weighted_sums(finite.float(), side)
    values = _weighted_sums(torch.where(finite, image, 0.0), side)
    return torch.where(finite, values / weights, torch.nan)


def _weighted_sums(values: Tensor, side: int) -> Tensor:
    """Return Gaussian-weighted sums around every pixel of (C, H, W), 0 beyond borders."""
    reach = side // 2
    sigma = 0.3 * (reach - 1) + 0.8
    weights = [math.exp(-(step**2) / (2 * sigma**2)) for step in range(-reach, reach + 1)]
    for axis in (-2, -1):  # by sums and no convolution, for which GPUs round to fewer digits
        length = values.shape[axis]
        padded = F.pad(values, (0, 0, reach, reach) if axis == -2 else (reach, reach))
        values = torch.zeros_like(values)
        for first, weight in enumerate(weights):
            values.add_(padded.narrow(axis, first, length), alpha=weight / sum(weights))
    return values


def _move(batch: Batch, settings: AugmentSettings, generator: Generator) -> Batch:
    """Return a batch whose tiles are turned by quarters and mirrored at random.

    Turns are by quarters against the clock, and come first.
    """
    number = len(batch.image)
    leftright = _draw_chosen(number, settings.flip, generator).tolist()
    topbottom = _draw_chosen(number, settings.flip, generator).tolist()
    turned = _draw_chosen(number, settings.rotate90, generator)
    quarters = (torch.randint(1, 4, (number,), generator=generator) * turned).tolist()
    mirrored = [
        [axis for axis, is_mirrored in ((-1, horizontally), (-2, vertically)) if is_mirrored]
        for horizontally, vertically in zip(leftright, topbottom, strict=True)
    ]

    def move(tiles: Tensor) -> Tensor:
        moves = zip(tiles, quarters, mirrored, strict=True)
        return torch.stack([torch.rot90(tile, turns, (-2, -1)).flip(axes) for tile, turns, axes in moves])

    return Batch(image=move(batch.image), target=move(batch.target), valid=move(batch.valid))


def _paste(batch: Batch, probability: float, generator: Generator) -> Batch:
    """Return a batch with object pixels of other tiles pasted over tiles at random.

    They bring values, target and valid with them.
    """
    if not probability:
        return batch
    number = len(batch.image)
    # A shift of 1 to number - 1 finds a donor that is never the tile itself, unless it is alone.
    donors = (torch.arange(number) + torch.randint(1, max(number, 2), (number,), generator=generator)) % number
    chosen = _draw_chosen(number, probability, generator).to(batch.image.device)
    donors = donors.to(batch.image.device)
    pasted = (batch.target[donors] == 1) & chosen.view(-1, 1, 1)
    return Batch(
        image=torch.where(pasted.unsqueeze(1), batch.image[donors], batch.image),
        target=torch.where(pasted, batch.target[donors], batch.target),
        valid=torch.where(pasted, batch.valid[donors], batch.valid),
    )


def _lay_gaps(batch: Batch, settings: GapSettings, generator: Generator) -> Batch:
    """Return a batch with random gaps in random tiles: NaN in all layers, not valid.

    They lie where a smooth random field is highest: patches like clouds of 8 to 64 px with frayed rims; or all that
    lies beyond a straight line, like the end of a swath.
    """
    number, _, height, width = batch.image.shape
    shares = settings.share * torch.rand(number, generator=generator)
    shares = shares * _draw_chosen(number, settings.probability, generator)
    fields = torch.stack([_draw_field(height, width, generator) for _ in range(number)])
    levels = torch.stack([field.quantile(1 - share) for field, share in zip(fields, shares, strict=True)])
    gaps = ((fields > levels.view(-1, 1, 1)) & (shares > 0).view(-1, 1, 1)).to(batch.image.device)
    image = batch.image.masked_fill(gaps.unsqueeze(1), torch.nan)
    return replace(batch, image=image, valid=batch.valid & ~gaps)


def _draw_field(height: int, width: int, generator: Generator) -> Tensor:
    """Draw a random field (H, W), highest in patches like clouds or beyond a line."""
    kind, angle, size = torch.rand(3, generator=generator).tolist()
    if kind < _SWATH_SHARE:
        # The distance along a random direction, so that any level is a straight line.
        rows, cols = torch.arange(height).view(-1, 1), torch.arange(width)
        return math.cos(2 * math.pi * angle) * rows + math.sin(2 * math.pi * angle) * cols
    field = torch.zeros(1, 1, height, width)
    side = _CLOUD_PX[0] * (_CLOUD_PX[1] / _CLOUD_PX[0]) ** size
    # A coarse octave for the patches, a finer one that frays their rims.
    for octave, weight in ((1, 1.0), (3, 0.3)):
        cells = [max(2, round(octave * length / side) + 1) for length in (height, width)]
        coarse = torch.randn((1, 1, *cells), generator=generator)
        field += weight * F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    return field[0, 0]


@dataclass(frozen=True, slots=True)
class _Draws:
    """Random numbers for the tiles of a batch, drawn on the CPU.

    They are returned on the device.

    Attributes:
        number: Tiles of the batch, N.
        device: Device of the batch.
        generator: Generator on the CPU.
    """

    number: int
    device: torch.device
    generator: Generator

    def chosen(self, probability: float) -> Tensor:
        """Draw 1 with a probability, else 0, for each tile, (N, 1, 1, 1) float32."""
        return _draw_chosen(self.number, probability, self.generator).view(-1, 1, 1, 1).float().to(self.device)

    def uniform(self, largest: float, *, layers: int = 1) -> Tensor:
        """Draw uniform numbers in -``largest`` to ``largest``, (N, ``layers``, 1, 1)."""
        return largest * (2 * torch.rand((self.number, layers, 1, 1), generator=self.generator) - 1).to(self.device)

    def noise(self, shape: Sequence[int], largest: float) -> Tensor:
        """Draw white noise (N, C, H, W) of a random deviation up to ``largest`` per tile.

        The standard deviation is uniform from 0 to ``largest``.
        """
        deviation = largest * torch.rand((self.number, 1, 1, 1), generator=self.generator)
        return (deviation * torch.randn(tuple(shape), generator=self.generator)).to(self.device)


def _change_values(batch: Batch, stored: Sequence[str], settings: AugmentSettings, generator: Generator) -> Tensor:
    """Return an image with optical layers changed at random, as in contrast and noise.

    Layers are (N, C, H, W); other ones stay, but stored layers that are made from optical ones follow.
    """
    optical = [position for position, name in enumerate(stored) if _is_optical(name)]
    if not settings.changes_values or not optical:
        return batch.image
    values = batch.image[:, optical]
    draws = _Draws(len(values), values.device, generator)
    if settings.contrast is not None:
        factor = draws.chosen(settings.contrast.probability) * draws.uniform(settings.contrast.change)
        values = values + factor * (values - _mean(values, batch.valid))
    if settings.brightness is not None:
        values = values + draws.chosen(settings.brightness.probability) * draws.uniform(settings.brightness.offset)
    if settings.radiometry is not None:
        gain, offset = settings.radiometry.gain, settings.radiometry.offset
        change = draws.uniform(gain, layers=len(optical)) * values + draws.uniform(offset, layers=len(optical))
        values = values + draws.chosen(settings.radiometry.probability) * change
    if settings.noise is not None:
        noise = draws.noise(values.shape, settings.noise.deviation)
        values = values + draws.chosen(settings.noise.probability) * noise
    return _with_changed(batch.image, stored, dict(zip(optical, values.unbind(1), strict=True)))


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of each tile's and layer's valid pixels, (N, C, 1, 1); else 0."""
    counted = valid.unsqueeze(1) & ~torch.isnan(values)
    sums = torch.where(counted, values, 0.0).sum((-2, -1), keepdim=True)
    return sums / counted.sum((-2, -1), keepdim=True).clamp(min=1)


def _with_changed(image: Tensor, stored: Sequence[str], changed: Mapping[int, Tensor]) -> Tensor:
    """Return an image with changed layers, by position, and those made of them anew."""
    planes = list(image.unbind(1))
    for position, values in changed.items():
        planes[position] = values
    positions = {name: position for position, name in enumerate(stored)}
    for name, position in positions.items():
        recipe = RECIPES.get(name)
        if recipe is None or not all(need in positions for need in recipe.needs):
            continue
        needs = [positions[need] for need in recipe.needs]
        derived, before = recipe.function(*(planes[need] for need in needs)), image[:, position]
        # Stored values are rounded to codes: where nothing changed they stay, rather than lose their rounding.
        unchanged = torch.stack([planes[need] == image[:, need] for need in needs]).all(0)
        planes[position] = torch.where(unchanged | torch.isnan(derived + before), before, derived)
    return torch.stack(planes, dim=1)


def _drop_layers(image: Tensor, stored: Sequence[str], settings: DropSettings, generator: Generator) -> Tensor:
    """Return an image with groups of layers set to NaN in tiles chosen at random.

    Stored layers that are made from missing ones are missing too.
    """
    gone = torch.zeros(image.shape[:2], dtype=torch.bool)
    for group in _groups(settings, stored):
        follows = torch.tensor([bool(set(group) & _ancestors(name)) for name in stored])
        gone |= _draw_chosen(len(image), settings.probability, generator).unsqueeze(1) & follows
    return image.masked_fill(gone.to(image.device).view(*gone.shape, 1, 1), torch.nan)


def _groups(settings: DropSettings, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return groups of layer names to drop together: as set, else all not optical.

    No group where there is no such layer.
    """
    if settings.layers is not None:
        return [(group,) if isinstance(group, str) else group for group in settings.layers]
    others = tuple(name for name in names if not any(_is_optical(need) for need in _ancestors(name)))
    return [others] if others else []


def _ancestors(name: str) -> set[str]:
    """Return a set of a layer's name and those of all layers that it is made from."""
    recipe = recipe_of(name)
    return {name}.union(*(_ancestors(need) for need in (() if recipe is None else recipe.needs)))


def _looks_around(name: str) -> bool:
    recipe = recipe_of(name)
    return recipe is not None and recipe.looks_around


def _is_optical(name: str) -> bool:
    return name in LAYERS and LAYERS[name].optical


def _draw_chosen(number: int, probability: float, generator: Generator) -> Tensor:
    """Draw True with a probability for each of ``number`` tiles, (N,) bool."""
    return torch.rand(number, generator=generator) < probability

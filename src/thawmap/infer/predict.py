"""Probabilities of a scene, as a stream of finished rows.

    tiles of the scene's grid --threads--> stacks --batches--> networks --blend--> rows

Memory depends on the tile's size and the scene's width, never on its height: a stack is forgotten when the networks
have seen it, a row when no later tile touches it.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from thawmap.config import InferenceSettings
from thawmap.data.sources.base import Scene, Source
from thawmap.data.stack import Stack, assemble
from thawmap.engine.run import in_order
from thawmap.errors import DataError
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window, ramp
from thawmap.infer.ensemble import InputLayers, check_symmetries, plan_scene, read_overview
from thawmap.infer.member import Member, Network
from thawmap.infer.plan import ROWS_PX, STRIP_PX, Tile, Tiling
from thawmap.maps.rows import Rows
from thawmap.system import release_freed_memory

_SHARED_PX = 2**18  # pixels of a tile from which on readers share it: below, each strip costs more than it saves
_SYMMETRIES = tuple((quarters, mirrored) for mirrored in (False, True) for quarters in range(4))

_log = logging.getLogger(__name__)

_Floats = npt.NDArray[np.float32]


def predict(
    scene: Scene,
    members: Sequence[Member],
    sources: Sequence[Source],
    settings: InferenceSettings,
    *,
    extra_layers: Sequence[str] = (),
    overview: Stack | None = None,
) -> Iterator[Rows]:
    """Run networks over a scene; yield probabilities in blocks of rows from the top.

    Every row comes once. Where tiles overlap, their answers are blended with strictly positive weights
    (`thawmap.grid.ramp`). A tile without a valid pixel is not computed. Of a batch that the device's memory does not
    hold, half is computed at a time from then on.

    Args:
        scene: What to map.
        members: The networks; each tile is read once for all of them.
        sources: Where layers come from.
        settings: Tile, overlap, weights, symmetries, batch and memory.
        extra_layers: Names of layers that are handed on beside the probabilities.
        overview: The scene on a coarser grid, where it was read already (`read_overview`).

    Raises:
        ConfigError: If the tile or a layer does not suit a network or the settings.
        DataError: If a layer is missing, or its values lie outside of what a network knows (law 14): at once. If a
            file fails, memory does not suffice, or a network answers with what is no probability: while the rows are
            taken.
    """
    check_symmetries(members, settings)
    inputs = InputLayers.of(members, extra_layers)
    if overview is None:
        overview = read_overview(scene, members, sources, extra_layers=extra_layers)
    tiling = plan_scene(scene, members, settings, overview, extra_layers=len(extra_layers))
    read = partial(_read, scene, inputs, sources, max(member.readers for member in members))
    images = in_order(read, tiling.tiles, threads=1, ahead=settings.batch_size - 1)
    answers = _Ensemble(scene, members, inputs, settings).answers(images)
    return _blend(answers, tiling, settings, number=len(members), extra_layers=extra_layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _TileImage:
    """The layers of one tile, as they were read.

    Attributes:
        image: (layer, y, x) in physical units, NaN = missing; mirrored beyond the scene.
        valid: Which pixels (y, x) are usable, mirrored likewise; None where none is.
        inside: The pixels that lie in the scene, in the tile's rows and columns.
    """

    image: _Floats
    valid: npt.NDArray[np.bool_] | None = None
    inside: Window | None = None


_NOTHING = _TileImage(image=np.empty((0, 0, 0), np.float32))
"""A tile without a valid pixel, which is not computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """The networks' answers for the pixels of a tile that lie in the scene.

    Attributes:
        probability: (member, y, x), NaN where not valid.
        extra_layers: What is handed on beside it (layer, y, x).
        inside: Where the pixels lie in the tile.
    """

    probability: _Floats
    extra_layers: _Floats
    inside: Window


def _read(scene: Scene, inputs: InputLayers, sources: Sequence[Source], readers: int, tile: Tile) -> _TileImage:
    """Read a tile's layers, mirrored beyond the scene, or an empty image if not valid.

    The image is `_NOTHING` where none of the tile's own pixels is valid. So many readers share one tile, and not each
    has its own: the networks wait for the first, and for memory's sake few should wait for them.
    """
    inside = tile.window.clip((scene.geobox.height, scene.geobox.width))
    if inside is None or tile.own is None:
        return _NOTHING

    def assembled(strip: Window) -> Stack:
        return assemble(scene, inputs.names, window_geobox(scene.geobox, strip), sources, optional=inputs.optional)

    # What others cover too is computed there: first only the own pixels are read, in strips that are not kept.
    if tile.own != inside and not any(assembled(strip)["valid"].any() for strip in _strips(tile.own)):
        return _NOTHING
    image = np.empty((len(inputs.names), *inside.shape), np.float32)
    valid = np.zeros(inside.shape, np.bool_)
    strips = list(_strips(inside, together=readers if inside.size > _SHARED_PX else 1))
    for strip, stack in zip(strips, in_order(assembled, strips, threads=readers, ahead=readers - 1), strict=True):
        rows, _ = strip.within(inside)
        valid[rows] = stack["valid"]
        for number, name in enumerate(inputs.names):
            image[number, rows] = stack[name]
    if not valid.any():
        return _NOTHING
    inside = inside.shift(-tile.window.row, -tile.window.col)
    beyond = tuple(
        (axis.start, length - axis.stop)
        for axis, length in zip((inside.rows, inside.cols), tile.window.shape, strict=True)
    )
    if any(map(any, beyond)):
        image = np.pad(image, ((0, 0), *beyond), mode="symmetric")
        valid = np.pad(valid, beyond, mode="symmetric")
    return _TileImage(image=image, valid=valid, inside=inside)


def _strips(window: Window, *, together: int = 1) -> Iterator[Window]:
    """Yield a window's strips from the top, about a multiple of ``together`` of them.

    Strips are small because assembling takes several times the memory of what is kept of it.
    """
    rounds = math.ceil(window.size / STRIP_PX / together)
    step = max(min(math.ceil(window.height / (rounds * together)), STRIP_PX // window.width), 1)
    return window.strips(step)


class _Ensemble:
    """The networks, which answer for as many tiles at once as the memory holds.

    Args:
        scene: Named in messages.
        members: The networks.
        inputs: The layers of images, and which of them each network sees.
        settings: Batch and symmetries.
    """

    def __init__(
        self, scene: Scene, members: Sequence[Member], inputs: InputLayers, settings: InferenceSettings
    ) -> None:
        self._scene = scene
        self._members = members
        self._inputs = inputs
        self._symmetries = _SYMMETRIES[: settings.symmetries]
        self._batch = settings.batch_size
        self._shape: tuple[int, ...] = ()

    def answers(self, tiles: Iterable[_TileImage]) -> Iterator[_Answer | None]:
        """Run the networks over tiles; yield an answer each, in order, None if not valid.

        The networks run in a thread, so that they need not wait until an answer is blended and written.
        """
        for batch in in_order(self._answer, self._batches(tiles), threads=1, ahead=1):
            yield from batch

    def _batches(self, tiles: Iterable[_TileImage]) -> Iterator[list[_TileImage]]:
        """Yield lists of tiles of one shape to compute together, invalid ones among them."""
        waiting: list[_TileImage] = []
        for tile in tiles:
            shapes = [batched.image.shape for batched in (*waiting, tile) if batched.valid is not None]
            if len(set(shapes)) > 1:
                yield waiting
                waiting, shapes = [], shapes[-1:]
            waiting.append(tile)
            if len(shapes) >= self._batch:  # without waiting for the next tile to be read
                yield waiting
                waiting = []
        yield waiting

    def _answer(self, tiles: Sequence[_TileImage]) -> list[_Answer | None]:
        """Run all networks on a batch; return an answer per tile, None if not valid.

        Raises:
            DataError: If the memory does not hold one image, or an answer is no probability.
        """
        images = [tile.image for tile in tiles if tile.valid is not None]
        if images and images[0].shape != self._shape:
            release_freed_memory()
            self._shape = images[0].shape
        valid = [tile.valid for tile in tiles if tile.valid is not None]
        pairs = zip(self._members, self._inputs.of_members, strict=True) if images else ()
        of_members = [self._probability(member, layers, images, valid) for member, layers in pairs]
        probabilities = zip(*of_members, strict=True)
        answers: list[_Answer | None] = []
        for tile in tiles:
            if tile.valid is None or tile.inside is None:
                answers.append(None)
                continue
            inside = (tile.inside.rows, tile.inside.cols)
            probability: _Floats = np.stack([answer[inside] for answer in next(probabilities)])
            usable = tile.valid[inside]
            _check_probability(probability[:, usable], self._scene)
            probability[:, ~usable] = np.nan
            extra_layers = tile.image[list(self._inputs.extra)][:, *inside]
            answers.append(_Answer(probability=probability, extra_layers=extra_layers, inside=tile.inside))
        return answers

    def _probability(
        self,
        member: Member,
        layers: tuple[int, ...],
        images: Sequence[_Floats],
        valid: Sequence[npt.NDArray[np.bool_]],
    ) -> _Floats:
        """Return a network's probability (N, y, x) of images, the mean over symmetries.

        A network whose gaps are filled is not shown what is not valid, as in training
        (`thawmap.train.inference`).

        Args:
            member: The network.
            layers: Which of the images' layers it sees.
            images: Images (layer, y, x) of one shape.
            valid: Which of their pixels are usable, (y, x).

        Raises:
            DataError: If the memory does not hold even one image.
        """
        answers: list[_Floats] = []
        done = 0
        while done < len(images):
            batch_images = images[done : done + self._batch]
            try:
                batch = batch_images[0][None] if len(batch_images) == 1 else np.stack(batch_images)
                batch = batch if layers == tuple(range(len(self._inputs.names))) else batch[:, list(layers)]
                usable = valid[done : done + len(batch)]
                if member.fill == "near" and not all(mask.all() for mask in usable):
                    batch = np.where(np.stack(usable)[:, None], batch, np.float32(np.nan))
                answers.append(_mean_of_symmetries(member.network, batch, self._symmetries))
                done += len(batch)
            except MemoryError as error:
                self._halve_batch(batch_images, error)
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _halve_batch(self, batch: Sequence[_Floats], error: MemoryError) -> None:
        """Halve the number of images computed at once, with a warning; refuse below one.

        Raises:
            DataError: If it was one image.
        """
        if len(batch) == 1:
            rows, cols = batch[0].shape[1:]
            msg = (
                f"scene {self._scene.id}: the memory does not hold a tile of {rows} x {cols} px; lower "
                f"inference.memory_gb, or set a smaller inference.tile"
            )
            raise DataError(msg) from error
        self._batch = len(batch) // 2
        _log.warning("memory does not hold %d tiles at once; from here on %d", len(batch), self._batch)


def _mean_of_symmetries(network: Network, images: _Floats, symmetries: Sequence[tuple[int, bool]]) -> _Floats:
    """Return the mean probability (N, H, W) over turned and mirrored copies of images."""
    if len(symmetries) == 1:
        return network(images)
    total = np.zeros((len(images), *images.shape[2:]), np.float32)
    for quarters, mirrored in symmetries:
        turned = np.rot90(images, quarters, axes=(2, 3))
        answer = network(np.ascontiguousarray(turned[..., ::-1] if mirrored else turned))
        total += np.rot90(answer[..., ::-1] if mirrored else answer, -quarters, axes=(1, 2))
    total /= len(symmetries)
    return total


def _check_probability(answers: _Floats, scene: Scene) -> None:
    """Refuse an array of answers with one that is NaN or not within 0 and 1.

    Raises:
        DataError: If one is not within 0 and 1.
    """
    wrong = answers[~((answers >= 0) & (answers <= 1))]
    if wrong.size:
        msg = (
            f"scene {scene.id}: the network answers {wrong[0]:g} where a probability from 0 to 1 is due; look for "
            f"values far outside of its layers' ranges, or train it again"
        )
        raise DataError(msg)


def _blend(
    answers: Iterator[_Answer | None],
    tiling: Tiling,
    settings: InferenceSettings,
    *,
    number: int,
    extra_layers: Sequence[str],
) -> Iterator[Rows]:
    """Blend tiles' answers by weighted means; yield the rows that no later tile meets.

    Args:
        answers: One per tile, row by row.
        tiling: The tiles.
        settings: Overlap, and form of the weights.
        number: How many networks answer.
        extra_layers: Names of the layers that are handed on.
    """
    height, width = tiling.shape
    # Sums over the rows of the tiles at hand; when the next row of tiles begins, what is above it is finished.
    total = np.zeros((number, tiling.height, width), np.float32)
    weight = np.zeros((tiling.height, width), np.float32)
    layers = np.full((len(extra_layers), tiling.height, width), np.nan, np.float32)
    down = ramp(tiling.height, overlap=settings.overlap, form=settings.blend)
    firsts = [tiles[0].window.row for tiles in tiling.tile_rows]
    for first, end, tiles in zip(firsts, [*firsts[1:], height], tiling.tile_rows, strict=True):
        across = ramp(tiles[0].window.width, overlap=settings.overlap, form=settings.blend)
        for tile, answer in zip(tiles, islice(answers, len(tiles)), strict=True):
            if answer is None:
                continue
            inside = answer.inside
            on_scene = (inside.rows, inside.shift(0, tile.window.col).cols)
            weights = down[inside.rows, None] * across[inside.cols]
            total[:, *on_scene] += answer.probability * weights
            weight[on_scene] += weights
            layers[:, *on_scene] = answer.extra_layers
        finished = end - first
        done = slice(min(max(-first, 0), finished), finished)  # without rows above the scene
        named = dict(zip(extra_layers, layers[:, done], strict=True))
        yield from _means(first + done.start, total[:, done], weight[done], named)
        for sums, empty in ((total, 0), (weight, 0), (layers, np.nan)):
            sums[..., : tiling.height - finished, :] = sums[..., finished:, :].copy()
            sums[..., tiling.height - finished :, :] = empty


def _means(first_row: int, total: _Floats, weight: _Floats, layers: Mapping[str, _Floats]) -> Iterator[Rows]:
    """Divide sums by weights; yield blocks of rows, mean and spread over networks.

    So the memory of whoever takes them is bounded.
    """
    number, height, width = total.shape
    step = max(ROWS_PX // (width * number), 1)
    for first in range(0, height, step):
        rows = slice(first, first + step)
        means = np.full(total[:, rows].shape, np.nan, np.float32)
        np.divide(total[:, rows], weight[rows], out=means, where=weight[rows] > 0)
        np.minimum(means, 1, out=means)  # but for rounding, means are not above what they are means of
        yield Rows(
            first_row=first_row + first,
            probability=means[0] if number == 1 else means.mean(axis=0),
            spread=None if number == 1 else means.std(axis=0),
            layers={name: values[rows].copy() for name, values in layers.items()},
        )

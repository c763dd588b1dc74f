"""From a scene to probabilities, as a stream of finished rows.

    windows of the scene's grid --threads--> stacks --batches--> networks --blend--> rows

Memory depends on the tile's size and the scene's width, never on its height: a stack is forgotten when the networks
have seen it, a row when no later window touches it.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from thawmap.infer.ensemble import Asked, Member, Network, check_symmetries, look_over, plan_scene
from thawmap.infer.plan import ROWS_PX, STRIP_PX, Cut, Tile
from thawmap.maps.rows import Rows
from thawmap.system import release_freed_memory

_SHARED_PX = 2**18  # pixels of a window from which on readers share it: below, each part costs more than it saves
_SYMMETRIES = tuple((quarters, mirrored) for mirrored in (False, True) for quarters in range(4))

_log = logging.getLogger(__name__)

_Floats = npt.NDArray[np.float32]


def predict(
    scene: Scene,
    members: Sequence[Member],
    sources: Sequence[Source],
    settings: InferenceSettings,
    *,
    further: Sequence[str] = (),
    overview: Stack | None = None,
) -> Iterator[Rows]:
    """Probabilities of a scene, row by row from the top; every row once.

    Where windows overlap, their answers are blended with strictly positive weights (`thawmap.grid.ramp`). A window
    without a valid pixel is not computed. Of a batch that the device's memory does not hold, half is computed at a
    time from then on.

    Args:
        scene: What to map.
        members: The networks; each window is read once for all of them.
        sources: Where layers come from.
        settings: Tile, overlap, weights, symmetries, batch and memory.
        further: Names of layers that are handed on beside the probabilities.
        overview: The scene on a coarser grid, where it was read already (`look_over`).

    Raises:
        ConfigError: If the tile or a layer does not suit a network or the settings.
        DataError: If a layer is missing, or its values lie outside of what a network knows (law 14): at once. If a
            file fails, memory does not suffice, or a network answers with what is no probability: while the rows are
            taken.
    """
    check_symmetries(members, settings)
    asked = Asked.of(members, further)
    if overview is None:
        overview = look_over(scene, members, sources, further=further)
    cut = plan_scene(scene, members, settings, overview, further=len(further))

    readers = max(member.readers for member in members)

    def read(tile: Tile) -> _Piece:
        return _read(scene, tile, asked, sources, readers)

    pieces = in_order(read, cut.tiles, threads=1, ahead=settings.batch_size - 1)
    answers = _Asking(scene, members, asked, settings).answers(pieces)
    return _blend(answers, cut, settings, number=len(members), further=further)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """One window as it was read.

    Attributes:
        image: (layers, window) in physical units, NaN = missing; mirrored beyond the scene.
        valid: Which pixels of the window are usable, mirrored likewise; None where none is.
        inside: The part of the window that lies in the scene, in its own rows and columns.
    """

    image: _Floats
    valid: npt.NDArray[np.bool_] | None = None
    inside: Window | None = None


_NOTHING = _Piece(image=np.empty((0, 0, 0), np.float32))
"""A window without a valid pixel, which is not computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """The part of a window inside of the scene.

    Attributes:
        probability: (members, y, x), NaN where not valid.
        layers: Further layers (layer, y, x).
        inside: Where it lies in the window.
    """

    probability: _Floats
    layers: _Floats
    inside: Window


def _read(scene: Scene, tile: Tile, asked: Asked, sources: Sequence[Source], readers: int) -> _Piece:
    """Read a tile's layers, mirrored beyond the scene; where nothing of its own part is valid, only that part.

    So many readers share one window, and not each has its own: the networks wait for the first, and for memory's sake
    few should wait for them.
    """
    inside = tile.window.clip((scene.geobox.height, scene.geobox.width))
    if inside is None or tile.own is None:
        return _NOTHING

    def assembled(strip: Window) -> Stack:
        return assemble(scene, asked.names, window_geobox(scene.geobox, strip), sources, optional=asked.optional)

    if tile.own != inside and not any(assembled(strip)["valid"].any() for strip in _strips(tile.own)):
        return _NOTHING
    image = np.empty((len(asked.names), *inside.shape), np.float32)
    valid = np.zeros(inside.shape, np.bool_)
    strips = list(_strips(inside, together=readers if inside.size > _SHARED_PX else 1))
    for strip, stack in zip(strips, in_order(assembled, strips, threads=readers, ahead=readers - 1), strict=True):
        rows, _ = strip.within(inside)
        valid[rows] = stack["valid"]
        for number, name in enumerate(asked.names):
            image[number, rows] = stack[name]
    if not valid.any():
        return _NOTHING
    return _mirrored(image, valid, inside, tile.window)


def _mirrored(image: _Floats, valid: npt.NDArray[np.bool_], inside: Window, window: Window) -> _Piece:
    """A whole window of the part of it that lies in the scene: what lies beyond is mirrored."""
    inside = inside.shift(-window.row, -window.col)
    beyond = tuple(
        (axis.start, length - axis.stop) for axis, length in zip((inside.rows, inside.cols), window.shape, strict=True)
    )
    if any(map(any, beyond)):
        image = np.pad(image, ((0, 0), *beyond), mode="symmetric")
        valid = np.pad(valid, beyond, mode="symmetric")
    return _Piece(image=image, valid=valid, inside=inside)


def _strips(window: Window, *, together: int = 1) -> Iterator[Window]:
    """A window in parts, a multiple of ``together``, that are assembled at once; only what is kept takes memory."""
    rounds = math.ceil(window.size / STRIP_PX / together)
    step = max(min(math.ceil(window.height / (rounds * together)), STRIP_PX // window.width), 1)
    return window.strips(step)


class _Asking:
    """Asks the networks, as many windows at a time as their devices' memory holds.

    Args:
        scene: Named in messages.
        members: The networks.
        asked: Which layers each of them sees.
        settings: Batch and symmetries.
    """

    def __init__(self, scene: Scene, members: Sequence[Member], asked: Asked, settings: InferenceSettings) -> None:
        self._scene = scene
        self._members = members
        self._asked = asked
        self._symmetries = _SYMMETRIES[: settings.symmetries]
        self._batch = settings.batch_size
        self._shape: tuple[int, ...] = ()

    def answers(self, pieces: Iterable[_Piece]) -> Iterator[_Answer | None]:
        """One answer per piece, in order; None where nothing is valid.

        The networks run in a thread, so that they need not wait until an answer is blended and written.
        """
        for found in in_order(self._answer, self._batches(pieces), threads=1, ahead=1):
            yield from found

    def _batches(self, pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
        """Pieces that are computed together, and those among them that need not be computed."""
        waiting: list[_Piece] = []
        for piece in pieces:
            shapes = [one.image.shape for one in (*waiting, piece) if one.valid is not None]
            if len(set(shapes)) > 1:
                yield waiting
                waiting, shapes = [], shapes[-1:]
            waiting.append(piece)
            if len(shapes) >= self._batch:  # without waiting for the next window to be read
                yield waiting
                waiting = []
        yield waiting

    def _answer(self, pieces: Sequence[_Piece]) -> list[_Answer | None]:
        images = [piece.image for piece in pieces if piece.valid is not None]
        if images and images[0].shape != self._shape:
            release_freed_memory()
            self._shape = images[0].shape
        valid = [piece.valid for piece in pieces if piece.valid is not None]
        found = iter(
            np.stack([self._ask(*each, images, valid) for each in zip(self._members, self._asked.seen, strict=True)], 1)
            if images
            else ()
        )
        answers: list[_Answer | None] = []
        for piece in pieces:
            if piece.valid is None or piece.inside is None:
                answers.append(None)
                continue
            here = (slice(None), piece.inside.rows, piece.inside.cols)
            probability: _Floats = next(found)[here]
            usable = piece.valid[here[1:]]
            _check_answer(probability[:, usable], self._scene)
            probability[:, ~usable] = np.nan
            layers = piece.image[list(self._asked.further)][here]
            answers.append(_Answer(probability=probability, layers=layers, inside=piece.inside))
        return answers

    def _ask(
        self,
        member: Member,
        seen: tuple[int, ...],
        images: Sequence[_Floats],
        valid: Sequence[npt.NDArray[np.bool_]],
    ) -> _Floats:
        """Probability (N, H, W) of a network for images of all layers, the mean over the symmetries.

        A network whose gaps are filled is not shown what is not valid, as in training (`thawmap.train.inference`).

        Raises:
            DataError: If the memory does not hold even one image.
        """
        answers: list[_Floats] = []
        done = 0
        while done < len(images):
            part = images[done : done + self._batch]
            try:
                batch = part[0][None] if len(part) == 1 else np.stack(part)
                batch = batch if seen == tuple(range(len(self._asked.names))) else batch[:, list(seen)]
                if member.fill == "near":
                    batch = _hide(batch, valid[done : done + len(part)])
                answers.append(_mean_seen(member.network, batch, self._symmetries))
                done += len(part)
            except MemoryError as error:
                self._ask_less(part, error)
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _ask_less(self, batch: Sequence[_Floats], error: MemoryError) -> None:
        """Ask for half of the batch from here on.

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


def _hide(images: _Floats, valid: Sequence[npt.NDArray[np.bool_]]) -> _Floats:
    """The images (N, C, H, W) with NaN where they are not valid."""
    if all(mask.all() for mask in valid):
        return images
    return np.where(np.stack(valid)[:, None], images, np.float32(np.nan))


def _mean_seen(network: Network, images: _Floats, symmetries: Sequence[tuple[int, bool]]) -> _Floats:
    """The mean of a network's answers for images that are turned by quarters and mirrored, turned back."""
    if len(symmetries) == 1:
        return network(images)
    total = np.zeros((len(images), *images.shape[2:]), np.float32)
    for quarters, mirrored in symmetries:
        turned = np.rot90(images, quarters, axes=(2, 3))
        answer = network(np.ascontiguousarray(turned[..., ::-1] if mirrored else turned))
        total += np.rot90(answer[..., ::-1] if mirrored else answer, -quarters, axes=(1, 2))
    total /= len(symmetries)
    return total


def _check_answer(answers: _Floats, scene: Scene) -> None:
    """Whether these are probabilities."""
    wrong = answers[~((answers >= 0) & (answers <= 1))]
    if wrong.size:
        msg = (
            f"scene {scene.id}: the network answers {wrong[0]:g} where a probability from 0 to 1 is due; look for "
            f"values far outside of its layers' ranges, or train it again"
        )
        raise DataError(msg)


def _blend(
    answers: Iterator[_Answer | None], cut: Cut, settings: InferenceSettings, *, number: int, further: Sequence[str]
) -> Iterator[Rows]:
    """Rows of the weighted means of the answers of so many networks, as soon as no later window touches them."""
    height, width = cut.shape
    total = np.zeros((number, cut.height, width), np.float32)
    weight = np.zeros((cut.height, width), np.float32)
    layers = np.full((len(further), cut.height, width), np.nan, np.float32)
    down = ramp(cut.height, overlap=settings.overlap, form=settings.blend)
    firsts = [band[0].window.row for band in cut.bands]
    for row, end, band in zip(firsts, [*firsts[1:], height], cut.bands, strict=True):
        across = ramp(band[0].window.width, overlap=settings.overlap, form=settings.blend)
        for tile, answer in zip(band, islice(answers, len(band)), strict=True):
            if answer is None:
                continue
            inside = answer.inside
            first = tile.window.col + inside.col
            place = (inside.rows, slice(first, first + inside.width))
            here = down[inside.rows, None] * across[inside.cols]
            total[:, *place] += answer.probability * here
            weight[place] += here
            layers[:, *place] = answer.layers
        finished = end - row
        done = slice(min(max(-row, 0), finished), finished)  # without rows above the scene
        named = dict(zip(further, layers[:, done], strict=True))
        yield from _slices(row + done.start, total[:, done], weight[done], named)
        for strip, empty in ((total, 0), (weight, 0), (layers, np.nan)):
            strip[..., : cut.height - finished, :] = strip[..., finished:, :].copy()
            strip[..., cut.height - finished :, :] = empty


def _slices(first_row: int, total: _Floats, weight: _Floats, layers: Mapping[str, _Floats]) -> Iterator[Rows]:
    """Weighted means of the rows, in parts that bound the memory of whoever takes them."""
    number, height, width = total.shape
    step = max(ROWS_PX // (width * number), 1)
    for first in range(0, height, step):
        here = slice(first, first + step)
        answers = np.full(total[:, here].shape, np.nan, np.float32)
        np.divide(total[:, here], weight[here], out=answers, where=weight[here] > 0)
        np.minimum(answers, 1, out=answers)  # but for rounding, means are not above what they are means of
        yield Rows(
            first_row=first_row + first,
            probability=answers[0] if number == 1 else answers.mean(axis=0),
            spread=None if number == 1 else answers.std(axis=0),
            layers={name: values[here].copy() for name, values in layers.items()},
        )

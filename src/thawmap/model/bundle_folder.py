"""Reading and writing of a bundle's folder, which holds a trained model.

    weights.safetensors     the network's numbers
    selftest.safetensors    an input (1, C, H, W) in physical units and its probability (1, H, W)
    item.json               the same for catalogues, as a STAC Item; nothing here reads it
    bundle.json             what it is; the SHA-256 of weights and self-test

Nothing in it is unpickled. Whoever builds the network fills it and asks it the self-test, so that a bundle answers as
on the day it was made (law 7). PyTorch is loaded by what needs the network, and by nothing else here.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from thawmap.config import ModelSettings
from thawmap.errors import BundleError, ConfigError
from thawmap.files.hashes import file_sha256, json_sha256, sha256
from thawmap.files.records import checked, read_object
from thawmap.layers import Layer
from thawmap.model import decision, stac
from thawmap.model.bundle import SELFTEST, WEIGHTS, Bundle, Stored
from thawmap.model.manifest import Manifest

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
"""Version of the folder's layout."""

TOLERANCE = 1e-3
"""Largest difference of the self-test's probability between two machines."""

_ITEM, _JSON = "item.json", "bundle.json"
_FILES = (WEIGHTS, SELFTEST, _ITEM, _JSON)  # in the order of writing: a folder with bundle.json is finished


def save(bundle: Bundle, folder: Path) -> Bundle:
    """Write a bundle into a folder, replacing one there, and return it with its id.

    The files appear together or not at all, and other files in the folder stay as they are.

    Raises:
        BundleError: If the network's answer is not finite, or the folder cannot be written.
    """
    from safetensors.torch import save_file  # noqa: PLC0415 - torch loads slowly, here and below

    from thawmap.model import selftest  # noqa: PLC0415

    inputs = selftest.make_input(bundle)
    answer = selftest.answer(bundle.network, inputs, bundle.reading)
    if not answer.isfinite().all():
        msg = f"the network for {folder} answers with numbers that are not finite; train it again, with a lower lr"
        raise BundleError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _replacing(folder) as fresh:
            save_file(_state(bundle), fresh / WEIGHTS)
            save_file({"input": inputs, "probability": answer}, fresh / SELFTEST)
            content = _describe(bundle) | {"sha256": {name: file_sha256(fresh / name) for name in (WEIGHTS, SELFTEST)}}
            saved = replace(bundle, id=_identify(content))
            _write_json(fresh / _ITEM, stac.item(saved))
            _write_json(fresh / _JSON, {"id": saved.id} | content)
            for name in (WEIGHTS, SELFTEST):  # which safetensors writes for their owner alone
                (fresh / name).chmod((fresh / _JSON).stat().st_mode)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"bundle {folder} cannot be written ({reason}); check the path, the permissions and the space"
        raise BundleError(msg) from error
    return saved


def files_of(folder: Path) -> list[str]:
    """Return the names of a bundle's files that a folder has, in order of writing."""
    return [name for name in _FILES if os.path.lexists(folder / name)]


def remove(folder: Path) -> None:
    """Remove the bundle in a folder, and the folder itself if that is empty then."""
    for name in files_of(folder):
        (folder / name).unlink()
    with suppress(OSError):
        folder.rmdir()


def load(folder: Path) -> Bundle:
    """Read a bundle from its folder, build its network on the CPU and self-test it.

    Raises:
        BundleError: If a file is missing or damaged, the format is not known, the weights are not those that
            the bundle was saved with, or the network does not answer the self-test as it did.
    """
    bundle = read(folder)
    _ = bundle.network
    return bundle


def read(folder: Path) -> Bundle:
    """Read and check a bundle's files, leaving its network to be built at first use.

    The network is built, and asked the self-test, when it is first used.

    Raises:
        BundleError: If a file is missing or damaged, or the format is not known. A network that cannot be built, or
            fails the self-test, is refused when it is first used.
    """
    content = _read_json(folder)
    _check_files(folder, content)
    with _rebuilding(folder):
        return Bundle(
            id=content["id"],
            layers=tuple(Layer(**layer) for layer in content["layers"]),
            optional=frozenset(content["optional"]),
            fill=content.get("fill", "zero"),  # bundles of before 2026-12 do not say so
            temperature=content.get("temperature", 1.0),
            decisions=decision.from_json(content.get("decisions", {})),
            **{name: content[name] for name in _PLAIN},
            network=Stored(folder, content["sha256"][WEIGHTS], _rebuild),
        )


def check_selftest(folder: Path, difference: float) -> None:
    """Refuse a bundle if its self-test's difference in probability is too large.

    Args:
        folder: The bundle's folder, for the message.
        difference: Largest difference from the probability that was saved.

    Raises:
        BundleError: If the difference is more than `TOLERANCE`, or no number.
    """
    if not difference <= TOLERANCE:
        msg = (
            f"bundle {folder} fails its self-test: probabilities differ by {difference:.2g}, allowed "
            f"{TOLERANCE:g}; its weights were swapped or cut, or the libraries changed: use the ones in its "
            "provenance"
        )
        raise BundleError(msg)


def weights_sha256(bundle: Bundle) -> str:
    """Return the SHA-256 that the file of a bundle's weights has or would have.

    Of a stored bundle it is known without building the network.
    """
    if bundle.stored is not None:
        return bundle.stored.weights_sha256
    from safetensors.torch import save as to_bytes  # noqa: PLC0415

    return sha256(to_bytes(_state(bundle)))


_PLAIN = ("architecture", "encoder", "tile", "stride", "fixed_tile", "thresholds", "metrics", "provenance")


def _describe(bundle: Bundle) -> dict[str, Any]:
    """Return a bundle's content but weights as JSON values, without id and checksums."""
    decisions = {kind: chosen.as_json() for kind, chosen in bundle.decisions.items()}
    return {
        "format": FORMAT,
        **{name: getattr(bundle, name) for name in _PLAIN},
        "thresholds": dict(bundle.thresholds),
        "metrics": dict(bundle.metrics),
        "provenance": dict(bundle.provenance),
        "layers": [asdict(layer) for layer in bundle.layers],
        "optional": sorted(bundle.optional),
        "fill": bundle.fill,
        "temperature": bundle.temperature,
        **({"decisions": decisions} if decisions else {}),
    }


def _state(bundle: Bundle) -> "dict[str, Tensor]":
    """Return a bundle's weights as tensors by name, on the CPU."""
    return {name: value.detach().cpu().contiguous() for name, value in bundle.network.state_dict().items()}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON to a file, indented for people to read, in UTF-8."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _identify(content: Mapping[str, Any]) -> str:
    """Return a bundle's id, a short hash of the content of bundle.json but the id."""
    return json_sha256(content, compact=True, digits=12)


def _rebuild(bundle: Bundle, stored: Stored) -> "nn.Module":
    """Build a bundle's network from its files, and refuse it if its self-test fails."""
    from safetensors.torch import load_file  # noqa: PLC0415

    from thawmap.model import network, selftest  # noqa: PLC0415

    with _rebuilding(stored.folder):
        settings = ModelSettings(architecture=bundle.architecture, encoder=bundle.encoder)
        built = network.build(settings, channels=len(bundle.layers))
        built.load_state_dict(load_file(stored.weights))
        test = load_file(stored.selftest)
        answer = selftest.answer(built.eval(), test["input"], bundle.reading)
        difference = (answer - test["probability"]).abs().max().item()
    if file_sha256(stored.weights) != stored.weights_sha256:
        msg = f"bundle {stored.folder} was replaced while it was read; run the command again"
        raise BundleError(msg)
    check_selftest(stored.folder, difference)
    return built


@contextmanager
def _rebuilding(folder: Path) -> Iterator[None]:
    """Turn libraries' errors within a block into a BundleError that names the folder."""
    try:
        yield
    except (ConfigError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        msg = f"bundle {folder} cannot be rebuilt ({str(error).strip().splitlines()[0]}); train or import it again"
        raise BundleError(msg) from error


def _read_json(folder: Path) -> dict[str, Any]:
    """Read a folder's bundle.json as a dict; refuse other formats, types and ranges."""
    try:
        content = read_object(folder / _JSON)
        if content.get("format") == FORMAT:
            checked(content, Manifest)
    except OSError as error:
        msg = f"{folder} holds no bundle ({_JSON}: {error.strerror}); name a folder that 'thawmap train --out' wrote"
        raise BundleError(msg) from error
    except ValueError as error:
        msg = f"bundle {folder} is damaged: {_JSON} {error}; restore it, or train or import the bundle again"
        raise BundleError(msg) from error
    if content.get("format") != FORMAT:
        number = content.get("format")
        msg = f"bundle {folder} has format {number!r}; this version reads format {FORMAT}; use a matching thawmap"
        raise BundleError(msg)
    return content


def _check_files(folder: Path, content: dict[str, Any]) -> None:
    """Refuse a bundle if its files do not match the checksums and id in bundle.json."""
    for name in (WEIGHTS, SELFTEST):
        try:
            checksum = file_sha256(folder / name)
        except OSError as error:
            msg = f"bundle {folder} is not whole ({name}: {error.strerror}); restore it, or train or import it again"
            raise BundleError(msg) from error
        if checksum != content["sha256"].get(name):
            msg = f"bundle {folder} is damaged: {name} is not the file it was saved with (swapped or cut); restore it"
            raise BundleError(msg)
    rest = {key: value for key, value in content.items() if key != "id"}
    if content["id"] != _identify(rest):
        msg = f"bundle {folder} is damaged: {_JSON} was changed after it was saved; restore it"
        raise BundleError(msg)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose files replace a bundle's after the block, or none.

    The old files are kept until all new ones stand: an exception brings them back, and even a process that is
    killed between two renames leaves the old bundle whole in a hidden folder beside the new.
    """
    work = Path(mkdtemp(prefix=".bundle.", suffix=".tmp", dir=folder))
    fresh, old = work / "new", work / "old"
    fresh.mkdir()
    old.mkdir()
    try:
        yield fresh
        for name in _FILES:
            if (folder / name).exists():
                _link(folder / name, old / name)
        try:
            for name in _FILES:
                os.replace(fresh / name, folder / name)  # noqa: PTH105 - the atomic one, by its name
        except BaseException:
            _restore(old, folder)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _link(path: Path, second: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(path, second)
    except OSError:
        shutil.copy2(path, second)


def _restore(old: Path, folder: Path) -> None:
    """Put the old files of a bundle back, and remove new ones that had none."""
    for name in _FILES:
        if (old / name).exists():
            os.replace(old / name, folder / name)  # noqa: PTH105
        else:
            (folder / name).unlink(missing_ok=True)

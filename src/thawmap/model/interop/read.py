"""Reading of other people's model files: tensors, numbers and texts, never code.

Three layouts can be read. Nothing is interpreted here: `thawmap.model.interop.convert` does that.
"""

import pickle
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from thawmap.config.plain_yaml import LARGEST_BYTES, read_yaml
from thawmap.errors import BundleError, ConfigError
from thawmap.files.hashes import file_sha256
from thawmap.model.interop.encodings import DIVISORS
from thawmap.text import whole_number

_PREFIXES = ("_orig_mod.", "module.")  # torch.compile and DataParallel
_PLAIN: list[Any] = [
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
    *((np._core.multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # noqa: SLF001 - their only name
    *(
        (PurePosixPath, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
]
"""Types beside tensors, numbers and texts that hold no code.

They are numbers of numpy, and paths, which become names only. Lightning writes both into its checkpoints."""

_REFUSALS = (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error)

_LARGEST, _LARGEST_TILE = 1e300, 65536

_SETTINGS = {"arch", "encoder_name", "encoder_weights", "in_channels", "classes", "activation"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A model as its file describes it.

    Attributes:
        kind: Name of the layout.
        file: The file with the weights.
        sha256: Of that file.
        architecture: Name of the network, in segmentation_models_pytorch's words.
        encoder: Name of its encoder.
        bands: Names of the inputs in the network's order.
        factors: Factors by which the stored numbers of each band are multiplied; None: the ranges of DARTS hold.
        tile: Side of its tiles in pixels; None where the file does not say.
        state: The network's numbers by name.
    """

    kind: str
    file: Path
    sha256: str
    architecture: str
    encoder: str
    bands: tuple[str, ...]
    factors: Mapping[str, float] | None
    tile: int | None
    state: Mapping[str, Tensor]


def read(path: Path) -> Foreign:
    """Read a model file of thaw-slump-segmentation or DARTS, without running code.

    ``path`` is a run folder of thaw-slump-segmentation, of which the last checkpoint is read, one of its checkpoints,
    or a file of DARTS.

    Raises:
        BundleError: If nothing can be read, the layout is none of the three, or the file holds code.
    """
    if path.is_dir():
        return _run(path, _last_checkpoint(path))
    content = _load(path)
    if not isinstance(content, dict):
        msg = f"{path} holds a {type(content).__name__}, and no model that is known; name a file or folder as written"
        raise BundleError(msg)
    if "statedict" in content:
        return _darts_legacy(path, content)
    if "state_dict" in content:
        return _darts_lightning(path, content)
    return _run(path.parent.parent, path, content)


def _last_checkpoint(folder: Path) -> Path:
    """Return the file of the last epoch in a run folder of thaw-slump-segmentation."""
    checkpoints = [file for file in (folder / "checkpoints").glob("*.pt") if whole_number(file.stem) is not None]
    if not checkpoints or not (folder / "config.yml").is_file():
        msg = (
            f"{folder} is no run of thaw-slump-segmentation, which has config.yml and checkpoints/NN.pt; name such a "
            "folder, or the file of a model"
        )
        raise BundleError(msg)
    return max(checkpoints, key=lambda file: whole_number(file.stem) or 0)


def _load(path: Path) -> Any:
    """Load a model file's tensors and plain values; refuse a file with code in it.

    Plain are numbers, texts, paths, lists and dicts.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_PLAIN):
            warnings.simplefilter("ignore")  # on pickles of a protocol that torch does not write
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror or error}); check the path"
        raise BundleError(msg) from error
    except pickle.UnpicklingError as error:
        objects = re.search(r"GLOBAL (\S+)", str(error))
        if objects is None:
            msg = f"{path} is no file of a model that torch can read without running code in it; name another one"
            raise BundleError(msg) from error
        msg = (
            f"{path} holds code or objects ({objects.group(1)}), which are never loaded; have it saved again by its "
            "makers with nothing but tensors, numbers, texts, lists and dicts"
        )
        raise BundleError(msg) from error
    except _REFUSALS as error:
        msg = f"{path} is damaged, or no file of a model that torch can read; name a whole one"
        raise BundleError(msg) from error


def _run(folder: Path, file: Path, content: Any = None) -> Foreign:
    """Read a checkpoint of thaw-slump-segmentation, as config.yml describes it.

    The checkpoint is a bare state_dict, which ``content`` is if it was loaded already; config.yml lies in ``folder``.
    """
    config = _read_yaml(folder / "config.yml", file)
    model, sources = config.get("model"), config.get("data_sources")
    if not isinstance(model, dict) or not _are_texts(sources) or not set(sources) <= set(DIVISORS):
        msg = (
            f"{folder / 'config.yml'} must have 'model' and 'data_sources' with names among {', '.join(DIVISORS)}, and "
            f"has {short(sources)}; only runs of the released versions, to 0.11, can be imported"
        )
        raise BundleError(msg)
    divisors = {band: by for source in sorted(set(sources)) for band, by in DIVISORS[source].items()}
    _check_count(file, model.get("input_channels", len(divisors)), tuple(divisors))
    return Foreign(
        kind="thaw-slump-segmentation",
        file=file,
        sha256=file_sha256(file),
        architecture=_text(file, model, "architecture").lower(),
        encoder=_text(file, model, "encoder"),
        bands=tuple(divisors),
        factors={band: 1 / by for band, by in divisors.items()},
        tile=None,
        state=_state(file, _load(file) if content is None else content),
    )


def _read_yaml(path: Path, file: Path) -> dict[str, Any]:
    """Read the YAML that describes a checkpoint as a dict, empty if it is no mapping."""
    try:
        with path.open(encoding="utf-8") as opened:
            config = read_yaml(opened.read(LARGEST_BYTES), path.name).value
    except OSError as error:
        msg = (
            f"{file} holds weights and nothing that says what they are, and {path} cannot be read "
            f"({error.strerror}); keep the checkpoint in its run's folder"
        )
        raise BundleError(msg) from error
    except (ConfigError, ValueError) as error:
        msg = f"{path} is no YAML of plain values ({error}); restore it"
        raise BundleError(msg) from error
    return config if isinstance(config, dict) else {}


def _darts_legacy(file: Path, content: dict[str, Any]) -> Foreign:
    """Return the model in the loaded content of a `.pt` of DARTS.

    The older layout has factors, the newer, which `thawmap model export` writes, has bands.
    """
    config = content.get("config")
    config = config if isinstance(config, dict) else {}
    if config.get("model_framework", "smp") != "smp":
        msg = (
            f"{file} is made for {short(config['model_framework'])}, and only 'smp' can be imported; convert it before"
        )
        raise BundleError(msg)
    bands, factors = config.get("bands"), config.get("norm_factors")
    bands = bands if _are_texts(bands) else config.get("input_combination")
    if "bands" not in config and not isinstance(factors, dict):
        msg = f"{file} has no 'norm_factors', so that nobody knows what its network saw; ask its makers for them"
        raise BundleError(msg)
    return _darts(file, config, bands, factors=factors, state=content["statedict"], kind="DARTS legacy")


def _darts_lightning(file: Path, content: dict[str, Any]) -> Foreign:
    """Return the model in the loaded content of a Lightning `.ckpt` of DARTS.

    The names of the network's weights begin with `model.`; other weights that were trained with it are left out.
    """
    parameters = content.get("hyper_parameters")
    config = parameters.get("config") if isinstance(parameters, dict) else None
    config = config if isinstance(config, dict) else {}
    weights = content["state_dict"] if isinstance(content["state_dict"], dict) else {}
    state = {str(name)[6:]: value for name, value in weights.items() if str(name).startswith("model.")}
    return _darts(file, config, config.get("bands"), factors=None, state=state, kind="DARTS")


def _darts(file: Path, config: dict[str, Any], bands: Any, *, factors: Any, state: Any, kind: str) -> Foreign:
    """Check network, bands and factors in a file of DARTS, and return its model."""
    model, tile = config.get("model"), config.get("patch_size")
    if not isinstance(model, dict) or not _are_texts(bands):
        msg = f"{file} does not name its network and its bands as the models of {kind} do; ask its makers for them"
        raise BundleError(msg)
    names = tuple(bands)
    _check_settings(file, model)
    _check_count(file, model.get("in_channels", 3), names)
    without = [] if factors is None else [name for name in names if not _is_number(factors.get(name))]
    if without:
        msg = f"{file} has no norm factor for {without[0]!r}; ask its makers for it"
        raise BundleError(msg)
    return Foreign(
        kind=kind,
        file=file,
        sha256=file_sha256(file),
        architecture=_text(file, model, "arch").lower(),
        encoder=_text(file, {"encoder_name": "resnet34"} | model, "encoder_name"),
        bands=names,
        factors=None if factors is None else {name: float(factors[name]) for name in names},
        tile=int(tile) if _is_number(tile) and tile in range(1, _LARGEST_TILE + 1) else None,
        state=_state(file, state),
    )


def _check_settings(file: Path, model: dict[str, Any]) -> None:
    """Refuse network settings that thawmap does not have, and several classes."""
    strange = [key for key in model if key not in _SETTINGS]
    if strange or model.get("activation") is not None:
        key = strange[0] if strange else "activation"
        msg = (
            f"{file} sets {key} of its network to {short(model[key])}, which thawmap's networks do not have; retrain it"
        )
        raise BundleError(msg)
    classes = model.get("classes", 1)
    if not _is_number(classes) or classes != 1:
        msg = f"{file} tells {short(classes)} classes apart, and thawmap maps one kind of object; train one of them"
        raise BundleError(msg)


def _check_count(file: Path, channels: Any, bands: tuple[str, ...]) -> None:
    """Refuse a network with another number of channels than bands."""
    if not _is_number(channels) or channels != len(bands):
        many = f"{len(bands)} bands ({', '.join(bands)})"
        msg = f"{file} has a network of {short(channels)} channels for {many}; correct it"
        raise BundleError(msg)


def _text(file: Path, model: dict[str, Any], key: str) -> str:
    """Return the text of a key in a model's settings; refuse a file without it."""
    value = model.get(key)
    if not isinstance(value, str):
        msg = f"{file} does not name the network's {key!r}, such as 'unet'; restore it, or ask its makers"
        raise BundleError(msg)
    return value


def _are_texts(value: Any) -> TypeGuard[Sequence[str]]:
    """Return whether a value of a file is a list of texts, and not empty."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(text, str) for text in value)


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a value of a file is an int or float, finite and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _state(file: Path, state: Any) -> dict[str, Tensor]:
    """Return tensors by name without prefixes of wrappers; refuse anything else.

    The prefixes are those of compiling and parallel training.
    """
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        msg = f"{file} holds no weights by name, so that it is no model that is known; name another file"
        raise BundleError(msg)
    prefixes = "|".join(map(re.escape, _PREFIXES))
    return {re.sub(f"^(?:{prefixes})+", "", str(name)): weights for name, weights in state.items()}

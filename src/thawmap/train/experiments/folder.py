"""The folder of an experiment: its lock, its plan, and the layers of its trainings."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from thawmap.config import Config
from thawmap.config.plan import read_plan
from thawmap.errors import ConfigError
from thawmap.files.atomic import write_json
from thawmap.files.lock import hold
from thawmap.provenance import differences


@contextmanager
def alone(out: Path, noun: str) -> Iterator[None]:
    """Hold a lock on a folder in a `with` block; refuse if another process has it.

    A disk without locks is written to without. ``noun`` says what writes: "cross-validation" or "tuning".

    Raises:
        ConfigError: If another runs in it, or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(out / f".{noun}.lock", wait=False))
        except BlockingIOError as error:
            msg = f"another {noun} runs in {out}; wait for its end, or name another --out"
            raise ConfigError(msg) from error
        except OSError as error:
            msg = f"{out} cannot be written ({error.strerror}); name another --out, or free some room"
            raise ConfigError(msg) from error
        yield


def write_plan(path: Path, config: Config, store: str) -> None:
    """Write an experiment's plan as JSON: its configuration and tile store's identity."""
    write_json(path, {"config": config.as_json(), "tile_store": store})


def check_plan(
    path: Path,
    config: Config,
    deciding: Callable[[Mapping[str, Any]], dict[str, Any]],
    *,
    kind: Literal["cross-validation", "tuning"],
    store: str | None,
    resume: bool,
) -> None:
    """Refuse an experiment's plan if it is not to be resumed, or has other settings.

    Keys that are younger than the plan count as set to their defaults.

    Args:
        path: The file of the plan, which exists.
        config: The configuration of today.
        deciding: Returns the settings of a configuration, as JSON values, that must not change.
        kind: The experiment in messages.
        store: The identity of the tile store; None before it is known.
        resume: Whether to go on with the experiment.

    Raises:
        ConfigError: If the plan is refused or damaged.
    """
    out = path.parent
    if not resume:
        msg = f"{out} holds a {kind}; add --resume to go on with it, or name another --out"
        raise ConfigError(msg)
    plan = read_plan(path)
    before = deciding(_with_defaults(plan["config"])) | {"tile store": plan["tile_store"]}
    now = deciding(config.as_json()) | {"tile store": store or plan["tile_store"]}
    other = differences(before, now)
    if other:
        msg = f"{out} holds a {kind} with other {' and '.join(other)}; set it back, or name another --out"
        raise ConfigError(msg)


def with_all_layers(config: Config, variants: Iterable[Config]) -> Config:
    """Return a configuration with the layers of all variants, each name once.

    Tiles that are cut with it serve each of them. A pixel is valid where all of these layers have a value, so that
    every variant is scored on the same pixels.
    """
    layers = {
        layer if isinstance(layer, str) else layer.name: layer for variant in variants for layer in variant.layers
    }
    return config.model_copy(update={"layers": tuple(layers.values())})


def _with_defaults(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration dict with defaults for missing keys; as is if not valid."""
    try:
        return Config.model_validate(resolved).as_json()
    except (ValidationError, ConfigError):
        return resolved

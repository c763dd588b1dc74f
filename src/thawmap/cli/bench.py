"""The verb bench, as the command line has it."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

import thawmap
from thawmap.cli.options import Models, OptionalConfigFile, Sets, finish, load_config
from thawmap.cli.terminal import Terminal
from thawmap.errors import ConfigError

Precisions = Annotated[
    tuple[Literal["float32", "bfloat16"], ...], Parameter(name="--precision", negative="", consume_multiple=False)
]


def bench(
    *,
    model: Models = (),
    config: OptionalConfigFile = None,
    precision: Precisions = ("float32", "bfloat16"),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: Path | None = None,
    set_: Sets = (),
) -> int:
    """Time every backend with a model on this machine, and compare their answers.

    The answers are compared with those of PyTorch in float32.

    Args:
        model: Folder of the bundle; may stand several times; by default U-Net with ResNet-34, with random weights.
        config: The YAML, to measure on the middle of its first usable scene; by default on an image that is made up.
        precision: Of multiplications; may stand several times; by default both.
        device: Where; auto: a GPU where there is one.
        json: File for all of it.
        set_: KEY=VALUE put over the YAML, such as inference.memory_gb=6.
    """
    if config is None and set_:
        msg = f"--set {set_[0]} puts a value over a YAML; name it with --config"
        raise ConfigError(msg)
    settings, terminal = None if config is None else load_config(config, set_), Terminal()
    return finish(
        thawmap.bench(model, config=settings, precisions=precision, device=device, json=json, progress=terminal)
    )

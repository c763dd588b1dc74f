"""The verb init: a commented YAML to start from."""

from pathlib import Path

from thawmap.errors import ConfigError
from thawmap.files.atomic import write_text


def init(folder: Path) -> Path:
    """Write a commented thawmap.yaml into a folder that has none; return its path.

    Raises:
        ConfigError: If the folder has a thawmap.yaml.
    """
    path = folder / "thawmap.yaml"
    if path.exists():
        msg = f"{path} exists; edit it, or name another folder"
        raise ConfigError(msg)
    write_text(path, (Path(__file__).parents[1] / "template.yaml").read_text(encoding="utf-8"))
    return path

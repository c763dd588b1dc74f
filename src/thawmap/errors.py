"""Errors that name a remedy, as a tree, and the hint that goes with a wrong word.

    ThawmapError                 the request or its data is wrong: one sentence for the user, no traceback
    +-- ConfigError              a YAML, a setting or a command line
    +-- DataError                a scene, a raster, a stack, a tile store
    |   +-- LabelError           digitised polygons or label rasters
    +-- BundleError              a trained model that is damaged, or does not fit the data
    +-- TrainingError            a training that cannot start or go on
    +-- ServiceError             a service on the network that refuses, fails or cannot be reached

Every message is one sentence that says what, got, allowed and remedy.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class ThawmapError(Exception):
    """The request or data is wrong; the message is a sentence with the remedy."""


class ConfigError(ThawmapError):
    """A configuration, setting or command line is not valid."""


class DataError(ThawmapError):
    """A scene, raster, vector, stack or tile store cannot be used."""


class LabelError(DataError):
    """Labels cannot be used."""


class BundleError(ThawmapError):
    """A bundle is damaged, or does not fit the data or the request."""


class TrainingError(ThawmapError):
    """A training cannot start or go on."""


class ServiceError(ThawmapError):
    """A service on the network refuses, fails or cannot be reached."""


def suggest(word: str, known: Iterable[str], *, otherwise: str = "known", most: int | None = None) -> str:
    """Return a hint as text: the known word nearest to a wrong one, else a list.

    Args:
        word: What does not exist.
        known: What does.
        otherwise: Begins the list.
        most: How many words the list has at most; unset: all.

    >>> suggest("unett", ["unet", "segformer"])
    "did you mean 'unet'?"
    >>> suggest("xyz", ["unet", "segformer"], otherwise="known here")
    'known here: unet, segformer'
    """
    words = list(known)
    nearest = get_close_matches(word, words, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"{otherwise}: {', '.join(words[:most])}"

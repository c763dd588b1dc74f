"""What can go wrong, as a tree.

    ThawmapError                 the request or its data is wrong: one sentence for the user, no traceback
    +-- ConfigError              a YAML, a setting or a command line
    +-- DataError                a scene, a raster, a stack, a tile store
    |   +-- LabelError           digitised polygons or label rasters
    +-- BundleError              a trained model that is damaged, or does not fit the data
    +-- TrainingError            a training that cannot start or go on

Every message is one sentence that says what, got, allowed and remedy.
"""


class ThawmapError(Exception):
    """The user's request or data is wrong; the message is one sentence that names the remedy."""


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

"""Map retrogressive thaw slumps, or any other object, from satellite scenes.

The command line's verbs as functions, imported when they are first used:

    import thawmap
    config = thawmap.load(Path("thawmap.yaml"))
    thawmap.train(config, Path("models/first"))
    thawmap.predict(config, Path("models/first"), Path("maps"))
    thawmap.evaluate(config, Path("maps"), Path("report"))
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from thawmap.errors import BundleError, ConfigError, DataError, LabelError, ThawmapError, TrainingError

if TYPE_CHECKING:
    from thawmap.config import Config
    from thawmap.pipeline import (
        Summary,
        bench,
        check_labels,
        convert_labels,
        crossval,
        demo,
        doctor,
        evaluate,
        export_model,
        fuse,
        import_model,
        init,
        label_stats,
        labels,
        load,
        model_info,
        predict,
        scenes,
        simulate,
        tiles,
        train,
        tune,
    )

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "Config",
    "ConfigError",
    "DataError",
    "LabelError",
    "Summary",
    "ThawmapError",
    "TrainingError",
    "bench",
    "check_labels",
    "convert_labels",
    "crossval",
    "demo",
    "doctor",
    "evaluate",
    "export_model",
    "fuse",
    "import_model",
    "init",
    "label_stats",
    "labels",
    "load",
    "model_info",
    "predict",
    "scenes",
    "simulate",
    "tiles",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Import the verbs when they are first used, so that `import thawmap` stays quick."""
    if name not in __all__:
        msg = f"module 'thawmap' has no attribute {name!r}"
        raise AttributeError(msg)
    from thawmap import pipeline  # noqa: PLC0415

    return getattr(pipeline, name)


class _Package(ModuleType):
    """Keeps `thawmap.train` the verb when the folder `thawmap/train/` is imported (docs/decisions/0006)."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, but no module under the name of a verb."""
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

"""Map retrogressive thaw slumps, or any other object, from satellite scenes.

The command line's verbs as functions, imported when they are first used:

    import thawmap
    config = thawmap.load(Path("thawmap.yaml"))
    thawmap.train(config, Path("models/first"))
    thawmap.predict(config, Path("models/first"), Path("maps"))
    thawmap.evaluate(config, Path("maps"), Path("report"))
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from thawmap.errors import (
    BundleError,
    ConfigError,
    DataError,
    LabelError,
    ServiceError,
    ThawmapError,
    TrainingError,
)

if TYPE_CHECKING:
    from thawmap.config import Config, load
    from thawmap.pipeline.acquire import (
        Confirm,
        acquire,
        acquire_fetch,
        acquire_order,
        acquire_plan,
        acquire_status,
    )
    from thawmap.pipeline.bench import bench
    from thawmap.pipeline.crossval import crossval
    from thawmap.pipeline.demo import demo
    from thawmap.pipeline.doctor import doctor
    from thawmap.pipeline.evaluate import evaluate
    from thawmap.pipeline.fuse import fuse
    from thawmap.pipeline.init import init
    from thawmap.pipeline.labels import check_labels, convert_labels, label_stats, labels
    from thawmap.pipeline.model import export_model, import_model, model_info
    from thawmap.pipeline.predict import predict
    from thawmap.pipeline.progress import Summary
    from thawmap.pipeline.scenes import scenes
    from thawmap.pipeline.simulate import simulate
    from thawmap.pipeline.tiles import tiles
    from thawmap.pipeline.train import train
    from thawmap.pipeline.tune import tune

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "Config",
    "ConfigError",
    "Confirm",
    "DataError",
    "LabelError",
    "ServiceError",
    "Summary",
    "ThawmapError",
    "TrainingError",
    "acquire",
    "acquire_fetch",
    "acquire_order",
    "acquire_plan",
    "acquire_status",
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


_MODULES = {
    "Config": "thawmap.config",
    "Summary": "thawmap.pipeline.progress",
    "Confirm": "thawmap.pipeline.acquire",
    "acquire": "thawmap.pipeline.acquire",
    "acquire_fetch": "thawmap.pipeline.acquire",
    "acquire_order": "thawmap.pipeline.acquire",
    "acquire_plan": "thawmap.pipeline.acquire",
    "acquire_status": "thawmap.pipeline.acquire",
    "bench": "thawmap.pipeline.bench",
    "check_labels": "thawmap.pipeline.labels",
    "convert_labels": "thawmap.pipeline.labels",
    "crossval": "thawmap.pipeline.crossval",
    "demo": "thawmap.pipeline.demo",
    "doctor": "thawmap.pipeline.doctor",
    "evaluate": "thawmap.pipeline.evaluate",
    "export_model": "thawmap.pipeline.model",
    "fuse": "thawmap.pipeline.fuse",
    "import_model": "thawmap.pipeline.model",
    "init": "thawmap.pipeline.init",
    "label_stats": "thawmap.pipeline.labels",
    "labels": "thawmap.pipeline.labels",
    "load": "thawmap.config",
    "model_info": "thawmap.pipeline.model",
    "predict": "thawmap.pipeline.predict",
    "scenes": "thawmap.pipeline.scenes",
    "simulate": "thawmap.pipeline.simulate",
    "tiles": "thawmap.pipeline.tiles",
    "train": "thawmap.pipeline.train",
    "tune": "thawmap.pipeline.tune",
}
"""Where each name of this package is, which is imported when it is first used."""


def __getattr__(name: str) -> Any:
    """Return a public name of the package, imported when it is first used.

    So `import thawmap` stays quick.
    """
    if name not in _MODULES:
        msg = f"module 'thawmap' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_MODULES[name]), name)


class _Package(ModuleType):
    """A package whose verbs keep their names when folders of that name are imported.

    `thawmap.train` stays the verb when `thawmap/train/` is imported (docs/decisions/0006).
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, but ignore a module under the name of a verb."""
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

"""Refusal of settings of training that boosting would not obey."""

from importlib.util import find_spec

from thawmap.config import AugmentSettings, Config, TrainingSettings
from thawmap.config.recipes import RECIPES
from thawmap.errors import ConfigError

_OBEYED = frozenset({"phases", "batch_size", "stop_after", "seed", "device"})  # of `training`


def check_obeyed(config: Config) -> None:
    """Refuse settings that boosting does not obey, or to train it without LightGBM.

    What a recipe fills in, and what has its default, is left aside. Networks are not looked at.

    Raises:
        ConfigError: If there is such a setting, or LightGBM is not installed.
    """
    if not config.model.has_trees:
        return
    if find_spec("lightgbm") is None:
        msg = "training of boosting needs LightGBM; install it: pip install 'thawmap[boosting]' (maps do without)"
        raise ConfigError(msg)
    filled = RECIPES.get(config.recipe, {})
    usual_training = TrainingSettings.model_validate(filled.get("training", {}))
    usual_changes = AugmentSettings.model_validate(filled.get("augment", {}))
    changed = [
        *(f"training.{name}" for name in TrainingSettings.model_fields
          if name not in _OBEYED and getattr(config.training, name) != getattr(usual_training, name)),
        *(f"augment.{name}" for name in AugmentSettings.model_fields
          if name != "drop" and getattr(config.augment, name) not in (getattr(usual_changes, name), None, 0)),
        *(f"training.phases.{number}.{name}" for number, phase in enumerate(config.training.phases)
          for name in ("loss", "sampler") if getattr(phase, name) is not None),
    ]  # fmt: skip
    if config.training.device == "cuda":
        changed.append("training.device: cuda")
    if changed:
        msg = f"{changed[0]} has no meaning for boosting, which has 'model.trees' and 'augment.drop'; leave it out"
        raise ConfigError(msg)

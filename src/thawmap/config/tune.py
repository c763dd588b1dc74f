"""Settings of a tuning: the keys that are searched, and the number of trials."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from thawmap.config.crossval import VARIED
from thawmap.config.inputs import Positive, Settings


class Range(Settings):
    """Range of numbers, both ends included."""

    low: int | float
    """The lower end."""
    high: int | float
    """The upper end."""
    log: bool = False
    """Whether a factor counts as much at the lower end as at the upper, as for learning rates."""
    step: Annotated[int | float, Field(gt=0)] | None = None
    """Only every such number, counted from `low`."""

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        """Refuse a low end not below the high one, and a step or log that does not fit."""
        if not self.low < self.high:
            msg = f"'low' is {self.low:g} and 'high' {self.high:g}; 'low' must be below 'high'"
            raise ValueError(msg)
        if self.log and (self.low <= 0 or self.step is not None):
            fault = "cannot have a 'step'" if self.step is not None else f"needs a 'low' above 0, and has {self.low:g}"
            msg = f"a range with 'log: true' {fault}; correct it, or leave 'log' out"
            raise ValueError(msg)
        if self.step is not None and self.step > self.high - self.low:
            msg = f"'step' is {self.step:g}; it must fit between {self.low:g} and {self.high:g}"
            raise ValueError(msg)
        return self


def _check_choices(value: object) -> object:
    """Return a range or a list of values as it is; refuse all else, and empty ones.

    Raises:
        ValueError: If it is neither, or empty.
    """
    if isinstance(value, Mapping | list | tuple | Range) and (isinstance(value, Range) or len(value) > 0):
        return value
    msg = "must be a range such as {low: 1, high: 8}, or a list of values"
    raise ValueError(msg)


def _choice_tag(value: object) -> str:
    """Return "range" for a mapping or a range, "list" for anything else."""
    return "range" if isinstance(value, Mapping | Range) else "list"


Choices = Annotated[
    Annotated[Range, Tag("range")] | Annotated[tuple[Any, ...], Tag("list")],
    Discriminator(_choice_tag),
    BeforeValidator(_check_choices),
]
"""What is tried of a key: a range of numbers, or the values of a list."""


class TuneSettings(Settings):
    """Tuning: trials with other settings each.

    The answer is that with the best validation.
    """

    keys: dict[str, Choices] = Field(default_factory=dict)
    """Keys of this YAML, such as training.optimiser.lr, and what is tried: {low: 1e-4, high: 1e-2, log: true}, or a
    list of values."""
    trials: Positive = 20
    """Trainings."""
    random: Positive = 8
    """First trainings, whose settings are drawn at random and which are never given up; those of the others follow from
    what was learnt (tree-structured Parzen estimator, Bergstra et al. 2011)."""
    prune_after: Positive | None = 5
    """Epochs after which a training may be given up: when its best epoch is worse than the median of the finished ones
    at the same epoch; null: none is."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of what is tried; that of the trainings is `training.seed`, the same for all."""

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        """Refuse keys that cannot be varied or overlap, and values listed twice."""
        for key, values in self.keys.items():
            if key.split(".")[0] not in VARIED or key == "training.seed":
                msg = f"'keys' cannot vary {key!r}; use keys of {', '.join(VARIED)}, other than training.seed"
                raise ValueError(msg)
            above = next((other for other in self.keys if key.startswith(f"{other}.")), None)
            if above is not None:
                msg = f"'keys' varies both {above!r} and {key!r}, which is a part of it; keep one"
                raise ValueError(msg)
            if isinstance(values, tuple) and any(value in values[:index] for index, value in enumerate(values)):
                msg = f"'keys' lists a value of {key!r} twice; keep one"
                raise ValueError(msg)
        return self

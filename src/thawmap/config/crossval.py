"""Settings of a cross-validation: folds, compared settings and seeds."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from thawmap.config.inputs import Metres, Seed, Settings

VARIED = ("augment", "layers", "model", "training")
"""Sections whose keys can be compared: they change nothing of how tiles are cut."""

HeldOut = Annotated[tuple[str, ...], Field(min_length=1)]
"""Names of the regions, places or scenes that a fold holds out, at least one."""


class FoldSettings(Settings):
    """Folds: groups of scenes that are held out together.

    Each fold is held out once, and the others train.
    """

    by: Literal["region", "place", "scene"] = "region"
    """What is never divided: a region, a place with all its dates, or a scene."""
    number: Annotated[int, Field(ge=2, le=100_000)] | None = None
    """Folds into which all of them are dealt, with about as many object pixels each; unset: each is a fold (leave one
    region out, as in the paper)."""
    given: dict[str, HeldOut] | None = None
    """Or the folds by hand: the name of each, and what it holds out; what no fold names always trains."""
    buffer_m: Metres = 0.0
    """Tiles nearer to what is held out than this are not trained on, in metres."""

    @model_validator(mode="after")
    def _check_folds(self) -> Self:
        """Refuse folds both dealt and given, and a name that two of them hold out."""
        if self.given is None:
            return self
        if self.number is not None:
            msg = "folds are either dealt ('number') or 'given'; keep one of them"
            raise ValueError(msg)
        names = [name for fold in self.given.values() for name in fold]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"{twice[0]!r} is held out twice in 'given'; keep one"
            raise ValueError(msg)
        return self


class CrossvalSettings(Settings):
    """Cross-validation: one training for each fold, setting and seed.

    Its settings are all combinations of the values in the grid.
    """

    folds: FoldSettings = FoldSettings()
    inner: Annotated[int, Field(ge=0, le=100_000)] = 2
    """Folds of the training part, the next ones with objects in their order, that choose epoch and threshold and do not
    train; several count each for itself, by the mean of their IoU; 0: all train, the last epoch counts, at a threshold
    of 0.5."""
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Keys of this YAML, such as model.encoder, and the values to be compared, in all combinations."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Every training is repeated with each of these, in place of `training.seed`."""

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        """Refuse keys of the grid that cannot vary, and values or seeds listed twice."""
        for key, values in self.grid.items():
            if key.split(".")[0] not in VARIED or key == "training.seed":
                remedy = "list seeds in 'crossval.seeds'" if key == "training.seed" else f"use {', '.join(VARIED)}"
                msg = f"'grid' cannot vary {key!r}; {remedy}"
                raise ValueError(msg)
            if any(value in values[:index] for index, value in enumerate(values)):
                msg = f"'grid' lists a value of {key!r} twice; keep one"
                raise ValueError(msg)
        if len(set(self.seeds)) < len(self.seeds):
            msg = "'seeds' has one twice; keep one"
            raise ValueError(msg)
        return self

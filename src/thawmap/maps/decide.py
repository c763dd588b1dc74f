"""The decision that a map follows: the bundle's, unless the YAML says otherwise.

What validation chose together applies together: threshold, seed and smoothing are the bundle's only where the YAML
leaves all of them to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thawmap.config import PolygonSettings
from thawmap.model.decision import Decision, Kind

DECISION, DECISIONS = "decision", "decisions"
"""Sections of a map's settings: the decision that it follows, and those of its bundle by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """How a map's objects are made, with nothing left open.

    Attributes:
        polygons: The settings, threshold, seed and smoothing as values.
        least_m2: The least area that validation chose; 0 where it does not count.
        kind: The kind of the bundle's decision that is followed; None where the YAML decides, or the bundle has none.
    """

    polygons: PolygonSettings
    least_m2: float = 0.0
    kind: Kind | None = None


def decide(settings: PolygonSettings, decisions: Mapping[Kind, Decision], kind: Kind, *, plain: float) -> Decided:
    """Return how objects are made of probabilities of one kind.

    A kind that validation had nothing of follows the decision on tiles.

    Args:
        settings: What the YAML says.
        decisions: The bundle's decisions.
        kind: What the probabilities are the mean of.
        plain: The threshold that is the bundle's where it has no decision, or the YAML says how to go on.
    """
    if not settings.leaves_to_bundle or not decisions:
        return Decided(polygons=settings.decided(plain))
    kind = kind if kind in decisions else "tile"
    chosen = decisions[kind]
    polygons = settings.decided(chosen.threshold, seed=chosen.peak, smoothing_px=chosen.smoothing_px)
    return Decided(polygons=polygons, least_m2=chosen.min_area_m2, kind=kind)


def recorded(polygons: Mapping[str, Any], decisions: Mapping[Kind, Decision]) -> dict[str, Any]:
    """Return the section `polygons` as a map's fingerprint knows it.

    What is left to bundles without decisions is as it was before there were any, so that their maps stay finished.
    """
    settings = dict(polygons)
    if decisions:
        return settings
    if settings["seed"] == "bundle":
        settings["seed"] = None
    if settings["smoothing_px"] == "bundle":
        del settings["smoothing_px"]
    return settings


def record(decided: Decided, decisions: Mapping[Kind, Decision]) -> dict[str, Any]:
    """Return sections of a map's settings on decisions; {} where the bundle has none."""
    if not decisions:
        return {}
    by_kind = {kind: chosen.as_json() for kind, chosen in decisions.items()}
    return {DECISIONS: by_kind, DECISION: {"kind": decided.kind}}

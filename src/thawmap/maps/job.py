"""What a map is made from, and what it is to be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thawmap.files.hashes import json_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a scene's results are made from.

    Attributes:
        bundle: Id of the bundle.
        threshold: Objects are where the probability is above it.
        config: The settings that decide the result, as JSON values.
        inputs: Each input file, as JSON values: name, size, and sha256 or time of its last change.
    """

    bundle: str
    threshold: float
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Mapping[str, Any]] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it: equal exactly when everything is."""
        content = [self.bundle, self.threshold, dict(self.config), [dict(item) for item in self.inputs]]
        return json_sha256(content, compact=True)

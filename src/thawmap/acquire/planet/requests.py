"""Requests for orders: scenes of a site, made alike, under a name of their own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import shapely

from thawmap.acquire.areas import Area, clip_outline
from thawmap.acquire.planet.service import ITEM_TYPE
from thawmap.config import PlanetImagery
from thawmap.files.hashes import json_sha256

AGAIN = "-again"
"""Ends the name of an order that asks a second time for what an earlier one did not bring."""

_FINEST = 1e-8  # degrees; a millimetre, so that rounding makes no other area


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A scene that is wanted for a site.

    Attributes:
        id: Planet's id of it.
        updated: When Planet last changed it, as it says so.
        km2: Square kilometres that it will cost, about.
    """

    id: str
    updated: str = ""
    km2: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The bundle of files and the tools by which the scenes of a site are made.

    Attributes:
        bundle: Files of a scene.
        tools: The tools of an order.
    """

    bundle: str
    tools: tuple[Mapping[str, Any], ...]

    @property
    def hash(self) -> str:
        """Hash of all of it."""
        return json_sha256({"bundle": self.bundle, "tools": list(self.tools)}, digits=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One order, before it is placed.

    Attributes:
        project: Begins its name.
        site: Name of the site.
        wishes: Its scenes, by id.
        recipe: How they are made.
        is_second: Whether it asks again for what an earlier one did not bring.
    """

    project: str
    site: str
    wishes: tuple[Wish, ...]
    recipe: Recipe
    is_second: bool = False

    @property
    def ids(self) -> list[str]:
        """Ids of its scenes, sorted."""
        return sorted(wish.id for wish in self.wishes)

    @property
    def km2(self) -> float:
        """Square kilometres that it will cost, about."""
        return sum(wish.km2 for wish in self.wishes)

    @property
    def name(self) -> str:
        """Name of this order alone: project, site, and a hash.

        Of its scenes, bundle, tools and outline.
        """
        asked = {"items": self.ids, "bundle": self.recipe.bundle, "tools": list(self.recipe.tools)}
        ending = AGAIN if self.is_second else ""
        return f"{self.project}-{self.site}-{json_sha256(asked, digits=20)}{ending}"

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the order, as the service takes it.

        What can be made of it comes, even if a scene cannot.
        """
        product = {"item_ids": self.ids, "item_type": ITEM_TYPE, "product_bundle": self.recipe.bundle}
        return {
            "name": self.name, "source_type": "scenes", "products": [product], "order_type": "partial",
            "tools": list(self.recipe.tools),
        }  # fmt: skip

    def only(self, ids: Sequence[str]) -> "Request":
        """Return the request for some of its scenes."""
        return replace(self, wishes=tuple(wish for wish in self.wishes if wish.id in set(ids)))

    def without(self, ids: Sequence[str]) -> "Request":
        """Return the request for all but some of its scenes."""
        return self.only([id_ for id_ in self.ids if id_ not in set(ids)])

    def halves(self) -> list["Request"]:
        """Return two requests, each for half of its scenes."""
        middle = len(self.wishes) // 2
        return [self.only(self.ids[:middle]), self.only(self.ids[middle:])]


def recipe_of(settings: PlanetImagery, area: Area) -> tuple[Recipe, str]:
    """Return the recipe of an area's scenes, and a sentence on the outline to cut out.

    It is empty where the outline is the area's own.

    Raises:
        ConfigError: If the area cannot be cut out.
    """
    tools: list[Mapping[str, Any]] = []
    note = ""
    if settings.harmonise:
        tools.append({"harmonize": {"target_sensor": "Sentinel-2"}})
    if settings.clip:
        outline, note = clip_outline(area)
        rounded = shapely.set_precision(shapely.normalize(outline), _FINEST)
        tools.append({"clip": {"aoi": json.loads(shapely.to_geojson(rounded))}})
    return Recipe(bundle=settings.bundle, tools=(*tools, {"file_format": {"format": "COG"}})), note


def divided(request: Request, most: int) -> list[Request]:
    """Divide a request into some of at most a number of scenes, by their ids."""
    ids = request.ids
    return [request.only(ids[first : first + most]) for first in range(0, len(ids), most)]

"""What lies beside images: what the verb acquire asks for elevation and Landsat trends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from thawmap.acquire import earthengine, elevation, landsat
from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.plan import Plan
from thawmap.acquire.progress import size_text
from thawmap.config import AcquireSettings, EarthEngineTrends, ElevationRequest, LandsatTrends
from thawmap.pipeline._imagery import Brought, Note, Report
from thawmap.text import counted


class Ground(Protocol):
    """A kind of data beside images: found for each area, then fetched."""

    @property
    def name(self) -> str:
        """Name of its section in the YAML, and in the plan."""
        ...

    def find(self, http: Http, areas: Sequence[Area], note: Note) -> list[Mapping[str, Any]]:
        """Return rows of the plan for all areas."""
        ...

    def fetch(self, plan: Plan, ledger: Ledger, note: Note, report: Report, http: Http) -> Brought:
        """Fetch the rows of a plan."""
        ...


def grounds_of(settings: AcquireSettings, folder: Path) -> list[Ground]:
    """Return what is asked for beside images."""
    grounds: list[Ground] = []
    if settings.elevation is not None:
        grounds.append(Elevation(settings.elevation, folder, settings.connections))
    if isinstance(settings.trends, LandsatTrends):
        grounds.append(Trends(settings.trends, folder, settings.connections))
    elif settings.trends is not None:
        grounds.append(PublishedTrends(settings.trends, folder))
    return grounds


@dataclass(frozen=True, slots=True)
class Elevation:
    """Tiles of ArcticDEM."""

    request: ElevationRequest
    folder: Path
    connections: int
    name: str = "elevation"

    def find(self, http: Http, areas: Sequence[Area], note: Note) -> list[Mapping[str, Any]]:
        """Return the tiles that the areas touch."""
        return [row for area in areas for row in elevation.find(http, self.request, area, note)]

    def fetch(self, plan: Plan, ledger: Ledger, note: Note, report: Report, http: Http) -> Brought:
        """Cut the windows of all areas out of the plan's tiles."""
        fetched = [
            elevation.fetch(
                http, self.request, area, plan.elevation, self.folder, ledger,
                note=note, progress=report, connections=self.connections,
            )
            for area in plan.areas
        ]  # fmt: skip
        files, before = sum(len(each.files) for each in fetched), sum(each.before for each in fetched)
        line = f"{counted(files, 'window')} of elevation fetched, {size_text(sum(each.size for each in fetched))}"
        failed = {f"elevation {name}": reason for each in fetched for name, reason in each.failed.items()}
        return Brought(lines=(f"{line}; {before} were there",), done=files, skipped=before, failed=failed)


@dataclass(frozen=True, slots=True)
class Trends:
    """Trends computed from Landsat scenes."""

    request: LandsatTrends
    folder: Path
    connections: int
    name: str = "trends"

    def find(self, http: Http, areas: Sequence[Area], note: Note) -> list[Mapping[str, Any]]:
        """Return the scenes from which the trends of the areas are computed."""
        return [row for area in areas for row in landsat.find(http, self.request, area, note)]

    def fetch(self, plan: Plan, ledger: Ledger, note: Note, report: Report, http: Http) -> Brought:
        """Compute the trends of all areas."""
        made = [
            landsat.fetch(
                http, self.request, area, plan.trends, self.folder, ledger,
                note=note, progress=report, connections=self.connections,
            )
            for area in plan.areas
        ]  # fmt: skip
        new, there = [each for each in made if each.is_new], [each for each in made if each.path and not each.is_new]
        used = sum(each.used for each in new)
        line = f"trends of {counted(len(new), 'site')} computed from {counted(used, 'scene')}; {len(there)} were there"
        failed = {f"scene {name} (trends)": reason for each in made for name, reason in each.failed.items()}
        return Brought(lines=(line,), done=len(new), skipped=len(there), failed=failed)


@dataclass(frozen=True, slots=True)
class PublishedTrends:
    """The published images of trends, from Earth Engine."""

    request: EarthEngineTrends
    folder: Path
    name: str = "trends"

    def find(self, http: Http, areas: Sequence[Area], note: Note) -> list[Mapping[str, Any]]:
        """Return nothing: the image is known, and asked for by area."""
        del http, areas, note
        return []

    def fetch(self, plan: Plan, ledger: Ledger, note: Note, report: Report, http: Http) -> Brought:
        """Fetch the image's part of all areas."""
        del note, http
        paths = []
        for number, area in enumerate(plan.areas, start=1):
            paths.append(earthengine.fetch(self.request, area, self.folder, ledger))
            report(number, len(plan.areas))
        new = [path for path in paths if path is not None]
        line = f"trends of {counted(len(new), 'site')} fetched from Earth Engine; {len(paths) - len(new)} were there"
        return Brought(lines=(line,), done=len(new), skipped=len(paths) - len(new))

"""What the steps of an acquisition share: its settings, its folder, and words on its plan."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from thawmap.acquire.areas import Area
from thawmap.acquire.download import EVENT as FILE_EVENT
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.plan import Plan
from thawmap.acquire.progress import Progress as Rate
from thawmap.config import AcquireSettings, Config, PlanetScopeScenes, Sentinel2Scenes
from thawmap.config.acquire import implied_inputs
from thawmap.errors import ConfigError
from thawmap.pipeline._imagery import Catalogues, Planet, provider_of
from thawmap.pipeline.progress import Progress, Silence
from thawmap.provenance import fingerprint
from thawmap.text import counted

_RATES = {"stac": 8.0, "assets": 50.0, "tokens": 2.0}  # requests a second to catalogues, their files, and for tokens

LEDGER = "ledger.jsonl"
"""File of an acquisition's ledger."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What all steps of an acquisition share.

    Attributes:
        settings: What is asked for.
        folder: Where everything is put.
        progress: Is told what happens.
    """

    settings: AcquireSettings
    folder: Path
    progress: Progress

    @property
    def provider(self) -> Planet | Catalogues | None:
        """Who has the images."""
        return provider_of(self.settings, self.folder)

    @property
    def ledger(self) -> Ledger:
        """What was done before."""
        return Ledger.open(self.folder / LEDGER)

    @contextmanager
    def ledger_copy(self) -> Iterator[Ledger]:
        """Yield a copy of the ledger, which is gone at the block's end: for what must leave nothing."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / LEDGER
            if (self.folder / LEDGER).exists():
                shutil.copyfile(self.folder / LEDGER, path)
            ledger = Ledger.open(path)
            yield ledger
            ledger.close()

    def made_from(self, areas: Sequence[Area]) -> str:
        """Return a hash of the settings and the ground that a plan is made from."""
        values = self.settings.model_dump(mode="json", exclude={"folder", "area", "patience_minutes", "connections"})
        return fingerprint({"settings": values, "areas": {area.name: area.outline.wkt for area in areas}})

    @contextmanager
    def http(self) -> Iterator[Http]:
        """Yield the way to all services, with the logins that are needed."""
        credentials, rates = ({}, {}) if self.provider is None else self.provider.login(self.progress.say)
        with Http(
            credentials=credentials,
            rates={**_RATES, **rates},
            patience_s=60 * self.settings.patience_minutes,
            connections=self.settings.connections,
            note=self.progress.say,
        ) as http:
            yield http

    def report(self, title: str) -> Callable[[int, int], None]:
        """Return a function that shows bytes done of bytes in all, with rate and time left."""
        rate = Rate()
        return lambda done, total: self.progress.step(title, done, total, detail=rate.line(done, total))


def begin(config: Config, out: Path | None, progress: Progress | None) -> Acquisition:
    """Return what all steps of an acquisition share.

    Raises:
        ConfigError: If the configuration has no section for it.
    """
    if config.acquire is None:
        msg = "the YAML has no section 'acquire'; see 'thawmap init --area', which writes one"
        raise ConfigError(msg)
    return Acquisition(config.acquire, out or config.acquire.folder, progress or Silence())


def checksums_of(ledger: Ledger) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of each file that a ledger tells of, by path from the folder."""
    return {event["path"]: (event["size"], event["sha256"]) for event in ledger.of(FILE_EVENT)}


def scene_settings(config: Config, work: Acquisition) -> PlanetScopeScenes | Sentinel2Scenes | None:
    """Return how the scenes that were acquired are read.

    None where none were asked for.
    """
    inputs = implied_inputs(work.settings.model_dump(mode="json"), str(work.folder.absolute()))
    if "scenes" not in inputs:
        return None
    kinds: dict[str, type[PlanetScopeScenes | Sentinel2Scenes]] = {
        "planetscope": PlanetScopeScenes, "sentinel2": Sentinel2Scenes,
    }  # fmt: skip
    own, scenes = config.scenes, kinds[inputs["scenes"]["kind"]](**inputs["scenes"])
    is_own = isinstance(own, type(scenes)) and own.path.absolute() == scenes.path
    return own if is_own and isinstance(own, PlanetScopeScenes | Sentinel2Scenes) else scenes


def inputs(work: Acquisition, folder: Path) -> dict[str, Any]:
    """Return the keys of a YAML that read what was acquired, paths as seen from a folder."""
    where = os.path.relpath(work.folder.absolute(), folder.absolute())
    inputs = implied_inputs(work.settings.model_dump(mode="json"), where)
    return {key: value for key, value in inputs.items() if value}


def sentences(plan: Plan) -> tuple[str, ...]:
    """Return sentences on what a plan takes and leaves out."""
    dates = len(plan.taken_dates())
    parts = [f"{counted(len(plan.taken), 'scene')} of {counted(dates, 'date')}"] if plan.items or plan.dates else []
    parts += beside_images(plan)
    paid = f", of which {plan.km2:.1f} km2 are paid" if plan.km2 else ""
    first = f"planned for {counted(len(plan.areas), 'site')}: {', '.join(parts) or 'nothing that fits'}{paid}"
    left = [f"{number} {reason}" for reason, number in plan.left_out().most_common()]
    return (first, *((f"left out: {'; '.join(left)}",) if left else ()))


def beside_images(plan: Plan) -> list[str]:
    """Return clauses on what a plan fetches beside images."""
    parts = [counted(len(plan.elevation), "elevation tile")] if plan.elevation else []
    return [*parts, *([f"{counted(len(plan.trends), 'Landsat scene')} for trends"] if plan.trends else [])]


def rows(plan: Plan) -> list[dict[str, Any]]:
    """Return a table of what a plan takes and costs, by site."""
    return [
        {
            "site": row["area"],
            "km2": round(row["area_km2"], 1),
            "dates found": row["found"],
            "taken": row["dates"],
            "scenes": row["scenes"],
            "on disk": row["owned"],
            "paid km2": round(row["km2"], 1),
            "left out km2": round(row["left_out_km2"], 1),
        }
        for row in plan.costs()
    ]

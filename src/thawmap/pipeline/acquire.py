"""The verb acquire: plan, order and fetch data for an area, and say where that stands."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from thawmap.acquire.areas import Area, read_areas
from thawmap.acquire.choosing import choose, undecided
from thawmap.acquire.http import Http, PatienceEnded
from thawmap.acquire.ledger import Ledger, alone
from thawmap.acquire.offers import Offer
from thawmap.acquire.plan import JSON as PLAN_JSON
from thawmap.acquire.plan import Plan, make_plan, read_plan, write_plan
from thawmap.acquire.planet import history
from thawmap.acquire.progress import size_text
from thawmap.config import Config, PlanetImagery
from thawmap.data.catalogue.audit import audit
from thawmap.data.catalogue.write import write_catalogue
from thawmap.errors import ConfigError
from thawmap.files.atomic import write_text
from thawmap.pipeline._acquisition import (
    LEDGER,
    Acquisition,
    begin,
    beside_images,
    checksums_of,
    inputs,
    rows,
    scene_settings,
    sentences,
)
from thawmap.pipeline._ground import grounds_of
from thawmap.pipeline._imagery import Planet, unfetched
from thawmap.pipeline.progress import Progress, Silence, Summary
from thawmap.report.acquisition.page import PlanPage, write
from thawmap.text import counted

Confirm = Callable[[str], bool]
"""Asks a person whether data are to be paid for; True only after a yes."""


def acquire(
    config: Config,
    out: Path | None = None,
    *,
    confirm: Confirm,
    write_config: Path | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Plan, order and fetch data for an area.

    A rerun goes on, and asks for nothing twice.

    A plan that is there is used if it was made from the same settings and area; else it is made.

    Args:
        config: A configuration with the section acquire.
        out: Folder of the data; None: that of the section.
        confirm: Is asked before data are paid for.
        write_config: YAML to write, which reads what was fetched.
        dry_run: Search and say what would be ordered and fetched; nothing is written.
        progress: Is told what happens.

    Raises:
        ConfigError: If the section is missing or makes no sense, or a person says no.
        ServiceError: If a service refuses or cannot be reached.
        DataError: If files cannot be read or written.
    """
    work = begin(config, out, progress)
    _check_new(write_config)
    areas = read_areas(work.settings)
    planned = Summary()
    if dry_run or not _has_plan(work, areas):
        planned = acquire_plan(config, out, dry_run=dry_run, progress=progress)
        if dry_run or planned.left:
            return planned
    ordered = acquire_order(config, out, confirm=confirm, progress=progress)
    fetched = acquire_fetch(config, out, write_config=write_config, progress=progress)
    return replace(fetched, lines=(*planned.lines, *ordered.lines, *fetched.lines))


def acquire_plan(
    config: Config,
    out: Path | None = None,
    *,
    replace: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Search catalogues and choose what is to be fetched: a plan for a person to look at.

    Args:
        config: A configuration with the section acquire.
        out: Folder of the data, and of the plan; None: that of the section.
        replace: Put the new plan in place of one that somebody has edited.
        dry_run: Write nothing.
        progress: Is told what happens.

    Raises:
        ConfigError: If the section is missing or makes no sense, or a plan that was edited would be replaced.
        ServiceError: If a service refuses or cannot be reached.
        DataError: If files cannot be read or written.
    """
    work = begin(config, out, progress)
    areas = read_areas(work.settings)
    for area in areas:
        for sentence in area.notes:
            work.progress.say(f"{area.name}: {sentence}")
    with ExitStack() as stack:
        if dry_run:
            ledger = stack.enter_context(work.ledger_copy())
        else:
            stack.enter_context(alone(work.folder, note=work.progress.say))
            ledger = work.ledger
        try:
            plan = _planned(work, areas, stack.enter_context(work.http()), ledger)
        except PatienceEnded as error:
            return Summary(left=str(error))
        if not dry_run:
            write_plan(work.folder, plan, replace=replace)
            page = _write_page(work.folder, plan, title=config.project)
    where = "nothing is written, as this is a dry run" if dry_run else f"see {page}"
    return Summary(lines=(*sentences(plan), where), rows=rows(plan))


def _write_page(folder: Path, plan: Plan, *, title: str) -> Path:
    """Write the page of a plan; return its path."""
    layers = plan.layers
    page = PlanPage(
        title=title,
        areas=layers.areas,
        dates=layers.dates,
        items=layers.items,
        costs=plan.costs(),
        left_out=plan.left_out(),
        quota_km2=plan.quota_km2,
        rules=plan.rules,
        notes=[f"{sentence}." for sentence in beside_images(plan)],
    )
    return write(folder, page, made=datetime.now(UTC))


def _planned(work: Acquisition, areas: Sequence[Area], http: Http, ledger: Ledger) -> Plan:
    """Search for all that is asked for, and choose."""
    settings, say = work.settings, work.progress.say
    provider = work.provider
    offers: dict[str, list[Offer]] = {}
    for number, area in enumerate(areas if provider else (), start=1):
        assert provider is not None
        offers[area.name] = provider.find(http, area, ledger, say)
        work.progress.step("search", number, len(areas))
    rows_of: dict[str, Any] = {
        each.name: tuple(each.find(http, areas, say)) for each in grounds_of(settings, work.folder)
    }
    origin = {"made_from": work.made_from(areas), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    if provider is None or settings.imagery is None:
        return Plan(areas=tuple(areas), settings=origin, **rows_of)
    by_name = {area.name: area for area in areas}
    for name, worth in undecided(offers, areas, settings.imagery).items():
        looked = {offer.id: offer for offer in provider.look_inside(http, by_name[name], worth, ledger, say)}
        offers[name] = [looked.get(offer.id, offer) for offer in offers[name]]
    limit, least = None, 0.0
    if isinstance(provider, Planet) and isinstance(settings.imagery, PlanetImagery):
        limit, least = provider.left_km2(http, ledger, say), settings.imagery.minimum_km2
    choice = choose(offers, areas, settings.imagery, quota_km2=limit, minimum_km2=least, catalogues=provider.catalogues)
    rules = settings.imagery.model_dump(mode="json")
    return make_plan(areas, choice, rules=rules, quota_km2=limit, settings=origin, **rows_of)


def acquire_order(
    config: Config,
    out: Path | None = None,
    *,
    confirm: Confirm,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Order what the plan takes and nobody has ordered yet, after a person said yes.

    Args:
        config: A configuration with the section acquire.
        out: Folder of the data, with the plan; None: that of the section.
        confirm: Is asked with square kilometres and cost by site.
        dry_run: Say what would be ordered, and order nothing.
        progress: Is told what happens.

    Raises:
        ConfigError: If there is no plan, it was edited into nonsense, or a person says no.
        ServiceError: If the quota does not suffice, or the service refuses.
    """
    work = begin(config, out, progress)
    plan, provider = read_plan(work.folder), work.provider
    if provider is None or not provider.is_paid:
        return Summary(lines=("what the plan takes is free, and needs no order",))
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(alone(work.folder, note=work.progress.say))
        ledger = work.ledger
        todo = provider.outstanding(plan, ledger)
        before = 0 if todo is None else todo.before
        if todo is None or not todo.requests:
            return Summary(lines=(f"nothing is left to order: {counted(before, 'scene')} ordered before",))
        question = _question(plan, todo.km2, todo.scenes, before)
        if dry_run:
            return Summary(lines=(*question.splitlines(), "nothing is ordered, as this is a dry run"))
        if not confirm(question):
            msg = "nothing was ordered, as nobody said yes; strike what is too much off the plan, and order again"
            raise ConfigError(msg)
        try:
            lines = provider.order(stack.enter_context(work.http()), plan, ledger, work.progress.say)
        except PatienceEnded as error:
            return Summary(left=str(error))
        return Summary(lines=lines, done=todo.scenes, skipped=before)


def _question(plan: Plan, km2: float, scenes: int, before: int) -> str:
    """Return what is to be paid, by site, as lines of text that end with what is left out."""
    lines = [
        f"  {row['site']}: {counted(row['scenes'], 'scene')} of {counted(row['taken'], 'date')}, {row['paid km2']} km2"
        + (f" ({row['left out km2']} km2 left out for the quota)" if row["left out km2"] else "")
        for row in rows(plan)
    ]
    total = f"to be ordered now: {counted(scenes, 'scene')}, about {km2:.1f} km2 of your quota"
    was = f"; {counted(before, 'scene')} of the plan ordered before" if before else ""
    edits = plan.edits()
    return "\n".join(["the plan takes", *lines, *([f"  {edits} by hand"] if edits else []), f"{total}{was}"])


def acquire_fetch(
    config: Config,
    out: Path | None = None,
    *,
    write_config: Path | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Fetch what was ordered and what is free, and keep the catalogue of the folder true.

    Args:
        config: A configuration with the section acquire.
        out: Folder of the data, with the plan; None: that of the section.
        write_config: YAML to write, which reads what was fetched.
        dry_run: Say what would be fetched, and fetch nothing.
        progress: Is told what happens.

    Raises:
        ConfigError: If there is no plan, it was edited into nonsense, or the YAML to write exists.
        ServiceError: If a service refuses or cannot be reached.
        DataError: If the disk is full, or files cannot be read or written.
    """
    work = begin(config, out, progress)
    _check_new(write_config)
    plan = read_plan(work.folder)
    if dry_run:
        return Summary(lines=(*sentences(plan), "nothing is fetched, as this is a dry run"), rows=rows(plan))
    with alone(work.folder, note=work.progress.say):
        summary = _fetched(work, plan)
        scenes = scene_settings(config, work)
        if scenes is not None:
            written = write_catalogue(work.folder, scenes, checksums=checksums_of(work.ledger))
            summary = replace(
                summary, lines=(*summary.lines, *written.lines), failed={**summary.failed, **written.failed}
            )
    if write_config is None:
        read = ("these lines of a YAML read it:", *_yaml_lines(inputs(work, Path())))
    else:
        values = {
            "project": config.project,
            **_read_as(config, work, write_config),
            "layers": config.as_json()["layers"],
        }
        write_text(write_config, "\n".join(["# Reads what thawmap acquire fetched.", *_yaml_lines(values), ""]))
        read = (f"next: thawmap scenes {write_config}",)
    return replace(summary, lines=(*summary.lines, *read))


def _read_as(config: Config, work: Acquisition, path: Path) -> dict[str, Any]:
    """Return the keys of a YAML at a path that read what was acquired, and other sources of the configuration."""
    keys = inputs(work, path.parent)
    own = {name: value for name, value in config.as_json()["sources"].items() if value is not None}
    sources = {**own, **keys.get("sources", {})}
    return {**keys, **({"sources": sources} if sources else {})}


def _fetched(work: Acquisition, plan: Plan) -> Summary:
    """Fetch images, elevation and trends; what fails does not stop the others."""
    say, ledger, provider = work.progress.say, work.ledger, work.provider
    lines: list[str] = []
    failed: dict[str, str] = {}
    done, skipped, left = 0, 0, ""
    with work.http() as http:
        steps = []
        if provider is not None:  # orders are told in bytes, windows of catalogues one by one
            report = work.report("images") if provider.is_paid else partial(work.progress.step, "images")
            steps.append(partial(provider.fetch, plan, ledger, say, report))
        steps += [
            partial(each.fetch, plan, ledger, say, partial(work.progress.step, each.name))
            for each in grounds_of(work.settings, work.folder)
        ]
        for step in steps:
            try:
                brought = step(http)
            except PatienceEnded as error:
                left = str(error)
                continue
            lines += brought.lines
            failed |= brought.failed
            done, skipped = done + brought.done, skipped + brought.skipped
    return Summary(lines=tuple(lines), done=done, skipped=skipped, failed=failed, left=left)


def acquire_status(source: Config | Path, *, checksums: bool = False, progress: Progress | None = None) -> Summary:
    """Say where an acquisition stands, and audit the files in its folder.

    Nobody is asked.

    Args:
        source: A configuration with the section acquire, or the folder of the data.
        checksums: Read every file; else sizes and times are compared.
        progress: Is told what happens.

    Raises:
        ConfigError: If the section is missing, or the folder does not exist.
        DataError: If the ledger is damaged.
    """
    progress = progress or Silence()
    work = None if isinstance(source, Path) else begin(source, None, progress)
    folder = source if isinstance(source, Path) else source.acquire.folder if source.acquire else Path()
    if not folder.is_dir():
        msg = f"{folder} is no folder; name that of the data, or begin with 'thawmap acquire plan'"
        raise ConfigError(msg)
    ledger = Ledger.open(folder / LEDGER)
    lines = list(_plan_status(folder))
    lines += history.status(ledger)
    lines += unfetched(folder, ledger)
    found = audit(
        folder,
        checksums_of(ledger),
        settings=None if work is None or isinstance(source, Path) else scene_settings(source, work),
        complete=checksums,
        progress=lambda done, total: progress.step("files", done, total, detail=size_text(done)),
    )
    return Summary(lines=(*lines, *found.lines), rows=found.rows)


def _plan_status(folder: Path) -> Iterator[str]:
    """Yield sentences on the plan in a folder."""
    if not (folder / PLAN_JSON).exists():
        yield "nothing is planned yet; begin with 'thawmap acquire plan'"
        return
    plan = read_plan(folder)
    yield from sentences(plan)
    if plan.edits():
        yield f"by hand: {plan.edits()}"


def _has_plan(work: Acquisition, areas: Sequence[Area]) -> bool:
    """Return whether there is a plan that was made from the same settings and areas."""
    if not (work.folder / PLAN_JSON).exists():
        return False
    plan = read_plan(work.folder)
    if plan.settings.get("made_from") != work.made_from(areas):
        work.progress.say("the settings have changed since the plan was made; planning again")
        return False
    work.progress.say(f"the plan of {plan.settings.get('at')} is used; 'thawmap acquire plan' searches again")
    return True


def _check_new(path: Path | None) -> None:
    """Refuse to replace a YAML that somebody may have written."""
    if path is not None and path.exists():
        msg = f"{path} exists, and a YAML is never replaced; name another file"
        raise ConfigError(msg)


def _yaml_lines(values: Mapping[str, Any]) -> list[str]:
    """Return keys of a YAML as lines of text."""
    text: str = yaml.safe_dump(dict(values), default_flow_style=None, sort_keys=False, allow_unicode=True, width=110)
    return text.splitlines()

"""The verbs that fetch data: plan, order, fetch, status, and all of them in turn."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

import thawmap
from thawmap.cli.options import DryRun, OptionalOut, Sets, finish, load_config
from thawmap.cli.terminal import Terminal
from thawmap.errors import ConfigError
from thawmap.text import printable

acquire_app = App(name="acquire", help="Fetch images, elevation and trends for an area: plan, order, fetch, status.")

Yes = Annotated[bool, Parameter(negative="")]
WriteConfig = Annotated[Path | None, Parameter(name="--write-config")]


@acquire_app.default
def acquire(
    path: Path,
    /,
    *,
    out: OptionalOut = None,
    yes: Yes = False,
    write_config: WriteConfig = None,
    dry_run: DryRun = False,
    set_: Sets = (),
) -> int:
    """Plan, order and fetch in one go; a rerun goes on, and asks for nothing twice.

    Args:
        path: The YAML, with a section 'acquire'.
        out: Folder of the data; by default the YAML's 'acquire.folder'.
        yes: Order paid data without asking on the terminal.
        write_config: YAML to write, which reads what was fetched; a file is never replaced.
        dry_run: Search and say what would be ordered, and keep nothing.
        set_: KEY=VALUE put over the YAML.
    """
    config = load_config(path, set_)
    summary = thawmap.acquire(
        config, out, confirm=_confirm(yes=yes), write_config=write_config, dry_run=dry_run, progress=Terminal()
    )
    return finish(summary)


@acquire_app.command
def plan(
    path: Path, /, *, out: OptionalOut = None, replace: Yes = False, dry_run: DryRun = False, set_: Sets = ()
) -> int:
    """Search catalogues and choose: a plan to look at, and to edit, before anything is paid.

    It is plan.gpkg (QGIS shows it; strike lines in its column 'take'), plan.json and plan.html.

    Args:
        path: The YAML, with a section 'acquire'.
        out: Folder of the data; by default the YAML's 'acquire.folder'.
        replace: Put the new plan in place of one that somebody has edited.
        dry_run: Say what would be planned, and write nothing.
        set_: KEY=VALUE put over the YAML.
    """
    config = load_config(path, set_)
    return finish(thawmap.acquire_plan(config, out, replace=replace, dry_run=dry_run, progress=Terminal()))


@acquire_app.command
def order(path: Path, /, *, out: OptionalOut = None, yes: Yes = False, dry_run: DryRun = False, set_: Sets = ()) -> int:
    """Order what the plan takes, after showing what it costs; free data need no order.

    Args:
        path: The YAML, with a section 'acquire'.
        out: Folder of the data, with the plan; by default the YAML's 'acquire.folder'.
        yes: Order without asking on the terminal.
        dry_run: Say what would be ordered, and order nothing.
        set_: KEY=VALUE put over the YAML.
    """
    config = load_config(path, set_)
    return finish(thawmap.acquire_order(config, out, confirm=_confirm(yes=yes), dry_run=dry_run, progress=Terminal()))


@acquire_app.command
def fetch(
    path: Path,
    /,
    *,
    out: OptionalOut = None,
    write_config: WriteConfig = None,
    dry_run: DryRun = False,
    set_: Sets = (),
) -> int:
    """Fetch what was ordered and what is free; what is on disk and whole is left.

    Args:
        path: The YAML, with a section 'acquire'.
        out: Folder of the data, with the plan; by default the YAML's 'acquire.folder'.
        write_config: YAML to write, which reads what was fetched; a file is never replaced.
        dry_run: Say what would be fetched, and fetch nothing.
        set_: KEY=VALUE put over the YAML.
    """
    config = load_config(path, set_)
    return finish(thawmap.acquire_fetch(config, out, write_config=write_config, dry_run=dry_run, progress=Terminal()))


@acquire_app.command
def status(path: Path, /, *, checksums: Annotated[bool, Parameter(negative="")] = False, set_: Sets = ()) -> int:
    """Say where an acquisition stands, and what lies in its folder.

    Nothing is asked of anyone.

    Files that are missing, double, unfinished, changed or of another version are named.

    Args:
        path: The YAML, or the folder of the data.
        checksums: Read every file, and compare it with its checksum; else sizes and times are compared.
        set_: KEY=VALUE put over the YAML.
    """
    from thawmap.cli.options import config_or_file  # noqa: PLC0415

    return finish(thawmap.acquire_status(config_or_file(path, set_), checksums=checksums, progress=Terminal()))


_STEPS = Group("Steps, each by itself", sort_key=1)
for _number, _verb in enumerate(("plan", "order", "fetch", "status")):
    acquire_app[_verb].group, acquire_app[_verb].sort_key = (_STEPS,), _number


def _confirm(*, yes: bool) -> "thawmap.Confirm":
    """Return a function that asks on the terminal before data are paid for."""

    def confirm(question: str) -> bool:
        print(*map(printable, question.splitlines()), sep="\n", file=sys.stderr)
        if yes:
            return True
        if not sys.stdin.isatty():
            msg = "paid data are ordered only after a yes, and there is no terminal to ask on; add --yes"
            raise ConfigError(msg)
        print("Order these? Type yes: ", end="", file=sys.stderr, flush=True)
        return input().strip().lower() in ("y", "yes")

    return confirm

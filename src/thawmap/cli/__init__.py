"""The command line: load the configuration, call one verb, set the exit status.

Exit status: 0 all done, 1 some items failed (the rest finished, each failure named), 2 the request was wrong,
4 patience ended with work left.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal, Never

from cyclopts import App, CycloptsError, Group, Parameter

import thawmap
from thawmap import __version__
from thawmap.cli.acquire import acquire_app
from thawmap.cli.begin import demo, doctor, init, simulate
from thawmap.cli.bench import bench
from thawmap.cli.labels import labels_app
from thawmap.cli.mistakes import sentence
from thawmap.cli.model import model_app
from thawmap.cli.options import (
    ConfigFile,
    DryRun,
    Models,
    OptionalConfigFile,
    OptionalModel,
    Out,
    Resume,
    Sets,
    Tiles,
    finish,
    is_yaml,
    load_config,
)
from thawmap.cli.terminal import Terminal
from thawmap.errors import ConfigError, ThawmapError
from thawmap.text import printable

app = App(
    name="thawmap",
    version=__version__,
    help="Map retrogressive thaw slumps, or any other object, from satellite scenes.\n\n"
    "See the whole flow on simulated scenes with 'thawmap demo'; begin your own with 'thawmap init', which writes a "
    "commented YAML, with --area one that fetches open data. Then, in this order: scenes, labels check, train, "
    "predict, evaluate.\n\n"
    "'thawmap help VERB' says what a verb does and takes.",
    help_format="plaintext",
    group_commands=Group("Options", sort_key=99),  # --help and --version; every verb has a group of `_IN_ORDER`
    suppress_keyboard_interrupt=False,  # `_run` says what then
)
app.command(acquire_app)
app.command(labels_app)
app.command(model_app)
for _function in (bench, demo, doctor, init, simulate):
    app.command(_function)

_IN_ORDER = {
    "Begin": ("demo", "simulate", "init"),
    "Get the data": ("acquire",),
    "Look at the data": ("config", "scenes", "labels"),
    "Train": ("tiles", "train", "crossval", "tune"),
    "Map and score": ("predict", "fuse", "evaluate"),
    "Models and this machine": ("model", "bench", "doctor"),
}
"""The verbs as the help lists them, in the order of work."""


@app.command
def config(path: Path | None = None, /, *, schema: bool = False, set_: Sets = ()) -> int:
    """Check a configuration and print it with every default filled in.

    Args:
        path: The YAML.
        schema: Print the JSON schema instead, for editors that complete and check.
        set_: KEY=VALUE put over the YAML, such as training.batch_size=8; may stand several times.
    """
    from thawmap.config import json_schema  # noqa: PLC0415

    if schema:
        print(json_schema())
        return 0
    if path is None:
        msg = "'thawmap config' needs a YAML file, or --schema; make a file with 'thawmap init'"
        raise ConfigError(msg)
    print(load_config(path, set_).as_yaml(), end="")
    return 0


@app.command
def scenes(path: Path, /, *, look: bool = False, set_: Sets = ()) -> int:
    """List the scenes with their grid, date, region and faults, before anything runs.

    Args:
        path: The YAML.
        look: Open all scenes and look at all layers, also of those that a catalogue knows.
        set_: KEY=VALUE put over the YAML.
    """
    settings = load_config(path, set_)
    return finish(thawmap.scenes(settings, look_at_all=look, progress=Terminal()))


@app.command
def tiles(path: Path, /, *, out: Out, dry_run: DryRun = False, set_: Sets = ()) -> int:
    """Cut the labelled scenes into tiles for training; a rerun cuts only what changed.

    Args:
        path: The YAML.
        out: Folder of the tile store.
        dry_run: Say what would be made, and make nothing.
        set_: KEY=VALUE put over the YAML.
    """
    settings = load_config(path, set_)
    return finish(thawmap.tiles(settings, out, dry_run=dry_run, progress=Terminal()))


@app.command
def train(
    path: Path,
    /,
    *,
    out: Out,
    tiles: Tiles = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    set_: Sets = (),
) -> int:
    """Train a model on the labelled scenes.

    Epoch and threshold are chosen on the validation regions, never on the test regions.

    Args:
        path: The YAML.
        out: Folder of the bundle: the best epoch's model; the last one's is in its folder 'last'.
        tiles: Folder of the tile store, kept between runs; by default 'tiles' in the bundle's folder.
        resume: Go on with a training that was interrupted, to the same result; without one, begin.
        dry_run: Say what would be trained on, and train nothing.
        set_: KEY=VALUE put over the YAML.
    """
    settings, terminal = load_config(path, set_), Terminal()
    return finish(thawmap.train(settings, out, store=tiles, resume=resume, dry_run=dry_run, progress=terminal))


@app.command
def crossval(
    path: Path,
    /,
    *,
    out: Out,
    tiles: Tiles = None,
    resume: Resume = False,
    report_only: Annotated[bool, Parameter(name="--report-only", negative="")] = False,
    dry_run: DryRun = False,
    set_: Sets = (),
) -> int:
    """Hold every region out in turn, with every setting of the YAML's 'crossval.grid'.

    The result is tables, figures and a page.

    Args:
        path: The YAML.
        out: Folder of the trainings and the report.
        tiles: Folder of the tile store that all share; by default 'tiles' in --out.
        resume: Go on with what is there: finished trainings stay, interrupted ones go on, the report is made again;
            settings and seeds may have been added to the YAML.
        report_only: Train nothing; make the report again from what is finished by now, also while others train.
        dry_run: Say what would be trained, and train nothing.
        set_: KEY=VALUE put over the YAML.
    """
    begin = {"resume": resume, "report_only": report_only, "dry_run": dry_run}
    settings = load_config(path, set_)
    return finish(thawmap.crossval(settings, out, store=tiles, progress=Terminal(), **begin))


@app.command
def tune(
    path: Path,
    /,
    *,
    out: Out,
    tiles: Tiles = None,
    trials: int | None = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    set_: Sets = (),
) -> int:
    """Search the keys of the YAML's 'tune.keys' for the best validation.

    The answer is a YAML, best.yaml.

    Args:
        path: The YAML.
        out: Folder of the trials, the table, the figure and best.yaml.
        tiles: Folder of the tile store that all share; by default 'tiles' in --out.
        trials: Trainings, in place of the YAML's 'tune.trials'.
        resume: Go on with what is there, to the same answer; with more --trials, add to it.
        dry_run: Say what would be searched, and train nothing.
        set_: KEY=VALUE put over the YAML.
    """
    more = () if trials is None else (f"tune.trials={trials}",)
    settings, terminal = load_config(path, (*set_, *more)), Terminal()
    return finish(thawmap.tune(settings, out, store=tiles, resume=resume, dry_run=dry_run, progress=terminal))


@app.command
def predict(
    paths: Annotated[tuple[Path, ...], Parameter(negative="")],
    /,
    *,
    model: Models,
    out: Out,
    config: OptionalConfigFile = None,
    split: Literal["test", "validation"] | None = None,
    dry_run: DryRun = False,
    set_: Sets = (),
) -> int:
    """Map scenes: probabilities, masks, polygons, pictures.

    A rerun maps only what is missing or changed.

    Args:
        paths: The YAML, for its scenes; or files and folders of scenes, read as the YAML of --config says.
        model: Folder of the bundle; may stand several times, for the mean of several bundles and its spread.
        out: Folder of the maps; every scene gets a folder in it.
        config: The YAML, when scenes are named one by one.
        split: Only the scenes of the YAML's test or validation part.
        dry_run: Say what would be mapped, and map nothing.
        set_: KEY=VALUE put over the YAML.
    """
    from thawmap.system import keep_freed_memory  # noqa: PLC0415

    keep_freed_memory()
    if config is None and (len(paths) != 1 or not is_yaml(paths[0])):
        msg = f"{paths[0]} is not a YAML; name one, or say with --config how scenes are read"
        raise ConfigError(msg)
    settings = load_config(config or paths[0], set_)
    places = paths if config is not None else ()
    summary = thawmap.predict(settings, model, out, places=places, part=split, dry_run=dry_run, progress=Terminal())
    status = finish(summary)
    if summary.done and not places and settings.labels is not None:
        print(printable(f"next: thawmap evaluate {out} --config {paths[0]} --out report"))
    return status


@app.command
def fuse(  # noqa: PLR0913 - a parameter for each option
    maps: Annotated[tuple[Path, ...], Parameter(negative="")],
    /,
    *,
    out: Out,
    how: Literal["mean", "median", "maximum", "count"] = "mean",
    by: Literal["place", "scene"] = "place",
    min_dates: int = 1,
    spread: Annotated[bool, Parameter(negative="")] = False,
    weights: Literal["none", "clear"] = "none",
    config: OptionalConfigFile = None,
    dry_run: DryRun = False,
    set_: Sets = (),
) -> int:
    """Make one map of all dates of a place, with the number of clear dates.

    A rerun makes only what changed.

    Args:
        maps: Folders that 'thawmap predict' made.
        out: Folder of the fused maps; every place gets a folder in it.
        how: What becomes of a pixel's dates; count: only how many are clear.
        by: One map for each place (all that lie over each other), or on each scene's own pixels, to be evaluated.
        min_dates: Pixels with fewer clear dates have no data.
        spread: Write the standard deviation between dates too.
        weights: clear: in a mean, dates count by their clear share, and maps of one date also less towards their edge.
        config: The YAML with the settings of polygons and outputs; by default those that the maps were made with.
        dry_run: Say what would be fused, and fuse nothing.
        set_: KEY=VALUE put over the YAML.
    """
    if config is None and set_:
        msg = f"--set {set_[0]} puts a value over a YAML; name it with --config"
        raise ConfigError(msg)
    settings = None if config is None else load_config(config, set_)
    from thawmap.series.fuse import Recipe  # noqa: PLC0415 - after the configuration is checked, as it loads slowly

    recipe = Recipe(how=how, by=by, min_dates=min_dates, spread=spread, weights=weights)
    return finish(thawmap.fuse(maps, out, recipe, config=settings, dry_run=dry_run, progress=Terminal()))


@app.command
def evaluate(
    maps: Path,
    /,
    *,
    config: ConfigFile,
    out: Out,
    model: OptionalModel = None,
    set_: Sets = (),
) -> int:
    """Score maps against labels by scene and region: a table and a page with pictures.

    Args:
        maps: Folder that 'thawmap predict' made.
        config: The YAML with scenes and labels.
        out: Folder of the report.
        model: Folder of the bundle, to show how it was trained.
        set_: KEY=VALUE put over the YAML.
    """
    settings = load_config(config, set_)
    return finish(thawmap.evaluate(settings, maps, out, model=model, progress=Terminal()))


for _order, (_title, _verbs) in enumerate(_IN_ORDER.items()):
    _group = Group(_title, sort_key=_order)
    for _number, _verb in enumerate(_verbs):
        app[_verb].group, app[_verb].sort_key = (_group,), _number


_RESUMED = ("train", "crossval", "tune")  # verbs that go on with what was begun only where --resume is given


def main() -> Never:
    """Run the command line and leave with its exit status."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)  # libraries raise their own loggers' levels when they are imported
    handler.setFormatter(_Printable())
    logging.basicConfig(handlers=[handler])
    status = _run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the interpreter closes prints no traceback
    sys.exit(status)


class _Printable(logging.Formatter):
    """Format of libraries' messages, with control characters written out.

    Such messages name files of unknown origin.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a log record's text with its control characters written out.

        Line by line, so that the line ends stay.
        """
        return "\n".join(map(printable, super().format(record).splitlines()))


def _run(words: list[str]) -> int:
    """Run the verb that words of a command line name; return its exit status.

    Messages go to stderr. ``help VERB`` is another way to say ``VERB --help``.
    """
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    try:
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print(printable(f"thawmap: {sentence(error)}"), file=sys.stderr)
        return 2
    except ThawmapError as error:
        print(printable(f"thawmap: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        needs_resume = words[:1] and words[0] in _RESUMED and "--resume" not in words
        remedy = f"{'add --resume to' if needs_resume else 'run'} the same command to go on"
        print(f"\nthawmap: stopped; what is finished stays, {remedy}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader has gone, as head does; what the interpreter still flushes must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return int(result or 0)

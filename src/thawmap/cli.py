"""The door: parse the command line, load the configuration, call one verb, set the exit status.

Exit status: 0 all done, 1 some items failed (the rest finished, each failure named), 2 the request was wrong.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Never

from cyclopts import App, CycloptsError, Parameter

from thawmap import __version__
from thawmap.errors import ConfigError, ThawmapError
from thawmap.terminal import Terminal

if TYPE_CHECKING:
    from thawmap.config import Config
    from thawmap.pipeline import Summary

app = App(
    name="thawmap",
    version=__version__,
    help="Map retrogressive thaw slumps, or any other object, from satellite scenes.\n\n"
    "Start with 'thawmap demo', then 'thawmap init' in a folder of your own.",
    help_format="plaintext",
)

labels_app = App(name="labels", help="Count digitised objects; check, describe and convert them.")
app.command(labels_app)

Sets = Annotated[tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=False)]
DryRun = Annotated[bool, Parameter(name="--dry-run", negative="")]
Out = Annotated[Path, Parameter(name="--out")]
OptionalOut = Annotated[Path | None, Parameter(name="--out")]
Model = Annotated[Path, Parameter(name="--model")]


_YAML = (".yaml", ".yml")


@app.command
def demo(*, out: Out = Path("demo")) -> int:
    """Show the whole flow on simulated scenes: simulate, train, predict an unseen region, polygons, scores, a page.

    Args:
        out: Folder for everything that the demo makes; what is already there and still true is kept.
    """
    from thawmap import pipeline  # noqa: PLC0415

    return _finish(pipeline.demo(out, progress=Terminal()))


@app.command
def simulate(out: Path, /, *, regions: int = 4, scenes: int = 2, size: int = 384, seed: int = 0) -> int:
    """Make a project of simulated scenes with thaw slumps, labels and a thawmap.yaml that runs as it is.

    Args:
        out: Folder to make.
        regions: Number of regions that look different, 2 to 6.
        scenes: Scenes in each region.
        size: Side of a scene in pixels of 3 m.
        seed: Another number, another Arctic.
    """
    from thawmap import pipeline  # noqa: PLC0415

    path = pipeline.simulate(out, regions=regions, scenes=scenes, size=size, seed=seed)
    print(f"{path} is ready; next: thawmap train {path} --out {out / 'model'}")
    return 0


@app.command
def init(folder: Path = Path(), /) -> int:
    """Write a commented thawmap.yaml to start from; a file that is there is never replaced.

    Args:
        folder: Where to write it.
    """
    from thawmap import pipeline  # noqa: PLC0415

    path = pipeline.init(folder)
    print(f"{path} is written; name your files in it, then: thawmap scenes {path}")
    return 0


@app.command
def doctor() -> int:
    """Tell what this machine has: processors, memory, GPU, libraries, optional parts."""
    from thawmap import pipeline  # noqa: PLC0415

    for name, value in pipeline.doctor().items():
        print(f"{name:<28} {value}")
    return 0


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
    print(_load(path, set_).as_yaml(), end="")
    return 0


@app.command
def scenes(path: Path, /, *, set_: Sets = ()) -> int:
    """List the scenes with their grid, date, region and what is wrong with them, before anything runs.

    Args:
        path: The YAML.
        set_: KEY=VALUE put over the YAML.
    """
    from thawmap import pipeline  # noqa: PLC0415

    return _finish(pipeline.scenes(_load(path, set_), progress=Terminal()))


@labels_app.default
def labels(path: Path, /, *, set_: Sets = ()) -> int:
    """Count what is labelled: objects and pixels by region and scene.

    Args:
        path: The YAML.
        set_: KEY=VALUE put over the YAML.
    """
    from thawmap import pipeline  # noqa: PLC0415

    return _finish(pipeline.labels(_load(path, set_), progress=Terminal()))


@labels_app.command(name="check")
def check_labels(path: Path, /, *, out: OptionalOut = None, repaired: Path | None = None, set_: Sets = ()) -> int:
    """Say what is wrong with digitised polygons: geometry, duplicates, overlaps, scenes, dates, sizes.

    Args:
        path: The YAML, whose scenes the polygons are compared with; or only a vector file.
        out: File of the faults to write, a polygon for each, such as faults.gpkg.
        repaired: File of a repaired copy to write, such as repaired.gpkg.
        set_: KEY=VALUE put over the YAML.
    """
    from thawmap import pipeline  # noqa: PLC0415

    source = _config_or_file(path, set_)
    return _finish(pipeline.check_labels(source, out=out, repaired=repaired, progress=Terminal()))


@labels_app.command(name="stats")
def label_stats(path: Path, /, *, by: str | None = None, set_: Sets = ()) -> int:
    """Say what an inventory holds, as the paper's Table 2: objects, objects of a date, median area.

    Args:
        path: The YAML, or a vector file.
        by: Column of sites; by default that of regions.
        set_: KEY=VALUE put over the YAML.
    """
    from thawmap import pipeline  # noqa: PLC0415

    return _finish(pipeline.label_stats(_config_or_file(path, set_), by=by))


@labels_app.command(name="convert")
def convert_labels(
    source: Path,
    out: Path,
    /,
    *,
    to: Literal["arts", "thawmap"],
    creator: str | None = None,
    image: str | None = None,
    resolution: float | None = None,
) -> int:
    """Write labels in the columns of the ARTS inventory, or ARTS in those of thawmap; nothing is lost.

    Args:
        source: Vector file to read.
        out: Vector file to write.
        to: The columns to write.
        creator: Who digitised, for ARTS, where the labels do not say it.
        image: What it was digitised on, such as PlanetScope, where they do not say it.
        resolution: Resolution of that in m, where they do not say it.
    """
    from thawmap import pipeline  # noqa: PLC0415

    made = pipeline.convert_labels(source, out, to=to, creator=creator, image=image, resolution=resolution)
    return _finish(made)


@app.command
def tiles(path: Path, /, *, out: Out, dry_run: DryRun = False, set_: Sets = ()) -> int:
    """Cut the labelled scenes into tiles for training; a rerun cuts only what changed.

    Args:
        path: The YAML.
        out: Folder of the tile store.
        dry_run: Say what would be made, and make nothing.
        set_: KEY=VALUE put over the YAML.
    """
    from thawmap import pipeline  # noqa: PLC0415

    return _finish(pipeline.tiles(_load(path, set_), out, dry_run=dry_run, progress=Terminal()))


@app.command
def train(
    path: Path,
    /,
    *,
    out: Out,
    tiles: Annotated[Path | None, Parameter(name="--tiles")] = None,
    resume: Annotated[bool, Parameter(name="--resume", negative="")] = False,
    dry_run: DryRun = False,
    set_: Sets = (),
) -> int:
    """Train a model; epoch and threshold are chosen on the validation regions, never on the test regions.

    Args:
        path: The YAML.
        out: Folder of the bundle: the best epoch's model; the last one's is in its folder 'last'.
        tiles: Folder of the tile store, kept between runs; by default 'tiles' in the bundle's folder.
        resume: Go on with a training that was interrupted, to the same result; without one, begin.
        dry_run: Say what would be trained on, and train nothing.
        set_: KEY=VALUE put over the YAML.
    """
    from thawmap import pipeline  # noqa: PLC0415

    settings, terminal = _load(path, set_), Terminal()
    return _finish(pipeline.train(settings, out, store=tiles, resume=resume, dry_run=dry_run, progress=terminal))


@app.command
def predict(
    paths: Annotated[tuple[Path, ...], Parameter(negative="")],
    /,
    *,
    model: Model,
    out: Out,
    config: Annotated[Path | None, Parameter(name="--config")] = None,
    split: Literal["test", "validation"] | None = None,
    dry_run: DryRun = False,
    set_: Sets = (),
) -> int:
    """Map scenes: probabilities, masks, polygons, pictures; a rerun maps only what is missing or changed.

    Args:
        paths: The YAML, for its scenes; or files and folders of scenes, read as the YAML of --config says.
        model: Folder of the bundle.
        out: Folder of the maps; every scene gets a folder in it.
        config: The YAML, when scenes are named one by one.
        split: Only the scenes of the YAML's test or validation part.
        dry_run: Say what would be mapped, and map nothing.
        set_: KEY=VALUE put over the YAML.
    """
    from thawmap import pipeline  # noqa: PLC0415

    if config is None and (len(paths) != 1 or paths[0].suffix not in _YAML):
        msg = f"{paths[0]} is not a YAML; name one, or say with --config how scenes are read"
        raise ConfigError(msg)
    settings = _load(config or paths[0], set_)
    places = paths if config is not None else ()
    return _finish(
        pipeline.predict(settings, model, out, places=places, part=split, dry_run=dry_run, progress=Terminal())
    )


@app.command
def evaluate(
    maps: Path,
    /,
    *,
    config: Annotated[Path, Parameter(name="--config")],
    out: Out,
    model: Annotated[Path | None, Parameter(name="--model")] = None,
    set_: Sets = (),
) -> int:
    """Score maps against labels, by scene and region: a table and a page with pictures.

    Args:
        maps: Folder that 'thawmap predict' made.
        config: The YAML with scenes and labels.
        out: Folder of the report.
        model: Folder of the bundle, to show how it was trained.
        set_: KEY=VALUE put over the YAML.
    """
    from thawmap import pipeline  # noqa: PLC0415

    return _finish(pipeline.evaluate(_load(config, set_), maps, out, model=model, progress=Terminal()))


def main() -> Never:
    """Run the command line and leave with its exit status."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)  # libraries raise their own loggers' levels when they are imported
    logging.basicConfig(format="%(message)s", handlers=[handler])
    sys.exit(_run(sys.argv[1:]))


def _run(words: list[str]) -> int:
    try:
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print(f"thawmap: {_one_line(error)}; see 'thawmap --help'", file=sys.stderr)
        return 2
    except ThawmapError as error:
        print(f"thawmap: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nthawmap: stopped; what is finished stays, run the same command to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return int(result or 0)


def _one_line(error: CycloptsError) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith("...") else text.rstrip(".")


def _load(path: Path, overrides: tuple[str, ...]) -> "Config":
    from thawmap.config import load  # noqa: PLC0415

    return load(path, overrides=overrides)


def _config_or_file(path: Path, overrides: tuple[str, ...]) -> "Config | Path":
    """What a YAML says, or a file that is none."""
    if path.suffix in _YAML:
        return _load(path, overrides)
    if overrides:
        msg = f"--set puts values over a YAML, and {path} is none; name the YAML"
        raise ConfigError(msg)
    return path


def _finish(summary: "Summary") -> int:
    """Print what came out; the exit status."""
    if summary.table is not None and len(summary.table):
        print(summary.table.to_string(index=False))
    for line in summary.lines:
        print(line)
    for name, error in summary.failed.items():
        print(f"thawmap: {name} failed: {error}", file=sys.stderr)
    if summary.failed:
        print(f"thawmap: {len(summary.failed)} failed, {summary.done} done", file=sys.stderr)
    return 1 if summary.failed else 0

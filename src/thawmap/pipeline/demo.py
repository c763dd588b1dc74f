"""The verb demo: the whole flow on simulated scenes."""

from pathlib import Path

from thawmap.config import load
from thawmap.pipeline.evaluate import evaluate
from thawmap.pipeline.predict import predict
from thawmap.pipeline.progress import Progress, Silence, Summary
from thawmap.pipeline.simulate import simulate
from thawmap.pipeline.train import train


def demo(out: Path, *, progress: Progress | None = None) -> Summary:
    """Simulate scenes, train a model, map and score a region, all in ``out``.

    The region was left out of the training. The scenes are small, so each is mapped in eight positions
    (`inference.symmetries`). What is there and still true is kept, so that a second run takes seconds.

    Raises:
        ThawmapError: If the folder holds something else.
    """
    progress = progress or Silence()
    yaml = out / "project" / "thawmap.yaml"
    if not yaml.exists():
        progress.say("simulating scenes in six regions")
        simulate(out / "project", regions=6, progress=progress)
    config = load(yaml, overrides=["inference.symmetries=8"])
    model, maps, report = out / "model", out / "maps", out / "report"
    train(config, model, resume=True, progress=progress)
    mapped = predict(config, model, maps, part="test", progress=progress)
    scored = evaluate(config, maps, report, model=model, progress=progress)
    lines = (*mapped.lines, *scored.lines, f"Open {(report / 'index.html').resolve()} in a browser.")
    return Summary(lines=lines, done=mapped.done, skipped=mapped.skipped, failed={**mapped.failed, **scored.failed})

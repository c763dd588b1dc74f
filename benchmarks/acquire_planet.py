"""Orders at a fake Planet while everything breaks: what is charged, and what arrives.

20 orders whose answers are lost, each by two runs at once; 500 scenes with a bad one, named in the refusal and not; and
a run that is killed again and again at random moments until it is done. Each must charge and bring every scene once.

python benchmarks/acquire_planet.py [KILLS]
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from thawmap.acquire.ledger import alone
from thawmap.acquire.planet.delivery import fetch
from thawmap.acquire.planet.orders import order
from thawmap.errors import DataError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from planet_fake import AREA, FAST, FakePlanet, fake_planet, ledger_in, silent, wishes

LOST = ("after", "before", "500 after", "500 before")
KILLS = int(sys.argv[1]) if len(sys.argv) == 2 else 50


def acquire(planet: FakePlanet, folder: Path, ids: list[str], *, order_size: int = 100) -> None:
    """Order scenes and fetch them, as one run does."""
    settings = planet.settings.model_copy(update={"order_size": order_size})
    with alone(folder), planet.http() as http:
        order(http, settings, {AREA.name: wishes(ids)}, [AREA], ledger_in(folder), silent, manners=FAST)
        fetch(http, settings, folder, ledger_in(folder), silent, manners=FAST)


def started(planet: FakePlanet, folder: Path, ids: list[str]) -> subprocess.Popen[bytes]:
    """Begin a run in a process of its own."""
    command = [sys.executable, __file__, "--run", planet.address, str(folder), *ids]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def is_right(folder: Path, ids: list[str]) -> bool:
    """Whether all scenes are on disk as the manifests say."""
    items = set()
    for manifest in folder.rglob("manifest.json"):
        for row in json.loads(manifest.read_text())["files"]:
            digest = hashlib.sha256((manifest.parent / row["path"]).read_bytes()).hexdigest()
            if digest != row["digests"]["sha256"]:
                return False
            items.add(row["annotations"]["planet/item_id"])
    return items == set(ids) and not list(folder.rglob("*.part"))


def charged_once(planet: FakePlanet, ids: list[str]) -> bool:
    """Whether each scene was charged, and once."""
    return sorted(charge["item"] for charge in planet.charged["items"]) == sorted(ids)


def lost_answers(planet: FakePlanet) -> str:
    """Trials with a lost answer and two runs at once."""
    good = 0
    for trial in range(20):
        planet.reset()
        ids = planet.add_many(3)
        planet.control(lost=[LOST[trial % len(LOST)]])
        with TemporaryDirectory() as folder:
            for run in [started(planet, Path(folder), ids) for _ in range(2)]:
                run.wait()
            acquire(planet, Path(folder), ids)
            good += charged_once(planet, ids) and is_right(Path(folder), ids)
    return f"lost answers, two runs at once: {good} of 20 charged and fetched once"


def bad_scene(planet: FakePlanet, *, is_named: bool) -> str:
    """An order of 500 with one bad scene."""
    planet.reset()
    ids = planet.add_many(500)
    planet.control(bad=[ids[137]], bad_is_named=is_named)
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        acquire(planet, Path(folder), ids, order_size=500)
        seconds = time.perf_counter() - start
        others = [id_ for id_ in ids if id_ != ids[137]]
        good = charged_once(planet, others) and is_right(Path(folder), others)
    how = "named" if is_named else "found by halves"
    result = "499 arrive" if good else "WRONG"
    return f"one bad scene of 500, {how}: {result}, {planet.posts()} orders sent, {seconds:.0f} s"


def killed(planet: FakePlanet) -> str:
    """A run that is killed at random moments."""
    rng = random.Random(0)
    planet.reset()
    ids = planet.add_many(60)
    planet.control(states=["queued", "running", "success"], lost=["after", "before"] * 10)
    with TemporaryDirectory() as folder:
        for _ in range(KILLS):
            before = len(planet.log)
            run = started(planet, Path(folder), ids)
            while run.poll() is None and len(planet.log) == before:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))  # somewhere between its first request and its last
            run.kill()
            if run.wait() == 0:
                for path in rng.sample(sorted(Path(folder).rglob("*.tif")), 5):
                    path.unlink()  # so that the next one has something to do
        acquire(planet, Path(folder), ids)
        good = charged_once(planet, ids) and is_right(Path(folder), ids)
    return f"killed {KILLS} times: {'charged and fetched once' if good else 'WRONG'}"


def main() -> None:
    """Run all, or one run of a trial."""
    if sys.argv[1:2] == ["--run"]:
        try:
            acquire(FakePlanet(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
        except DataError as error:
            sys.exit(str(error))
        return
    with fake_planet() as planet:
        for line in (lambda: lost_answers(planet), lambda: bad_scene(planet, is_named=True),
                     lambda: bad_scene(planet, is_named=False), lambda: killed(planet)):  # fmt: skip
            print(line(), flush=True)


if __name__ == "__main__":
    main()

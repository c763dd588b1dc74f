"""Throughput of downloads from loopback as a share of curl's, and the memory that they take.

curl only writes; a download also computes SHA-256 and waits until the disk has each file. On a disk that is slower than
the loopback the disk is what is measured: give a folder in memory, such as /dev/shm, to leave it out. Where all cores
are busy, SHA-256 is: so the processor's time is printed too, which does not depend on what else runs.

python benchmarks/acquire_download.py [FOLDER]
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from thawmap.acquire.download import Wanted, download
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from serving import served

MEGABYTE = 10**6
SETS = ((200, 4 * MEGABYTE), (8, 200 * MEGABYTE))
CONNECTIONS = 8
REPEATS = 5
WHERE = Path(sys.argv[1] if len(sys.argv) > 1 else gettempdir())


def fill(folder: Path, number: int, size: int) -> dict[str, str]:
    """SHA-256 of new files of random bytes, by name."""
    block = os.urandom(MEGABYTE)
    digests = {}
    for index in range(number):
        content = index.to_bytes(8, "big") + (block * (size // MEGABYTE))[8:]
        (folder / f"{index}.bin").write_bytes(content)
        digests[f"{index}.bin"] = sha256(content).hexdigest()
    return digests


def by_curl(address: str, digests: dict[str, str], folder: Path) -> None:
    """Fetch files with curl."""
    pairs = [word for name in digests for word in ("-o", str(folder / name), f"{address}/{name}")]
    options = ["--silent", "--show-error", "--parallel", "--parallel-immediate", "--parallel-max", str(CONNECTIONS)]
    subprocess.run(["curl", *options, *pairs], check=True, stderr=subprocess.DEVNULL)


def by_thawmap(address: str, digests: dict[str, str], folder: Path) -> None:
    """Fetch files with thawmap."""
    wanted = [Wanted(url=f"{address}/{name}", path=folder / name, sha256=digest) for name, digest in digests.items()]
    host = address.removeprefix("http://")
    with Http(rates={host: 1e6}, connections=CONNECTIONS) as http:
        ledger = Ledger.open(folder / "ledger.jsonl")
        landed = list(download(http, wanted, ledger=ledger, root=folder, connections=CONNECTIONS))
    assert all(file.error is None and file.is_new for file in landed)


def seconds(
    work: Callable[[str, dict[str, str], Path], None], address: str, digests: dict[str, str]
) -> tuple[float, float]:
    """The time that a work takes in a new folder beside the others, by the clock and of the processor."""
    with TemporaryDirectory(dir=WHERE) as folder:
        start, before = time.perf_counter(), processor_time()
        work(address, digests, Path(folder))
        return time.perf_counter() - start, processor_time() - before


def processor_time() -> float:
    """Seconds of the processor that this process and its children have taken."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def hashing_time(total: float) -> float:
    """Seconds of the processor that SHA-256 of some megabytes takes."""
    piece = os.urandom(2**19)
    before = processor_time()
    digest = sha256()
    for _ in range(int(total * MEGABYTE) // len(piece)):
        digest.update(piece)
    return processor_time() - before


def peak_megabytes() -> float:
    """The most memory that this process has had since `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / MEGABYTE


def forget_peak() -> None:
    """Begin to measure the most memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Print rates, shares and memory for many small files and a few large ones."""
    for number, size in SETS:
        with TemporaryDirectory(dir=WHERE) as source:
            digests = fill(Path(source), number, size)
            total = number * size / MEGABYTE
            with served("files", source) as address:
                forget_peak()
                before = peak_megabytes()
                pairs = [
                    (seconds(by_curl, address, digests), seconds(by_thawmap, address, digests)) for _ in range(REPEATS)
                ]
            curls, ours = zip(*pairs, strict=True)
            (curl, curl_cpu), (own, own_cpu) = (tuple(map(min, zip(*taken, strict=True))) for taken in (curls, ours))
            print(f"{number} files of {size / MEGABYTE:.0f} MB, {CONNECTIONS} connections")
            print(f"  curl {total / curl:.0f} MB/s, thawmap {total / own:.0f} MB/s: a share of {curl / own:.2f}")
            print(f"  processor: curl {curl_cpu:.2f} s, thawmap {own_cpu:.2f} s", end=", ")
            print(f"of which SHA-256 {hashing_time(total):.2f} s")
            print(f"  memory beyond the start: {peak_megabytes() - before:.0f} MB")


if __name__ == "__main__":
    main()

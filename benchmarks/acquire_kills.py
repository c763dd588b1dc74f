"""Downloads that are killed at 50 random moments, by kill -9 and by Ctrl-C, and run again each time.

After each kill every file with its final name is right, and the next run asks the server for the missing bytes only.

python benchmarks/acquire_kills.py [ROUNDS] [SEED]
"""

import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from file_server import file_server
from killed_downloads import killed_rounds

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 50
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 13

if __name__ == "__main__":
    for by in (signal.SIGKILL, signal.SIGINT):
        with TemporaryDirectory() as name, file_server(Path(name) / "served") as server:
            start = time.perf_counter()
            hits = killed_rounds(server, Path(name), ROUNDS, seed=SEED, by=by)
            took = time.perf_counter() - start
            print(f"{by.name}: {ROUNDS} rounds, {hits} of them hit a running download; {took:.0f} s")

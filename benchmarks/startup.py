"""How quickly the command line answers: help against an empty Python, and a plain verb, in one run.

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "thawmap --help": [sys.executable, "-m", "thawmap", "--help"],
    "thawmap config --schema": [sys.executable, "-m", "thawmap", "config", "--schema"],
    "thawmap doctor": [sys.executable, "-m", "thawmap", "doctor"],
}
REPEATS = 7


def seconds(command: list[str]) -> float:
    """Median time of a command, in seconds, after one run that fills the caches."""
    times = []
    for _ in range(REPEATS + 1):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


if __name__ == "__main__":
    measured = {name: seconds(command) for name, command in COMMANDS.items()}
    for name, value in measured.items():
        print(f"{name:<26} {value:6.2f} s   {value / measured['python -c pass']:6.1f} x an empty Python")

"""What a process asks of its system: memory, threads, versions of libraries."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from thawmap.system import installed_versions, threads_each


def test_versions_are_of_what_is_installed():
    assert installed_versions(["numpy", "no-such-library", "torch"]) == {
        "numpy": version("numpy"),
        "torch": version("torch"),
    }


@pytest.mark.parametrize(("processors", "workers", "threads"), [(8, 1, 8), (8, 3, 2), (2, 5, 1), (None, 1, 1)])
def test_workers_share_the_processors(monkeypatch, processors, workers, threads):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    assert threads_each(workers) == threads


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of memory")
def test_a_peak_is_forgotten_and_nothing_large_is_loaded():
    code = """
import sys
from thawmap.system import forget_peak_memory, keep_freed_memory, peak_memory
assert not {"numpy", "torch"} & set(sys.modules)
large = bytearray(64 * 2**20)
del large
before = peak_memory()
used = forget_peak_memory()
assert used < before - 32 * 2**20
assert used <= peak_memory() < before - 32 * 2**20
"""
    subprocess.run([sys.executable, "-c", code], check=True)

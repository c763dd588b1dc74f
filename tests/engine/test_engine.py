"""The engine: failures are values, work is drawn as it is needed, and a dead worker costs what it held."""

import os
import platform
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thawmap.engine.run import in_order, processes, run
from thawmap.errors import DataError


def invert(number: int) -> float:
    if number == 13:
        raise DataError("scene 13 has no CRS; give it one")
    return 1 / number


def die_of_two_and_five(number: int) -> tuple[int, int]:
    """The number and this process; two numbers end it without a word, as want of memory does."""
    if number in (2, 5):
        os._exit(9)
    time.sleep(0.02)
    return number, os.getpid()


def unsendable(number: int):
    return lambda: number


@pytest.fixture(params=["here", "threads"])
def executor(request) -> Iterator[Executor | None]:
    if request.param == "here":
        yield None
        return
    with ThreadPoolExecutor(3) as threads:
        yield threads


@pytest.fixture(scope="module")
def workers() -> Iterator[Executor]:
    with processes(2) as executor:
        yield executor


def test_failures_are_values_and_the_rest_finish(executor):
    outcomes = {outcome.item: outcome for outcome in run(invert, [1, 2, 0, 13, 4], executor)}
    assert {item: outcome.value for item, outcome in outcomes.items() if outcome.ok} == {1: 1.0, 2: 0.5, 4: 0.25}
    assert outcomes[13].error == "scene 13 has no CRS; give it one"
    assert outcomes[0].error.startswith("ZeroDivisionError at invert, line ")
    assert outcomes[0].value is outcomes[13].value is None


@given(items=st.lists(st.integers()), ahead=st.integers(1, 5))
def test_every_item_has_one_outcome(items, ahead):
    with ThreadPoolExecutor(2) as threads:
        found = [outcome.item for outcome in run(invert, items, threads, ahead=ahead)]
    assert sorted(found) == sorted(items)


def test_without_an_executor_outcomes_come_in_order():
    assert [outcome.item for outcome in run(invert, range(20))] == list(range(20))


def test_an_item_comes_back_as_itself_with_its_time(executor):
    class Scene:
        pass

    scenes = [Scene(), Scene()]
    outcomes = list(run(lambda _: time.sleep(0.01), scenes, executor))
    assert all(any(outcome.item is scene for outcome in outcomes) for scene in scenes)
    assert all(outcome.seconds >= 0.01 for outcome in outcomes)


def test_a_million_items_are_not_drawn_ahead():
    drawn = 0

    def draw() -> int:
        nonlocal drawn
        drawn += 1
        return drawn

    with ThreadPoolExecutor(2) as threads:
        outcomes = run(invert, iter(draw, None), threads, ahead=4)
        for done, _ in enumerate(islice(outcomes, 200), start=1):
            assert drawn <= done + 4
        outcomes.close()
    assert drawn <= 204

    drawn = 0
    next(run(invert, iter(draw, None)))
    assert drawn == 1


def test_outcomes_come_as_soon_as_they_are_there():
    gate = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        outcomes = run(lambda number: gate.wait(600) if number == 0 else number, [0, 1, 2], threads)
        assert {next(outcomes).item, next(outcomes).item} == {1, 2}
        gate.set()
        assert next(outcomes).item == 0


def test_who_stops_listening_leaves_nothing_waiting():
    started, permits = [], threading.Semaphore(1)
    with ThreadPoolExecutor(1) as threads:
        outcomes = run(lambda number: (permits.acquire(), started.append(number)), range(100), threads, ahead=50)
        next(outcomes)
        outcomes.close()
        permits.release(100)
    assert len(started) <= 2  # that one, and one that was begun


def test_one_process_is_this_one():
    assert processes(1) is None


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_item_and_no_other(workers):
    outcomes = {outcome.item: outcome for outcome in run(die_of_two_and_five, range(12), workers, ahead=6)}
    assert sorted(outcomes) == list(range(12))
    assert {item for item, outcome in outcomes.items() if not outcome.ok} == {2, 5}
    assert "ended from outside" in outcomes[2].error
    assert "fewer workers" in outcomes[5].error


def test_processes_are_others_and_are_used_again(workers):
    outcomes = list(run(die_of_two_and_five, [1, 3, 4, 6, 7, 8], workers))
    assert [outcome.value[0] for outcome in sorted(outcomes, key=lambda outcome: outcome.item)] == [1, 3, 4, 6, 7, 8]
    ids = {outcome.value[1] for outcome in outcomes}
    assert os.getpid() not in ids
    assert len(ids) <= 2


def test_failures_in_processes_say_what_failures_here_say(workers):
    here, there = (
        {outcome.item: outcome.error for outcome in run(invert, [0, 13], executor)} for executor in (None, workers)
    )
    assert here == there


def test_an_item_that_went_to_a_process_comes_back_as_itself(workers):
    items = [1000, 2000]  # a copy that travelled would be another object
    assert all(any(outcome.item is item for item in items) for outcome in run(invert, items, workers))


def test_a_result_that_cannot_be_sent_is_a_failure_of_its_item(workers):
    (outcome,) = run(unsendable, [1], workers)
    assert not outcome.ok
    assert "ended from outside" not in outcome.error


def test_a_pool_of_others_that_broke_still_gives_every_item_an_outcome():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        outcomes = list(run(die_of_two_and_five, range(6), pool, ahead=1))
    assert [outcome.item for outcome in outcomes] == list(range(6))
    assert [outcome.ok for outcome in outcomes] == [True, True, False, False, False, False]


@given(count=st.integers(0, 30), threads=st.integers(1, 4), ahead=st.integers(0, 8))
def test_parts_come_in_order_and_no_more_than_asked_wait(count: int, threads: int, ahead: int) -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for number in range(count):
            drawn.append(number)
            yield number

    taken = 0
    for result in in_order(lambda number: -number, items(), threads=threads, ahead=ahead):
        assert result == -taken
        assert len(drawn) <= taken + ahead + 1
        taken += 1
    assert taken == count


def test_a_part_that_fails_is_the_failure_of_the_whole() -> None:
    results = in_order(invert, [1, 13, 2], threads=2, ahead=2)
    assert next(results) == 1
    with pytest.raises(DataError, match="scene 13"):
        next(results)


FAULTS = """
    import sys
    from thawmap.system import keep_freed_memory

    if "keep" in sys.argv:
        keep_freed_memory()
    import resource, torch

    for turn in range(20):
        if turn == 16:  # until then pieces are found that fit
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(20_000_000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is for the allocator of Linux")
def test_memory_that_is_freed_is_handed_out_again_without_the_kernel():
    faults = {}
    for word in ("keep", "plain"):
        command = [sys.executable, "-c", textwrap.dedent(FAULTS), word]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        faults[word] = int(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)
    if faults["plain"] < 10_000:
        pytest.skip("this kernel hands memory over in huge pages")
    assert faults["keep"] < 0.5 * faults["plain"]

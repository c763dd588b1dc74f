"""One function over many items, on any executor; a failure is a value.

The only place that catches every exception: one broken scene costs one scene (law 9).
"""

import logging
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from queue import SimpleQueue
from threading import Thread
from typing import Generic, ParamSpec, TypeVar

from thawmap.errors import ConfigError, ThawmapError
from thawmap.system import keep_freed_memory

Item = TypeVar("Item")
Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_PATIENCE_S = 10  # for a cluster to answer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[Item, Value]):
    """Outcome of one item: a value or an error.

    Attributes:
        item: What was worked on.
        value: What came out; None after a failure.
        error: One sentence that says what went wrong; None after a success.
        seconds: Time that the work took.
    """

    item: Item
    value: Value | None = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """True if the item succeeded."""
        return self.error is None


def run(
    work: Callable[[Item], Value], items: Iterable[Item], executor: Executor | None = None, *, ahead: int = 8
) -> Iterator[Outcome[Item, Value]]:
    """Yield the value or error of ``work`` for each item, in the order of finishing.

    Args:
        work: A function of one item; for processes and clusters one that can be sent (module level, or a
            partial).
        items: Read lazily, so that a million items cost the memory of ``ahead``.
        executor: Any ``concurrent.futures.Executor`` (a Dask client's ``get_executor()`` too); None works in
            this thread, in order.
        ahead: Items handed to the executor at once; at least as many as it has workers.
    """
    if executor is None:
        yield from (_attempt(work, item) for item in items)
        return
    queue = iter(items)
    pending: dict[Future[Outcome[Item, Value]], Item] = {}
    try:
        while True:
            for item in islice(queue, ahead - len(pending)):
                pending[_submit(executor, work, item)] = item
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield _outcome(future, pending.pop(future))
    finally:
        for future in pending:
            future.cancel()


def in_order(work: Callable[[Item], Value], items: Iterable[Item], *, threads: int, ahead: int) -> Iterator[Value]:
    """Yield results of ``work`` by threads, in the items' order; raise its errors.

    At most ``ahead`` results wait to be taken. For the parts of one thing, where a failure is the failure of the whole:
    it is raised where its result was due.
    """
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Value]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def executor(workers: int, address: str | None = None) -> Iterator[Executor | None]:
    """Yield an executor: a Dask cluster, fresh processes, or None for this thread.

    The cluster at ``address``; without one, ``workers`` processes, and None for one worker.

    Raises:
        ConfigError: If there is no cluster, or its library is not installed.
    """
    if address is None:
        with processes(workers) or nullcontext() as pool:
            yield pool
        return
    try:
        from distributed import Client  # noqa: PLC0415 - an extra
    except ImportError as error:
        msg = "engine.kind is dask, but its library is not installed; pip install 'thawmap[cluster]'"
        raise ConfigError(msg) from error
    try:
        client = Client(address, timeout=_PATIENCE_S)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        msg = f"no Dask scheduler answers at {address} within {_PATIENCE_S} s; start one, or correct engine.address"
        raise ConfigError(msg) from error
    with client, client.get_executor(pure=False) as pool:  # type: ignore[no-untyped-call]
        yield pool


def processes(workers: int) -> Executor | None:
    """Return an executor of ``workers`` fresh processes; None (this thread) for one.

    A process that dies costs the one item that it held, and is replaced.
    """
    return None if workers <= 1 else _Processes(workers)


class _Processes(ThreadPoolExecutor):
    """Threads that each lend a process of its own to the item they hold.

    A plain pool of processes gives up all its items when one process dies, and cannot say whose fault it was.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, thread_name_prefix="thawmap")
        self._idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(workers):
            self._idle.put(_one_process())

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Submit a call to one of the processes, and return the future of its result.

        Function and arguments can be sent to a process.
        """
        return super().submit(self._lend, partial(fn, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - theirs
        """Take no more calls and, if told to wait, end all processes after their items."""
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        while wait and not self._idle.empty():
            self._idle.get().shutdown()

    def _lend(self, call: Callable[[], Result]) -> Result:
        """Return the result of a call in an idle process, which is replaced if it dies."""
        process = self._idle.get()
        try:
            return process.submit(call).result()
        except BrokenExecutor:
            process = _one_process()
            raise
        finally:
            self._idle.put(process)


def _one_process() -> ProcessPoolExecutor:
    """Return a pool of one fresh process, which ends when this one does."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """Set up a fresh process: it keeps freed memory, and ends when its parent does.

    This comes before it loads numpy or PyTorch.
    """
    keep_freed_memory()
    _end_with_parent()


def _end_with_parent() -> None:
    """Start a thread that ends this process when the one that began it ends.

    Nobody would take results then.
    """
    parent = parent_process()
    assert parent is not None

    def end_after_parent() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end_after_parent, name="thawmap-parent", daemon=True).start()


def _attempt(work: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    """Call ``work`` on an item, and return its value or error, and the time it took."""
    begin = time.perf_counter()
    try:
        value = work(item)
    except Exception as error:  # noqa: BLE001 - here a failure becomes data (law 9)
        return Outcome(item=item, error=_sentence(error), seconds=time.perf_counter() - begin)
    return Outcome(item=item, value=value, seconds=time.perf_counter() - begin)


def _submit(executor: Executor, work: Callable[[Item], Value], item: Item) -> Future[Outcome[Item, Value]]:
    """Submit an item's work to an executor, and return the future of its outcome.

    A failed future where the executor is broken.
    """
    try:
        return executor.submit(_attempt, work, item)
    except BrokenExecutor as error:
        failed: Future[Outcome[Item, Value]] = Future()
        failed.set_exception(error)
        return failed


def _outcome(future: Future[Outcome[Item, Value]], item: Item) -> Outcome[Item, Value]:
    """Return the outcome of a finished future, an error if the future raised one.

    With the very item that was handed in.
    """
    try:
        return replace(future.result(), item=item)
    except BrokenExecutor:
        error = "the process that worked on it was ended from outside, most often for want of memory; try fewer workers"
        return Outcome(item=item, error=error)
    except Exception as error:  # noqa: BLE001 - here a failure becomes data (law 9)
        return Outcome(item=item, error=_sentence(error))


def _sentence(error: Exception) -> str:
    """Return an error as a sentence: our own message, or type, position and message."""
    if isinstance(error, ThawmapError):
        return str(error)
    _log.debug("".join(traceback.format_exception(error)))
    frames = traceback.extract_tb(error.__traceback__)
    position = f" at {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{position}: {error}".strip()

"""One function over many items, on any executor; a failure is a value.

The only place that catches every exception: one broken scene costs one scene (law 9).
"""

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Generic, TypeVar

from thawmap.errors import ThawmapError

Item = TypeVar("Item")
Value = TypeVar("Value")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[Item, Value]):
    """What became of one item.

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
        """Whether the item succeeded."""
        return self.error is None


def run(
    work: Callable[[Item], Value], items: Iterable[Item], executor: Executor | None = None, *, ahead: int = 8
) -> Iterator[Outcome[Item, Value]]:
    """Outcomes of ``work`` over ``items``, each as soon as it is there.

    Args:
        work: A function of one item; for processes and clusters one that can be sent (module level, or a partial).
        items: Read lazily, so that a million items cost the memory of ``ahead``.
        executor: Any ``concurrent.futures.Executor`` (a Dask client's ``get_executor()`` too); None works in this
            thread, in order.
        ahead: Items handed to the executor at once.
    """
    if executor is None:
        yield from (_attempt(work, item) for item in items)
        return
    queue = iter(items)
    pending: dict[Future[Outcome[Item, Value]], Item] = {}
    try:
        while True:
            while len(pending) < ahead and (item := next(queue, _END)) is not _END:
                pending[executor.submit(_attempt, work, item)] = item  # type: ignore[arg-type]
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield _outcome(future, pending.pop(future))
    finally:
        for future in pending:
            future.cancel()


def processes(workers: int) -> Executor | None:
    """An executor of ``workers`` fresh processes; None (this thread) for one."""
    return None if workers <= 1 else ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


_END = object()


def _attempt(work: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    begin = time.perf_counter()
    try:
        value = work(item)
    except Exception as error:  # noqa: BLE001 - here a failure becomes data (law 9)
        return Outcome(item=item, error=_sentence(error), seconds=time.perf_counter() - begin)
    return Outcome(item=item, value=value, seconds=time.perf_counter() - begin)


def _outcome(future: Future[Outcome[Item, Value]], item: Item) -> Outcome[Item, Value]:
    """The result of a future; a worker that died is a failure of the item that it held."""
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - here a failure becomes data (law 9)
        return Outcome(item=item, error=f"the worker that held it ended: {_sentence(error)}")


def _sentence(error: Exception) -> str:
    if isinstance(error, ThawmapError):
        return str(error)
    _log.debug("".join(traceback.format_exception(error)))
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {place[0].name}, line {place[0].lineno}" if place else ""
    return f"{type(error).__name__}{where}: {error}".strip()

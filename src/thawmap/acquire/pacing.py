"""The pace of one endpoint: a rate, and waits that all threads share."""

import threading
import time
from collections.abc import Callable

from thawmap.acquire.answers import PatienceEnded, Stopped

FIRST_S, LONGEST_S = 1.0, 60.0
"""Shortest and longest of the waits that no service asks for."""


def backoff(strikes: int) -> float:
    """Return seconds to wait after a number of failures in a row: 1, 2, 4 and so on to 60."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(max(strikes, 1) - 1, 10))


def rest(seconds: float, stop: threading.Event) -> None:
    """Wait for some seconds.

    Raises:
        Stopped: If the event is set, or will be meanwhile.
    """
    if stop.wait(seconds):
        msg = "the transfer was stopped; run the same command again, which goes on from here"
        raise Stopped(msg)


class Pace:
    """When requests to one endpoint may leave, for all threads of a run.

    Never closer than its rate allows, never before the time that the service asked to wait for, and not after the
    patience has ended. It sleeps nowhere: who wants a turn asks again after `delay`.
    """

    def __init__(
        self, name: str, *, rate: float, patience_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._gap = 1.0 / rate
        self._patience_s = patience_s
        self._clock = clock
        self._lock = threading.Lock()
        self._next = self._not_before = float("-inf")
        self._paused_at = float("-inf")
        self._failing_since: float | None = None
        self._reason = ""
        self._strikes = 0
        self._answers = 0

    @property
    def has_answered(self) -> bool:
        """Whether there was any answer to a request so far."""
        return self._answers > 0

    def delay(self, *, since: float | None = None) -> float:
        """Take a turn and return 0, or return the seconds after which to ask again.

        Args:
            since: When the request was first tried, where it is not new.

        Raises:
            PatienceEnded: If the turn would come later than anybody wants to wait for.
        """
        with self._lock:
            now = self._clock()
            turn = max(self._next, self._not_before)
            if turn > now or since is not None:
                self._check_patience(max(turn, now), since)
            if turn > now:
                return turn - now
            self._next = now + self._gap
            return 0.0

    def check_patience(self, wait_s: float, since: float) -> None:
        """Refuse a wait, of a request that was first tried at a time, beyond the patience.

        Raises:
            PatienceEnded: If it is.
        """
        with self._lock:
            self._check_patience(self._clock() + wait_s, since)

    def succeeded(self) -> None:
        """Note an answer of which nothing is to be repeated."""
        with self._lock:
            self._answers += 1
            self._strikes = 0
            self._failing_since = None

    def failed(self, *, sent: float, answered: bool, reason: str = "") -> None:
        """Note a request, sent at a time, that failed for a reason which may pass."""
        with self._lock:
            self._reason = reason
            self._answers += answered
            self._failing_since = sent if self._failing_since is None else self._failing_since

    def pause(self, *, sent: float, wait_s: float | None) -> float:
        """Stop all requests for a while, and return its seconds.

        Args:
            sent: When the request left that was answered so.
            wait_s: What the service asks for; None: 1 s at first, twice as long each time that it is still busy.
        """
        with self._lock:
            now = self._clock()
            if sent >= self._paused_at:  # others were on their way when the first was told to wait
                self._strikes += 1
            self._paused_at = now
            wait_s = backoff(self._strikes) if wait_s is None else wait_s
            self._not_before = max(self._not_before, now + wait_s)
            return self._not_before - now

    def _check_patience(self, turn: float, since: float | None) -> None:
        starts = [start for start in (self._failing_since, since) if start is not None]
        if starts and turn > min(starts) + self._patience_s:
            now = self._clock()
            msg = (
                f"{self.name} has been busy or failing for {now - min(starts):.0f} s ({self._reason}), and is to be"
                f" asked again in {max(turn - now, 0):.0f} s, with patience for {self._patience_s:.0f} s in all; run"
                " the same command again later, which goes on from here"
            )
            raise PatienceEnded(msg)

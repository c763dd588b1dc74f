"""Progress of a download in words: bytes, rate and time left."""

import time
from collections import deque
from collections.abc import Callable

_WINDOW_S = 20.0  # of the rate: long enough to be steady, short enough to follow
_UNITS = ("B", "kB", "MB", "GB", "TB")


def size_text(size: float) -> str:
    """Return a number of bytes as text.

    >>> size_text(0), size_text(999), size_text(1500), size_text(3.25e9)
    ('0 B', '999 B', '1.5 kB', '3.2 GB')
    """
    step = 0
    while abs(size) >= 999.95 and step < len(_UNITS) - 1:
        size, step = size / 1000, step + 1
    return f"{size:.0f} {_UNITS[step]}" if step == 0 else f"{size:.1f} {_UNITS[step]}"


def time_text(seconds: float) -> str:
    """Return a time span as text, in at most two units.

    >>> time_text(4.4), time_text(95), time_text(3700), time_text(200_000)
    ('4 s', '1 min 35 s', '1 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    for unit, below, length, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


class Progress:
    """Turns reports of a download into lines of text.

    Args:
        clock: Gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def line(self, done: int, total: int) -> str:
        """Return the state as text, such as "1.2 GB of 3.4 GB, 12.0 MB/s, 3 min 3 s left".

        The rate is that of the last seconds; bytes that were there before the first report do not count.

        Args:
            done: Bytes that are there.
            total: Bytes of all files, as far as is known.
        """
        now = self._clock()
        self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW_S:
            self._samples.popleft()
        (start, before), parts = self._samples[0], [f"{size_text(done)} of {size_text(max(total, done))}"]
        rate = max(done - before, 0) / (now - start) if now > start else 0.0
        if rate:
            parts.append(f"{size_text(rate)}/s")
        if rate and total > done:
            parts.append(f"{time_text((total - done) / rate)} left")
        return ", ".join(parts)

"""What a person sees while a verb runs: a bar that moves, or the lines of a batch log."""

import os
import sys
import time

from thawmap.text import printable

_QUIET_S = 10.0  # a batch log gets a line about every so many seconds


class Terminal:
    """Says what happens: a bar that moves on a terminal, plain lines with times in a batch log."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._moving = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._open_line = False
        self._last = self._begin

    def say(self, message: str) -> None:
        """One line."""
        self._end_line()
        seconds = int(time.monotonic() - self._begin)
        print(f"{seconds // 60:3d}:{seconds % 60:02d}  {printable(message)}", file=sys.stderr, flush=True)

    def step(self, title: str, done: int, total: int) -> None:
        """One item of a long verb is done."""
        if not self._moving:
            if done == total or time.monotonic() - self._last > _QUIET_S:
                self._last = time.monotonic()
                self.say(f"{title}: {done} of {total}")
            return
        filled = round(24 * done / max(total, 1))
        bar = "━" * filled + "─" * (24 - filled)
        print(f"\r{title} {bar} {done}/{total}\033[K", end="", file=sys.stderr, flush=True)
        self._open_line = True
        if done == total:
            self._end_line()

    def _end_line(self) -> None:
        if self._open_line:
            print(file=sys.stderr)
            self._open_line = False

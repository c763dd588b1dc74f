"""Progress of a verb for a person: a bar that moves, or the lines of a batch log."""

import os
import sys
import time

from thawmap.text import printable

_LINE_EVERY_S = 10.0  # about how often a batch log gets a line


class Terminal:
    """Progress on stderr: a moving bar on a terminal, lines with times in a batch log."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._draws_bar = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._in_bar = False
        self._last_line_at = self._start

    def say(self, message: str) -> None:
        """Print one line, with the minutes and seconds since the begin."""
        self._end_bar()
        seconds = int(time.monotonic() - self._start)
        print(f"{seconds // 60:3d}:{seconds % 60:02d}  {printable(message)}", file=sys.stderr, flush=True)

    def step(self, title: str, done: int, total: int, *, detail: str = "") -> None:
        """Draw a bar for ``done`` of ``total`` items; in a batch log print some lines.

        A detail is shown in place of the two numbers.
        """
        if not self._draws_bar:
            if done == total or time.monotonic() - self._last_line_at > _LINE_EVERY_S:
                self._last_line_at = time.monotonic()
                self.say(f"{title}: {detail or f'{done} of {total}'}")
            return
        filled = round(24 * done / max(total, 1))
        bar = "━" * filled + "─" * (24 - filled)
        print(f"\r{title} {bar} {printable(detail) or f'{done}/{total}'}\033[K", end="", file=sys.stderr, flush=True)
        self._in_bar = True
        if done == total:
            self._end_bar()

    def _end_bar(self) -> None:
        """End the line of a bar that is being drawn, so that the next text has its own."""
        if self._in_bar:
            print(file=sys.stderr)
            self._in_bar = False

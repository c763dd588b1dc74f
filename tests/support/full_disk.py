"""A disk that is full without being one's own: no file of this process may grow beyond some bytes."""

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file have more than ``size`` bytes until the block ends.

    Python writes no compiled modules meanwhile, nor do processes that are begun: it would keep cut ones for good.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with patch.object(sys, "dont_write_bytecode", new=True), patch.dict(os.environ, PYTHONDONTWRITEBYTECODE="1"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

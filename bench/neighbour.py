"""Another process that keeps one core busy, as a neighbour on the machine does.

It is pinned nowhere and has the usual priority.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Beyond what a scheduler needs to see that it is busy.
HEAD_START = 0.3


@contextmanager
def busy_core() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(HEAD_START)
        yield
    finally:
        process.kill()
        process.wait()

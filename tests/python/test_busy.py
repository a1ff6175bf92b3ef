"""A busy thread, and other processes, take the processors from the engine,
which then decodes with fewer threads, says the same, and takes the threads
back when the processors are free. The threads follow the affinity mask too.
Only Linux tells of waiting threads."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import mullama
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs the figures of Linux's scheduler")

# Seconds that a load may go unnoticed. Never a measure: an engine that is
# blind is what it catches.
LIMIT = 60.0

# Seconds that other programs may keep the processors after the load, which
# then leaves open what would have been.
CROWDED = 15.0

# Answers beside a free processor within which threads must have come back.
FREE_ANSWERS = 10


class Generating:
    """A model with as many threads as there are processors, and what it says.
    Deterministic, since how many threads compute may show in a last bit."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def __aenter__(self) -> "Generating":
        self.model = await mullama.Model.load(
            self.path, context_size=256, max_concurrent=1, deterministic=True, timeout_ms=0
        )
        self.all = self.threads
        assert self.all == len(os.sched_getaffinity(0))
        self.expected = await self.answer()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.model.close()

    @property
    def threads(self) -> int:
        return self.model.metrics().threads

    async def answer(self) -> str:
        return await self.model.generate("Once upon a time", 48, temperature=0, ignore_eos=True)

    async def same_answer(self) -> None:
        assert await self.answer() == self.expected

    async def until_fewer(self, threads: int) -> None:
        """Until at most so many threads decode."""
        end = time.monotonic() + LIMIT
        while self.threads > threads:
            assert time.monotonic() < end, f"{self.threads} of {self.all} threads"
            await self.same_answer()
        await self.same_answer()

    async def until_all(self) -> None:
        """Until all threads decode, unless no processor is free for them."""
        free = 0
        end = time.monotonic() + CROWDED
        while self.threads < self.all and time.monotonic() < end:
            start, before = time.monotonic(), idle_seconds()
            await self.same_answer()
            free += idle_seconds() - before > 0.9 * (time.monotonic() - start)
            assert free < FREE_ANSWERS, f"{self.threads} of {self.all} threads"
        await self.same_answer()


def idle_seconds() -> float:
    """For how long the processors have been idle, all together."""
    return int(Path("/proc/stat").read_text().split()[4]) / 100


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    # The interpreter runs one thread at a time, so more would be no more.
    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# Ends with its standard input, however this process ends.
BUSY_PROCESS = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
while True:
    pass
"""


@contextlib.contextmanager
def busy_processes(n: int) -> Iterator[None]:
    command = [sys.executable, "-c", BUSY_PROCESS]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def threads_go_and_come_back(path: str, *loads: AbstractContextManager[None]) -> None:
    async with Generating(path) as generating:
        with contextlib.ExitStack() as running:
            for load in loads:
                running.enter_context(load)
            # Where there is one processor there is nothing to give up.
            await generating.until_fewer(max(generating.all - 1, 1))
        await generating.until_all()


async def test_a_busy_thread_takes_threads_until_it_ends(model_path: str) -> None:
    others = len(os.sched_getaffinity(0)) - 1
    await threads_go_and_come_back(model_path, busy_thread(), busy_processes(others))


async def test_busy_processes_take_threads_until_they_end(model_path: str) -> None:
    await threads_go_and_come_back(model_path, busy_processes(len(os.sched_getaffinity(0))))


@contextlib.contextmanager
def pinned(processors: set[int]) -> Iterator[None]:
    """Lets every thread of this process use these processors alone."""

    def let_use(processors: set[int]) -> None:
        for task in Path("/proc/self/task").iterdir():
            # It may have ended.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), processors)

    before = os.sched_getaffinity(0)
    let_use(processors)
    try:
        yield
    finally:
        let_use(before)


async def test_threads_follow_the_affinity_mask(model_path: str) -> None:
    async with Generating(model_path) as generating:
        with pinned({min(os.sched_getaffinity(0))}):
            await generating.until_fewer(1)
            # It stays so, although other processors may be idle.
            for _ in range(3):
                await generating.same_answer()
                assert generating.threads == 1
        await generating.until_all()

"""What the Python tests share. `async def` tests run in an event loop of their
own; the models are loaded once."""

import asyncio
import contextlib
import inspect
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mullama
import mullama.sync
import pytest

# Longest wait for something that must come soon. Far above what it takes, so
# that a busy machine fails no test, and far below what not stopping takes.
SOON = 10.0


def find_model() -> Path:
    """The real model: MULLAMA_TEST_MODEL, or the one that `make model` fetches."""
    if chosen := os.environ.get("MULLAMA_TEST_MODEL"):
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("MULLAMA_CACHE") or Path(base) / "mullama")
    return cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def model_path() -> str:
    path = find_model()
    assert path.is_file(), f"there is no model at {path}; run `make model` or set MULLAMA_TEST_MODEL"
    return str(path)


def tiny_model_program() -> Path:
    """`tiny-model` of tests/support, which `cargo build --workspace` makes."""
    cache = Path(os.environ.get("MULLAMA_CACHE") or find_model().parents[1])
    program = Path(os.environ.get("CARGO_TARGET_DIR") or cache / "target") / "release" / "tiny-model"
    assert program.is_file(), f"there is no program {program}; run `make tiny-model`"
    return program


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with random weights, for what does not depend on them."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    subprocess.run([tiny_model_program(), "llama", path], check=True)
    return str(path)


@pytest.fixture(scope="session")
def model(model_path: str) -> mullama.Model:
    """Four requests at a time, no time limit. One thread, as in all tests
    here: on a busy machine several threads wait for each other most of the
    time, and speed is not what is tested."""
    return asyncio.run(mullama.Model.load(model_path, max_concurrent=4, threads=1, timeout_ms=0))


@pytest.fixture(scope="session")
def narrow(model_path: str) -> mullama.Model:
    """One request at a time, with room for a long prompt; no time limit."""
    return asyncio.run(mullama.Model.load(model_path, max_concurrent=1, context_size=6144, threads=1, timeout_ms=0))


@pytest.fixture(scope="session")
def blocking(model_path: str) -> mullama.sync.Model:
    return mullama.sync.Model.load(model_path, max_concurrent=4, threads=1, timeout_ms=0)


class Loaded:
    """A tiny model in a loop of the test's own."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def __aenter__(self) -> mullama.Model:
        self.model = await mullama.Model.load(self.path, context_size=4096, threads=1, timeout_ms=0)
        return self.model

    async def __aexit__(self, *_: object) -> None:
        await self.model.close()


@pytest.fixture
def loaded(tiny_path: str) -> Loaded:
    return Loaded(tiny_path)


# A request that would run far longer than any test waits.
ENDLESS: Any = {"max_tokens": 1_000_000, "ignore_eos": True, "temperature": 0}

# About 4,000 tokens: more than ten seconds of prefill.
LONG_PROMPT = "The quick brown fox jumps over the lazy dog. " * 400


async def until(condition: Callable[[], bool], seconds: float = SOON) -> None:
    """Waits for the condition without blocking the loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


async def idle(model: mullama.Model) -> None:
    """Waits until no native work is left."""
    await until(lambda: model.metrics().active == 0 and model.metrics().queued == 0)


async def generating(model: mullama.Model, tokens: int = 1) -> None:
    """Waits until `tokens` more tokens were generated."""
    goal = model.metrics().generated_tokens + tokens
    await until(lambda: model.metrics().generated_tokens >= goal)


def threads(prefix: str) -> int:
    """Threads of this process whose names begin so."""
    count = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            count += (task / "comm").read_text().startswith(prefix)
    return count


def engine_threads() -> int:
    """Native threads of models in this process."""
    return threads("mullama-eng")


def context_threads() -> int:
    """Native threads of contexts in this process."""
    return threads("mullama-ctx")


def run_script(code: str, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process of its own."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds)

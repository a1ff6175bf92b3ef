"""The runtime of the process: its figures against a count by hand, and its
settings, which need a process of their own."""

import asyncio
import dataclasses
import inspect
from pathlib import Path
from typing import Any

import mullama
import mullama.sync
import pytest
from conftest import ENDLESS, generating, idle, run_script, until

Model = mullama.Model


async def test_the_figures_are_those_of_what_was_done(model: Model) -> None:
    runtime = mullama.runtime()
    await idle(model)
    before = await runtime.metrics()
    await asyncio.gather(*(model.generate("Once", n + 1, ignore_eos=True) for n in range(3)))
    async for _ in model.generate_stream("Once", 2, ignore_eos=True):
        pass
    # Neither a generation with a result.
    async for _ in model.generate_stream("Once", **ENDLESS):
        break
    with pytest.raises(mullama.InvalidInputError):
        await model.generate("Once", top_p=2)
    await idle(model)
    after = await runtime.metrics()
    assert after.total_generations == before.total_generations + 4
    assert after.avg_generation_ms > 0
    # Every call is one task, and so is every stream, however many tokens it had.
    assert after.completed_tasks == before.completed_tasks + 4 + 2
    assert after.uptime_seconds >= before.uptime_seconds
    assert (after.active_tasks, after.worker_threads) == (0, 1)


async def test_a_call_that_has_returned_is_a_completed_task(model: Model) -> None:
    runtime = mullama.runtime()
    await idle(model)
    before = await runtime.metrics()
    for n in range(1, 21):
        await model.generate("Once", 1)
        now = await runtime.metrics()
        assert (now.active_tasks, now.completed_tasks) == (0, before.completed_tasks + n)
        assert now.total_generations == before.total_generations + n


async def test_asking_for_the_figures_changes_none(model: Model) -> None:
    runtime = mullama.runtime()
    await idle(model)
    before = await runtime.metrics()
    for _ in range(10):
        await runtime.metrics()
        await runtime.metrics_text()
    after = await runtime.metrics()
    assert dataclasses.replace(after, uptime_seconds=before.uptime_seconds) == before


async def test_a_call_under_way_is_an_active_task(model: Model) -> None:
    runtime = mullama.runtime()
    tasks = [asyncio.create_task(model.generate("Once", **ENDLESS)) for _ in range(3)]
    await generating(model)
    assert (await runtime.metrics()).active_tasks == 3
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await idle(model)
    await until(lambda: mullama.sync.runtime().metrics().active_tasks == 0)


async def test_the_text_has_the_figures_of_the_runtime_and_of_each_model(model: Model) -> None:
    def names_in(text: str) -> set[str]:
        return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    text = await mullama.runtime().metrics_text()
    names = names_in(text)
    assert "mullama_generations_total" in names
    assert "mullama_engine_steps_total" in names
    assert f'model="{(await model.info()).name}"' in text
    assert names == names_in(mullama.sync.runtime().metrics_text())


async def test_the_metrics_are_a_frozen_dataclass_of_numbers() -> None:
    metrics = await mullama.runtime().metrics()
    assert [field.name for field in dataclasses.fields(metrics)] == [
        "active_tasks",
        "completed_tasks",
        "worker_threads",
        "blocking_threads",
        "total_generations",
        "avg_generation_ms",
        "uptime_seconds",
    ]
    for name, value in dataclasses.asdict(metrics).items():
        assert type(value) is (float if name == "avg_generation_ms" else int), name
    with pytest.raises(dataclasses.FrozenInstanceError):
        metrics.active_tasks = 5  # type: ignore[misc]


def test_a_runtime_says_what_it_is() -> None:
    runtime = mullama.runtime()
    assert isinstance(runtime, mullama.MullamaRuntime)
    assert runtime.is_running()
    assert repr(runtime) == "<mullama.MullamaRuntime running>"
    assert repr(mullama.sync.runtime()) == "<mullama.sync.MullamaRuntime running>"
    assert inspect.iscoroutinefunction(runtime.metrics)
    assert inspect.iscoroutinefunction(runtime.metrics_text)


CONFIGURED = """
import asyncio, pathlib, sys, threading
import mullama, mullama.sync

def names():
    tasks = pathlib.Path("/proc/self/task").iterdir()
    return sorted((task / "comm").read_text().strip() for task in tasks)

def refused(error, call, **options):
    try:
        call(**options)
    except error as caught:
        return caught
    raise AssertionError(options)

# An import starts nothing.
assert len(names()) == threading.active_count() == 1
for options in ({"worker_threads": 0}, {"worker_threads": "2"}, {"max_blocking_threads": 0}, {"thread_name": ""},
                {"thread_name": "a\\0b"}, {"thread_stack_size": 1}, {"shutdown_timeout_ms": -1}, {"thread_name": 3}):
    [field] = options
    assert refused(mullama.InvalidInputError, mullama.configure_runtime, **options).field == field
assert "did you mean 'worker_threads'" in str(
    refused(mullama.InvalidInputError, mullama.configure_runtime, worker_thread=2))
mullama.configure_runtime(worker_threads=3, max_blocking_threads=4, thread_stack_size=1 << 20, thread_name="mine",
                          shutdown_timeout_ms=100)
assert len(names()) == 1
refused(mullama.UnsupportedError, mullama.configure_runtime)
refused(mullama.UnsupportedError, mullama.sync.configure_runtime, worker_threads=2)

async def main():
    async with await mullama.Model.load(sys.argv[1], threads=1) as model:
        assert names().count("mine") == 3, names()
        assert (await mullama.runtime().metrics()).worker_threads == 3
        refused(mullama.UnsupportedError, mullama.configure_runtime, worker_threads=2)
        await model.tokenize("hello")
        assert (await mullama.runtime().metrics()).blocking_threads >= 1
asyncio.run(main())
sys.exit(3)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="there is no /proc")
def test_the_runtime_is_configured_once_before_its_first_use(tiny_path: str) -> None:
    done = run_script(CONFIGURED, tiny_path)
    assert (done.returncode, done.stderr) == (3, "")


def test_a_runtime_that_runs_is_not_configured(model: Model) -> None:
    with pytest.raises(mullama.UnsupportedError):
        mullama.configure_runtime(worker_threads=2)
    with pytest.raises(mullama.UnsupportedError):
        mullama.configure_runtime()


ORDER = """
import asyncio, sys
import mullama

mullama.configure_runtime(worker_threads=4)

async def contexts(model):
    async with await mullama.Context.create(model) as context:
        batch = mullama.Batch()
        batch.add_sequence(0, [300] * 300)
        await context.process_batch([batch])
        # Cutting to more than there is fails, so any other order would.
        await asyncio.gather(*(context.truncate(length) for length in range(300, -1, -1)))

async def pools():
    async with await mullama.ModelPool.create(sys.argv[1], 2, threads=1) as pool:
        async def work(number):
            for _ in range(5):
                turn = len(came)
                came.append(turn)
                async with pool.acquire():
                    served.append(turn)
                    await asyncio.sleep(0)
        async def sizes():
            for size in (8, 1, 16, 3):
                await pool.resize(size)
                await asyncio.sleep(0.002)
        came, served = [], []
        await asyncio.gather(*(work(number) for number in range(64)), sizes())
        assert served == sorted(served), served
        assert len(served) == 320

async def main():
    async with await mullama.Model.load(sys.argv[1], threads=1) as model:
        for _ in range(5):
            await contexts(model)
            await pools()
asyncio.run(main())
sys.exit(3)
"""


def test_calls_keep_their_order_on_several_worker_threads(tiny_path: str) -> None:
    done = run_script(ORDER, tiny_path)
    assert (done.returncode, done.stderr) == (3, "")


def test_backends_and_devices() -> None:
    [cpu] = [backend for backend in mullama.backends() if backend.name == "CPU"]
    assert cpu == mullama.BackendInfo("CPU", cpu.n_devices, None)
    assert cpu.n_devices >= 1
    device = next(device for device in mullama.devices() if device.kind == "cpu")
    assert isinstance(device, mullama.DeviceInfo)
    assert 0 <= device.memory_free <= device.memory_total > 0
    assert (mullama.sync.backends, mullama.sync.devices) == (mullama.backends, mullama.devices)


async def test_every_layer_of_a_model_is_somewhere(model: Model) -> None:
    placement = await model.placement()
    assert all(isinstance(part, mullama.LayerPlacement) for part in placement)
    devices: Any = {device.name for device in mullama.devices()}
    assert {part.device for part in placement} <= devices
    assert sum(part.n_layers for part in placement) >= (await model.info()).n_layer

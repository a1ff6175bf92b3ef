"""Task managers in Python: submitted tasks, which are awaited as futures are."""

import asyncio
import gc
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import mullama
import pytest
from conftest import ENDLESS, SOON, until

TaskManager = mullama.TaskManager
SHORT: Any = {"max_tokens": 3, "ignore_eos": True}
STOPPED = mullama.WorkerStatus("stopped", None)


@pytest.fixture(scope="module")
def shared(tiny_path: str) -> Iterator[mullama.Model]:
    model = asyncio.run(mullama.Model.load(tiny_path, context_size=65536, threads=1, timeout_ms=0))
    yield model
    asyncio.run(model.close())


@pytest.fixture
def tiny(shared: mullama.Model) -> Iterator[mullama.Model]:
    yield shared
    gc.collect()
    asyncio.run(until(lambda: shared.metrics().active == 0 == shared.metrics().queued))


async def running(model: mullama.Model) -> None:
    await until(lambda: model.metrics().active > 0)


async def test_a_task_is_awaited_as_often_as_wanted_by_whoever_wants_it(tiny: mullama.Model) -> None:
    async with TaskManager() as manager:
        task = manager.submit(tiny, "hello", **SHORT)
        assert (task.id, repr(task)) == (0, "<mullama.GenerationTask 0, pending>")
        waiters = [asyncio.ensure_future(task) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert manager.spawn_generation_worker() == "generation-0"
        results = await asyncio.gather(*waiters, task)
        assert isinstance(results[0], mullama.Generation)
        assert results == [results[0]] * 4 == [await task] * 4
        assert repr(task) == "<mullama.GenerationTask 0, done>"
        task.cancel()
        assert await asyncio.wait_for(task, SOON) == results[0]
        elsewhere: list[mullama.Generation] = []

        async def main() -> None:
            elsewhere.append(await task)

        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert elsewhere == [results[0]]


async def test_many_tasks_over_several_workers(tiny: mullama.Model) -> None:
    async with TaskManager() as manager:
        names = {manager.spawn_generation_worker() for _ in range(4)}
        assert names == set(manager.worker_status()) == {f"generation-{n}" for n in range(4)}
        tasks = [manager.submit(tiny, "hello", n % 5 + 1, ignore_eos=True) for n in range(100)]
        assert [task.id for task in tasks] == list(range(100))
        results = await asyncio.gather(*tasks)
        assert [len(result.tokens) for result in results] == [n % 5 + 1 for n in range(100)]


async def test_a_cancelled_task_says_so_to_all_who_wait(tiny: mullama.Model) -> None:
    async with TaskManager() as manager:
        manager.spawn_generation_worker()
        active, queued = (manager.submit(tiny, "hello", **ENDLESS) for _ in range(2))
        await running(tiny)
        waiters = [asyncio.ensure_future(task) for task in (active, active, queued)]
        await asyncio.sleep(0)
        for task in (active, queued):
            task.cancel()
            task.cancel()
        for result in await asyncio.gather(*waiters, return_exceptions=True):
            assert isinstance(result, mullama.CancelledError)
        with pytest.raises(mullama.CancelledError):
            await queued
        assert repr(active) == "<mullama.GenerationTask 0, cancelled>"


async def test_a_lost_task_is_cancelled(tiny: mullama.Model) -> None:
    async with TaskManager() as manager:
        manager.spawn_generation_worker()
        task = manager.submit(tiny, "hello", **ENDLESS)
        await running(tiny)
        cycle: list[object] = [task]
        cycle.append(cycle)
        del task, cycle
        gc.collect()
        await until(lambda: tiny.metrics().active == 0)
        # Its only reference is the one that awaits it.
        assert len((await manager.submit(tiny, "hello", **SHORT)).tokens) == 3


async def test_cancelling_the_last_one_who_waits_cancels_it(tiny: mullama.Model) -> None:
    async with TaskManager() as manager:
        manager.spawn_generation_worker()
        task = manager.submit(tiny, "hello", **ENDLESS)
        await running(tiny)
        first, second = asyncio.ensure_future(task), asyncio.ensure_future(task)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        await asyncio.sleep(0.05)
        assert tiny.metrics().active == 1
        second.cancel()
        await asyncio.wait([second])
        await until(lambda: tiny.metrics().active == 0)
        with pytest.raises(mullama.CancelledError):
            await task


async def test_a_shield_keeps_it(tiny: mullama.Model) -> None:
    async with TaskManager() as manager:
        manager.spawn_generation_worker()
        task = manager.submit(tiny, "hello", 2000, ignore_eos=True)
        shield = asyncio.ensure_future(task)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(shield), 0.01)
        assert len((await task).tokens) == 2000
        assert await shield == await task


async def test_awaiting_a_task_raises_what_ended_it(tiny: mullama.Model) -> None:
    async with TaskManager() as manager:
        manager.spawn_generation_worker()
        task = manager.submit(tiny, "hello " * 70000)
        with pytest.raises(mullama.PromptTooLongError) as first:
            await task
        with pytest.raises(mullama.PromptTooLongError) as second:
            await task
        # Each has a traceback of its own.
        assert first.value is not second.value
        assert repr(task) == "<mullama.GenerationTask 0, failed>"


async def test_stopping_ends_tasks_and_workers_and_both_can_come_again(tiny: mullama.Model) -> None:
    manager = TaskManager()
    manager.spawn_generation_worker()
    tasks = [manager.submit(tiny, "hello", **ENDLESS) for _ in range(3)]
    await running(tiny)
    await asyncio.gather(manager.stop_all(), manager.stop_all())
    for task in tasks:
        with pytest.raises(mullama.CancelledError):
            await task
    assert manager.worker_status() == {"generation-0": STOPPED}
    assert repr(manager) == "<mullama.TaskManager 0 of 1 workers running>"
    manager.spawn_generation_worker()
    assert repr(manager) == "<mullama.TaskManager 1 of 1 workers running>"
    assert len((await manager.submit(tiny, "hello", **SHORT)).tokens) == 3
    await manager.stop_all()


async def test_wrong_arguments_are_named(tiny: mullama.Model) -> None:
    async with TaskManager() as manager:
        wrong: list[tuple[Callable[[], object], str]] = [
            (lambda: manager.submit("model", "hello"), "model"),  # type: ignore[arg-type]
            (lambda: manager.submit(tiny, 5), "prompt"),  # type: ignore[arg-type]
            (lambda: manager.submit(tiny, "hello", -1), "max_tokens"),
            (lambda: manager.submit(tiny, "hello", top_p=2), "top_p"),
            (lambda: manager.submit(tiny, "hello", topp=1), "topp"),  # type: ignore[call-arg]
            (lambda: manager.spawn_metrics_collector(interval_ms=-1), "interval_ms"),
            (lambda: manager.spawn_metrics_collector(interval_ms=0), "interval"),
            (lambda: manager.spawn_metrics_collector(capacity=0), "capacity"),
            (lambda: manager.spawn_metrics_collector(capacity=1.5), "capacity"),  # type: ignore[arg-type]
            (lambda: manager.spawn_worker("", asyncio.Event().wait), "name"),
            (lambda: manager.spawn_worker(3, asyncio.Event().wait), "name"),  # type: ignore[arg-type]
            (lambda: manager.spawn_worker("a", "forever"), "function"),  # type: ignore[arg-type]
        ]
        for call, field in wrong:
            with pytest.raises(mullama.InvalidInputError) as caught:
                call()
            assert caught.value.field == field
        assert manager.worker_status() == {}


async def test_a_closed_model_takes_no_tasks(tiny_path: str) -> None:
    async with TaskManager() as manager:
        async with await mullama.Model.load(tiny_path, threads=1) as model:
            waiting = manager.submit(model, "hello")
        with pytest.raises(mullama.ClosedError):
            manager.submit(model, "hello")
        manager.spawn_generation_worker()
        with pytest.raises(mullama.ClosedError):
            await waiting


async def test_a_lease_takes_tasks(tiny_path: str) -> None:
    async with TaskManager() as manager, await mullama.ModelPool.create(tiny_path, 1, threads=1) as pool:
        manager.spawn_generation_worker()
        async with pool.acquire() as lease:
            assert len((await manager.submit(lease, "hello", **SHORT)).tokens) == 3


async def test_a_collector_keeps_the_newest_figures() -> None:
    async with TaskManager() as manager:
        assert manager.metrics_history() == []
        assert manager.spawn_metrics_collector(interval_ms=5, capacity=4) == "metrics"
        await until(lambda: len(manager.metrics_history()) == 4)
        first = manager.metrics_history()
        assert all(isinstance(sample, mullama.RuntimeMetrics) for sample in first)
        await asyncio.sleep(0.05)
        assert len(manager.metrics_history()) == 4
        with pytest.raises(mullama.InvalidInputError) as caught:
            manager.spawn_metrics_collector()
        assert (caught.value.field, caught.value.value) == ("name", "metrics")
    assert len(manager.metrics_history()) == 4
    async with TaskManager() as manager:
        manager.spawn_metrics_collector()
        await until(lambda: len(manager.metrics_history()) == 1)


def test_which_methods_are_awaited() -> None:
    assert inspect.iscoroutinefunction(TaskManager.stop_all)
    for name in ("spawn_generation_worker", "submit", "spawn_metrics_collector", "metrics_history", "spawn_worker",
                 "worker_status"):  # fmt: skip
        assert not inspect.iscoroutinefunction(getattr(TaskManager, name)), name

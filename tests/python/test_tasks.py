"""Task managers in Python: tasks that are awaited as futures are, and workers
that are tasks of an event loop."""

import asyncio
import gc
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import mullama
import pytest
from conftest import ENDLESS, SOON, until

TaskManager = mullama.TaskManager
SHORT: Any = {"max_tokens": 3, "ignore_eos": True}
RUNNING, COMPLETED, STOPPED = (mullama.WorkerStatus(state, None) for state in ("running", "completed", "stopped"))


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


async def forever() -> None:
    await asyncio.Event().wait()


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
            (lambda: manager.spawn_worker("", forever), "name"),
            (lambda: manager.spawn_worker(3, forever), "name"),  # type: ignore[arg-type]
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


# Workers of one's own


async def status(manager: TaskManager, name: str, state: str) -> mullama.WorkerStatus:
    await until(lambda: manager.worker_status()[name].state == state)
    return manager.worker_status()[name]


async def test_a_worker_is_a_task_of_the_running_loop() -> None:
    loops: list[object] = []

    async def work() -> str:
        loops.append(asyncio.get_running_loop())
        await go.wait()
        return "of no interest"

    go = asyncio.Event()
    async with TaskManager() as manager:
        assert manager.spawn_worker("mine", work) is None
        assert manager.worker_status() == {"mine": RUNNING}
        await asyncio.sleep(0)
        assert loops == [asyncio.get_running_loop()]
        with pytest.raises(mullama.InvalidInputError) as caught:
            manager.spawn_worker("mine", work)
        assert (caught.value.field, caught.value.value) == ("name", "mine")
        go.set()
        assert await status(manager, "mine", "completed") == COMPLETED
        manager.spawn_worker("mine", work)
        assert await status(manager, "mine", "completed") == COMPLETED


async def test_a_workers_exception_is_its_failure_and_is_reported_once() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    async def fail_silently() -> None:
        raise RuntimeError

    manager = TaskManager()
    manager.spawn_worker("loud", fail)
    failed = await status(manager, "loud", "failed")
    assert failed == mullama.WorkerStatus("failed", "KeyError: 'mine'")
    manager.spawn_worker("quiet", fail_silently)
    assert (await status(manager, "quiet", "failed")).message == "RuntimeError"
    manager.spawn_worker("not awaitable", lambda: 5)  # type: ignore[arg-type, return-value]
    assert (await status(manager, "not awaitable", "failed")).message is not None
    with pytest.raises(mullama.OperationFailedError, match="worker 'loud' failed: KeyError: 'mine'"):
        await manager.stop_all()
    await manager.stop_all()


async def test_stopping_cancels_workers_and_waits_for_their_ends() -> None:
    ends: list[str] = []

    async def tidy() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.05)
            ends.append("tidy")

    async def stubborn() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
            ends.append("stubborn")

    manager = TaskManager()
    manager.spawn_worker("tidy", tidy)
    manager.spawn_worker("stubborn", stubborn)
    await asyncio.sleep(0)
    await manager.stop_all()
    assert ends == ["stubborn", "tidy"]
    assert manager.worker_status() == {"tidy": STOPPED, "stubborn": STOPPED}


async def test_a_worker_that_has_not_begun_is_stopped_as_well() -> None:
    manager = TaskManager()
    manager.spawn_worker("a", forever)
    await asyncio.wait_for(manager.stop_all(), SOON)
    assert manager.worker_status() == {"a": STOPPED}


async def test_a_failure_while_it_is_stopped_is_reported() -> None:
    async def fail() -> None:
        try:
            await forever()
        finally:
            raise KeyError("at the end")

    manager = TaskManager()
    manager.spawn_worker("untidy", fail)
    await asyncio.sleep(0)
    with pytest.raises(mullama.OperationFailedError, match="worker 'untidy' failed: KeyError: 'at the end'"):
        await manager.stop_all()


async def test_a_worker_that_others_cancel_has_failed() -> None:
    manager = TaskManager()
    before = asyncio.all_tasks()
    manager.spawn_worker("a", forever)
    [task] = asyncio.all_tasks() - before
    await asyncio.sleep(0)
    task.cancel()
    assert (await status(manager, "a", "failed")).message == "its task was cancelled"
    with pytest.raises(mullama.OperationFailedError):
        await manager.stop_all()


async def test_a_worker_may_stop_all_and_is_stopped_too() -> None:
    async def stop() -> None:
        await manager.stop_all()

    manager = TaskManager()
    manager.spawn_worker("other", forever)
    manager.spawn_worker("stopper", stop)
    await until(lambda: manager.worker_status() == {"other": STOPPED, "stopper": STOPPED})


async def test_giving_up_stop_all_leaves_the_workers_to_end_by_themselves() -> None:
    async def slow() -> None:
        try:
            await forever()
        finally:
            await go.wait()
            ended.set()

    go, ended = asyncio.Event(), asyncio.Event()
    manager = TaskManager()
    manager.spawn_worker("slow", slow)
    await asyncio.sleep(0)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(manager.stop_all(), 0.05)
    go.set()
    await asyncio.wait_for(ended.wait(), SOON)
    await manager.stop_all()


async def test_a_lost_manager_stops_its_workers() -> None:
    async def work() -> None:
        try:
            await forever()
        finally:
            ended.set()

    ended = asyncio.Event()
    manager = TaskManager()
    manager.spawn_worker("a", work)
    await asyncio.sleep(0)
    del manager
    gc.collect()
    await asyncio.wait_for(ended.wait(), SOON)


def test_a_worker_needs_a_loop_and_takes_no_name_without_one() -> None:
    manager = TaskManager()
    with pytest.raises(RuntimeError, match="no running event loop"):
        manager.spawn_worker("a", forever)
    assert manager.worker_status() == {}


def test_the_end_of_a_loop_ends_its_workers() -> None:
    async def main() -> None:
        manager.spawn_worker("a", forever)
        await asyncio.sleep(0)

    manager = TaskManager()
    # This one cancels its tasks at its end.
    asyncio.run(main())
    assert manager.worker_status()["a"] == mullama.WorkerStatus("failed", "its task was cancelled")
    # This one does not.
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # the task is destroyed, which asyncio reports
    loop.run_until_complete(main())
    assert manager.worker_status()["a"] == RUNNING
    loop.close()
    del loop
    gc.collect()
    deadline = time.monotonic() + SOON
    while manager.worker_status()["a"] == RUNNING:
        assert time.monotonic() < deadline
    assert manager.worker_status()["a"] == mullama.WorkerStatus("failed", "its event loop was closed")
    with pytest.raises(mullama.OperationFailedError):
        asyncio.run(manager.stop_all())


async def test_workers_of_several_loops_are_stopped_from_one() -> None:
    ended: list[int] = []

    async def work() -> None:
        try:
            await forever()
        finally:
            ended.append(threading.get_ident())

    async def main(name: str) -> None:
        manager.spawn_worker(name, work)
        while manager.worker_status()[name] == RUNNING:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)

    manager = TaskManager()
    threads = [threading.Thread(target=asyncio.run, args=(main(f"worker-{n}"),)) for n in range(3)]
    for thread in threads:
        thread.start()
    await until(lambda: len(manager.worker_status()) == 3)
    await asyncio.sleep(0.01)
    await manager.stop_all()
    assert len(set(ended)) == 3
    for thread in threads:
        await asyncio.to_thread(thread.join)


def test_an_exit_out_of_a_worker_is_one_of_the_loop_and_the_workers_failure() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def main() -> None:
        manager.spawn_worker("a", leave)
        await forever()

    manager = TaskManager()
    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    with pytest.raises(SystemExit):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    deadline = time.monotonic() + SOON
    while manager.worker_status()["a"] == RUNNING:
        assert time.monotonic() < deadline
    assert manager.worker_status()["a"] == mullama.WorkerStatus("failed", "SystemExit: 3")


def test_which_methods_are_awaited() -> None:
    assert inspect.iscoroutinefunction(TaskManager.stop_all)
    for name in ("spawn_generation_worker", "submit", "spawn_metrics_collector", "metrics_history", "spawn_worker",
                 "worker_status"):  # fmt: skip
        assert not inspect.iscoroutinefunction(getattr(TaskManager, name)), name

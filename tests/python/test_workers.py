"""Workers of one's own in Python: tasks of an event loop that a task manager
cancels and waits for."""

import asyncio
import gc
import threading
import time

import mullama
import pytest
from conftest import SOON, until

TaskManager = mullama.TaskManager
RUNNING, COMPLETED, STOPPED = (mullama.WorkerStatus(state, None) for state in ("running", "completed", "stopped"))


async def forever() -> None:
    await asyncio.Event().wait()


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


def end_of(manager: TaskManager, name: str) -> mullama.WorkerStatus:
    """Waits until the worker has ended."""
    deadline = time.monotonic() + SOON
    while (found := manager.worker_status()[name]) == RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return found


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
    assert end_of(manager, "a") == mullama.WorkerStatus("failed", "its task was cancelled")
    # This one does not.
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # the task is destroyed, which asyncio reports
    loop.run_until_complete(main())
    assert manager.worker_status()["a"] == RUNNING
    loop.close()
    del loop
    gc.collect()
    assert end_of(manager, "a") == mullama.WorkerStatus("failed", "its event loop was closed")
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
    assert end_of(manager, "a") == mullama.WorkerStatus("failed", "SystemExit: 3")

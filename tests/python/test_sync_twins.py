"""`mullama.sync`: contexts, pools and tasks without `await`."""

import contextlib
import gc
import threading
import time
from pathlib import Path

import mullama
import mullama.sync
import pytest
from conftest import ENDLESS, SOON
from test_sync import interrupt_soon, wait_until_idle

Model = mullama.sync.Model


def test_a_context_without_await(tiny_path: str, tmp_path: Path) -> None:
    with Model.load(tiny_path, threads=1, context_size=4096) as model:
        with mullama.sync.Context.create(model, context_size=2048) as context:
            stream = context.generate_stream([300, 301, 302], 20, temperature=0, ignore_eos=True)
            assert [token.index for token in stream] == list(range(20))
            assert (context.n_past(), repr(context)) == (23, "<mullama.sync.Context 23 tokens>")
            context.save_state(tmp_path / "state")
            rest = [token.token_id for token in context.generate_stream([], 5, temperature=0, ignore_eos=True)]
            context.load_state(tmp_path / "state")
            again = [token.token_id for token in context.generate_stream([], 5, temperature=0, ignore_eos=True)]
            assert rest == again
            context.truncate(3)
            batch = mullama.sync.Batch()
            batch.add_sequence(0, [303])
            assert [len(tokens) for tokens in context.process_batch([batch])] == [1]
            # Left early, then unread: neither holds up the next call.
            for _ in context.generate_stream([304], **ENDLESS):
                break
            unread = context.generate_stream([304], 30, ignore_eos=True)
            context.clear()
            assert len(list(unread)) == 30
            with pytest.raises(mullama.InvalidInputError):
                mullama.sync.Context.create("model")  # type: ignore[arg-type]
        with pytest.raises(mullama.ClosedError):
            context.clear()
        context.close()


def test_a_pool_without_await(tiny_path: str) -> None:
    shares: list[float] = []
    with mullama.sync.ModelPool.create(tiny_path, 2, threads=1, on_progress=shares.append) as pool:
        assert shares[-1] == 1.0
        with pool.acquire() as model:
            assert isinstance(model, Model)
            assert repr(model).startswith("<mullama.sync.PooledModel '")
            assert len(model.generate_with("hello", 3, ignore_eos=True).tokens) == 3
            lease = pool.try_acquire()
            assert lease is not None
            assert pool.try_acquire() is None
            with pytest.raises(TimeoutError):
                pool.acquire(timeout_ms=20)
            lease.release()
            lease.release()
            with pytest.raises(mullama.ClosedError):
                lease.generate("hello")
        assert pool.stats() == mullama.PoolStats(2, 2, 0, 0, 2, pool.stats().wait_ms_avg)
        pool.resize(3)
        assert repr(pool) == "<mullama.sync.ModelPool size=3, available=3, waiting=0>"
        with pytest.raises(mullama.InvalidInputError):
            pool.acquire(timeout_ms="1")  # type: ignore[arg-type]
        pool.acquire()
        assert pool.stats().in_use == 0, "a lost lease goes back"
    with pytest.raises(mullama.ClosedError):
        pool.acquire()


def test_threads_over_a_pool_are_served_in_their_order(tiny_path: str) -> None:
    def work(number: int) -> None:
        with pool.acquire() as model:
            served.append(number)
            lengths.append(len(model.generate_with("hello", 2, ignore_eos=True).tokens))

    served: list[int] = []
    lengths: list[int] = []
    with mullama.sync.ModelPool.create(tiny_path, 1, threads=1) as pool:
        held = pool.acquire()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
        for number, thread in enumerate(threads):
            thread.start()
            while pool.stats().waiting <= number:
                time.sleep(0.0001)
        held.release()
        for thread in threads:
            thread.join()
        assert served == list(range(24))
        assert lengths == [2] * 24


@pytest.mark.parametrize("what", ["acquire", "process_batch", "result", "stop_all"])
def test_ctrl_c_interrupts_every_wait(model_path: str, tiny_path: str, what: str) -> None:
    def wait() -> None:
        match what:
            case "acquire":
                pool.acquire()
            case "process_batch":
                context.process_batch([batch])
            case "result":
                task.result()
            case "stop_all":
                manager.stop_all()

    go = threading.Event()
    batch = mullama.Batch()
    batch.add_sequence(0, [200] * 5000)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(mullama.sync.ModelPool.create(tiny_path, 1, threads=1))
        model = stack.enter_context(Model.load(model_path, threads=1, context_size=6000))
        context = stack.enter_context(mullama.sync.Context.create(model))
        manager = mullama.sync.TaskManager()
        manager.spawn_worker("deaf", lambda _: go.wait())
        task = manager.submit(model, "Once")
        lease = pool.acquire()
        timer = interrupt_soon()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            wait()
        assert time.monotonic() - start < SOON
        timer.join()
        lease.release()
        deadline = time.monotonic() + SOON
        while pool.stats().available < 1:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        go.set()
        manager.stop_all()


def test_tasks_without_await(blocking: Model) -> None:
    with mullama.sync.TaskManager() as manager:
        task = manager.submit(blocking, "Once", 3, ignore_eos=True)
        assert repr(task) == "<mullama.sync.GenerationTask 0, pending>"
        with pytest.raises(mullama.TimeoutError) as caught:
            task.result(timeout=0.02)
        assert caught.value.after_ms == 20
        with pytest.raises(TimeoutError):
            task.result(0)
        for wrong in (-1, "1", float("nan"), float("inf")):
            with pytest.raises(mullama.InvalidInputError) as invalid:
                task.result(timeout=wrong)  # type: ignore[arg-type]
            assert invalid.value.field == "timeout"
        assert manager.spawn_generation_worker() == "generation-0"
        assert len(task.result().tokens) == 3
        assert task.result(timeout=SOON) == task.result()
        endless = manager.submit(blocking, "Once", **ENDLESS)
        while blocking.metrics().active == 0:
            time.sleep(0.001)
        endless.cancel()
        with pytest.raises(mullama.CancelledError):
            endless.result()
        lost = manager.submit(blocking, "Once", **ENDLESS)
        while blocking.metrics().active == 0:
            time.sleep(0.001)
        del lost
        wait_until_idle(blocking)
        assert manager.spawn_metrics_collector(interval_ms=5, capacity=2) == "metrics"
        while len(manager.metrics_history()) < 2:
            time.sleep(0.001)
    assert repr(manager) == "<mullama.sync.TaskManager 0 of 2 workers running>"


def test_a_worker_is_a_thread_that_is_told_to_stop() -> None:
    def good(stop: threading.Event) -> None:
        names.append(threading.current_thread().name)
        assert stop.wait(SOON)

    def done(_: threading.Event) -> str:
        return "of no interest"

    def bad(_: threading.Event) -> None:
        raise KeyError("mine")

    def stopper(stop: threading.Event) -> None:
        try:
            manager.stop_all()
        except mullama.OperationFailedError as error:
            assert stop.is_set()
            reports.append(str(error))

    def until_state(name: str, state: str) -> None:
        deadline = time.monotonic() + SOON
        while manager.worker_status()[name].state != state:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    names: list[str] = []
    reports: list[str] = []
    manager = mullama.sync.TaskManager()
    manager.spawn_worker("good", good)
    with pytest.raises(mullama.InvalidInputError):
        manager.spawn_worker("good", good)
    manager.spawn_worker("done", done)
    until_state("done", "completed")
    manager.spawn_worker("bad", bad)
    until_state("bad", "failed")
    assert manager.worker_status()["bad"].message == "KeyError: 'mine'"
    # One that stops all is not waited for by itself.
    manager.spawn_worker("stopper", stopper)
    until_state("good", "stopped")
    until_state("stopper", "stopped")
    deadline = time.monotonic() + SOON
    while not reports:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert reports == ["operation failed: worker 'bad' failed: KeyError: 'mine'"]
    assert names == ["good"]
    manager.stop_all()


def test_a_lost_manager_tells_its_threads_to_stop() -> None:
    def work(stop: threading.Event) -> None:
        started.set()
        stop.wait()
        ended.set()

    started, ended = threading.Event(), threading.Event()
    manager = mullama.sync.TaskManager()
    manager.spawn_worker("a", work)
    assert started.wait(SOON)
    del manager
    gc.collect()
    assert ended.wait(SOON)

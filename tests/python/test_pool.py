"""Pools: whatever happens to those who wait or hold, no lease is lost and the
order of service stays."""

import asyncio
import gc
import inspect
import random
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import mullama
import pytest
from conftest import ENDLESS, SOON, engine_threads, until
from mullama import _mailbox

ModelPool = mullama.ModelPool
SHORT: Any = {"max_tokens": 3, "ignore_eos": True}


@pytest.fixture(scope="module")
def shared(tiny_path: str) -> Iterator[ModelPool]:
    """A pool of four, which tests leave as they found it. Its requests have
    room for a long answer."""
    pool = asyncio.run(ModelPool.create(tiny_path, 4, context_size=65536, threads=1, timeout_ms=0))
    yield pool
    asyncio.run(pool.close())


@pytest.fixture
def pool(shared: ModelPool) -> Iterator[ModelPool]:
    yield shared
    gc.collect()
    asyncio.run(until(lambda: shared.stats().in_use == 0))
    stats = shared.stats()
    assert (stats.size, stats.available, stats.waiting) == (4, 4, 0)


async def taken(pool: ModelPool) -> list[mullama.PooledModel]:
    """All leases."""
    return [await pool.acquire() for _ in range(pool.stats().available)]


def waiting(pool: ModelPool, n: int) -> Callable[[], bool]:
    return lambda: pool.stats().waiting == n


async def queue(pool: ModelPool, n: int) -> "list[asyncio.Task[mullama.PooledModel]]":
    """Tasks that wait for a lease, in this order."""
    before = pool.stats().waiting
    tasks = [asyncio.create_task(pool.acquire()) for _ in range(n)]
    await until(waiting(pool, before + n))
    return tasks


async def test_sixty_four_coroutines_over_a_pool_that_is_resized(pool: ModelPool) -> None:
    """Four leases, then eight, then two, with all requests in flight."""
    served: list[int] = []
    lengths: list[int] = []
    total = pool.stats().acquired_total

    async def work(number: int) -> None:
        async with pool.acquire() as model:
            served.append(number)
            lengths.append(len((await model.generate_with("hello", **SHORT)).tokens))

    async def sizes() -> None:
        for size, after in ((8, 8), (2, 32), (4, 60)):
            await until(lambda after=after: len(served) >= after)  # type: ignore[misc]
            await pool.resize(size)
            assert pool.stats().size == size

    await asyncio.gather(*(work(number) for number in range(64)), sizes())
    assert served == list(range(64))
    assert lengths == [3] * 64
    stats = pool.stats()
    assert (stats.in_use, stats.waiting, stats.acquired_total) == (0, 0, total + 64)


async def test_never_more_leases_than_the_size_are_out(pool: ModelPool) -> None:
    most = 0

    async def work() -> None:
        nonlocal most
        async with pool.acquire():
            most = max(most, pool.stats().in_use)
            await asyncio.sleep(0)

    await asyncio.gather(*(work() for _ in range(64)))
    assert most == 4


async def test_a_lease_is_a_model(pool: ModelPool) -> None:
    async with pool.acquire() as model:
        assert isinstance(model, mullama.PooledModel)
        assert isinstance(model, mullama.Model)
        assert len((await model.generate_with("hello", **SHORT)).tokens) == 3
        assert isinstance(await model.generate("hello", 2), str)
        assert [token.index async for token in model.generate_stream("hello", **SHORT)] == [0, 1, 2]
        assert (await model.detokenize(await model.tokenize("hello", False))).strip() == "hello"
        assert (await model.info()).architecture == (await model.metadata())["general.architecture"]
        assert await model.placement()
        assert await model.is_ready()
        assert model.metrics().active == 0
        assert repr(model).startswith("<mullama.PooledModel '")


async def test_every_way_to_wait_for_a_lease(pool: ModelPool) -> None:
    async def fail() -> None:
        async with pool.acquire():
            raise KeyError

    ways: list[Awaitable[mullama.PooledModel]] = [
        pool.acquire(),
        asyncio.create_task(pool.acquire()),
        asyncio.ensure_future(pool.acquire()),
        asyncio.wait_for(pool.acquire(timeout_ms=60_000), SOON),
    ]
    leases = await asyncio.gather(*ways)
    assert pool.stats().in_use == 4
    for lease in leases:
        lease.release()
        lease.release()
    assert pool.stats().in_use == 0
    with pytest.raises(KeyError):
        await fail()
    assert pool.stats().in_use == 0
    async with await pool.acquire() as lease:
        assert pool.stats().in_use == 1
    lease = await pool.acquire()
    await lease.close()
    assert pool.stats().in_use == 0


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_a_task_group_takes_an_acquisition(pool: ModelPool) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pool.acquire()) for _ in range(3)]
    assert pool.stats().in_use == 3
    for task in tasks:
        task.result().release()


async def test_a_lost_lease_goes_back(pool: ModelPool) -> None:
    lease = await pool.acquire()
    cycle: list[object] = [lease]
    cycle.append(cycle)
    del lease, cycle
    gc.collect()
    assert pool.stats().in_use == 0
    await pool.acquire()
    assert pool.stats().in_use == 0


async def test_a_lease_that_is_back_is_of_no_use(pool: ModelPool) -> None:
    lease = await pool.acquire()
    lease.release()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: lease.generate("hello"),
        lambda: lease.generate_with("hello"),
        lambda: anext(lease.generate_stream("hello")),
        lambda: lease.tokenize("hello"),
        lambda: lease.detokenize([300]),
    ]
    for call in calls:
        with pytest.raises(mullama.ClosedError, match="lease"):
            await call()
    assert not await lease.is_ready()
    assert (await lease.info()).n_vocab == 512


async def test_a_lease_comes_back_when_its_last_request_has_ended(pool: ModelPool) -> None:
    async with pool.acquire() as lease:
        stream = lease.generate_stream("hello", **ENDLESS)
        await anext(stream)
    assert pool.stats().in_use == 1
    stream.cancel()
    await until(lambda: pool.stats().in_use == 0)


async def test_a_lease_never_waits_for_another(pool: ModelPool) -> None:
    first, second = await pool.acquire(), await pool.acquire()
    endless = [asyncio.create_task(first.generate("hello", **ENDLESS)) for _ in range(3)]
    await until(lambda: first.metrics().active >= 1)
    assert len((await second.generate_with("hello", **SHORT)).tokens) == 3
    # Its own requests run one after the other.
    assert first.metrics().active == 1
    for task in endless:
        task.cancel()
    await asyncio.wait(endless)
    first.release()
    second.release()


async def test_a_cancelled_wait_gives_up_its_place_and_the_others_keep_theirs(pool: ModelPool) -> None:
    held = await taken(pool)
    tasks = await queue(pool, 3)
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    await until(waiting(pool, 2))
    held[0].release()
    first = await tasks[0]
    assert not tasks[2].done()
    held[1].release()
    for lease in (first, await tasks[2], *held):
        lease.release()


@pytest.mark.parametrize("released_first", [True, False])
async def test_a_lease_that_comes_with_a_cancellation_is_not_lost(pool: ModelPool, released_first: bool) -> None:
    for turns in range(60):
        held = await taken(pool)
        [task] = await queue(pool, 1)
        if released_first:
            held[0].release()
            # Anywhere on its way.
            for _ in range(turns % 6):
                await asyncio.sleep(0)
            task.cancel()
        else:
            task.cancel()
            held[0].release()
        try:
            (await task).release()
        except asyncio.CancelledError:
            # Also while the exception is held.
            await until(lambda: pool.stats().in_use == 3)
        for lease in held:
            lease.release()
        await until(lambda: pool.stats().in_use == 0)


async def test_a_lease_whose_task_is_cancelled_before_it_goes_on_is_back_at_once(pool: ModelPool) -> None:
    """The result is there, and its task has not run yet."""
    held = await taken(pool)
    [task] = await queue(pool, 1)
    waits = _mailbox.mailbox_here().waiting
    held[0].release()
    while not any(future.done() for future, _ in waits.values()):
        await asyncio.sleep(0)
    assert pool.stats().in_use == 4
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    # Although the traceback still holds the frames.
    assert pool.stats().in_use == 3
    assert caught.value.__traceback__ is not None
    for lease in held:
        lease.release()


async def test_waits_with_limits_that_race_the_leases(pool: ModelPool) -> None:
    chance = random.Random(1)
    served = 0

    async def work() -> None:
        nonlocal served
        try:
            async with await asyncio.wait_for(pool.acquire(), chance.uniform(0, 0.01)):
                served += 1
                await asyncio.sleep(chance.uniform(0, 0.002))
        except asyncio.TimeoutError:
            pass

    for _ in range(5):
        await asyncio.gather(*(work() for _ in range(64)))
        await until(lambda: pool.stats().in_use == 0 == pool.stats().waiting)
    assert served > 0


async def test_a_wait_has_a_limit(pool: ModelPool) -> None:
    held = await taken(pool)
    with pytest.raises(mullama.TimeoutError) as caught:
        await pool.acquire(timeout_ms=20)
    assert (caught.value.after_ms, caught.value.partial) == (20, "")
    with pytest.raises(TimeoutError):
        async with pool.acquire(timeout_ms=0):
            pass
    assert pool.stats().waiting == 0
    task = asyncio.create_task(pool.acquire(timeout_ms=60_000))
    await until(waiting(pool, 1))
    held[0].release()
    (await task).release()
    for lease in held:
        lease.release()


async def test_trying_gives_a_lease_or_none_and_passes_nobody_by(pool: ModelPool) -> None:
    held = await taken(pool)
    assert pool.try_acquire() is None
    [task] = await queue(pool, 1)
    held.pop().release()
    # The lease belongs to the one who waits, taken or not.
    assert pool.try_acquire() is None
    (await task).release()
    tried = pool.try_acquire()
    assert isinstance(tried, mullama.PooledModel)
    for lease in (tried, *held):
        lease.release()


async def test_threads_with_loops_of_their_own_share_a_pool(pool: ModelPool) -> None:
    lengths: list[int] = []

    async def work() -> None:
        async with pool.acquire() as model:
            lengths.append(len((await model.generate_with("hello", **SHORT)).tokens))

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(8)))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert lengths == [3] * 48


def test_a_closed_loop_leaves_no_wait_behind(pool: ModelPool) -> None:
    async def wait() -> None:
        tasks.extend(await queue(pool, 3))

    held = asyncio.run(taken(pool))
    tasks: list[object] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # the tasks are destroyed, which asyncio reports
    loop.run_until_complete(wait())
    loop.close()
    del loop
    tasks.clear()
    gc.collect()
    asyncio.run(until(waiting(pool, 0)))
    for lease in held:
        lease.release()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"size": 0}, "size"), ({"size": 257}, "size"), ({"size": 1.5}, "size"), ({"size": "4"}, "size"),
     ({"size": True}, "size"), ({"context_size": -1}, "context_size"), ({"sise": 4}, "sise")],
)  # fmt: skip
async def test_a_wrong_argument_of_create_is_named(tiny_path: str, arguments: Any, field: str) -> None:
    with pytest.raises(mullama.InvalidInputError) as caught:
        await ModelPool.create(tiny_path, **arguments)
    assert caught.value.field == field


@pytest.mark.parametrize("timeout_ms", [-1, 1.5, "1", True])
async def test_a_wrong_limit_is_named_also_where_a_lease_is_free(pool: ModelPool, timeout_ms: Any) -> None:
    acquisition = pool.acquire(timeout_ms)
    with pytest.raises(mullama.InvalidInputError) as caught:
        await acquisition
    assert caught.value.field == "timeout_ms"


@pytest.mark.parametrize("size", [0, -1, 257, 2.0, None])
async def test_a_wrong_size_changes_nothing(pool: ModelPool, size: Any) -> None:
    with pytest.raises(mullama.InvalidInputError) as caught:
        await pool.resize(size)
    assert caught.value.field == "size"


async def test_progress_and_options_are_those_of_a_load(tiny_path: str) -> None:
    shares: list[float] = []
    async with await ModelPool.create(tiny_path, threads=1, context_size=64, on_progress=shares.append) as pool:
        assert shares[-1] == 1.0
        assert repr(pool) == "<mullama.ModelPool size=4, available=4, waiting=0>"
        async with pool.acquire() as model:
            with pytest.raises(mullama.PromptTooLongError):
                await model.generate("hello " * 100)


async def test_cancelling_create_ends_its_thread(model_path: str) -> None:
    before = engine_threads()
    for delay in (0, 0.001, 0.01, 0.05):
        # Weights that others have loaded would be there before it is cancelled.
        task = asyncio.create_task(ModelPool.create(model_path, 2, threads=1, use_mmap=False))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: engine_threads() <= before)


async def test_closing_wakes_those_who_wait_and_ends_the_leases(tiny_path: str) -> None:
    pool = await ModelPool.create(tiny_path, 1, context_size=65536, threads=1, timeout_ms=0)
    lease = await pool.acquire()
    running = asyncio.create_task(lease.generate("hello", **ENDLESS))
    await until(lambda: lease.metrics().active == 1)
    tasks = await queue(pool, 3)
    await asyncio.gather(pool.close(), pool.close())
    for result in await asyncio.gather(running, *tasks, return_exceptions=True):
        assert isinstance(result, mullama.ClosedError)
    for call in (pool.acquire, lambda: pool.resize(2), lambda: lease.generate("hello")):
        with pytest.raises(mullama.ClosedError):
            await call()  # type: ignore[operator]
    with pytest.raises(mullama.ClosedError):
        pool.try_acquire()
    await pool.close()


async def test_a_lost_pool_is_freed(tiny_path: str) -> None:
    before = engine_threads()
    pool = await ModelPool.create(tiny_path, 1, threads=1)
    lease = await pool.acquire()
    del pool
    gc.collect()
    # The lease keeps the model.
    assert len((await lease.generate_with("hello", **SHORT)).tokens) == 3
    del lease
    gc.collect()
    await until(lambda: engine_threads() <= before)


def test_pools_and_leases_are_made_by_their_methods_alone() -> None:
    for pool in (ModelPool, mullama.sync.ModelPool):
        with pytest.raises(TypeError, match=r"ModelPool\.create"):
            pool()
    for lease in (mullama.PooledModel, mullama.sync.PooledModel):
        with pytest.raises(TypeError):
            lease()
    with pytest.raises(TypeError, match="acquire"):
        asyncio.run(mullama.PooledModel.load("model.gguf"))
    with pytest.raises(TypeError, match="acquire"):
        mullama.sync.PooledModel.load("model.gguf")


def test_which_methods_are_awaited() -> None:
    for name in ("create", "resize", "close"):
        assert inspect.iscoroutinefunction(getattr(ModelPool, name)), name
    for name in ("acquire", "try_acquire", "stats"):
        assert not inspect.iscoroutinefunction(getattr(ModelPool, name)), name
    assert not inspect.iscoroutinefunction(mullama.PooledModel.release)

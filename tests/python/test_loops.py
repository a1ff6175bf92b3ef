"""Every kind of event loop, and several of them."""

import asyncio
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import mullama
import pytest
from conftest import ENDLESS, SOON, generating, idle, until
from mullama import _mailbox

Model = mullama.Model


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """Like Windows' proactor loop, which can't watch a socket."""

    def add_reader(self, *_: object) -> None:
        raise NotImplementedError

    # asyncio's own wake-up goes on.
    def _add_reader(self, fd: int, callback: object, *args: object) -> object:
        return super()._add_reader(fd, callback, *args)  # type: ignore[misc]


def new_uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()


KINDS = [asyncio.SelectorEventLoop, new_uvloop, LoopWithoutReaders]


@pytest.mark.parametrize("new_loop", KINDS, ids=["asyncio", "uvloop", "no-readers"])
def test_calls_streams_and_cancellation_work_in_every_loop(
    model: Model, model_path: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        shares: list[float] = []
        async with await Model.load(model_path, threads=1, on_progress=shares.append) as other:
            assert shares[-1] == 1.0
            texts = await asyncio.gather(*(other.generate("Once", 4, temperature=0) for _ in range(8)))
            assert len(texts) == 8
        indices = [token.index async for token in model.generate_stream("Once", 12, ignore_eos=True)]
        assert indices == list(range(12))
        task = asyncio.create_task(model.generate("Once", **ENDLESS))
        await generating(model)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async for _ in model.generate_stream("Once", **ENDLESS):
            break
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(model.generate("Once", **ENDLESS), 0.1)
        await idle(model)

    loop = new_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.parametrize("new_loop", KINDS, ids=["asyncio", "uvloop", "no-readers"])
def test_contexts_pools_and_tasks_work_in_every_loop(
    tiny_path: str, tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def contexts(model: Model) -> None:
        async with await mullama.Context.create(model) as context:
            ids = await model.tokenize("hello world")
            stream = context.generate_stream(ids, 5, ignore_eos=True)
            await context.save_state(tmp_path / "state")
            assert len([token async for token in stream]) == 5
            await context.clear()
            await context.load_state(tmp_path / "state")
            assert context.n_past() == len(ids) + 5

    async def pools() -> None:
        async def work(number: int) -> None:
            async with pool.acquire() as model:
                served.append(number)
                await model.generate("hello", 1)

        served: list[int] = []
        async with await mullama.ModelPool.create(tiny_path, 2, threads=1) as pool:
            jobs = [asyncio.ensure_future(work(number)) for number in range(32)]
            await pool.resize(6)
            await asyncio.gather(*jobs)
            assert served == list(range(32))
            held = [await pool.acquire() for _ in range(6)]
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(pool.acquire(), 0.02)
            held.clear()
            # One may go by way of the wait that was given up.
            await until(lambda: pool.stats().in_use == 0)

    async def tasks(model: Model) -> None:
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        ended: list[bool] = []
        async with mullama.TaskManager() as manager:
            manager.spawn_generation_worker()
            manager.spawn_worker("mine", work)
            assert len((await manager.submit(model, "hello", 3, ignore_eos=True)).tokens) == 3
        assert ended == [True]
        assert {status.state for status in manager.worker_status().values()} == {"stopped"}

    async def main() -> None:
        async with await Model.load(tiny_path, threads=1) as model:
            await asyncio.gather(contexts(model), pools(), tasks(model))
            assert (await mullama.runtime().metrics()).worker_threads == 1

    loop = new_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(main(), 30))
    finally:
        loop.close()


@pytest.mark.parametrize("new_loop", KINDS[:2], ids=["asyncio", "uvloop"])
def test_closing_a_loop_stops_its_work(model: Model, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop = new_loop()
    loop.set_exception_handler(lambda *_: None)  # the tasks are destroyed, which asyncio reports
    stream = model.generate_stream("Once", **ENDLESS)
    tasks = [loop.create_task(model.generate("Once", **ENDLESS)), loop.create_task(anext(stream))]
    loop.run_until_complete(generating(model))
    loop.close()
    del tasks, loop, stream
    gc.collect()
    asyncio.run(idle(model))


def test_one_model_serves_loops_in_several_threads(model: Model) -> None:
    async def main() -> None:
        results = await asyncio.gather(*(model.generate_with("Once", 6, ignore_eos=True) for _ in range(4)))
        counts.extend(len(result.tokens) for result in results)

    counts: list[int] = []
    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [6] * 16


def test_loops_leave_no_file_descriptors_behind(model: Model) -> None:
    def one_loop() -> None:
        asyncio.run(model.generate("Once", 1))

    for _ in range(3):
        one_loop()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        one_loop()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there is no /proc")
@pytest.mark.parametrize("new_loop", KINDS, ids=["asyncio", "uvloop", "no-readers"])
def test_a_thread_may_go_to_and_fro_between_loops(
    model: Model, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    def to_and_fro() -> None:
        for loop in loops:
            assert loop.run_until_complete(model.tokenize("Once"))

    new_loop().close()  # the first one of uvloop opens files for the process
    gc.collect()
    at_first = len(os.listdir("/proc/self/fd"))
    loops = [new_loop(), new_loop()]
    try:
        to_and_fro()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(300):
            to_and_fro()
        assert len(os.listdir("/proc/self/fd")) <= before
    finally:
        for loop in loops:
            loop.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= at_first


# Not uvloop: without mullama's doing, it does not run on after an exit of a task.
@pytest.mark.parametrize("new_loop", KINDS[::2], ids=["asyncio", "no-readers"])
def test_an_exit_out_of_a_callback_costs_no_other_call_its_result(
    model: Model, model_path: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    def leave(_: float) -> None:
        raise SystemExit

    loop = new_loop()
    try:
        load = loop.create_task(Model.load(model_path, threads=1, on_progress=leave))
        tokens = loop.create_task(model.tokenize("Once"))
        exits = 0
        # Out of the callback, then out of its task; where each surfaces first
        # is the loop's affair.
        for _ in range(4):
            try:
                loop.run_until_complete(asyncio.wait({load, tokens}, timeout=SOON))
            except SystemExit:
                exits += 1
            if load.done() and tokens.done():
                break
        assert exits >= 1
        assert isinstance(load.exception(), SystemExit)
        assert tokens.result()
    finally:
        loop.close()


@pytest.mark.parametrize("new_loop", KINDS, ids=["asyncio", "uvloop", "no-readers"])
def test_what_was_taken_with_an_exit_is_given_later(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The one delivery that the test above can only hope for."""

    def leave(_: float) -> None:
        raise SystemExit

    async def main() -> None:
        running = asyncio.get_running_loop()
        mailbox = _mailbox.Mailbox(running)
        load, other = running.create_future(), running.create_future()
        mailbox.waiting = {0: (load, leave), 1: (other, None)}
        mailbox.letters.extend([(0, 0, 0.5), (1, 1, "a result")])
        with pytest.raises(SystemExit):
            mailbox._deliver()
        assert isinstance(load.exception(), SystemExit)
        assert not other.done()
        assert await asyncio.wait_for(other, SOON) == "a result"

    loop = new_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


async def test_the_loop_stays_free_while_native_code_works(model: Model) -> None:
    """The loop's 5 ms timer against a prefill and a decode."""
    gaps: list[float] = []

    async def beat() -> None:
        while True:
            start = loop.time()
            await asyncio.sleep(0.005)
            gaps.append(loop.time() - start)

    loop = asyncio.get_running_loop()
    heart = asyncio.create_task(beat())
    while len(gaps) <= 100:
        await asyncio.gather(*(model.generate("word " * 100, 20, ignore_eos=True) for _ in range(4)))
    heart.cancel()
    gaps.sort()
    # A GIL that is held for one step of the engine would make most gaps
    # several times this long.
    assert gaps[len(gaps) // 2] < 0.02


async def test_a_huge_prompt_holds_up_nobody(model: Model) -> None:
    """It takes a second and more to tokenize, which is nobody else's affair."""

    async def read() -> None:
        last = loop.time()
        async for _ in stream:
            gaps.append(loop.time() - last)
            last = loop.time()

    loop = asyncio.get_running_loop()
    stream = model.generate_stream("Once", **ENDLESS)
    gaps: list[float] = []
    reader = asyncio.create_task(read())
    await generating(model, 3)
    gaps.clear()
    start = loop.time()
    for huge in (model.generate("some words here " * 400_000), anext(model.generate_stream("some words " * 400_000))):
        with pytest.raises(mullama.PromptTooLongError):
            await huge
    seconds = loop.time() - start
    stream.cancel()
    await reader
    assert len(gaps) > 3
    assert max(gaps) < seconds / 3

"""Contexts in Python: the order of calls, cancellation of each, and what goes
away with what. What they compute is in the conformance cases."""

import asyncio
import gc
import inspect
import os
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import mullama
import pytest
from conftest import ENDLESS, SOON, Loaded, context_threads, run_script, until

Context = mullama.Context

GREEDY: Any = {"temperature": 0, "ignore_eos": True}
# A vocabulary of 512; none of them ends a text.
IDS = list(range(300, 340))


async def indices(stream: mullama.TokenStream) -> list[int]:
    return [token.index async for token in stream]


async def test_a_context_remembers(loaded: Loaded) -> None:
    async with loaded as model, await Context.create(model) as context:
        assert context.n_past() == 0
        stream = context.generate_stream(IDS, 5, **GREEDY)
        assert await indices(stream) == [0, 1, 2, 3, 4]
        assert context.n_past() == 45
        assert (stream.usage.prompt_tokens, stream.usage.cached_tokens) == (40, 0)
        stream = context.generate_stream([], max_tokens=2, seed=9, **GREEDY)
        assert len(await indices(stream)) == 2
        # The last token that was generated is not evaluated yet.
        assert (stream.usage.prompt_tokens, stream.usage.cached_tokens) == (45, 44)
        assert (stream.seed, stream.finish_reason) == (9, "length")
        await context.truncate(10)
        assert context.n_past() == 10
        await context.clear()
        assert context.n_past() == 0


async def test_a_stream_has_its_place_from_the_call_on(loaded: Loaded) -> None:
    async with loaded as model, await Context.create(model) as context:
        first = context.generate_stream(IDS, 6, **GREEDY)
        second = context.generate_stream(IDS, 7, **GREEDY)
        await context.truncate(3)
        # Both were generated to their ends before, though nobody read.
        assert context.n_past() == 3
        assert await indices(second) == list(range(7))
        assert await indices(first) == list(range(6))
        assert second.usage.prompt_tokens == 40 + 6 + 40


async def test_calls_run_in_the_order_in_which_tasks_made_them(loaded: Loaded) -> None:
    async with loaded as model, await Context.create(model) as context:
        await context.process_batch([long_batch(500)])
        # Cutting a context to more than it holds fails, so any other order would.
        await asyncio.gather(*(context.truncate(length) for length in range(500, -1, -1)))
        assert context.n_past() == 0


async def test_a_stream_that_is_not_read_pauses(loaded: Loaded) -> None:
    async with loaded as model, await Context.create(model, context_size=65536) as context:
        stream = context.generate_stream(IDS, buffer_size=4, **ENDLESS)
        await anext(stream)
        await asyncio.sleep(0.1)
        assert 40 < context.n_past() < 60
        stream.cancel()
        await context.clear()


async def test_leaving_a_stream_stops_it_and_keeps_what_it_made(loaded: Loaded) -> None:
    async with loaded as model, await Context.create(model, context_size=65536) as context:

        async def left_by_break() -> None:
            async for token in context.generate_stream(IDS, **ENDLESS):
                if token.index == 2:
                    break

        async def left_by_error() -> None:
            with pytest.raises(KeyError):
                async for _ in context.generate_stream(IDS, **ENDLESS):
                    raise KeyError

        async def closed() -> None:
            async with context.generate_stream(IDS, **ENDLESS) as stream:
                await anext(stream)

        async def lost_unread() -> None:
            context.generate_stream(IDS, **ENDLESS)

        async def cancelled_unread() -> None:
            stream = context.generate_stream(IDS, **ENDLESS)
            stream.cancel()
            await indices(stream)
            assert stream.finish_reason == "cancelled"

        async def cancelled_and_never_read() -> None:
            held.append(context.generate_stream(IDS, **ENDLESS))
            await until(lambda: context.n_past() > 40)
            held[-1].cancel()

        held: list[mullama.TokenStream] = []
        for leave in (left_by_break, left_by_error, closed, lost_unread, cancelled_unread, cancelled_and_never_read):
            await leave()
            # It comes to its turn, so the stream has ended.
            await asyncio.wait_for(context.truncate(0), SOON)
            assert context.n_past() == 0


async def test_a_cancelled_wait_for_a_token_loses_none(loaded: Loaded) -> None:
    async with loaded as model, await Context.create(model) as context:
        stream = context.generate_stream(IDS, 200, buffer_size=1, **GREEDY)
        seen: list[int] = []
        while True:
            try:
                seen.append((await asyncio.wait_for(anext(stream), 0.0005)).index)
            except asyncio.TimeoutError:
                pass
            except StopAsyncIteration:
                break
        assert seen == list(range(200))


async def test_n_past_does_not_wait_for_a_call(model: mullama.Model) -> None:
    """About ten seconds of prefill, during which it is asked for."""
    async with await Context.create(model, context_size=6144, threads=1) as context:
        task = asyncio.create_task(context.process_batch([long_batch()]))
        await asyncio.sleep(0.2)
        start = asyncio.get_running_loop().time()
        for _ in range(100):
            context.n_past()
        assert asyncio.get_running_loop().time() - start < 0.5
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # A cancelled call stops within a step.
        await asyncio.wait_for(context.clear(), SOON / 2)


def long_batch(n: int = 5000) -> mullama.Batch:
    batch = mullama.Batch()
    batch.add_sequence(0, [200] * n)
    return batch


async def test_a_call_that_is_cancelled_while_it_waits_is_never_made(loaded: Loaded) -> None:
    async with loaded as model, await Context.create(model, context_size=65536) as context:
        stream = context.generate_stream(IDS, 2000, buffer_size=1, **GREEDY)
        await anext(stream)
        for call in (context.clear(), context.truncate(0), context.process_batch([long_batch(10)])):
            task = asyncio.create_task(call)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await indices(stream))[-1] == 1999
        assert context.n_past() == 2040


async def test_cancelling_create_ends_its_thread(loaded: Loaded) -> None:
    async with loaded as model:
        before = context_threads()
        for delay in (0, 0, 0.0005, 0.001, 0.002, 0.005):
            task = asyncio.create_task(Context.create(model))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
            del task
        await until(lambda: context_threads() <= before)


async def test_cancelling_a_save_leaves_no_file_and_the_context_as_it_was(loaded: Loaded, tmp_path: Path) -> None:
    async with loaded as model, await Context.create(model) as context:
        await context.process_batch([long_batch(2000)])
        for delay in (0, 0.0001, 0.001, 0.002, 0.005):
            task = asyncio.create_task(context.save_state(tmp_path / "state"))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
            # After its turn whatever it left would stay.
            await context.truncate(2000)
            assert set(os.listdir(tmp_path)) <= {"state"}
        await context.save_state(str(tmp_path / "state"))
        for delay in (0, 0.0001, 0.001):
            task = asyncio.create_task(context.load_state(tmp_path / "state"))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
        assert len(await indices(context.generate_stream([], 3, **GREEDY))) == 3


async def test_a_state_goes_on_in_another_process(tiny_path: str, loaded: Loaded, tmp_path: Path) -> None:
    async with loaded as model, await Context.create(model) as context:
        await indices(context.generate_stream(IDS, 20, **GREEDY))
        await context.save_state(tmp_path / "state")
        rest = [token.token_id async for token in context.generate_stream([], 20, **GREEDY)]
    code = """
import sys
from mullama.sync import Context, Model
with Model.load(sys.argv[1], threads=1, context_size=4096) as model, Context.create(model) as context:
    context.load_state(sys.argv[2])
    print([token.token_id for token in context.generate_stream([], 20, temperature=0, ignore_eos=True)])
"""
    done = run_script(code, tiny_path, str(tmp_path / "state"))
    assert (done.stdout, done.stderr) == (f"{rest}\n", "")


async def test_files_that_are_no_states(loaded: Loaded, tmp_path: Path) -> None:
    async with loaded as model, await Context.create(model) as context:
        await context.process_batch([long_batch(10)])
        (tmp_path / "text").write_text("not a state " * 100)
        with pytest.raises(mullama.StateError):
            await context.load_state(tmp_path / "text")
        with pytest.raises(OSError, match="missing") as missing:
            await context.load_state(tmp_path / "missing")
        assert isinstance(missing.value, mullama.IoError)
        with pytest.raises(mullama.IoError):
            await context.save_state(tmp_path / "no" / "folder")
        for path in (None, 5, b"state"):
            for call in (context.save_state, context.load_state):
                with pytest.raises(mullama.InvalidInputError) as wrong:
                    await call(path)  # type: ignore[arg-type]
                assert wrong.value.field == "path"
        assert context.n_past() == 10


async def test_closing_ends_what_runs_and_what_waits(loaded: Loaded) -> None:
    async with loaded as model:
        before = context_threads()
        context = await Context.create(model, context_size=65536)
        stream = context.generate_stream(IDS, buffer_size=1, **ENDLESS)
        await anext(stream)
        tasks: list[Awaitable[object]] = [asyncio.create_task(context.clear()) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.gather(context.close(), context.close())
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, mullama.ClosedError)
        with pytest.raises(mullama.ClosedError):
            await indices(stream)
        await closed(context)
        await context.close()
        assert repr(context) == "<mullama.Context closed>"
        await until(lambda: context_threads() <= before)


async def closed(context: Context) -> None:
    """Every call says so."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: anext(context.generate_stream(IDS)),
        lambda: context.process_batch([long_batch(1)]),
        lambda: context.save_state("never"),
        lambda: context.load_state("never"),
        lambda: context.clear(),
        lambda: context.truncate(0),
    ]
    for call in calls:
        with pytest.raises(mullama.ClosedError):
            await call()


async def test_closing_the_model_closes_its_contexts(loaded: Loaded) -> None:
    async with loaded as model:
        context = await Context.create(model)
        await model.close()
        await closed(context)
        with pytest.raises(mullama.ClosedError):
            await Context.create(model)


async def test_a_context_keeps_a_lost_model_and_a_stream_keeps_a_lost_context(tiny_path: str) -> None:
    before = context_threads()
    model = await mullama.Model.load(tiny_path, threads=1, timeout_ms=0)
    context = await Context.create(model)
    del model
    gc.collect()
    stream = context.generate_stream(IDS, 50, buffer_size=1, **GREEDY)
    del context
    gc.collect()
    assert len(await indices(stream)) == 50
    del stream
    gc.collect()
    await until(lambda: context_threads() <= before)


async def test_a_context_of_a_lease(tiny_path: str) -> None:
    async with await mullama.ModelPool.create(tiny_path, 1, threads=1) as pool:
        async with pool.acquire() as model:
            context = await Context.create(model)
        # It is no request of the lease's.
        assert len(await indices(context.generate_stream(IDS, 3, **GREEDY))) == 3


async def test_the_loop_stays_free_while_a_batch_is_evaluated(model: mullama.Model) -> None:
    async with await Context.create(model, threads=1) as context:
        gaps: list[float] = []

        async def beat() -> None:
            while True:
                start = loop.time()
                await asyncio.sleep(0.005)
                gaps.append(loop.time() - start)

        loop = asyncio.get_running_loop()
        heart = asyncio.create_task(beat())
        await context.process_batch([long_batch(400)])
        heart.cancel()
        gaps.sort()
        assert len(gaps) > 20
        assert gaps[len(gaps) // 2] < 0.02


async def test_a_context_says_what_it_is(loaded: Loaded) -> None:
    async with loaded as model, await Context.create(model) as context:
        assert repr(context) == "<mullama.Context 0 tokens>"
        await context.process_batch([long_batch(7)])
        assert repr(context) == "<mullama.Context 7 tokens>"
        with pytest.raises(TypeError):
            pickle.dumps(context)
    with pytest.raises(TypeError, match=r"Context\.create"):
        Context()
    for name in ("create", "process_batch", "save_state", "load_state", "clear", "truncate", "close"):
        assert inspect.iscoroutinefunction(getattr(Context, name)), name
    for name in ("generate_stream", "n_past"):
        assert not inspect.iscoroutinefunction(getattr(Context, name)), name


async def test_two_streams_of_two_contexts_run_at_once(loaded: Loaded) -> None:
    async def read(stream: AsyncIterator[mullama.TokenData], name: str) -> None:
        async for _ in stream:
            seen.append(name)

    async with loaded as model, await Context.create(model) as first, await Context.create(model) as second:
        seen: list[str] = []
        streams = [context.generate_stream(IDS, 300, **GREEDY) for context in (first, second)]
        await asyncio.gather(*(read(stream, name) for stream, name in zip(streams, "ab", strict=True)))
        assert sorted(seen) == ["a"] * 300 + ["b"] * 300
        assert seen != sorted(seen)
        assert seen != sorted(seen, reverse=True)

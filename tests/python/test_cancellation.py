"""Every way to give up a call stops its native work, at every stage."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import mullama
import pytest
from conftest import ENDLESS, LONG_PROMPT, engine_threads, generating, idle, until

Model = mullama.Model


async def cancelled(task: "asyncio.Task[object]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_a_task_stops_decoding(model: Model) -> None:
    before = model.metrics().cancelled
    task = asyncio.create_task(model.generate("Once", **ENDLESS))
    await generating(model, 3)
    await cancelled(task)
    await idle(model)
    assert model.metrics().cancelled == before + 1


async def test_cancelling_a_task_stops_prefill(narrow: Model) -> None:
    task = asyncio.create_task(narrow.generate_with(LONG_PROMPT, 1))
    await until(lambda: narrow.metrics().active == 1)
    generated = narrow.metrics().generated_tokens
    await cancelled(task)
    await idle(narrow)
    assert narrow.metrics().generated_tokens == generated


async def test_a_cancelled_request_leaves_the_queue_and_the_running_one_goes_on(narrow: Model) -> None:
    running = asyncio.create_task(narrow.generate_with("Once", 40, ignore_eos=True, temperature=0))
    await until(lambda: narrow.metrics().active == 1)
    queued = asyncio.create_task(narrow.generate("Once", 60))
    await until(lambda: narrow.metrics().queued == 1)
    await cancelled(queued)
    await until(lambda: narrow.metrics().queued == 0)
    assert len((await running).tokens) == 40


async def test_other_requests_are_untouched(model: Model) -> None:
    async def alone() -> str:
        return await model.generate("The sky is", 24, temperature=0, ignore_eos=True, logit_bias={260: 100.0})

    expected = await alone()
    others = [asyncio.create_task(model.generate("Once", **ENDLESS)) for _ in range(3)]
    survivor = asyncio.create_task(alone())
    for other in others:
        await generating(model)
        await cancelled(other)
    assert await survivor == expected
    await idle(model)


async def test_wait_for(model: Model) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(model.generate("Once", **ENDLESS), 0.2)
    await idle(model)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_asyncio_timeout(model: Model) -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.2):
            await model.generate("Once", **ENDLESS)
    assert not isinstance(caught.value, mullama.TimeoutError)
    await idle(model)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_task_group(model: Model) -> None:
    async def fail() -> None:
        await generating(model)
        raise KeyError("stop")

    # ExceptionGroup, a name that Python 3.10 lacks.
    with pytest.raises(Exception, match="unhandled errors") as caught:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(model.generate("Once", **ENDLESS))
            group.create_task(fail())
    assert [type(error) for error in getattr(caught.value, "exceptions", [])] == [KeyError]
    await idle(model)


async def test_a_task_cancelled_before_its_first_step_submits_nothing(model: Model) -> None:
    before = model.metrics()
    await cancelled(asyncio.create_task(model.generate("Once", **ENDLESS)))
    after = model.metrics()
    assert (after.cancelled, after.active, after.queued) == (before.cancelled, 0, 0)


async def test_an_abandoned_coroutine_stops_its_work(model: Model) -> None:
    call = model.generate("Once", **ENDLESS)
    call.send(None)
    await generating(model)
    call.close()
    await idle(model)


async def test_our_own_timeout_is_a_timeout_error_with_the_text_so_far(model: Model) -> None:
    expected = await model.generate("Once", 3, temperature=0, ignore_eos=True)
    with pytest.raises(TimeoutError) as caught:
        await model.generate("Once", **{**ENDLESS, "timeout_ms": 1000})
    error = caught.value
    assert isinstance(error, mullama.TimeoutError)
    assert (error.code, error.after_ms) == ("timeout", 1000)
    # The first token alone: a later near-tie may fall the other way.
    assert error.partial
    assert expected[:1] == error.partial[:1]
    await idle(model)


async def load_from(progress: Callable[[float], object], path: str) -> Model:
    return await Model.load(path, on_progress=progress)


async def test_cancelling_a_load_ends_its_thread(model_path: str) -> None:
    before = engine_threads()
    for delay in (0, 0.001, 0.01, 0.05):
        # Weights that others have loaded would be there before it is cancelled.
        task = asyncio.create_task(Model.load(model_path, threads=1, use_mmap=False))
        await asyncio.sleep(delay)
        await cancelled(task)
    await until(lambda: engine_threads() == before)


async def test_a_load_can_be_cancelled_from_its_progress(model_path: str) -> None:
    before = engine_threads()
    task: asyncio.Task[Model] = asyncio.create_task(load_from(lambda _: task.cancel(), model_path))
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: engine_threads() == before)


@pytest.mark.parametrize("error", [KeyError("mine"), StopIteration("mine")], ids=["KeyError", "StopIteration"])
async def test_an_exception_from_progress_ends_the_load_with_itself(model_path: str, error: Exception) -> None:
    def fail(_share: float) -> None:
        raise error

    before = engine_threads()
    with pytest.raises((KeyError, RuntimeError)) as caught:
        await load_from(fail, model_path)
    assert error in (caught.value, caught.value.__cause__)
    await until(lambda: engine_threads() == before)


async def test_progress_goes_up_to_one_in_the_loops_own_thread(model_path: str) -> None:
    shares: list[float] = []

    def progress(share: float) -> None:
        assert asyncio.get_running_loop() is loop
        shares.append(share)

    loop = asyncio.get_running_loop()
    async with await load_from(progress, model_path):
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


async def test_closing_ends_calls_with_closed_error(model_path: str) -> None:
    model = await Model.load(model_path, threads=1)
    waiting: list[Awaitable[object]] = [asyncio.create_task(model.generate("Once", **ENDLESS)) for _ in range(6)]
    stream = model.generate_stream("Once", **ENDLESS)
    await anext(stream)
    await asyncio.gather(model.close(), model.close())
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, mullama.ClosedError)
    with pytest.raises(mullama.ClosedError):
        async for _ in stream:
            pass
    assert not await model.is_ready()
    await model.close()
    with pytest.raises(mullama.ClosedError):
        await model.generate("Once", 1)

"""Streams in asyncio: no way out leaves native work behind, and no token is
lost."""

import asyncio
import gc
import time

import mullama
import pytest
from conftest import ENDLESS, generating, idle

Model = mullama.Model

GREEDY = {"temperature": 0, "ignore_eos": True}


async def test_the_texts_joined_are_what_generate_gives(model: Model) -> None:
    tokens = [token async for token in model.generate_stream("Once upon", max_tokens=40, seed=7)]
    result = await model.generate_with("Once upon", 40, seed=7)
    assert "".join(token.text for token in tokens) == result.text
    assert [token.token_id for token in tokens] == result.tokens
    assert [token.index for token in tokens] == list(range(len(tokens)))
    assert [token.is_final for token in tokens] == [False] * (len(tokens) - 1) + [True]
    assert tokens[-1].finish_reason == result.finish_reason


async def test_a_stream_knows_how_it_ended(model: Model) -> None:
    stream = model.generate_stream("Once upon", 8, seed=3, **GREEDY)
    assert (stream.seed, stream.finish_reason) == (None, None)
    async for _ in stream:
        pass
    assert (stream.seed, stream.finish_reason, stream.stop_string) == (3, "length", None)
    assert stream.usage.completion_tokens == 8
    assert stream.timings.time_to_first_token > 0
    assert repr(stream) == "<mullama.TokenStream 8 tokens, finish_reason='length'>"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_break_stops_the_work_though_the_stream_is_still_held(model: Model) -> None:
    stream = model.generate_stream("Once", **ENDLESS)
    async for token in stream:
        if token.index == 2:
            break
    await idle(model)
    assert stream.finish_reason == "cancelled"


async def test_an_exception_in_the_loop_stops_the_work(model: Model) -> None:
    stream = model.generate_stream("Once", **ENDLESS)
    with pytest.raises(KeyError):
        async for _ in stream:
            raise KeyError
    await idle(model)
    assert stream.finish_reason == "cancelled"


async def test_cancelling_the_task_that_reads_stops_the_work(model: Model) -> None:
    async def read() -> None:
        async for _ in stream:
            pass

    stream = model.generate_stream("Once", **ENDLESS)
    task = asyncio.create_task(read())
    await generating(model)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle(model)


async def test_aclose_and_async_with_stop_the_work(model: Model) -> None:
    async with model.generate_stream("Once", **ENDLESS) as stream:
        await anext(stream)
    await idle(model)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_losing_the_last_reference_stops_the_work(model: Model) -> None:
    stream = model.generate_stream("Once", **ENDLESS)
    await anext(stream)
    del stream
    gc.collect()
    await idle(model)


async def test_a_lost_reference_cycle_is_collected_and_stops_the_work(model: Model) -> None:
    stream = model.generate_stream("Once", **ENDLESS)
    await anext(stream)
    cycle: list[object] = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()
    await idle(model)


async def test_a_stream_that_is_never_read_submits_nothing(model: Model) -> None:
    before = model.metrics()
    stream = model.generate_stream("Once", **ENDLESS)
    await asyncio.sleep(0.05)
    assert model.metrics() == before
    stream.cancel()
    assert [token async for token in stream] == []
    assert stream.finish_reason == "cancelled"
    assert model.metrics() == before


async def test_cancel_ends_the_iteration_without_an_error(model: Model) -> None:
    stream = model.generate_stream("Once", **ENDLESS)
    async for token in stream:
        if token.index == 2:
            stream.cancel()
            stream.cancel()
    assert stream.finish_reason == "cancelled"
    await idle(model)


async def test_a_cancelled_anext_loses_no_token(model: Model) -> None:
    expected = (await model.generate_with("Once upon", 30, **GREEDY)).tokens
    stream = model.generate_stream("Once upon", 30, **GREEDY)
    tokens: list[int] = []
    n_cancelled = 0
    while True:
        try:
            tokens.append((await asyncio.wait_for(anext(stream), 0.002)).token_id)
        except asyncio.TimeoutError:
            n_cancelled += 1
        except StopAsyncIteration:
            break
    assert n_cancelled > 10
    assert len(tokens) == 30
    assert tokens == expected


async def test_tasks_that_share_a_stream_get_each_token_once(model: Model) -> None:
    async def read() -> list[int]:
        return [token.index async for token in stream]

    stream = model.generate_stream("Once upon", 40, **GREEDY)
    parts = await asyncio.gather(read(), read(), read())
    assert sorted(index for part in parts for index in part) == list(range(40))


def block_until_the_end(stream: mullama.TokenStream) -> None:
    """Blocks the loop until all tokens and the end have arrived."""
    while stream.finish_reason is None:
        time.sleep(0.01)


async def test_readers_that_are_told_together_leave_each_other_their_tokens(model: Model) -> None:
    async def rest() -> list[int]:
        return [token.index async for token in stream]

    stream = model.generate_stream("Once", 8, **GREEDY)
    await anext(stream)
    one, others = asyncio.ensure_future(anext(stream)), asyncio.create_task(rest())
    await asyncio.sleep(0)
    block_until_the_end(stream)
    assert sorted([(await one).index, *await others]) == list(range(1, 8))


async def test_a_reader_that_waits_gets_nothing_after_aclose(model: Model) -> None:
    stream = model.generate_stream("Once", 8, **GREEDY)
    await anext(stream)
    waits = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    block_until_the_end(stream)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await waits
    assert [token async for token in stream] == []


async def test_tokens_that_are_ready_cost_no_turn_of_the_loop(model: Model) -> None:
    stream = model.generate_stream("Once upon", 16, **GREEDY)
    first = await anext(stream)
    await idle(model)
    second = await anext(stream)
    assert (first.index, second.index) == (0, 1)
    for index in range(2, 16):
        # A coroutine that ends at its first step has not waited.
        with pytest.raises(StopIteration) as done:
            anext(stream).send(None)
        assert done.value.value.index == index


async def test_a_slow_reader_pauses_only_its_own_stream(model: Model) -> None:
    slow = model.generate_stream("Once", buffer_size=4, **ENDLESS)
    await anext(slow)
    result = await model.generate_with("Once upon", 30, **GREEDY)
    assert len(result.tokens) == 30
    assert slow.usage.completion_tokens < 20
    await slow.aclose()
    await idle(model)


async def test_an_error_is_raised_once_and_ends_the_stream(model: Model) -> None:
    stream = model.generate_stream("Once", **{**ENDLESS, "timeout_ms": 1000})
    texts = []
    with pytest.raises(mullama.TimeoutError) as caught:
        async for token in stream:
            texts.append(token.text)
    assert "".join(texts) == caught.value.partial
    assert [token async for token in stream] == []
    assert repr(stream).endswith("failed>")


async def test_a_refused_request_raises_in_the_iteration(model: Model) -> None:
    stream = model.generate_stream("Once", temperature=-1)
    with pytest.raises(mullama.InvalidInputError, match="temperature"):
        await anext(stream)
    with pytest.raises(mullama.PromptTooLongError):
        async for _ in model.generate_stream("word " * 5000):
            pass

"""What contexts and batches are given, and what they refuse."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import mullama
import pytest
from conftest import Loaded

Context = mullama.Context

IDS = list(range(300, 340))


async def test_batches_are_taken_as_they_are_at_the_call(loaded: Loaded) -> None:
    async with loaded as model, await Context.create(model) as context:
        batch = mullama.Batch()
        assert (len(batch), batch.is_empty(), repr(batch)) == (0, True, "<mullama.Batch 0 tokens>")
        batch.add(300, 0, [0])
        batch.add(301, 1, (0,), logits=True)
        batch.add_sequence(1, iter([300, 301]))
        assert (len(batch), batch.is_empty(), repr(batch)) == (4, False, "<mullama.Batch 4 tokens>")
        task = asyncio.create_task(context.process_batch(one for one in [batch]))
        await asyncio.sleep(0)
        batch.clear()
        [[first, second]] = await task
        assert first == second
        assert batch.is_empty()
        # A batch without rows asks for nothing.
        assert await context.process_batch([batch, batch]) == [[], []]
        assert await context.process_batch([]) == []


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda batch: batch.add("a", 0, [0]), "token"),
        (lambda batch: batch.add(1.5, 0, [0]), "token"),
        (lambda batch: batch.add(2**31, 0, [0]), "token"),
        (lambda batch: batch.add(1, -1, [0]), "position"),
        (lambda batch: batch.add(1, None, [0]), "position"),
        (lambda batch: batch.add(1, 0, 0), "seq_ids"),
        (lambda batch: batch.add(1, 0, ["0"]), "seq_ids"),
        (lambda batch: batch.add(1, 0, [0], 1), "logits"),
        (lambda batch: batch.add_sequence("0", [1]), "seq_id"),
        (lambda batch: batch.add_sequence(0, 1), "tokens"),
        (lambda batch: batch.add_sequence(0, [True]), "tokens"),
    ],
)
def test_a_row_of_wrong_types_is_named_and_not_added(call: Callable[[Any], None], field: str) -> None:
    batch = mullama.Batch()
    with pytest.raises(mullama.InvalidInputError) as caught:
        call(batch)
    assert caught.value.field == field
    assert batch.is_empty()


async def test_wrong_arguments_are_named(loaded: Loaded) -> None:
    async with loaded as model, await Context.create(model) as context:
        wrong: list[tuple[Callable[[], Awaitable[object]], str]] = [
            (lambda: Context.create("model"), "model"),  # type: ignore[arg-type]
            (lambda: Context.create(None), "model"),  # type: ignore[arg-type]
            (lambda: Context.create(model, context_size=0), "context_size"),
            (lambda: Context.create(model, max_sequences=-1), "max_sequences"),
            (lambda: Context.create(model, batch_size=1.5), "batch_size"),  # type: ignore[arg-type]
            (lambda: Context.create(model, threads=True), "threads"),
            (lambda: Context.create(model, flash_attention="on"), "flash_attention"),  # type: ignore[arg-type]
            (lambda: Context.create(model, kv_type_k="i32"), "kv_type_k"),  # type: ignore[arg-type]
            (lambda: Context.create(model, kv_type_v=16), "kv_type_v"),  # type: ignore[arg-type]
            (lambda: Context.create(model, max_concurrent=2), "max_concurrent"),  # type: ignore[call-arg]
            (lambda: context.process_batch(mullama.Batch()), "batches"),  # type: ignore[arg-type]
            (lambda: context.process_batch([[1, 2]]), "batches"),  # type: ignore[list-item]
            (lambda: context.truncate(-1), "n"),
            (lambda: context.truncate("1"), "n"),  # type: ignore[arg-type]
            (lambda: context.truncate(1), "n"),
            (lambda: anext(context.generate_stream([])), "tokens"),
            (lambda: anext(context.generate_stream([-1])), "tokens"),
            (lambda: anext(context.generate_stream(IDS, top_p=2)), "top_p"),
        ]
        for call, field in wrong:
            with pytest.raises(mullama.InvalidInputError) as caught:
                await call()
            assert caught.value.field == field
        # What can't be used at all is refused by the call itself.
        for arguments, field in (({"tokens": "ab"}, "tokens"), ({"tokens": 5}, "tokens")):
            with pytest.raises(mullama.InvalidInputError) as caught:
                context.generate_stream(**arguments)  # type: ignore[arg-type]
            assert caught.value.field == field
        with pytest.raises(mullama.InvalidInputError, match="did you mean 'temperature'"):
            context.generate_stream(IDS, temprature=1)  # type: ignore[call-arg]
        options = dict.fromkeys(mullama.ContextOptions.__annotations__)
        await (await Context.create(model, **options)).close()  # type: ignore[arg-type]


async def test_the_options_for_type_checkers_are_the_ones_the_core_knows(loaded: Loaded) -> None:
    async with loaded as model:
        with pytest.raises(mullama.InvalidInputError) as caught:
            await Context.create(model, zzzz=1)  # type: ignore[call-arg]
        names = caught.value.reason.split("the options are ")[1].split(", ")
        assert sorted(names) == sorted(mullama.ContextOptions.__annotations__)

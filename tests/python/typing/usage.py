"""Uses that a strict type checker must accept, and, marked by `type: ignore`,
ones that it must refuse: an ignore without an error is an error itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import mullama
import mullama.sync
from typing_extensions import assert_type


class MyModel(mullama.Model):
    pass


async def calls(path: Path) -> None:
    model = await mullama.Model.load(path, context_size=4096, kv_type_k="q8_0", on_progress=print)
    assert_type(model, mullama.Model)
    assert_type(await MyModel.load("model.gguf"), MyModel)
    assert_type(await model.generate("prompt", 200), str)
    assert_type(await model.generate("prompt", max_tokens=200, temperature=1, seed=None), str)
    result = await model.generate_with("prompt", logprobs=3, logit_bias={1: -1.5}, stop=["a"])
    assert_type(result, mullama.Generation)
    assert_type(result.usage.completion_tokens, int)
    assert_type(result.stop_string, str | None)
    assert_type(await model.tokenize("text", add_bos=True), list[int])
    assert_type(await model.detokenize((1, 2)), str)
    assert_type((await model.info()).n_params, int)
    assert_type(await model.is_ready(), bool)
    assert_type(model.metrics().step_time.bounds, list[float])
    task = asyncio.create_task(model.generate("prompt"))
    assert_type(await asyncio.wait_for(task, 1), str)
    async with model, await mullama.Model.load("model.gguf") as other:
        assert_type(other, mullama.Model)

    await model.generate("prompt", temprature=1)  # type: ignore[call-arg]
    await model.generate("prompt", temperature="hot")  # type: ignore[arg-type]
    await model.generate("prompt", 200, 300)  # type: ignore[call-arg]
    await mullama.Model.load("model.gguf", kv_type_v="i32")  # type: ignore[arg-type]
    await mullama.Model.load(5)  # type: ignore[arg-type]
    result.text = ""  # type: ignore[misc]
    model.generate_stream("prompt").usage.prompt_tokens = 3  # type: ignore[misc]


async def streams(model: mullama.Model) -> None:
    stream = model.generate_stream("prompt", max_tokens=200)
    iterator: AsyncIterator[mullama.TokenData] = stream
    async for token in iterator:
        assert_type(token.text, str)
        assert_type(token.logprob, float | None)
        if token.finish_reason == "stop_string":
            print(token.stop_string)
    async with stream as same:
        assert_type(await anext(same), mullama.TokenData)
    for _ in stream:  # type: ignore[attr-defined]
        pass


def blocking() -> None:
    with mullama.sync.Model.load("model.gguf", threads=2) as model:
        assert_type(model.generate("prompt", 200), str)
        assert_type([token.text for token in model.generate_stream("prompt")], list[str])
        with model.generate_stream("prompt") as stream:
            assert_type(next(stream), mullama.TokenData)


async def contexts(model: mullama.Model, path: Path) -> None:
    async with await mullama.Context.create(model, context_size=512, kv_type_k="q8_0") as context:
        assert_type(context, mullama.Context)
        assert_type(context.generate_stream([1, 2], 5, temperature=0), mullama.TokenStream)
        assert_type(context.n_past(), int)
        batch = mullama.Batch()
        batch.add(1, 0, (0, 1), logits=True)
        batch.add_sequence(2, [1, 2])
        assert_type(len(batch), int)
        assert_type(batch.is_empty(), bool)
        assert_type(await context.process_batch([batch]), list[list[int]])
        await context.save_state(path)
        await context.load_state("state")
        await context.truncate(3)
        await context.clear()

        await mullama.Context.create(model, max_concurrent=3)  # type: ignore[call-arg]
        await mullama.Context.create("model.gguf")  # type: ignore[arg-type]
        await context.process_batch(batch)  # type: ignore[arg-type]
        context.generate_stream("text")  # type: ignore[arg-type]
        batch.add(1, 0, 0)  # type: ignore[arg-type]
        await context.n_past()  # type: ignore[misc]


async def pools() -> None:
    async with await mullama.ModelPool.create("model.gguf", size=4, context_size=4096) as pool:
        assert_type(pool, mullama.ModelPool)
        async with pool.acquire(timeout_ms=100) as model:
            assert_type(model, mullama.PooledModel)
            usable_as_a_model: mullama.Model = model
            assert_type(await usable_as_a_model.generate("prompt", 5), str)
            model.release()
        assert_type(await pool.acquire(), mullama.PooledModel)
        assert_type(await asyncio.wait_for(pool.acquire(), 1), mullama.PooledModel)
        assert_type(await asyncio.create_task(pool.acquire()), mullama.PooledModel)
        assert_type(pool.try_acquire(), mullama.PooledModel | None)
        assert_type(pool.stats().wait_ms_avg, float)
        await pool.resize(8)

        await pool.stats()  # type: ignore[misc]
        with pool.acquire() as _:  # type: ignore[attr-defined]
            pass
        pool.stats().size = 3  # type: ignore[misc]


async def tasks(model: mullama.Model, lease: mullama.PooledModel) -> None:
    async def work() -> int:
        return 3

    async with mullama.TaskManager() as manager:
        assert_type(manager.spawn_generation_worker(), str)
        assert_type(manager.spawn_metrics_collector(interval_ms=100, capacity=5), str)
        task = manager.submit(model, "prompt", 5, top_k=3)
        assert_type(task, mullama.GenerationTask)
        assert_type(await task, mullama.Generation)
        assert_type(task.id, int)
        assert_type(await manager.submit(lease, "prompt"), mullama.Generation)
        task.cancel()
        manager.spawn_worker("name", work)
        manager.spawn_worker("name", asyncio.Event().wait)
        assert_type(manager.metrics_history(), list[mullama.RuntimeMetrics])
        status = manager.worker_status()["name"]
        if status.state == "failed":
            assert_type(status.message, str | None)

        manager.spawn_metrics_collector(100)  # type: ignore[call-arg]
        manager.spawn_worker("name", work())  # type: ignore[arg-type]
        manager.spawn_worker("name", print)  # type: ignore[arg-type]
        task.id = 3  # type: ignore[misc]
        if status.state == "gone":  # type: ignore[comparison-overlap]
            pass


async def the_runtime(model: mullama.Model) -> None:
    mullama.configure_runtime(worker_threads=2, thread_name="mine", shutdown_timeout_ms=None)
    runtime = mullama.runtime()
    assert_type(runtime, mullama.MullamaRuntime)
    assert_type(await runtime.metrics(), mullama.RuntimeMetrics)
    assert_type((await runtime.metrics()).avg_generation_ms, float)
    assert_type(await runtime.metrics_text(), str)
    assert_type(runtime.is_running(), bool)
    assert_type(mullama.backends()[0].n_devices, int)
    assert_type(mullama.backends()[0].variant, str | None)
    device = mullama.devices()[0]
    if device.kind == "integrated_gpu":
        assert_type(device.memory_free, int)
    assert_type((await model.placement())[0].n_layers, int)

    mullama.configure_runtime(threads=2)  # type: ignore[call-arg]
    mullama.configure_runtime(2)  # type: ignore[call-arg]


def blocking_twins(model: mullama.sync.Model) -> None:
    with mullama.sync.Context.create(model) as context:
        assert_type([token.index for token in context.generate_stream([1])], list[int])
        assert_type(context.process_batch([mullama.sync.Batch()]), list[list[int]])
    with mullama.sync.ModelPool.create("model.gguf") as pool, pool.acquire() as lease:
        assert_type(lease, mullama.sync.PooledModel)
        assert_type(lease.generate("prompt"), str)
        lease.release()
    with mullama.sync.TaskManager() as manager:
        assert_type(manager.submit(model, "prompt").result(timeout=0.5), mullama.Generation)
        manager.spawn_worker("name", lambda stop: stop.wait(3))

        manager.spawn_worker("name", lambda: None)  # type: ignore[misc, arg-type]
    assert_type(mullama.sync.runtime().metrics(), mullama.RuntimeMetrics)
    # The models of one API are not those of the other.
    mullama.sync.Context.create(mullama.Model())  # type: ignore[arg-type]


def options() -> mullama.GenerateOptions:
    return {"temperature": 0.5, "stop": ["\n"]}


def errors(error: mullama.MullamaError) -> str:
    if isinstance(error, mullama.TimeoutError):
        assert_type(error.after_ms, int)
        return error.partial
    if isinstance(error, mullama.InvalidInputError):
        return error.field
    builtin: OSError | None = error if isinstance(error, mullama.ModelNotFoundError) else None
    return f"{error.code} {builtin}"

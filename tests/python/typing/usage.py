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

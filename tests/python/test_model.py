"""What `Model` gives back, as Python sees it."""

import asyncio
import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import mullama
import pytest

Model = mullama.Model


async def test_paths_of_both_kinds(model_path: str) -> None:
    for path in (model_path, Path(model_path)):
        async with await Model.load(path) as model:
            assert await model.is_ready()
        assert not await model.is_ready()


async def test_results_are_frozen_dataclasses(model: Model) -> None:
    result = await model.generate_with("Once upon", 4, logprobs=2, temperature=0, ignore_eos=True)
    assert len(result.tokens) == 4
    assert result.usage == mullama.Usage(result.usage.prompt_tokens, 0, 4)
    assert 0 < result.timings.time_to_first_token < 60
    assert result.logprobs is not None
    assert [entry.token_id for entry in result.logprobs] == result.tokens
    for entry in result.logprobs:
        assert [type(top) for top in entry.top] == [mullama.TokenLogprob] * 2
        assert entry.top[0].logprob <= 0
    for value in (result, result.usage, result.timings, result.logprobs[0], await model.info(), model.metrics()):
        assert not hasattr(value, "__dict__")
        field = dataclasses.fields(value)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)


async def test_the_annotations_name_every_field_that_the_native_module_fills(model: Model) -> None:
    info = await model.info()
    assert isinstance(info.name, str)
    assert isinstance(info.architecture, str)
    assert all(isinstance(value, int) for value in dataclasses.astuple(info)[2:])
    metrics = model.metrics()
    assert isinstance(metrics.step_time, mullama.Histogram)
    assert len(metrics.step_time.counts) == len(metrics.step_time.bounds) + 1
    assert metrics.steps == sum(metrics.step_time.counts) > 0
    assert metrics.weights_bytes == info.size_bytes
    assert metrics.load_time > 0
    assert metrics.cache_size_bytes > 0
    metadata = await model.metadata()
    assert metadata["general.architecture"] == info.architecture


async def test_tokens_go_there_and_back(model: Model) -> None:
    text = "Grüße, 世界 🌍"
    assert await model.detokenize(await model.tokenize(text, add_bos=False)) == text
    assert await model.detokenize(iter(await model.tokenize(text, False))) == text


async def test_max_tokens_by_position_and_by_name_are_the_same(model: Model) -> None:
    by_name = await model.generate_with("Once", max_tokens=3, ignore_eos=True)
    by_position = await model.generate_with("Once", 3, ignore_eos=True)
    assert len(by_name.tokens) == len(by_position.tokens) == 3


async def test_one_stop_string_is_not_a_sequence_of_its_letters(model: Model) -> None:
    options: mullama.GenerateOptions = {"logit_bias": {token: 100.0 for token in await model.tokenize(" the", False)}}
    result = await model.generate_with("Once", 4, stop="thth", **options)
    assert (result.text, result.finish_reason) == (" the" * 4, "length")
    result = await model.generate_with("Once", 4, stop=" the the", **options)
    assert (result.text, result.stop_string) == ("", " the the")


async def test_none_is_the_cores_default(model: Model) -> None:
    options = dict.fromkeys(mullama.GenerateOptions.__annotations__)
    assert isinstance(await model.generate("Once", 2, **options), str)  # type: ignore[arg-type]


def test_methods_are_coroutine_functions() -> None:
    for name in ("load", "generate", "generate_with", "tokenize", "detokenize", "info", "is_ready", "close"):
        assert inspect.iscoroutinefunction(getattr(Model, name)), name
    for name in ("generate_stream", "metrics"):
        assert not inspect.iscoroutinefunction(getattr(Model, name)), name


async def test_repr_says_what_it_is(model_path: str) -> None:
    model = await Model.load(model_path)
    info = await model.info()
    assert repr(model).startswith(f"<mullama.Model '{info.name}' ({info.architecture}, ")
    assert repr(model).endswith(" parameters), ready>")
    await model.close()
    assert repr(model).endswith(", closed>")
    assert await model.info() == info


def test_models_are_made_by_load_alone() -> None:
    with pytest.raises(TypeError, match=r"Model\.load"):
        Model()
    with pytest.raises(TypeError, match=r"Model\.load"):
        mullama.sync.Model()


async def test_many_concurrent_calls_all_complete(model: Model) -> None:
    results = await asyncio.gather(*(model.generate_with("Once", n % 5 + 1, ignore_eos=True) for n in range(40)))
    assert [len(result.tokens) for result in results] == [n % 5 + 1 for n in range(40)]


async def test_the_options_for_type_checkers_are_the_ones_the_core_knows(model: Model, model_path: str) -> None:
    # The message for a name that resembles none lists them all.
    with pytest.raises(mullama.InvalidInputError) as caught:
        await model.generate("Once", zzzz=1)  # type: ignore[call-arg]
    names = caught.value.reason.split("the options are ")[1].split(", ")
    assert sorted(names) == sorted([*mullama.GenerateOptions.__annotations__, "max_tokens"])
    with pytest.raises(mullama.InvalidInputError) as caught:
        await Model.load(model_path, zzzz=1)  # type: ignore[call-arg]
    names = caught.value.reason.split("the options are ")[1].split(", ")
    assert sorted([*names, "on_progress"]) == sorted(mullama.LoadOptions.__annotations__)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_kv_cache_is_in_memory_once(model_path: str) -> None:
    """It is cleared while the model is loaded, and that memory is the one that is used."""
    code = (
        "import sys, mullama.sync; model = mullama.sync.Model.load(sys.argv[1], context_size=8192, max_concurrent=1);"
        "metrics = model.metrics(); print(metrics.weights_bytes >> 10, metrics.cache_size_bytes >> 10,"
        "*(line.split()[1] for line in open('/proc/self/status') if line.startswith(('VmHWM', 'VmRSS'))))"
    )
    command = [sys.executable, "-c", code, model_path]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    weights, cache, most, now = map(int, output.split())
    assert most - now < cache / 2, output
    assert now < weights + 1.7 * cache, output


async def test_two_models_at_once(model_path: str) -> None:
    async with await Model.load(model_path) as first, await Model.load(model_path) as second:
        texts = await asyncio.gather(*(model.generate("Once", 8, temperature=0) for model in (first, second)))
        assert texts[0] == texts[1]


async def test_a_prompt_that_begins_like_an_earlier_one_is_not_computed_from_its_start(model_path: str) -> None:
    rules = "Answer in one short sentence, in English, and use no more than ten words in it. "
    async with await Model.load(
        model_path, context_size=256, max_concurrent=1, prefix_cache_bytes=50_000_000
    ) as keeping:
        first = await keeping.generate_with(rules + "What is rain?", 3)
        assert first.usage.cached_tokens == 0
        second = await keeping.generate_with(rules + "What is snow?", 3)
        assert 16 <= second.usage.cached_tokens < second.usage.prompt_tokens
        metrics = keeping.metrics()
        assert metrics.cached_tokens == second.usage.cached_tokens
        assert 0 < metrics.prefix_cache_bytes <= 50_000_000
        assert metrics.preemptions == 0

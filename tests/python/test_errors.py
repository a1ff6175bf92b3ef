"""Errors: one class a kind, with the builtin it is a case of."""

import builtins
import copy
import decimal
import math
import pickle
from pathlib import Path
from typing import Any

import mullama
import mullama.errors
import pytest
from mullama import _mullama

Model = mullama.Model

BUILTINS = {
    "model_not_found": builtins.FileNotFoundError,
    "invalid_model": builtins.ValueError,
    "prompt_too_long": builtins.ValueError,
    "invalid_input": builtins.ValueError,
    "timeout": builtins.TimeoutError,
    "io": builtins.OSError,
    "out_of_memory": builtins.MemoryError,
}

FIELDS = {
    "model_not_found": {"path": "example"},
    "invalid_model": {"path": "example", "reason": "example"},
    "model_load": {"path": "example", "reason": "example"},
    "prompt_too_long": {"tokens": 9, "limit": 7},
    "invalid_input": {"field": "example", "value": "example", "reason": "example"},
    "timeout": {"partial": "example", "after_ms": 5},
    "queue_full": {"limit": 3},
    "io": {"kind": "permission denied"},
}


def test_every_error_of_the_core_has_a_class_of_its_own() -> None:
    examples = _mullama.error_examples()
    classes = [type(error) for _, error in examples]
    assert len(set(classes)) == len(classes) == 18
    for code, error in examples:
        assert type(error) is not mullama.MullamaError, f"{code} is not mapped"
        assert isinstance(error, mullama.MullamaError)
        assert error.code == type(error).code == code
        assert type(error).__name__ == "".join(part.title() for part in code.split("_")) + "Error"
        assert getattr(mullama, type(error).__name__) is type(error)
        assert str(error) == error.args[0] != ""


def test_errors_carry_their_fields_and_are_the_builtin_they_are_a_case_of() -> None:
    for code, error in _mullama.error_examples():
        assert vars(error) == FIELDS.get(code, {})
        bases = {base for base in type(error).__mro__ if base.__module__ == "builtins"}
        expected = BUILTINS.get(code, Exception)
        assert bases == set(expected.__mro__), code


def test_errors_survive_pickling_and_copying() -> None:
    for _, error in _mullama.error_examples():
        for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(twin) is type(error)
            assert (str(twin), vars(twin)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"max_tokens": -1}, "max_tokens", "-1"),
        ({"max_tokens": 1.0}, "max_tokens", "1.0"),
        ({"max_tokens": 2**64}, "max_tokens", str(2**64)),
        ({"max_tokens": True}, "max_tokens", "True"),
        ({"max_tokens": "8"}, "max_tokens", "8"),
        ({"top_k": math.nan}, "top_k", "nan"),
        ({"seed": -1}, "seed", "-1"),
        ({"seed": 2**64}, "seed", str(2**64)),
        ({"temperature": "hot"}, "temperature", "hot"),
        ({"temperature": True}, "temperature", "True"),
        ({"temperature": 1e300}, "temperature", "1e+300"),
        ({"temperature": 1j}, "temperature", "1j"),
        ({"temperature": -0.5}, "temperature", "-0.5"),
        ({"stop": 3}, "stop", "3"),
        ({"stop": [1]}, "stop", "1"),
        ({"stop": ["\ud800"]}, "stop", "a str with lone surrogates"),
        ({"logit_bias": 5}, "logit_bias", "5"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "a"),
        ({"logit_bias": {2**31: 1}}, "logit_bias", str(2**31)),
        ({"logit_bias": [(1, 2, 3)]}, "logit_bias", "[(1, 2, 3)]"),
        ({"ignore_eos": 1}, "ignore_eos", "1"),
        ({"logprobs": [1] * 500}, "logprobs", str([1] * 500)[:100] + "…"),
    ],
)
async def test_an_option_that_fits_no_rust_type_is_named(
    model: Model, options: dict[str, Any], field: str, value: str
) -> None:
    with pytest.raises(mullama.InvalidInputError) as caught:
        await model.generate("Once", **options)
    assert (caught.value.field, caught.value.value) == (field, value)
    assert caught.value.reason in str(caught.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"context_size": -1}, "context_size"),
        ({"context_size": 2**70}, "context_size"),
        ({"threads": 1.5}, "threads"),
        ({"gpu_layers": 2**31}, "gpu_layers"),
        ({"kv_type_k": "i32"}, "kv_type_k"),
        ({"kv_type_v": 16}, "kv_type_v"),
        ({"prefix_cache_bytes": -1}, "prefix_cache_bytes"),
        ({"use_mmap": 0}, "use_mmap"),
        ({"deterministic": 0}, "deterministic"),
        ({"flash_attention": "yes"}, "flash_attention"),
        ({"max_concurrent": 0}, "max_concurrent"),
    ],
)
async def test_a_wrong_load_option_is_named(model_path: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(mullama.InvalidInputError) as caught:
        await Model.load(model_path, **options)
    assert caught.value.field == field


async def test_an_unknown_option_names_itself_and_the_nearest_known_one(model: Model, model_path: str) -> None:
    with pytest.raises(mullama.InvalidInputError, match="did you mean 'temperature'") as caught:
        await model.generate("Once", temprature=0.5)  # type: ignore[call-arg]
    assert caught.value.field == "temprature"
    with pytest.raises(mullama.InvalidInputError, match="did you mean 'gpu_layers'"):
        await Model.load(model_path, n_gpu_layers=1)  # type: ignore[call-arg]
    # `None` is 'not given' only for options that there are.
    with pytest.raises(mullama.InvalidInputError, match="did you mean 'temperature'") as caught:
        await model.generate("Once", tempreature=None)  # type: ignore[call-arg]
    assert (caught.value.field, caught.value.value) == ("tempreature", "None")
    with pytest.raises(mullama.InvalidInputError, match="did you mean 'gpu_layers'"):
        await Model.load(model_path, n_gpu_layers=None)  # type: ignore[call-arg]
    with pytest.raises(mullama.InvalidInputError, match="the options are max_tokens, "):
        model.generate_stream("Once", zzz=None, qqq=1)  # type: ignore[call-arg]


async def test_numbers_of_other_types_are_taken_by_their_protocols(model: Model) -> None:
    class Whole:
        def __index__(self) -> int:
            return 3

    result = await model.generate_with(
        "Once",
        Whole(),  # type: ignore[arg-type]
        temperature=decimal.Decimal(0),  # type: ignore[arg-type]
        logit_bias=[(260, 100.0)],  # type: ignore[arg-type]
        stop=(),
    )
    assert result.tokens == [260] * 3


@pytest.mark.parametrize("text", [None, 5, b"bytes", "\udc80"])
async def test_a_prompt_that_is_no_text(model: Model, text: Any) -> None:
    with pytest.raises(mullama.InvalidInputError) as caught:
        await model.generate(text)
    assert caught.value.field == "prompt"
    with pytest.raises(mullama.InvalidInputError) as caught:
        await model.tokenize(text)
    assert caught.value.field == "text"


@pytest.mark.parametrize("tokens", [5, "ab", [1.5], [2**40], [-1], [True]])
async def test_tokens_that_are_none(model: Model, tokens: Any) -> None:
    with pytest.raises(mullama.InvalidInputError):
        await model.detokenize(tokens)


async def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        await Model.load(tmp_path / "missing.gguf")
    assert isinstance(missing.value, mullama.ModelNotFoundError)
    assert missing.value.path == str(tmp_path / "missing.gguf")
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "text.gguf").write_text("not a model " * 100)
    for path in (tmp_path, tmp_path / "empty.gguf", tmp_path / "text.gguf"):
        with pytest.raises(mullama.InvalidModelError) as invalid:
            await Model.load(path)
        assert invalid.value.path == str(path)
    for path in (None, 5, b"model.gguf"):
        with pytest.raises(mullama.MullamaError) as wrong:
            await Model.load(path)  # type: ignore[arg-type]
        assert isinstance(wrong.value, (mullama.InvalidInputError, mullama.ModelNotFoundError))

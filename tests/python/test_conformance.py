"""Runs the conformance cases (tests/conformance/README.md) through
`mullama.Model`, and checks all case files against their schema."""

import asyncio
import dataclasses
import itertools
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import mullama
import pytest
from conftest import find_model

CONFORMANCE = Path(__file__).parents[1] / "conformance"
SCHEMA = jsonschema.Draft202012Validator(json.loads((CONFORMANCE / "schema.json").read_text("utf-8")))
CASES = sorted((CONFORMANCE / "cases").glob("*.json"))
INVALID = sorted((CONFORMANCE / "invalid").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_case_file_follows_the_schema(path: Path) -> None:
    SCHEMA.validate(json.loads(path.read_text("utf-8")))


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_the_schema_refuses_a_file_with_one_mistake(path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError):
        SCHEMA.validate(json.loads(path.read_text("utf-8")))


def test_case_names_are_distinct() -> None:
    names = [case["name"] for _, case in all_cases()]
    assert len(names) == len(set(names)) >= 40


def all_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every case, with the file's model and load options unless it has its own."""
    for path in CASES:
        file = json.loads(path.read_text("utf-8"))
        for case in file["cases"]:
            yield path.stem, {"load": file.get("load", {}), "model": file["model"], **case}


def applies(part: dict[str, Any]) -> bool:
    return "python" in part.get("languages", ["python"])


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{file}: {case['name']}") for file, case in all_cases() if applies(case)]
)
async def test_a_case_holds(case: dict[str, Any], world: "World") -> None:
    async with world.model(case) as model:
        saved: dict[str, Any] = {}
        for number, step in enumerate(case["steps"], 1):
            if applies(step):
                outcome = await world.outcome(model, step["call"], resolve(step.get("with", {}), saved))
                check_step(number, step, outcome, saved)


def check_step(number: int, step: dict[str, Any], outcome: dict[str, Any], saved: dict[str, Any]) -> None:
    kind = "error" if "error" in step else "result"
    assert kind in outcome, f"step {number}: expected {kind}, got {outcome}"
    expected = resolve(step.get("error" if kind == "error" else "expect", {"$and": []}), saved)
    fault = mismatch(expected, outcome[kind])
    assert fault is None, f"step {number}: {kind}{fault}\nin {outcome[kind]}"
    if "save" in step:
        saved[step["save"]] = outcome[kind]


# Calls


class World:
    """The models and files that the cases use, made when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models: dict[str, mullama.Model] = {}

    def file(self, name: str) -> str:
        """The path of a file of that kind."""
        path = self.folder / f"{name}.gguf"
        if name == "demo":
            return str(find_model())
        if name == "directory":
            path.mkdir(exist_ok=True)
        elif name != "missing" and not path.exists():
            kind = {"tiny": "llama"}.get(name, name.removeprefix("tiny-"))
            subprocess.run([tiny_model_program(), kind, path], check=True)
        return str(path)

    def model(self, case: dict[str, Any]) -> "Use":
        return Use(self, case["model"], case["load"], case.get("own_model", False))

    async def outcome(self, model: mullama.Model, name: str, arguments: Any) -> dict[str, Any]:
        try:
            return {"result": await self.call(model, name, arguments)}
        except mullama.MullamaError as error:
            return {"error": plain(error)}

    async def call(self, model: mullama.Model, name: str, arguments: Any) -> Any:
        match name:
            case "generate":
                return plain(await model.generate_with(arguments["prompt"], **options(arguments)))
            case "generate_text":
                return await model.generate(arguments["prompt"], arguments["max_tokens"])
            case "stream":
                return await read_stream(model, arguments)
            case "tokenize" | "detokenize":
                return await getattr(model, name)(**arguments)
            case "load":
                async with await mullama.Model.load(self.file(arguments["file"]), **options(arguments)) as loaded:
                    return plain(await loaded.info())
            case "info" | "metadata" | "is_ready" | "close":
                return plain(await getattr(model, name)())
            case "metrics":
                return plain(model.metrics())
            case "together":
                calls = (self.outcome(model, call["call"], call.get("with", {})) for call in arguments["calls"])
                return await asyncio.gather(*calls)
            case "value":
                return arguments["of"]
        raise ValueError(f"unknown call {name}")


@dataclasses.dataclass
class Use:
    """A case's use of its model: a shared one, or one of its own that is closed."""

    world: World
    name: str
    load: dict[str, Any]
    own: bool

    async def __aenter__(self) -> mullama.Model:
        key = json.dumps([self.name, self.load], sort_keys=True)
        model = None if self.own else self.world.models.get(key)
        if model is None:
            model = await mullama.Model.load(self.world.file(self.name), **self.load)
            if not self.own:
                self.world.models[key] = model
        self.used = model
        return model

    async def __aexit__(self, *_: object) -> None:
        if self.own:
            await self.used.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("conformance"))
    yield world

    async def close() -> None:
        await asyncio.gather(*(model.close() for model in world.models.values()))

    asyncio.run(close())


def tiny_model_program() -> Path:
    """`tiny-model` of tests/support, which `cargo build --workspace` makes."""
    cache = Path(os.environ.get("MULLAMA_CACHE") or find_model().parents[1])
    program = Path(os.environ.get("CARGO_TARGET_DIR") or cache / "target") / "release" / "tiny-model"
    assert program.is_file(), f"there is no program {program}; run `make tiny-model`"
    return program


def options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments; `logit_bias` as Python has it."""
    given: dict[str, Any] = dict(arguments.get("options", {}))
    if isinstance(given.get("logit_bias"), list):
        given["logit_bias"] = {token: bias for token, bias in given["logit_bias"]}
    return given


async def read_stream(model: mullama.Model, arguments: dict[str, Any]) -> dict[str, Any]:
    stream = model.generate_stream(arguments["prompt"], **options(arguments))
    items: list[mullama.TokenData] = []
    try:
        async for item in cancelling(stream, arguments.get("cancel_after")):
            items.append(item)
    except mullama.MullamaError as error:
        error.__dict__["streamed"] = "".join(item.text for item in items)
        raise
    return {
        "items": plain(items),
        "text": "".join(item.text for item in items),
        "tokens": [item.token_id for item in items],
        **{name: plain(getattr(stream, name)) for name in ("usage", "finish_reason", "stop_string", "seed")},
    }


async def cancelling(stream: mullama.TokenStream, after: int | None) -> AsyncIterator[mullama.TokenData]:
    """The stream's items; cancels it when so many were given."""
    given = 0
    async for item in stream:
        given += 1
        if given == after:
            stream.cancel()
        yield item


def plain(value: Any) -> Any:
    """Results and errors as plain dicts and lists."""
    if isinstance(value, mullama.MullamaError):
        return {"code": value.code, "message": str(value), **vars(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [plain(item) for item in value] if isinstance(value, list) else value


# Values and expectations: README.md, 'Values' and 'Expectations'


def operator(value: Any) -> tuple[str, Any] | None:
    if isinstance(value, dict) and len(value) == 1:
        [(name, argument)] = value.items()
        return (name, argument) if name.startswith("$") else None
    return None


def resolve(value: Any, saved: dict[str, Any]) -> Any:
    """The value with all that computes a value replaced by what it computes."""
    if isinstance(value, list):
        return [resolve(item, saved) for item in value]
    if not isinstance(value, dict):
        return value
    resolved = {key: resolve(item, saved) for key, item in value.items()}
    match operator(resolved):
        case ("$get", path):
            return part(saved, re.findall(r"[^.\[\]]+", path))
        case ("$slice", [of, *bounds]):
            return of[slice(*bounds) if len(bounds) == 2 else slice(bounds[0], None)]
        case ("$concat", [first, *others]):
            for other in others:
                first = first + other
            return first
        case ("$repeat", [of, times]):
            return of * times
        case ("$length", of):
            return len(of)
        case ("$sum", numbers):
            return sum(numbers)
        case ("$number", text):
            return float(text) if text in ("nan", "inf", "-inf") else int(text)
        case ("$script", tokens):
            return [[token, 1_000_000 - 10_000 * place] for place, token in enumerate(tokens)]
    return resolved


def part(value: Any, path: list[str]) -> Any:
    for at, key in enumerate(path):
        if key == "*":
            return [part(item, path[at + 1 :]) for item in value]
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


TYPES: dict[str, type | tuple[type, ...]] = {
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "list": list,
    "object": dict,
}


def mismatch(expected: Any, actual: Any) -> str | None:
    """Where and how `actual` is not as expected; None if it is."""
    found = operator(expected)
    if found is not None:
        return operator_mismatch(*found, actual)
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return f": expected an object, got {actual!r}"
        return first((f".{key}", item, actual.get(key)) for key, item in expected.items())
    if isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            return f": expected a list of {len(expected)}, got {actual!r}"
        return first((f"[{at}]", item, actual[at]) for at, item in enumerate(expected))
    same = expected == actual and isinstance(expected, bool) == isinstance(actual, bool)
    return None if same else f": expected {expected!r}, got {actual!r}"


def operator_mismatch(name: str, expected: Any, actual: Any) -> str | None:
    match name:
        case "$len":
            fault = mismatch(expected, len(actual))
            return None if fault is None else f" (length){fault}"
        case "$all":
            return first((f"[{at}]", expected, item) for at, item in enumerate(actual))
        case "$and":
            return first(("", item, actual) for item in expected)
        case "$gt":
            holds = actual > expected
        case "$gte":
            holds = actual >= expected
        case "$lt":
            holds = actual < expected
        case "$lte":
            holds = actual <= expected
        case "$starts_with":
            holds = actual.startswith(expected)
        case "$ends_with":
            holds = actual.endswith(expected)
        case "$contains" if isinstance(actual, str):
            holds = expected in actual
        case "$contains":
            holds = any(mismatch(expected, item) is None for item in actual)
        case "$not":
            holds = mismatch(expected, actual) is not None
        case "$or":
            holds = any(mismatch(item, actual) is None for item in expected)
        case "$is":
            holds = isinstance(actual, TYPES[expected]) and (expected == "boolean" or not isinstance(actual, bool))
        case "$falling":
            keys = [item[expected] for item in actual]
            holds = all(a >= b for a, b in itertools.pairwise(keys))
        case _:
            raise ValueError(f"unknown operator {name}")
    return None if holds else f": expected {name} {expected!r}, got {actual!r}"


def first(pairs: Iterator[tuple[str, Any, Any]]) -> str | None:
    """The first mismatch, with where it is."""
    for where, expected, actual in pairs:
        fault = mismatch(expected, actual)
        if fault is not None:
            return where + fault
    return None

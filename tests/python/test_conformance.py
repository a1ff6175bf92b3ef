"""Runs the conformance cases (tests/conformance/README.md) through `mullama`
and `mullama.sync`, and checks all case files against their schema."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from calls import APIS, Scene, World
from expectations import mismatch, resolve

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


CASES_THAT_APPLY = [pytest.param(case, id=f"{file}: {case['name']}") for file, case in all_cases() if applies(case)]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("case", CASES_THAT_APPLY)
async def test_a_case_holds(case: dict[str, Any], api: str, world: World) -> None:
    if not APIS[api].can(case):
        return
    async with world.scene(APIS[api], case) as scene:
        saved: dict[str, Any] = {}
        for number, step in enumerate(case["steps"], 1):
            if applies(step):
                await run_step(scene, number, step, saved)


async def run_step(scene: Scene, number: int, step: dict[str, Any], saved: dict[str, Any]) -> None:
    outcome = await scene.outcome(step["call"], resolve(step.get("with", {}), saved))
    kind = "error" if "error" in step else "result"
    assert kind in outcome, f"step {number}: expected {kind}, got {outcome}"
    expected = resolve(step.get("error" if kind == "error" else "expect", {"$and": []}), saved)
    fault = mismatch(expected, outcome[kind])
    assert fault is None, f"step {number}: {kind}{fault}\nin {outcome[kind]}"
    if "save" in step:
        saved[step["save"]] = outcome[kind]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("conformance"))
    yield world
    asyncio.run(world.close())

"""Values and expectations of conformance cases: what computes a value, and
whether a result is as expected (tests/conformance/README.md)."""

import itertools
import re
from collections.abc import Iterator
from typing import Any


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

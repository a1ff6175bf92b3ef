"""llama.cpp's own tools: the limit of the build, with no sampling and no text.

`llama-bench` gives each run a thread pool, as mullama's engine has one;
`llama-batched-bench` has none, so that each of its steps starts and joins its
threads. Both evaluate random tokens.
"""

import json
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from bench.systems.host import TOKENS, tokens_each
from bench.tools import tool

Line = dict[str, Any]
Run = Callable[[list[str]], str]
"""Runs a command and gives what it printed."""


def objects(printed: str) -> list[Line]:
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def single(run: Run, model: str, threads: int, prompt_tokens: int, count: int, workload: str) -> Iterator[Line]:
    """A prompt and 64 tokens: generated tokens a second over the whole time."""
    if count != 1:
        raise ValueError(f"llama-bench runs one request, not {count}")
    command = (
        tool("llama-bench"), "-m", model, "-t", threads, "-p", 0, "-n", 0, "-pg", f"{prompt_tokens},{TOKENS}",
        "-r", 1 if workload == "busy_single" else 3, "-o", "jsonl",
    )  # fmt: skip
    for row in objects(run([str(part) for part in command])):
        seconds = statistics.median(row["samples_ns"]) / 1e9
        yield {"workload": workload, "tokens_per_second": TOKENS / seconds}


def at_once(run: Run, model: str, threads: int, prompt_tokens: int, count: int, workload: str) -> Iterator[Line]:
    tokens = tokens_each(workload.partition("-")[0], count)
    command = (
        tool("llama-batched-bench"), "-m", model, "-c", count * (prompt_tokens + tokens), "-b", 2048, "-ub", 512,
        "-t", threads, "-tb", threads, "-kvu", "-npp", prompt_tokens, "-ntg", tokens, "-npl", count,
        "--output-format", "jsonl",
    )  # fmt: skip
    for row in objects(run([str(part) for part in command])):
        yield {"workload": workload, "tokens_per_second": count * tokens / (row["t_pp"] + row["t_tg"])}

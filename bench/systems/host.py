"""The workloads of a Python host, for every system that one can call.

A system's module gives a `Host`; `main` runs the workloads that the job names
and prints one JSON object for each. A job is a JSON file (`rounds.py` writes
it). All times come from `time.perf_counter`, in seconds; what is printed in
milliseconds says so.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from bench.stats import percentile

TICK = 0.010
TOKENS = 64
# Many at once: enough steps to measure, short enough for five rounds.
FEWER_TOKENS = 32


@dataclass(frozen=True)
class Request:
    """One greedy request of exactly `tokens` tokens."""

    prompt: str
    tokens: int
    share: bool = False
    """It may use what another with the same beginning computed."""
    cancelled_later: bool = False
    """For systems with a slower way in that can be cancelled at any time."""


class Answer:
    """A request under way: when each of its chunks arrived."""

    def __init__(self) -> None:
        self.submitted = time.perf_counter()
        self.times: list[float] = []
        self.ended = 0.0
        self.cancelled = False

    def arrived(self) -> None:
        self.times.append(time.perf_counter())

    @property
    def first(self) -> float:
        return self.times[0] - self.submitted


class Host(Protocol):
    """A system as its users call it."""

    async def run(self, request: Request, answer: Answer) -> None:
        """Streams it into the answer. Cancelling the task cancels it."""
        ...

    async def close(self) -> None: ...


async def ask(host: Host, request: Request) -> Answer:
    answer = Answer()
    await host.run(request, answer)
    answer.ended = time.perf_counter()
    return answer


async def together(host: Host, requests: list[Request]) -> tuple[float, list[Answer]]:
    start = time.perf_counter()
    answers = await asyncio.gather(*(ask(host, request) for request in requests))
    return time.perf_counter() - start, answers


def tokens_each(name: str, count: int) -> int:
    return TOKENS if name == "at_once" and count <= 16 else FEWER_TOKENS


async def watch_lag(lags: list[float]) -> None:
    """Notes by how many milliseconds each tick of a timer comes late."""
    while True:
        due = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        lags.append((time.perf_counter() - due) * 1e3)


async def single(host: Host, texts: dict[str, Any], times: int) -> dict[str, float]:
    """Requests of 64 tokens, one after the other; the middle one's speed."""
    speeds = []
    for prompt in texts["short"][:times]:
        elapsed, _ = await together(host, [Request(prompt, TOKENS)])
        speeds.append(TOKENS / elapsed)
    return {"tokens_per_second": percentile(speeds, 0.5)}


async def at_once(host: Host, texts: dict[str, Any], count: int, tokens: int) -> dict[str, float]:
    """Generated tokens a second over the whole time, and the event loop's lag
    meanwhile."""
    lags: list[float] = []
    watcher = asyncio.create_task(watch_lag(lags))
    # From another place of the list for each count.
    elapsed, answers = await together(host, [Request(prompt, tokens) for prompt in texts["short"][count : 2 * count]])
    watcher.cancel()
    return {
        "tokens_per_second": count * tokens / elapsed,
        "slowest_first_ms": max(answer.first for answer in answers) * 1e3,
        "lag_p99_ms": percentile(lags, 0.99),
        "lag_max_ms": max(lags),
    }


async def shared(host: Host, texts: dict[str, Any]) -> dict[str, float]:
    """16 requests with the same beginning, and then 16 more."""
    result = {}
    for name, start in (("cold", 0), ("warm", 16)):
        questions = texts["questions"][start : start + 16]
        requests = [Request(texts["prefix"] + question, FEWER_TOKENS, share=True) for question in questions]
        elapsed, answers = await together(host, requests)
        result[f"{name}_seconds"] = elapsed
        result[f"{name}_slowest_first_ms"] = max(answer.first for answer in answers) * 1e3
    return result


async def gap(host: Host, texts: dict[str, Any]) -> dict[str, float]:
    """A tiny prompt behind a long prefill; a running stream under another one,
    between two alone."""
    behind, before, beside, after = texts["long"]
    prefill = asyncio.create_task(ask(host, Request(behind, 4)))
    await asyncio.sleep(0.3)
    tiny = await ask(host, Request(texts["tiny"], 4))
    await prefill

    alone = [(await ask(host, Request(before, 4))).first]
    running = Answer()
    stream = asyncio.create_task(host.run(Request(texts["short"][0], 1000, cancelled_later=True), running))
    while len(running.times) < 16:
        await asyncio.sleep(0.005)
    neighbour = await ask(host, Request(beside, 4))
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)
    alone.append((await ask(host, Request(after, 4))).first)

    times = [at for at in running.times if neighbour.submitted - 0.1 <= at <= neighbour.ended] + [neighbour.times[0]]
    mean = sum(alone) / len(alone)
    return {
        "longest_gap_ms": max(later - earlier for earlier, later in pairwise(times)) * 1e3,
        "prefill_beside_ms": neighbour.first * 1e3,
        "prefill_alone_ms": mean * 1e3,
        "prefill_ratio": neighbour.first / mean,
        "tiny_first_ms": tiny.first * 1e3,
    }


async def until_idle() -> float:
    """Milliseconds until this process stops computing: until the start of the
    first 50 ms in which it uses less than a fifth of a core."""
    start = time.perf_counter()
    samples = [(start, time.process_time())]
    while True:
        await asyncio.sleep(0.002)
        now = time.perf_counter(), time.process_time()
        samples.append(now)
        earlier = [sample for sample in samples if now[0] - sample[0] >= 0.05]
        if earlier and now[1] - earlier[-1][1] < 0.2 * (now[0] - earlier[-1][0]):
            return (earlier[-1][0] - start) * 1e3
        if now[0] - start > 60:
            raise TimeoutError("still computing a minute after the cancellation")


async def cancel(host: Host, texts: dict[str, Any], times: int) -> dict[str, Any]:
    """Cancelled in the prefill of a 4,000-token prompt; time until idle."""
    idle = []
    for n in range(times):
        prompt = texts["longer"][n % len(texts["longer"])]
        task = asyncio.create_task(ask(host, Request(prompt, 8, cancelled_later=True)))
        await asyncio.sleep(0.2 + 0.037 * n)
        task.cancel()
        idle.append(await until_idle())
        await asyncio.gather(task, return_exceptions=True)
    return {"idle_ms": idle}


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


Load = Callable[[dict[str, Any]], Awaitable[Host]]


async def run(load: Load, job: dict[str, Any], texts: dict[str, Any]) -> None:
    # It builds on this module.
    from bench.systems import replay

    start = time.perf_counter()
    host = await load(job)
    loaded = time.perf_counter() - start
    if job["workloads"] == ["load"]:
        say("load", {"seconds": loaded, "resident_mib": resident_mib()})
    else:
        await ask(host, Request("warm up", 8))
    for workload in job["workloads"]:
        name, _, count = workload.partition("-")
        if name in ("single", "plain", "busy_single"):
            # Beside a busy core some systems are too slow for three.
            say(workload, await single(host, texts, 1 if name == "busy_single" else 3))
        elif name in ("at_once", "busy"):
            say(workload, await at_once(host, texts, int(count), tokens_each(name, int(count))))
        elif name == "shared":
            say(workload, await shared(host, texts))
        elif name == "gap":
            say(workload, await gap(host, texts))
        elif name == "cancel":
            say(workload, await cancel(host, texts, int(count)))
        elif name == "capacity":
            say(workload, await replay.capacity(host, texts))
        elif name == "trace":
            say(workload, await replay.replay(host, texts, job["rate"] * int(count) / 100))
        elif name != "load":
            raise SystemExit(f"there is no workload '{workload}'")
    await host.close()


def say(workload: str, result: dict[str, Any]) -> None:
    print(json.dumps({"workload": workload, **result}), flush=True)


def main(load: Load) -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    asyncio.run(run(load, job, json.loads(Path(job["texts"]).read_text())))

"""Replays the mixed trace, and measures how fast it could be served."""

import asyncio
import time
from itertools import pairwise
from typing import Any

from bench.stats import percentile
from bench.systems.host import Answer, Host, Request

# Of the trace's requests, all at once.
CAPACITY_REQUESTS = 48
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


async def capacity(host: Host, texts: dict[str, Any]) -> dict[str, float]:
    """Requests a second when all are there from the beginning."""
    requests = [request for request in texts["trace"] if request["cancel_after"] is None][:CAPACITY_REQUESTS]
    start = time.perf_counter()
    await asyncio.gather(*(serve(host, Answer(), request, 0.0) for request in requests))
    return {"requests_per_second": len(requests) / (time.perf_counter() - start)}


async def serve(host: Host, answer: Answer, request: dict[str, Any], delay: float) -> None:
    await asyncio.sleep(delay)
    answer.submitted = time.perf_counter()
    leaves = request["cancel_after"] is not None
    task = asyncio.create_task(
        host.run(Request(request["prompt"], request["max_tokens"], share=True, cancelled_later=leaves), answer)
    )
    await asyncio.wait([task], timeout=request["cancel_after"])
    if not task.done():
        answer.cancelled = True
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if not answer.cancelled:
        # A failure of the system is one of the run.
        task.result()
    answer.ended = time.perf_counter()


async def replay(host: Host, texts: dict[str, Any], rate: float) -> dict[str, Any]:
    """The whole trace at that many requests a second. Latencies are those of
    requests that weren't cancelled; a per-token latency is the gap between two
    chunks of one request."""
    answers = [Answer() for _ in texts["trace"]]
    start = time.perf_counter()
    pairs = zip(answers, texts["trace"], strict=True)
    await asyncio.gather(*(serve(host, answer, request, request["at"] / rate) for answer, request in pairs))
    elapsed = max(answer.ended for answer in answers) - start
    served = [answer for answer in answers if not answer.cancelled]
    firsts = [answer.first * 1e3 for answer in served]
    gaps = [(b - a) * 1e3 for answer in served for a, b in pairwise(answer.times)]
    ends = [(answer.ended - answer.submitted) * 1e3 for answer in served]
    result: dict[str, Any] = {
        "rate": rate,
        "tokens_per_second": sum(len(answer.times) for answer in served) / elapsed,
        "requests": len(served),
        "cancelled": len(answers) - len(served),
    }
    for name, values in (("first", firsts), ("gap", gaps), ("whole", ends)):
        result |= {f"{name}_{share}_ms": percentile(values, at) for share, at in SHARES.items()}
    result["firsts_ms"] = [round(first, 1) for first in sorted(firsts)]
    return result

"""Measures the Python package: K requests of 64 tokens at once from one
asyncio loop, and the loop's lag meanwhile.

    python bench/requests.py MODEL.gguf [K ...]

Prints one JSON object for each K: generated tokens a second over the whole
time, prefill included, and the lag of a 10 ms timer in milliseconds.
"""

import asyncio
import json
import sys
import time

import mullama

TOKENS = 64
TICK = 0.010
TOPICS = ["rust", "python", "the sea", "a cat", "mountains", "a castle", "coffee", "music"]
TOPICS += ["trains", "winter", "robots", "gardens", "stars", "a river", "bread", "chess"]


async def watch_lag(lags: list[float]) -> None:
    """Notes by how many milliseconds each tick of a timer comes late."""
    while True:
        due = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        lags.append((time.perf_counter() - due) * 1e3)


async def measure(model: mullama.Model, k: int) -> dict[str, object]:
    prompts = [f"Write a long and detailed story about {topic}. Once upon a time" for topic in TOPICS[:k]]
    lags: list[float] = []
    watcher = asyncio.create_task(watch_lag(lags))
    start = time.perf_counter()
    answers = await asyncio.gather(
        *(model.generate_with(p, max_tokens=TOKENS, temperature=0.0, ignore_eos=True) for p in prompts)
    )
    elapsed = time.perf_counter() - start
    watcher.cancel()
    lags.sort()
    return {
        "system": "mullama (Python)",
        "at_once": k,
        "tokens_per_second": round(sum(a.usage.completion_tokens for a in answers) / elapsed, 1),
        "prompt_tokens": sum(a.usage.prompt_tokens for a in answers) / k,
        "lag_p99_ms": round(lags[int(0.99 * (len(lags) - 1))], 2),
        "lag_max_ms": round(lags[-1], 2),
    }


async def main() -> None:
    path, *counts = sys.argv[1:]
    async with await mullama.Model.load(path, max_concurrent=16, timeout_ms=0) as model:
        await model.generate("warm up", 8)
        for k in [int(count) for count in counts] or [1, 4, 16]:
            print(json.dumps(await measure(model, k)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

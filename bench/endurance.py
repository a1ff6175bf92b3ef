"""1,000 short requests from one asyncio loop, 30 % of them cancelled at random
moments; the memory of the process after each hundred.

    python bench/endurance.py MODEL.gguf

Every request that is not cancelled must be complete; the prompts' greedy
tokens that win by a clear margin must come out every time.
"""

import asyncio
import json
import random
import sys
from pathlib import Path

import mullama
from mullama import GenerateOptions

REQUESTS, CANCELLED, TOKENS, AT_ONCE = 1000, 0.3, 8, 16
PAGE = 4096
# Two batches compute a token's logits a little differently; a token that leads
# by less than this may lose.
MARGIN = 0.5


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


async def sure_prompts(model: mullama.Model) -> dict[str, list[int]]:
    """Prompts with the greedy tokens up to the first that is no clear winner."""
    sure = {}
    for number in range(40):
        prompt = f"Count on: {number}, {number + 1}, {number + 2},"
        answer = await model.generate_with(prompt, max_tokens=TOKENS, temperature=0.0, logprobs=2)
        tokens = []
        for place in answer.logprobs or ():
            if place.top[0].logprob - place.top[1].logprob < MARGIN:
                break
            tokens.append(place.token_id)
        sure[prompt] = tokens
    return sure


async def main() -> None:
    chance = random.Random(1)
    async with await mullama.Model.load(sys.argv[1], max_concurrent=AT_ONCE, timeout_ms=0) as model:
        sure = await sure_prompts(model)
        wrong = complete = cancelled = 0
        memory = []
        for _ in range(REQUESTS // 100):
            prompts = chance.choices(list(sure), k=100)
            options: GenerateOptions = {"temperature": 0.0, "ignore_eos": True}
            tasks = [asyncio.create_task(model.generate_with(prompt, TOKENS, **options)) for prompt in prompts]
            for task in chance.sample(tasks, round(100 * CANCELLED)):
                asyncio.get_running_loop().call_later(chance.uniform(0, 2), task.cancel)
            for prompt, result in zip(prompts, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
                if isinstance(result, asyncio.CancelledError):
                    cancelled += 1
                    continue
                if isinstance(result, BaseException):
                    raise result
                complete += 1
                expected = sure[prompt]
                wrong += len(result.tokens) != TOKENS or list(result.tokens[: len(expected)]) != expected
            memory.append(round(resident_mib(), 1))
        report = {
            "complete": complete,
            "cancelled": cancelled,
            "wrong": wrong,
            "checked_tokens_per_prompt": sum(map(len, sure.values())) / len(sure),
            "resident_mib_after_each_hundred": memory,
            "active_at_end": model.metrics().active,
        }
        print(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(main())

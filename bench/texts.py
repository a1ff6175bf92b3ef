"""Writes the texts that all systems are asked about, as JSON.

    python -m bench.texts MODEL.gguf OUT.json

One process makes them with the model's own tokenizer, so that every system
gets the same texts of the same lengths, whatever the model. Short prompts are
lines of PROMPTS (default: beginnings of stories); long ones are the words of
those lines, shuffled.

No two short or long prompts begin alike: a system that keeps prefixes must
gain nothing by it where a row isn't about prefixes.
"""

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

import mullama

from bench import settings
from bench.trace import arrivals

TOPICS = ["rust", "python", "the sea", "a cat", "mountains", "a castle", "coffee", "music"]
TOPICS += ["trains", "winter", "robots", "gardens", "stars", "a river", "bread", "chess"]
STORY = "{} and {}: a long and detailed story about both. Once upon a time"
WORDS = """
the quick brown fox jumps over the lazy dog while seven wizards boil green tea near a quiet river and nobody in the
village asks why they came so late from the old mountain road with their heavy boxes of books
"""
SHORT = 160
LONG, LONGER, PREFIX = 2000, 4000, 600
QUESTIONS = 16


def short_prompts(path: str | None) -> list[str]:
    """At least `SHORT` of them."""
    if path is None:
        pairs = ((TOPICS[i % 16], TOPICS[(i // 16 + i + 1) % 16]) for i in range(SHORT))
        return [STORY.format(one, other).capitalize() for one, other in pairs]
    lines = [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
    if not lines:
        raise SystemExit(f"PROMPTS is '{path}', which has no line of text")
    # A number in front keeps repeated lines apart.
    return lines + [f"{n}. {lines[n % len(lines)]}" for n in range(len(lines), SHORT)]


async def make(model_path: str, chosen: settings.Settings) -> dict[str, Any]:
    short = short_prompts(chosen.prompts)
    words = (WORDS if chosen.prompts is None else " ".join(short)).split()
    shuffle = random.Random(chosen.seed)

    async with await mullama.Model.load(model_path) as model:

        async def of_length(tokens: int) -> str:
            """A text of that many tokens, give or take one."""
            start = shuffle.choice(words).capitalize()
            text = " ".join([start, *shuffle.choices(words, k=tokens)])
            return await model.detokenize((await model.tokenize(text))[:tokens])

        trace = [
            {
                "at": arrival.at,
                "prompt": await of_length(arrival.prompt_tokens),
                "max_tokens": arrival.answer_tokens,
                "cancel_after": arrival.cancel_after,
            }
            for arrival in arrivals(chosen.trace_requests, chosen.seed)
        ]
        lengths = [len(await model.tokenize(text)) for text in short[:SHORT]]
        return {
            "short": short[:SHORT],
            "short_tokens": round(sum(lengths) / SHORT),
            "tiny": await of_length(3),
            "long": [await of_length(LONG) for _ in range(4)],
            "longer": [await of_length(LONGER) for _ in range(8)],
            "prefix": await of_length(PREFIX),
            "questions": [
                f"\n{name} question {n}: what is it?" for name in ("First", "Second") for n in range(QUESTIONS)
            ],
            "trace": trace,
        }


if __name__ == "__main__":
    path, out = sys.argv[1:]
    Path(out).write_text(json.dumps(asyncio.run(make(path, settings.from_environment()))))

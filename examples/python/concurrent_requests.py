"""Answers four questions at once: concurrent_requests.py MODEL.gguf

The requests share one engine, which computes a token of each in one step.
"""

import asyncio
import sys
import time

import mullama

CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
QUESTIONS = [
    "Name three colors.",
    "What is the capital of Japan?",
    "Is the sun a star?",
    "Write one sentence about rain.",
]


async def main(path: str) -> None:
    async with await mullama.Model.load(path, max_concurrent=len(QUESTIONS), timeout_ms=0) as model:
        start = time.perf_counter()
        answers = await asyncio.gather(
            *(model.generate_with(CHAT.format(question), max_tokens=60, stop=["\n"]) for question in QUESTIONS)
        )
        seconds = time.perf_counter() - start
    for question, answer in zip(QUESTIONS, answers, strict=True):
        print(f"{question} {answer.text.strip()}")
    tokens = sum(answer.usage.completion_tokens for answer in answers)
    print(f"{tokens} tokens in {seconds:.1f} s")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""Streams an answer: hello.py MODEL.gguf [QUESTION]"""

import asyncio
import sys

import mullama

# The chat format of SmolLM2 and of many other models (ChatML).
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


async def main(path: str, question: str = "What is a llama? Answer in two sentences.") -> None:
    async with await mullama.Model.load(path) as model:
        async for token in model.generate_stream(CHAT.format(question), max_tokens=200, temperature=0.2):
            print(token.text, end="", flush=True)
        print()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

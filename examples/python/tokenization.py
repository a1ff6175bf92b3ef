"""Turns text into tokens, without and with asyncio: tokenization.py MODEL.gguf"""

import asyncio
import sys

import mullama
import mullama.sync


def blocking(path: str) -> list[int]:
    with mullama.sync.Model.load(path) as model:
        return model.tokenize("Hello", add_bos=True, parse_special=False)


async def asynchronous(path: str) -> list[int]:
    async with await mullama.Model.load(path) as model:
        return await model.tokenize("Hello", add_bos=True)


def main(path: str) -> None:
    print(blocking(path))
    print(asyncio.run(asynchronous(path)))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Loads a model, generates, and tells about the model: generate.py MODEL.gguf"""

import asyncio
import sys

import mullama


async def main(path: str) -> None:
    async with await mullama.Model.load(path) as model:
        print(await model.generate("The quick brown fox", 200))

        info = await model.info()
        print(f"{info.name} has {info.n_params} parameters")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""Loads a model with everything said that is mostly left alone:
configure.py MODEL.gguf"""

import asyncio
import sys

import mullama


async def main(path: str) -> None:
    model = await mullama.Model.load(
        path,
        gpu_layers=0,
        context_size=4096,
        threads=8,
        flash_attention=True,
        max_concurrent=4,
        timeout_ms=30000,
        on_progress=lambda share: print(f"\r{share:4.0%} loaded", end=""),
    )
    print()
    async with model:
        print("ready:", await model.is_ready())
        print(await model.generate("Hello", 5))
        for part in await model.placement():
            print(f"{part.n_layers} layers on {part.device}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

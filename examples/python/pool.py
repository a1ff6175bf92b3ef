"""Takes a model from a pool and gives it back: pool.py MODEL.gguf"""

import asyncio
import sys

import mullama


async def main(path: str) -> None:
    async with await mullama.ModelPool.create(path, size=4) as pool:
        async with pool.acquire() as model:
            print(await model.generate("Hello", 100))
            print(f"in use: {pool.stats().in_use}")

        stats = pool.stats()
        print(f"available: {stats.available}, in use: {stats.in_use}")

        # More callers than leases: who comes first is served first.
        async def ask(number: int) -> None:
            async with pool.acquire() as model:
                await model.generate(f"{number} and {number} is", 5)

        await pool.resize(2)
        await asyncio.gather(*(ask(number) for number in range(8)))
        print(f"{pool.stats().acquired_total} leases, {pool.stats().size} at a time")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

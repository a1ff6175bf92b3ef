"""Measures what a lease of a pool costs in Python: `leases.py MODEL.gguf`.

Prints one JSON object: microseconds for a lease that is free, acquired and
released, and for one that two tasks pass to and fro.
"""

import asyncio
import json
import sys
import time

import mullama

N = 5000


async def main(path: str) -> None:
    async with await mullama.ModelPool.create(path, size=1, context_size=64) as pool:

        async def take(n: int) -> None:
            for _ in range(n):
                async with pool.acquire():
                    # Lets the other task ask for it.
                    await asyncio.sleep(0)

        async def free(n: int) -> None:
            for _ in range(n):
                lease = await pool.acquire()
                lease.release()

        await free(100)
        start = time.perf_counter()
        await free(N)
        alone = (time.perf_counter() - start) / N
        start = time.perf_counter()
        await asyncio.gather(take(N // 2), take(N // 2))
        passed = (time.perf_counter() - start) / N
    result = {"acquire_and_release_us": alone * 1e6, "passed_from_task_to_task_us": passed * 1e6}
    print(json.dumps({"system": "mullama (Python)", "workload": "leases", "result": result}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

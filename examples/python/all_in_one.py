"""A runtime, a configured model, an answer, a stream and the metrics:
all_in_one.py MODEL.gguf"""

import asyncio
import sys

import mullama


async def main(path: str) -> None:
    mullama.configure_runtime(worker_threads=2, thread_name="my-app")
    runtime = mullama.runtime()

    async with await mullama.Model.load(path, context_size=4096, max_concurrent=4) as model:
        print(await model.generate("What is Rust?", 100))

        async for token in model.generate_stream("Tell me a story", max_tokens=200, temperature=0.7):
            print(token.text, end="", flush=True)
        print()

    metrics = await runtime.metrics()
    print(f"active tasks: {metrics.active_tasks}")
    print(f"completed tasks: {metrics.completed_tasks}")
    print(f"generations: {metrics.total_generations}, {metrics.avg_generation_ms:.0f} ms each on average")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

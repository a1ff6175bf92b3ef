"""Sets how the runtime of the process is made: configure_runtime.py

It passes results from the models to event loops, for which one thread is
enough; models compute on threads of their own. So this is seldom needed, and
must come before anything else of mullama.
"""

import asyncio

import mullama


async def main() -> None:
    mullama.configure_runtime(
        worker_threads=4,
        max_blocking_threads=8,
        thread_stack_size=4 * 1024 * 1024,
        thread_name="mullama-worker",
    )
    runtime = mullama.runtime()
    metrics = await runtime.metrics()
    print(f"running: {runtime.is_running()}, {metrics.worker_threads} worker threads")
    try:
        mullama.configure_runtime(worker_threads=2)
    except mullama.UnsupportedError as error:
        print(error)


if __name__ == "__main__":
    asyncio.run(main())

"""Gives up a long answer when an event is set: cancel_by_event.py MODEL.gguf

Whatever cancels the task that waits for an answer stops the native work.
cancel.py has shorter ways for common cases.
"""

import asyncio
import sys

import mullama


async def generate_unless(cancelled: asyncio.Event, model: mullama.Model) -> str:
    answer = asyncio.create_task(model.generate("Write a very long story", 5000, ignore_eos=True))
    cancel = asyncio.create_task(cancelled.wait())
    try:
        await asyncio.wait([answer, cancel], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise mullama.OperationFailedError("Cancelled")
        return answer.result()
    finally:
        answer.cancel()
        cancel.cancel()


async def main(path: str) -> None:
    cancelled = asyncio.Event()
    async with await mullama.Model.load(path, context_size=8192) as model:
        asyncio.get_running_loop().call_later(0.5, cancelled.set)
        try:
            print(await generate_unless(cancelled, model))
        except mullama.OperationFailedError as error:
            print(error)
        while model.metrics().active:
            await asyncio.sleep(0.001)
        print(f"{model.metrics().cancelled} request cancelled, {model.metrics().active} active")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""Three ways to stop early: cancel.py MODEL.gguf

Each stops the native work at once and frees its place for other requests.
"""

import asyncio
import sys

import mullama

PROMPT = "Once upon a time"


async def main(path: str) -> None:
    async with await mullama.Model.load(path) as model:
        try:
            await asyncio.wait_for(model.generate(PROMPT, 2000, ignore_eos=True), timeout=0.5)
        except asyncio.TimeoutError:
            print("asyncio.wait_for gave up after 0.5 s")

        try:
            await model.generate(PROMPT, 2000, ignore_eos=True, timeout_ms=500)
        except mullama.TimeoutError as error:
            print(f"timeout_ms passed; the text so far has {len(error.partial)} characters")

        async for token in model.generate_stream(PROMPT, 2000, ignore_eos=True):
            if token.index == 9:
                print("left the loop after ten tokens")
                break

        while active := model.metrics().active:
            await asyncio.sleep(0.01)
        print(f"{active} requests active")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A conversation that remembers, is saved, and goes on: context_state.py
MODEL.gguf [STATE]

Run it again with the same STATE, and it goes on where it was.
"""

import asyncio
import contextlib
import os
import sys
import tempfile

import mullama

# The chat format of SmolLM2 and of many other models (ChatML).
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


async def ask(model: mullama.Model, context: mullama.Context, question: str) -> None:
    """Only the question is computed: the context has what came before."""
    first = context.n_past() == 0
    tokens = await model.tokenize(CHAT.format(question), add_bos=first, parse_special=True)
    stream = context.generate_stream(tokens, max_tokens=40, temperature=0)
    print(f"{question} ", end="")
    async for token in stream:
        print(token.text, end="", flush=True)
    print(f"\n  ({stream.usage.cached_tokens} of {stream.usage.prompt_tokens} tokens were there)")


async def talk(path: str, state: str) -> None:
    async with await mullama.Model.load(path) as model:
        async with await mullama.Context.create(model) as context:
            with contextlib.suppress(mullama.IoError):  # there is no file in the first run
                await context.load_state(state)
            await ask(model, context, "Name a color.")
            await context.save_state(state)
        async with await mullama.Context.create(model) as context:
            await context.load_state(state)
            await ask(model, context, "Name another one.")
            await context.save_state(state)
            print(f"{context.n_past()} tokens")


def main(path: str, state: str = "") -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = state or os.path.join(folder, "conversation.state")
        asyncio.run(talk(path, state))
        print(f"{os.path.getsize(state)} bytes saved")


if __name__ == "__main__":
    main(*sys.argv[1:])

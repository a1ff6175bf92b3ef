"""`Context`: a memory of one's own over the weights of a model."""

from __future__ import annotations

from . import _mullama
from ._closing import AsyncClosing
from ._loop import run
from ._model import request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from typing_extensions import Self, Unpack

    from ._batch import Batch
    from ._model import Model
    from ._options import ContextOptions, GenerateOptions
    from ._stream import TokenStream


class ContextState:
    """What the asynchronous and the blocking context have in common."""

    __slots__ = ("__weakref__", "_native")
    _native: _mullama.Context

    def __init__(self) -> None:
        raise TypeError(f"use {type(self).__name__}.create(model) to make a context")

    @classmethod
    def _of(cls, native: _mullama.Context) -> Self:
        context = cls.__new__(cls)
        context._native = native
        return context

    def n_past(self) -> int:
        """How many tokens sequence 0 holds: those that were given and those
        that were generated. Never waits."""
        return self._native.n_past()

    def _describe(self, name: str) -> str:
        return f"<{name} {self._native.description()}>"


class Context(ContextState, AsyncClosing):
    """A context of a model: it remembers its tokens from call to call, and
    nobody else's requests are in it.

    It has its own KV cache and native thread and shares the model's weights, so
    it never waits for the model's requests. Calls run one after the other, in
    the order in which they were made; a coroutine makes its call when it is
    first awaited, or when its task first runs. Closing the model closes its
    contexts.

    >>> async with await Context.create(model) as context:
    ...     ids = await model.tokenize("Once upon a time")
    ...     async for token in context.generate_stream(ids, 20):
    ...         print(token.text, end="")
    ...     await context.save_state("story.state")
    """

    __slots__ = ()

    @classmethod
    async def create(cls, model: Model, **options: Unpack[ContextOptions]) -> Self:
        """Makes a context of the model.

        Cancelling gives up; a context that is there already is freed. Raises
        `ContextError`, `OutOfMemoryError`, `ClosedError`, or
        `InvalidInputError` for an option that is unknown or out of range.
        """
        return cls._of(await run(_mullama.create_context(model, {**options})))

    def generate_stream(
        self, tokens: Iterable[int], max_tokens: int | None = None, **options: Unpack[GenerateOptions]
    ) -> TokenStream:
        """Appends the tokens to sequence 0 and generates what follows, for
        `async for`. Generated tokens are appended as well. Without tokens it
        goes on where the last call stopped. `max_tokens` defaults to 256.

        Unlike a model's, the request is submitted by this call, and takes its
        place among the context's calls. A stream that is not read pauses after
        `buffer_size` tokens, but runs to its end when another call waits for
        it. Leaving `async for`, or losing the stream, stops it within a step;
        tokens that came before that stay in the context.

        Raises `InvalidInputError` for arguments that can't be used at all. The
        iteration raises the rest: `InvalidInputError` and `PromptTooLongError`,
        with which nothing is appended; `TimeoutError`, `ClosedError`,
        `GenerationError`, `OutOfMemoryError`.
        """
        from ._stream import TokenStream

        return TokenStream(self._native.generate_stream(tokens, request(max_tokens, options)))

    async def process_batch(self, batches: Iterable[Batch]) -> list[list[int]]:
        """Evaluates batches in their order. Gives, for each, the likeliest next
        token of every row that asked for logits, in the order of the rows.

        All batches are checked first; if one is bad, nothing is evaluated. A row
        comes right after what its sequences hold by then; sequences that share
        a row must hold the same tokens before it.

        Cancelling stops the work within a step; the rows stay in the context,
        and the next call evaluates the rest. After an error the context is as
        it was. Raises `InvalidInputError` (`token`, `position`, `seq_ids`),
        `PromptTooLongError` when the context has no room, `UnsupportedError`
        for a shared row on a model with recurrent state, `ClosedError`,
        `GenerationError`, `OutOfMemoryError`.
        """
        result: list[list[int]] = await run(self._native.process_batch(batches))
        return result

    async def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes all that the context remembers to a file, which is there as a
        whole or not at all. A file of that name is replaced.

        Cancelling, and any error, leave the path as it was. Raises `IoError`,
        `OutOfMemoryError`, `ClosedError`.
        """
        await run(self._native.save_state(path))

    async def load_state(self, path: str | os.PathLike[str]) -> None:
        """Replaces all that the context remembers by what a file has. The
        context then goes on as the one that was saved would have. Load only
        files from somebody you would load a model from.

        On any error the context is as it was; cancelling leaves it so, or as
        the file says. Raises `StateError` for a file that is cut, altered, of
        another model or a newer version, or that does not fit; `IoError`,
        `OutOfMemoryError`, `ClosedError`.
        """
        await run(self._native.load_state(path))

    async def clear(self) -> None:
        """Forgets all tokens of all sequences; does nothing if it is cancelled
        before its turn. Raises `ClosedError`."""
        await run(self._native.clear())

    async def truncate(self, n: int) -> None:
        """Forgets the tokens of sequence 0 after the first `n`; does nothing if
        it is cancelled before its turn. Memories that can't drop a part
        (recurrent, at times sliding-window) compute the rest again in the next
        call.

        Raises `InvalidInputError` when it holds fewer, `ClosedError`.
        """
        await run(self._native.truncate(n))

    async def close(self) -> None:
        """Stops what runs or waits (it fails with `ClosedError`) and waits until
        the native memory is free. Idempotent."""
        await run(self._native.close())

    def __repr__(self) -> str:
        return self._describe("mullama.Context")

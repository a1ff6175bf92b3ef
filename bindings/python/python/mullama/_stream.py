"""`TokenStream`, the result of `generate_stream` of a model or a context."""

from __future__ import annotations

from collections import deque

from ._loop import news

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from . import _mullama
    from ._types import FinishReason, Timings, TokenData, Usage


class StreamState:
    """What the asynchronous and the blocking stream have in common."""

    __slots__ = ("__weakref__", "_buffer", "_count", "_ended", "_native")

    def __init__(self, native: _mullama.TokenStream) -> None:
        self._native = native
        # Tokens taken from the native side and not yet handed out.
        self._buffer: deque[TokenData] = deque()
        self._count = 0
        self._ended = False

    def _fill(self) -> bool:
        """Takes what has arrived. False when the stream is over."""
        try:
            batch = self._native.take()
        except Exception:
            self._ended = True
            raise
        if batch is None:
            self._ended = True
            return False
        self._buffer.extend(batch)
        self._count += len(batch)
        return True

    def cancel(self) -> None:
        """Stops the native work. Tokens that have arrived are still given, then
        the iteration ends without an error. Idempotent."""
        self._native.cancel()

    def _leave(self) -> None:
        """An iteration is over, perhaps before its last token."""
        if not self._ended:
            self._native.cancel()

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        return self._native.usage()

    @property
    def timings(self) -> Timings:
        """Where the time went so far."""
        return self._native.timings()

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the generation ended; `None` while it goes on."""
        return self._native.finish_reason()[0]

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the generation, if one did."""
        return self._native.finish_reason()[1]

    @property
    def seed(self) -> int | None:
        """The seed; `None` until the request was submitted."""
        return self._native.seed()

    def _describe(self, name: str) -> str:
        try:
            reason = self.finish_reason
        except Exception:  # in a forked child
            return f"<{name} of the parent process>"
        if reason is not None:
            state = f"finish_reason={reason!r}"
        else:
            state = "failed" if self._ended else "running"
        return f"<{name} {self._count} tokens, {state}>"


class TokenStream(StreamState):
    """Generated tokens, as an asynchronous iterator and context manager.

    A model's request is submitted when the first token is asked for, a
    context's at the call. Leaving `async for` early stops the native work, and
    so do `cancel`, `aclose`, the end of `async with`, and losing the last
    reference.
    """

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[TokenData]:
        """One iteration over what is left. When it is given up before the last
        token, the stream is cancelled: `break` and exceptions end it."""
        return _Iteration(self)

    async def __anext__(self) -> TokenData:
        """The next token. A cancelled wait loses none: the next call gives it.

        Raises what ended the request: `TimeoutError`, `ClosedError`,
        `PromptTooLongError`, `InvalidInputError`, `QueueFullError`,
        `GenerationError`.
        """
        buffer = self._buffer
        while not buffer:
            if self._ended or not self._fill():
                raise StopAsyncIteration
            if not buffer:
                await news(self._native)
        return buffer.popleft()

    async def aclose(self) -> None:
        """Stops the native work and drops tokens that were not read.
        Idempotent."""
        self._native.cancel()
        self._buffer.clear()
        self._ended = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return self._describe("mullama.TokenStream")


class _Iteration:
    """What `async for` holds while it runs. Its end is the only sign that
    `break` gives."""

    __slots__ = ("_stream",)

    def __init__(self, stream: TokenStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, TokenData]:
        return self._stream.__anext__()

    def __del__(self) -> None:
        self._stream._leave()

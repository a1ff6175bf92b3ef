"""`TokenStream`, the result of `generate_stream` of a model or a context."""

from __future__ import annotations

from ._mailbox import mailbox_here
from ._stream_state import StreamState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from ._types import TokenData


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
            if self._ended:
                raise StopAsyncIteration
            await mailbox_here().news(self._native)
            # Meanwhile another reader may have filled the buffer, or closed.
            if not buffer and (self._ended or not self._fill()):
                raise StopAsyncIteration
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

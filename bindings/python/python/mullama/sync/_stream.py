"""The blocking `TokenStream`."""

from __future__ import annotations

from .._closing import Closing
from .._stream_state import StreamState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from .._types import TokenData


class TokenStream(StreamState, Closing):
    """Generated tokens, as an iterator and context manager.

    A model's request is submitted when the first token is asked for, a
    context's at the call. Leaving `for` early stops the native work, and so do
    `cancel`, `close`, the end of `with`, and losing the last reference.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[TokenData]:
        """One iteration over what is left. When it is given up before the last
        token, the stream is cancelled: `break` and exceptions end it."""
        return _Iteration(self)

    def __next__(self) -> TokenData:
        """The next token; raises as `mullama.TokenStream.__anext__` does. None
        is lost to a `KeyboardInterrupt`: the next call gives it."""
        buffer = self._buffer
        while not buffer:
            if self._ended or not self._fill():
                raise StopIteration
            if not buffer:
                self._native.wait()
        return buffer.popleft()

    def close(self) -> None:
        """Stops the native work and drops tokens that were not read.
        Idempotent."""
        self._native.cancel()
        self._buffer.clear()
        self._ended = True

    def __repr__(self) -> str:
        return self._describe("mullama.sync.TokenStream")


class _Iteration:
    """What `for` holds while it runs. Its end is the only sign that `break`
    gives."""

    __slots__ = ("_stream",)

    def __init__(self, stream: TokenStream) -> None:
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenData:
        return self._stream.__next__()

    def __del__(self) -> None:
        self._stream._leave()

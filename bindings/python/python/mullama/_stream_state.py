"""What the asynchronous and the blocking `TokenStream` have in common."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import _mullama
    from ._types import FinishReason, Timings, TokenData, Usage


class StreamState:
    """A stream without its iteration."""

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

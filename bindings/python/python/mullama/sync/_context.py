"""The blocking `Context`."""

from __future__ import annotations

from .. import _mullama
from .._closing import Closing
from .._context import ContextState
from .._model import request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from typing_extensions import Self, Unpack

    from .._batch import Batch
    from .._options import ContextOptions, GenerateOptions
    from ._model import Model
    from ._stream import TokenStream


class Context(ContextState, Closing):
    """A context of a model: it remembers its tokens from call to call, and
    nobody else's requests are in it. Calls of several threads run in the order
    in which they were made.

    >>> with Context.create(model) as context:
    ...     ids = model.tokenize("Once upon a time")
    ...     for token in context.generate_stream(ids, 20):
    ...         print(token.text, end="")
    ...     context.save_state("story.state")
    """

    __slots__ = ()

    @classmethod
    def create(cls, model: Model, **options: Unpack[ContextOptions]) -> Self:
        """Makes a context of the model; raises as `mullama.Context.create`
        does."""
        return cls._of(_mullama.create_context(model, {**options}).wait())

    def generate_stream(
        self, tokens: Iterable[int], max_tokens: int | None = None, **options: Unpack[GenerateOptions]
    ) -> TokenStream:
        """Appends the tokens to sequence 0 and generates what follows, for
        `for`. Submitted by this call, which does not wait; otherwise, and in
        what is raised, like `mullama.Context.generate_stream`."""
        from ._stream import TokenStream

        return TokenStream(self._native.generate_stream(tokens, request(max_tokens, options)))

    def process_batch(self, batches: Iterable[Batch]) -> list[list[int]]:
        """Evaluates batches in their order. Gives, for each, the likeliest next
        token of every row that asked for logits; raises as
        `mullama.Context.process_batch` does."""
        result: list[list[int]] = self._native.process_batch(batches).wait()
        return result

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes all that the context remembers to a file, which is there as a
        whole or not at all. Raises `IoError`, `ClosedError`."""
        self._native.save_state(path).wait()

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Replaces all that the context remembers by what a file has; raises as
        `mullama.Context.load_state` does, and the context is as it was then."""
        self._native.load_state(path).wait()

    def clear(self) -> None:
        """Forgets all tokens of all sequences. Raises `ClosedError`."""
        self._native.clear().wait()

    def truncate(self, n: int) -> None:
        """Forgets the tokens of sequence 0 after the first `n`. Raises
        `InvalidInputError` when it holds fewer, `ClosedError`."""
        self._native.truncate(n).wait()

    def close(self) -> None:
        """Stops what runs or waits (it fails with `ClosedError`) and waits until
        the native memory is free. Idempotent."""
        self._native.close().wait()

    def __repr__(self) -> str:
        return self._describe("mullama.sync.Context")

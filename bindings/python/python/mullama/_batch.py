"""`Batch`: tokens for `Context.process_batch`, put together by hand."""

from __future__ import annotations

from . import _mullama

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Batch:
    """Tokens for `Context.process_batch`, each with its position and its
    sequences. The same for asyncio and `mullama.sync`.

    Whether a token, a position or a sequence is one that a context takes is
    known to the context alone: `process_batch` checks all of its batches before
    it evaluates any.

    >>> batch = Batch()
    >>> batch.add(1, 0, [0])
    >>> batch.add_sequence(1, [1, 2, 3])
    >>> len(batch)
    4
    """

    __slots__ = ("__weakref__", "_native")

    def __init__(self) -> None:
        self._native = _mullama.Batch()

    def add(self, token: int, position: int, seq_ids: Iterable[int], logits: bool = False) -> None:
        """Adds a token at `position` (0 is the first) of each of the sequences.
        `logits` asks for the token that is likeliest to follow it.

        Raises `InvalidInputError` for values of a wrong type.
        """
        self._native.add(token, position, seq_ids, logits)

    def add_sequence(self, seq_id: int, tokens: Iterable[int]) -> None:
        """Adds tokens after all that the sequence holds by then, in the context
        and earlier in the batch. Asks for the token that is likeliest to follow
        the last one.

        Raises `InvalidInputError` for values of a wrong type.
        """
        self._native.add_sequence(seq_id, tokens)

    def __len__(self) -> int:
        """How many tokens it has."""
        return len(self._native)

    def is_empty(self) -> bool:
        """Whether it has no token."""
        return len(self) == 0

    def clear(self) -> None:
        """Takes all tokens out."""
        self._native.clear()

    def __repr__(self) -> str:
        return f"<mullama.Batch {len(self)} tokens>"

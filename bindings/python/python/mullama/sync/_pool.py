"""The blocking `ModelPool` and the models that it lends."""

from __future__ import annotations

from .. import _mullama
from .._closing import Closing
from .._pool import PoolState
from ._model import Model

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from typing import Any

    from typing_extensions import Self, Unpack

    from .._options import LoadOptions


class PooledModel(Model):
    """A model on lease from a `ModelPool`.

    It serves one request at a time (more wait for each other), and never waits
    for another lease's. The end of its `with`, `release`, `close`, or losing
    the last reference gives it back, as soon as its last request has ended;
    using it afterwards raises `ClosedError`.
    """

    __slots__ = ()

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Unpack[LoadOptions]) -> Self:
        """Not for leases: a `ModelPool` gives them. Raises `TypeError`."""
        raise TypeError("use ModelPool.acquire() to lease a model, or Model.load() to load one")

    def release(self) -> None:
        """Gives the model back; who waits longest gets it. Requests under way go
        on, and it is back when they have ended. Idempotent."""
        self._native.release()

    def close(self) -> None:
        """The same as `release`: the pool and its other leases stay."""
        self.release()

    def __repr__(self) -> str:
        return self._describe("mullama.sync.PooledModel")


class ModelPool(PoolState, Closing):
    """Leases of one model: at most `size` are out at the same time, and who
    comes first is served first. All share one copy of the weights and are
    computed together.

    >>> with ModelPool.create("model.gguf", size=4) as pool:
    ...     with pool.acquire() as model:
    ...         print(model.generate("The capital of France is", 10))
    """

    __slots__ = ()

    @classmethod
    def create(cls, path: str | os.PathLike[str], size: int = 4, **options: Unpack[LoadOptions]) -> Self:
        """Loads a GGUF file for `size` leases, 1 to 256. The options are those of
        `Model.load`, where `max_concurrent` counts for nothing: `size` does.
        Raises as `Model.load` does."""
        rest: dict[str, Any] = {**options}
        on_progress = rest.pop("on_progress", None)
        return cls._of(_mullama.create_pool(path, size, rest, on_progress is not None).wait(on_progress))

    def acquire(self, timeout_ms: int | None = None) -> PooledModel:
        """A lease; waits until one is free. It is a context manager that gives
        itself back at the end. Threads are served in the order in which they
        came.

        `timeout_ms` limits the wait; default: no limit. Raises `TimeoutError`,
        `ClosedError`, `InvalidInputError`.
        """
        native = self._native.acquire(timeout_ms)
        if isinstance(native, _mullama.Operation):
            native = native.wait()
        return PooledModel._of(native)

    def try_acquire(self) -> PooledModel | None:
        """A lease, if one is free and nobody waits for it. Raises
        `ClosedError`."""
        native = self._native.try_acquire()
        return None if native is None else PooledModel._of(native)

    def resize(self, size: int) -> None:
        """Changes how many leases may be out, 1 to 256. More serve those who
        wait at once, without loading again; with fewer, leases that are out go
        on until they end. Raises as `mullama.ModelPool.resize` does."""
        self._native.resize(size).wait()

    def close(self) -> None:
        """Ends all leases and waits (they fail with `ClosedError`) and waits
        until the native memory is free. Idempotent."""
        self._native.close().wait()

    def __repr__(self) -> str:
        return self._describe("mullama.sync.ModelPool")

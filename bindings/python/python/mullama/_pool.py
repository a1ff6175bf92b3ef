"""`ModelPool` and the models that it lends."""

from __future__ import annotations

from collections.abc import Coroutine

from . import _mullama
from ._closing import AsyncClosing
from ._loop import run
from ._model import Model

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Generator
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self, Unpack

    from ._options import LoadOptions
    from ._types import PoolStats

    Lending = Coroutine[Any, Any, "PooledModel"]
else:
    Lending = Coroutine


class PoolState:
    """What the asynchronous and the blocking pool have in common."""

    __slots__ = ("__weakref__", "_native")
    _native: _mullama.ModelPool

    def __init__(self) -> None:
        raise TypeError(f"use {type(self).__name__}.create(path, size) to make a pool")

    @classmethod
    def _of(cls, native: _mullama.ModelPool) -> Self:
        pool = cls.__new__(cls)
        pool._native = native
        return pool

    def stats(self) -> PoolStats:
        """Live figures; never waits."""
        return self._native.stats()

    def _describe(self, name: str) -> str:
        return f"<{name} {self._native.description()}>"


class PooledModel(Model):
    """A model on lease from a `ModelPool`.

    It serves one request at a time (more wait for each other), and never waits
    for another lease's. The end of its `async with`, `release`, `close`, or
    losing the last reference gives it back, as soon as its last request has
    ended; using it afterwards raises `ClosedError`.
    """

    __slots__ = ()

    @classmethod
    async def load(cls, path: str | os.PathLike[str], **options: Unpack[LoadOptions]) -> Self:
        """Not for leases: a `ModelPool` gives them. Raises `TypeError`."""
        raise TypeError("use ModelPool.acquire() to lease a model, or Model.load() to load one")

    def release(self) -> None:
        """Gives the model back; who waits longest gets it. Requests under way go
        on, and it is back when they have ended. Idempotent."""
        self._native.release()

    async def close(self) -> None:
        """The same as `release`: the pool and its other leases stay."""
        self.release()

    def __repr__(self) -> str:
        return self._describe("mullama.PooledModel")


class ModelPool(PoolState, AsyncClosing):
    """Leases of one model: at most `size` are out at the same time, and who
    comes first is served first. All share one copy of the weights and are
    computed together.

    >>> async with await ModelPool.create("model.gguf", size=4) as pool:
    ...     async with pool.acquire() as model:
    ...         print(await model.generate("The capital of France is", 10))
    """

    __slots__ = ()

    @classmethod
    async def create(cls, path: str | os.PathLike[str], size: int = 4, **options: Unpack[LoadOptions]) -> Self:
        """Loads a GGUF file for `size` leases, 1 to 256. The options are those of
        `Model.load`, where `max_concurrent` counts for nothing: `size` does.

        Cancelling stops the load. Raises as `Model.load` does.
        """
        rest: dict[str, Any] = {**options}
        on_progress = rest.pop("on_progress", None)
        operation = _mullama.create_pool(path, size, rest, on_progress is not None)
        return cls._of(await run(operation, on_progress))

    def acquire(self, timeout_ms: int | None = None) -> Acquisition:
        """A lease, as soon as one is free: `await` it, or use it in
        `async with`, which gives the lease back at the end. Those who wait are
        served in the order in which they came.

        `timeout_ms` limits the wait; default: no limit. Cancelling gives up the
        place in the queue; a lease that arrives at that moment goes back.
        Raises `TimeoutError`, `ClosedError`, `InvalidInputError`.
        """
        return Acquisition(self._acquire(timeout_ms))

    async def _acquire(self, timeout_ms: int | None) -> PooledModel:
        native = self._native.acquire(timeout_ms)
        if isinstance(native, _mullama.Operation):
            native = await run(native)
        return PooledModel._of(native)

    def try_acquire(self) -> PooledModel | None:
        """A lease, if one is free and nobody waits for it. Raises
        `ClosedError`."""
        native = self._native.try_acquire()
        return None if native is None else PooledModel._of(native)

    async def resize(self, size: int) -> None:
        """Changes how many leases may be out, 1 to 256. More serve those who
        wait at once, without loading again; with fewer, leases that are out go
        on until they end.

        Cancelling leaves the old or the new size. Raises `InvalidInputError`,
        `OutOfMemoryError`, `ContextError`, `ClosedError`.
        """
        await run(self._native.resize(size))

    async def close(self) -> None:
        """Ends all leases and waits (they fail with `ClosedError`) and waits
        until the native memory is free. Idempotent."""
        await run(self._native.close())

    def __repr__(self) -> str:
        return self._describe("mullama.ModelPool")


class Acquisition(Lending):
    """What `ModelPool.acquire` gives: a coroutine, so that it can be awaited
    and made a task, and a context manager that gives the lease back."""

    __slots__ = ("_call", "_lease")

    def __init__(self, call: Lending) -> None:
        self._call = call
        self._lease: PooledModel | None = None

    def send(self, value: Any) -> Any:
        return self._call.send(value)

    def throw(self, *error: Any) -> Any:
        return self._call.throw(*error)

    def close(self) -> None:
        self._call.close()

    def __await__(self) -> Generator[Any, Any, PooledModel]:
        return self._call.__await__()

    async def __aenter__(self) -> PooledModel:
        self._lease = await self._call
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self._lease.release()

"""`TaskManager`: workers that serve a queue of generations, a collector of
metrics, and workers of one's own."""

from __future__ import annotations

from . import _mullama
from ._loop import run, spawn
from ._model import request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self, Unpack

    from ._model import Model
    from ._options import GenerateOptions
    from ._types import Generation, RuntimeMetrics, WorkerStatus


class TaskState:
    """What the asynchronous and the blocking task have in common."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _mullama.GenerationTask) -> None:
        self._native = native

    @property
    def id(self) -> int:
        """A number that no other task of the manager has."""
        return self._native.id

    def cancel(self) -> None:
        """Stops it, also while it is queued; who waits for it gets a
        `mullama.CancelledError`. Nothing happens when it has ended.
        Idempotent."""
        self._native.cancel()

    def _describe(self, name: str) -> str:
        return f"<{name} {self._native.description()}>"


class GenerationTask(TaskState):
    """A submitted generation: `await` it for its `Generation`, as often as
    needed and from several asyncio tasks, as one would a future.

    Cancelling an asyncio task that awaits it cancels the generation, unless
    another one awaits it too; `asyncio.shield` keeps it. Losing the last
    reference cancels it as well.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Generation]:
        """Raises `CancelledError` (mullama's) after `cancel` or `stop_all`, and
        as `Model.generate_with` does."""
        return self._result().__await__()

    async def _result(self) -> Generation:
        result: Generation = await run(self._native.wait())
        return result

    def __repr__(self) -> str:
        return self._describe("mullama.GenerationTask")


class ManagerState:
    """What the asynchronous and the blocking manager have in common."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self) -> None:
        self._native = _mullama.TaskManager()

    def spawn_generation_worker(self) -> str:
        """Starts a worker that serves submitted generations, oldest first, one at
        a time, and gives its name: `generation-0` and so on. Several workers
        share the queue. Raises `ClosedError`."""
        return self._native.spawn_generation_worker()

    def spawn_metrics_collector(self, *, interval_ms: int | None = None, capacity: int | None = None) -> str:
        """Starts the worker that samples the runtime's metrics, now and at every
        interval, and gives its name, `metrics`.

        `interval_ms` is the time between two samples, in milliseconds; default
        1000. `capacity` is how many samples are kept, the newest; default 3600.
        Raises `InvalidInputError` for an impossible value, or when there is one
        already; `ClosedError`.
        """
        return self._native.spawn_metrics_collector(interval_ms, capacity)

    def metrics_history(self) -> list[RuntimeMetrics]:
        """The samples of the collector, oldest first. They stay when it ends."""
        return self._native.metrics_history()

    def worker_status(self) -> dict[str, WorkerStatus]:
        """What each worker does, or how it ended, by its name. One that has
        ended stays until its name is used again."""
        return self._native.worker_status()

    def _describe(self, name: str) -> str:
        return f"<{name} {self._native.description()}>"


class TaskManager(ManagerState):
    """Workers on the runtime of the process.

    >>> async with TaskManager() as manager:
    ...     manager.spawn_generation_worker()
    ...     task = manager.submit(model, "The capital of France is", 10)
    ...     print((await task).text)
    """

    __slots__ = ()

    def submit(
        self, model: Model, prompt: str, max_tokens: int | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerationTask:
        """Puts a generation into the queue that the generation workers serve;
        without a worker it waits for one. `max_tokens` defaults to 256;
        `timeout_ms` counts from the moment at which a worker takes it.

        Raises `InvalidInputError`, `QueueFullError` when 4096 tasks wait,
        `ClosedError`; awaiting the task raises the rest.
        """
        return GenerationTask(self._native.submit(model, prompt, request(max_tokens, options)))

    def spawn_worker(self, name: str, function: Callable[[], Awaitable[object]]) -> None:
        """Runs an async function, without arguments, as a task of the running
        event loop. `stop_all` cancels that task and waits for its end.

        An exception is the worker's failure, with its text as the message; what
        it returns is of no interest. A task that is cancelled by others, or
        lost with its event loop, has failed as well. Losing the manager stops
        the worker.

        Raises `InvalidInputError` for a `name` that a running worker has,
        `ClosedError`, and `RuntimeError` where no event loop runs.
        """
        import asyncio

        asyncio.get_running_loop()
        worker = self._native.spawn_worker(name, function)

        def ended(task: asyncio.Task[None], stopped: bool) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                worker.fail(described(error))
            elif task.cancelled() and not stopped:
                worker.fail("its task was cancelled")
            else:
                worker.complete()

        spawn(_work(function), worker.stopping(), ended)

    async def stop_all(self) -> None:
        """Cancels all workers and waits until they have ended; generations that
        are queued or run end with `CancelledError`. Workers can be started
        again afterwards. A worker that calls it is cancelled like the others.

        Cancelling leaves the workers to end by themselves. Raises
        `OperationFailedError` with the first failure of a worker since the last
        report.
        """
        await run(self._native.stop_all())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop_all()

    def __repr__(self) -> str:
        return self._describe("mullama.TaskManager")


async def _work(function: Callable[[], Awaitable[object]]) -> None:
    await function()


def described(error: BaseException) -> str:
    """An exception as a worker's message."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

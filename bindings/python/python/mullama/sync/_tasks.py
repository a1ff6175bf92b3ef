"""The blocking `TaskManager`. Its custom workers are threads."""

from __future__ import annotations

import threading

from .._model import request
from .._tasks import ManagerState, TaskState, described

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from .. import _mullama
    from .._options import GenerateOptions
    from .._types import Generation
    from ._model import Model


class GenerationTask(TaskState):
    """A submitted generation. `result` gives its `Generation`, as often as
    needed and to several threads. Losing the last reference cancels it."""

    __slots__ = ()

    def result(self, timeout: float | None = None) -> Generation:
        """Waits for the result, at most `timeout` seconds; default: no limit.
        Giving up, by the limit or by Ctrl-C, cancels nothing.

        Raises `TimeoutError` when the limit passed, `CancelledError` (mullama's)
        after `cancel` or `stop_all`, and as `Model.generate_with` does.
        """
        result: Generation = self._native.wait_for(timeout).wait()
        return result

    def __repr__(self) -> str:
        return self._describe("mullama.sync.GenerationTask")


class TaskManager(ManagerState):
    """Workers on the runtime of the process.

    >>> with TaskManager() as manager:
    ...     manager.spawn_generation_worker()
    ...     task = manager.submit(model, "The capital of France is", 10)
    ...     print(task.result().text)
    """

    __slots__ = ("_stops",)

    def __init__(self) -> None:
        super().__init__()
        # Tells the threads of custom workers to stop.
        self._stops: list[threading.Event] = []

    def submit(
        self, model: Model, prompt: str, max_tokens: int | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerationTask:
        """Puts a generation into the queue that the generation workers serve;
        raises as `mullama.TaskManager.submit` does."""
        return GenerationTask(self._native.submit(model, prompt, request(max_tokens, options)))

    def spawn_worker(self, name: str, function: Callable[[threading.Event], object]) -> None:
        """Runs a function in a daemon thread of its own. It is given an event,
        which `stop_all` and the loss of the manager set: it should return then.

        An exception is the worker's failure; what it returns is of no interest.
        Raises `InvalidInputError` (`name`) for a name that is taken,
        `ClosedError`.
        """
        worker = self._native.spawn_worker(name, function)
        stop = threading.Event()
        self._stops.append(stop)
        threading.Thread(target=_work, args=(function, stop, worker), name=name, daemon=True).start()

    def stop_all(self) -> None:
        """Stops all workers and waits until they have ended; generations that
        are queued or run end with `CancelledError`. Workers can be started again
        afterwards.

        A custom worker that does not heed its event is waited for; Ctrl-C ends
        the wait. One that calls this is not waited for. Raises
        `OperationFailedError` with the first failure of a worker since the last
        report.
        """
        try:
            # Told when they count as stopped, so that none counts as completed.
            caller = getattr(_this_thread, "worker", None)
            self._native.stop_all(caller).wait(lambda _: self._stop_threads())
        finally:
            self._stop_threads()

    def _stop_threads(self) -> None:
        while self._stops:
            self._stops.pop().set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_all()

    def __del__(self) -> None:
        # Unset where `__init__` failed.
        if hasattr(self, "_stops"):
            self._stop_threads()

    def __repr__(self) -> str:
        return self._describe("mullama.sync.TaskManager")


_this_thread = threading.local()


def _work(function: Callable[[threading.Event], object], stop: threading.Event, worker: _mullama.Worker) -> None:
    _this_thread.worker = worker
    try:
        function(stop)
    except BaseException as error:
        worker.fail(described(error))
        if not isinstance(error, Exception):
            raise
    else:
        worker.complete()

"""The runtime that all models of the process share, and its settings."""

from __future__ import annotations

from . import _mullama
from ._loop import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import RuntimeOptions
    from ._types import RuntimeMetrics


class RuntimeState:
    """What the asynchronous and the blocking runtime have in common."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self) -> None:
        self._native = _mullama.Runtime()

    def is_running(self) -> bool:
        """Whether it takes work, which it does until the process ends."""
        return self._native.is_running()

    def _describe(self, name: str) -> str:
        return f"<{name} {self._native.description()}>"


class MullamaRuntime(RuntimeState):
    """The one runtime of the process: threads that pass results from the models
    to event loops. Made at the first use of mullama."""

    __slots__ = ()

    async def metrics(self) -> RuntimeMetrics:
        """Live figures. The call itself is none of the tasks that they count."""
        metrics: RuntimeMetrics = await run(self._native.metrics())
        return metrics

    async def metrics_text(self) -> str:
        """All figures, of the runtime and of each loaded model, in the text
        format of Prometheus."""
        text: str = await run(self._native.metrics_text())
        return text

    def __repr__(self) -> str:
        return self._describe("mullama.MullamaRuntime")


def runtime() -> MullamaRuntime:
    """The runtime of the process, which this starts if nothing has used it yet.

    Raises `UnsupportedError` in a process that was forked from one that used
    mullama, `IoError` when its threads can't be started.
    """
    return MullamaRuntime()


def configure_runtime(**options: Unpack[RuntimeOptions]) -> None:
    """Sets how the runtime will be made. It may be called once, before anything
    uses the runtime: before a model is loaded.

    Raises `UnsupportedError` afterwards, and `InvalidInputError` for an option
    that is unknown or out of range.
    """
    _mullama.configure_runtime({**options})

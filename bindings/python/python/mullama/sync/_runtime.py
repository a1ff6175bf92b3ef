"""The blocking view of the runtime."""

from __future__ import annotations

from .._runtime import RuntimeState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._types import RuntimeMetrics


class MullamaRuntime(RuntimeState):
    """The one runtime of the process: threads that pass results from the models
    to those who wait. Made at the first use of mullama."""

    __slots__ = ()

    def metrics(self) -> RuntimeMetrics:
        """Live figures. The call itself is none of the tasks that they count."""
        metrics: RuntimeMetrics = self._native.metrics().wait()
        return metrics

    def metrics_text(self) -> str:
        """All figures, of the runtime and of each loaded model, in the text
        format of Prometheus."""
        text: str = self._native.metrics_text().wait()
        return text

    def __repr__(self) -> str:
        return self._describe("mullama.sync.MullamaRuntime")


def runtime() -> MullamaRuntime:
    """The runtime of the process; raises as `mullama.runtime` does."""
    return MullamaRuntime()

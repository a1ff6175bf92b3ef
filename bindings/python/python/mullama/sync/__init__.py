"""The same names without `await`, for scripts and notebooks.

A call blocks its thread and nothing else: the GIL is released, so other
threads go on. Ctrl-C raises `KeyboardInterrupt` within about 50 ms and stops
the native work.

>>> from mullama.sync import Model
>>> with Model.load("model.gguf") as model:
...     for token in model.generate_stream("Once upon a time", 50):
...         print(token.text, end="", flush=True)
"""

from .. import _lazy
from ._model import Model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._batch import Batch
    from .._devices import backends, devices
    from .._runtime import configure_runtime
    from ._context import Context
    from ._pool import ModelPool, PooledModel
    from ._runtime import MullamaRuntime, runtime
    from ._stream import TokenStream
    from ._tasks import GenerationTask, TaskManager
else:
    __getattr__ = _lazy.attributes(
        __name__,
        {
            ".._batch": ("Batch",),
            ".._devices": ("backends", "devices"),
            ".._runtime": ("configure_runtime",),
            "._context": ("Context",),
            "._pool": ("ModelPool", "PooledModel"),
            "._runtime": ("MullamaRuntime", "runtime"),
            "._stream": ("TokenStream",),
            "._tasks": ("GenerationTask", "TaskManager"),
        },
    )

__all__ = [
    "Batch",
    "Context",
    "GenerationTask",
    "Model",
    "ModelPool",
    "MullamaRuntime",
    "PooledModel",
    "TaskManager",
    "TokenStream",
    "backends",
    "configure_runtime",
    "devices",
    "runtime",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

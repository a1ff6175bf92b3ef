"""mullama: local language models for asyncio, run by llama.cpp.

>>> import mullama
>>> async with await mullama.Model.load("model.gguf") as model:
...     async for token in model.generate_stream("Once upon a time", 50):
...         print(token.text, end="", flush=True)

`mullama.sync` has the same without `await`; `mullama.errors` has the
exceptions, which are also here.
"""

import atexit as _atexit

from . import _lazy, _mullama
from ._model import Model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import errors, sync
    from ._batch import Batch
    from ._context import Context
    from ._devices import backends, devices
    from ._options import ContextOptions, GenerateOptions, KvType, LoadOptions, RuntimeOptions
    from ._pool import ModelPool, PooledModel
    from ._runtime import MullamaRuntime, configure_runtime, runtime
    from ._stream import TokenStream
    from ._tasks import GenerationTask, TaskManager
    from ._types import (
        BackendInfo,
        DeviceInfo,
        DeviceKind,
        EngineMetrics,
        FinishReason,
        Generation,
        Histogram,
        LayerPlacement,
        ModelInfo,
        PoolStats,
        RuntimeMetrics,
        Timings,
        TokenData,
        TokenLogprob,
        TokenLogprobs,
        Usage,
        WorkerState,
        WorkerStatus,
    )
    from .errors import (
        CancelledError,
        ClosedError,
        ContextError,
        GenerationError,
        InternalError,
        InvalidInputError,
        InvalidModelError,
        IoError,
        ModelLoadError,
        ModelNotFoundError,
        MullamaError,
        OperationFailedError,
        OutOfMemoryError,
        PromptTooLongError,
        QueueFullError,
        StateError,
        TimeoutError,
        TokenizationError,
        UnsupportedError,
    )
else:
    __getattr__ = _lazy.attributes(
        __name__,
        {
            "._batch": ("Batch",),
            "._context": ("Context",),
            "._devices": ("backends", "devices"),
            "._options": ("ContextOptions", "GenerateOptions", "KvType", "LoadOptions", "RuntimeOptions"),
            "._pool": ("ModelPool", "PooledModel"),
            "._runtime": ("MullamaRuntime", "configure_runtime", "runtime"),
            "._stream": ("TokenStream",),
            "._tasks": ("GenerationTask", "TaskManager"),
            "._types": (
                "BackendInfo",
                "DeviceInfo",
                "DeviceKind",
                "EngineMetrics",
                "FinishReason",
                "Generation",
                "Histogram",
                "LayerPlacement",
                "ModelInfo",
                "PoolStats",
                "RuntimeMetrics",
                "Timings",
                "TokenData",
                "TokenLogprob",
                "TokenLogprobs",
                "Usage",
                "WorkerState",
                "WorkerStatus",
            ),
            ".errors": (
                "CancelledError",
                "ClosedError",
                "ContextError",
                "GenerationError",
                "InternalError",
                "InvalidInputError",
                "InvalidModelError",
                "IoError",
                "ModelLoadError",
                "ModelNotFoundError",
                "MullamaError",
                "OperationFailedError",
                "OutOfMemoryError",
                "PromptTooLongError",
                "QueueFullError",
                "StateError",
                "TimeoutError",
                "TokenizationError",
                "UnsupportedError",
            ),
            ".sync": (),
        },
    )

__version__ = _mullama.__version__

__all__ = [
    "BackendInfo",
    "Batch",
    "CancelledError",
    "ClosedError",
    "Context",
    "ContextError",
    "ContextOptions",
    "DeviceInfo",
    "DeviceKind",
    "EngineMetrics",
    "FinishReason",
    "GenerateOptions",
    "Generation",
    "GenerationError",
    "GenerationTask",
    "Histogram",
    "InternalError",
    "InvalidInputError",
    "InvalidModelError",
    "IoError",
    "KvType",
    "LayerPlacement",
    "LoadOptions",
    "Model",
    "ModelInfo",
    "ModelLoadError",
    "ModelNotFoundError",
    "ModelPool",
    "MullamaError",
    "MullamaRuntime",
    "OperationFailedError",
    "OutOfMemoryError",
    "PoolStats",
    "PooledModel",
    "PromptTooLongError",
    "QueueFullError",
    "RuntimeMetrics",
    "RuntimeOptions",
    "StateError",
    "TaskManager",
    "TimeoutError",
    "Timings",
    "TokenData",
    "TokenLogprob",
    "TokenLogprobs",
    "TokenStream",
    "TokenizationError",
    "UnsupportedError",
    "Usage",
    "WorkerState",
    "WorkerStatus",
    "backends",
    "configure_runtime",
    "devices",
    "errors",
    "runtime",
    "sync",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Exit handlers run while Python still works: the last moment at which native
# threads can be stopped in order.
_atexit.register(_mullama.shutdown)

"""mullama: local language models for asyncio, run by llama.cpp.

>>> import mullama
>>> async with await mullama.Model.load("model.gguf") as model:
...     async for token in model.generate_stream("Once upon a time", 50):
...         print(token.text, end="", flush=True)

`mullama.sync` has the same without `await`; `mullama.errors` has the
exceptions, which are also here.
"""

import atexit as _atexit

from . import _mullama, errors, sync
from ._model import Model
from ._options import GenerateOptions, KvType, LoadOptions
from ._stream import TokenStream
from ._types import (
    EngineMetrics,
    FinishReason,
    Generation,
    Histogram,
    ModelInfo,
    Timings,
    TokenData,
    TokenLogprob,
    TokenLogprobs,
    Usage,
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

__version__ = _mullama.__version__

__all__ = [
    "CancelledError",
    "ClosedError",
    "ContextError",
    "EngineMetrics",
    "FinishReason",
    "GenerateOptions",
    "Generation",
    "GenerationError",
    "Histogram",
    "InternalError",
    "InvalidInputError",
    "InvalidModelError",
    "IoError",
    "KvType",
    "LoadOptions",
    "Model",
    "ModelInfo",
    "ModelLoadError",
    "ModelNotFoundError",
    "MullamaError",
    "OperationFailedError",
    "OutOfMemoryError",
    "PromptTooLongError",
    "QueueFullError",
    "StateError",
    "TimeoutError",
    "Timings",
    "TokenData",
    "TokenLogprob",
    "TokenLogprobs",
    "TokenStream",
    "TokenizationError",
    "UnsupportedError",
    "Usage",
    "errors",
    "sync",
]

# Exit handlers run while Python still works: the last moment at which native
# threads can be stopped in order.
_atexit.register(_mullama.shutdown)

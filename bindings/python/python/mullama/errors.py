"""The exceptions of mullama: one class for each kind, all under `MullamaError`.

`code` is the same in Rust, Node and Python. Where a builtin exception means
the same, the class inherits it too, so `except TimeoutError` works.
"""

from __future__ import annotations

import builtins


class MullamaError(Exception):
    """Any failure that mullama reports. The message says what to do about it."""

    code: str = ""
    """The stable name of the kind."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def __str__(self) -> str:
        # Not OSError's, which some subclasses would take.
        return str(self.args[0]) if self.args else ""


class ModelNotFoundError(MullamaError, FileNotFoundError):
    """There is no file at `path`. Relative paths are taken from the process's
    working directory."""

    code = "model_not_found"

    def __init__(self, message: str = "", *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class InvalidModelError(MullamaError, ValueError):
    """The file is there but is not a GGUF model that can be run. Download it
    again or choose another."""

    code = "invalid_model"

    def __init__(self, message: str = "", *, path: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason


class ModelLoadError(MullamaError):
    """llama.cpp could not load a file that looked valid; `reason` has its own
    words. Most often the architecture is newer than this build."""

    code = "model_load"

    def __init__(self, message: str = "", *, path: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason


class ContextError(MullamaError):
    """The KV cache and buffers could not be made. Lower `context_size` or
    `max_concurrent`, or choose a smaller KV type."""

    code = "context"


class PromptTooLongError(MullamaError, ValueError):
    """The prompt has `tokens` tokens, but at most `limit` fit. Shorten it or
    load the model with a larger `context_size`."""

    code = "prompt_too_long"

    def __init__(self, message: str = "", *, tokens: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.tokens = tokens
        self.limit = limit


class InvalidInputError(MullamaError, ValueError):
    """An argument is out of its range, of a wrong type, or unknown: `field`
    with `value`; `reason` says what is allowed. Nothing was started."""

    code = "invalid_input"

    def __init__(self, message: str = "", *, field: str = "", value: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.value = value
        self.reason = reason


class TokenizationError(MullamaError):
    """Text could not be turned into tokens, or tokens into text."""

    code = "tokenization"


class GenerationError(MullamaError):
    """A decode step failed for this request. Others go on; trying again is
    safe."""

    code = "generation"


class CancelledError(MullamaError):
    """The work was cancelled by mullama's own means. Cancelling a task raises
    `asyncio.CancelledError` as everywhere, not this."""

    code = "cancelled"


class TimeoutError(MullamaError, builtins.TimeoutError):
    """The limit of `after_ms` milliseconds passed; the native work has
    stopped. `partial` is the text until then; empty where the wait was for
    something else, such as a lease. Raise the limit or ask for fewer tokens."""

    code = "timeout"

    def __init__(self, message: str = "", *, partial: str = "", after_ms: int = 0) -> None:
        super().__init__(message)
        self.partial = partial
        self.after_ms = after_ms


class QueueFullError(MullamaError):
    """`limit` requests are waiting already. Try again later or raise
    `max_queue`."""

    code = "queue_full"

    def __init__(self, message: str = "", *, limit: int = 0) -> None:
        super().__init__(message)
        self.limit = limit


class ClosedError(MullamaError):
    """The model, context, pool, lease or runtime is closed, or what it belongs
    to is. Make it again."""

    code = "closed"


class StateError(MullamaError):
    """A saved state is cut, altered, of another model or a newer version, or
    does not fit; the message says which. The context is as it was."""

    code = "state"


class IoError(MullamaError, OSError):
    """The operating system refused a read or a write. `kind` is its reason, in
    words."""

    code = "io"

    def __init__(self, message: str = "", *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class UnsupportedError(MullamaError):
    """This build, machine or process can't do what was asked; a process that
    was forked after mullama was used among them."""

    code = "unsupported"


class OutOfMemoryError(MullamaError, MemoryError):
    """The memory needed is more than the machine has. Lower `context_size` or
    `max_concurrent`, or choose a smaller model."""

    code = "out_of_memory"


class OperationFailedError(MullamaError):
    """A failure of the caller's own code that was reported through mullama: a
    custom worker's, by `TaskManager.stop_all`."""

    code = "operation_failed"


class InternalError(MullamaError):
    """A bug in mullama; please report it with the message. The process and
    the other models go on."""

    code = "internal"

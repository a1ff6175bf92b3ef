"""`Model`: the asynchronous API."""

from __future__ import annotations

from . import _mullama
from ._closing import AsyncClosing
from ._loop import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Any

    from typing_extensions import Self, Unpack

    from ._options import GenerateOptions, LoadOptions
    from ._stream import TokenStream
    from ._types import EngineMetrics, Generation, LayerPlacement, ModelInfo


class ModelState:
    """What the asynchronous and the blocking model have in common."""

    __slots__ = ("__weakref__", "_native")
    _native: _mullama.Model

    def __init__(self) -> None:
        raise TypeError(f"use {type(self).__name__}.load(path) to make a model")

    @classmethod
    def _of(cls, native: _mullama.Model) -> Self:
        model = cls.__new__(cls)
        model._native = native
        return model

    def metrics(self) -> EngineMetrics:
        """Live figures of the engine; never waits."""
        return self._native.metrics()

    def _describe(self, name: str) -> str:
        return f"<{name} {self._native.description()}>"


def request(max_tokens: int | None, options: GenerateOptions) -> dict[str, Any]:
    """All options of a request, as the native module takes them."""
    return {"max_tokens": max_tokens, **options}


class Model(ModelState, AsyncClosing):
    """A loaded model, served by one native engine thread.

    Any number of calls may run at once, from one event loop or several; their
    tokens are computed together. Cancelling a task stops its native work,
    also while it is queued.

    >>> async with await Model.load("model.gguf") as model:
    ...     print(await model.generate("The capital of France is", 10))
    """

    __slots__ = ()

    @classmethod
    async def load(cls, path: str | os.PathLike[str], **options: Unpack[LoadOptions]) -> Self:
        """Loads a GGUF file.

        Cancelling stops the load. Raises `ModelNotFoundError`,
        `InvalidModelError`, `ModelLoadError`, `ContextError`,
        `OutOfMemoryError`, `IoError`, or `InvalidInputError` for an option
        that is unknown or out of range.
        """
        rest: dict[str, Any] = {**options}
        on_progress = rest.pop("on_progress", None)
        operation = _mullama.load(path, rest, on_progress is not None)
        return cls._of(await run(operation, on_progress))

    async def generate(self, prompt: str, max_tokens: int | None = None, **options: Unpack[GenerateOptions]) -> str:
        """The answer's text. `max_tokens` defaults to 256.

        Raises `InvalidInputError`, `PromptTooLongError`, `TimeoutError` (with
        the text so far in `partial`), `QueueFullError`, `ClosedError`,
        `GenerationError`.
        """
        text: str = await run(self._native.generate(prompt, request(max_tokens, options)))
        return text

    async def generate_with(
        self, prompt: str, max_tokens: int | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """The answer with its tokens, counts, timings, seed and
        log-probabilities. Otherwise like `generate`."""
        result: Generation = await run(self._native.generate_with(prompt, request(max_tokens, options)))
        return result

    def generate_stream(
        self, prompt: str, max_tokens: int | None = None, **options: Unpack[GenerateOptions]
    ) -> TokenStream:
        """The answer token by token, for `async for`. Nothing is submitted
        until the first token is asked for.

        Raises `InvalidInputError` for arguments that can't be used at all; the
        iteration raises the rest.
        """
        from ._stream import TokenStream

        return TokenStream(self._native.generate_stream(prompt, request(max_tokens, options)))

    async def tokenize(self, text: str, add_bos: bool = True, parse_special: bool = False) -> list[int]:
        """The text's tokens; `add_bos` puts the model's beginning-of-text
        token first, if it has one; `parse_special` reads names of special
        tokens such as `<|im_start|>` as those tokens."""
        tokens: list[int] = await run(self._native.tokenize(text, add_bos, parse_special))
        return tokens

    async def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of the tokens."""
        text: str = await run(self._native.detokenize(tokens))
        return text

    async def info(self) -> ModelInfo:
        """Facts about the model; works after `close` too."""
        return self._native.info()

    async def metadata(self) -> dict[str, str]:
        """The metadata of the GGUF file."""
        return self._native.metadata()

    async def placement(self) -> list[LayerPlacement]:
        """Where the model's layers are: one entry a device that holds any."""
        return self._native.placement()

    async def is_ready(self) -> bool:
        """Whether the model is loaded and not closed."""
        return self._native.is_ready()

    async def close(self) -> None:
        """Stops what runs (it fails with `ClosedError`) and waits until the
        native memory is free. Idempotent."""
        await run(self._native.close())

    def __repr__(self) -> str:
        return self._describe("mullama.Model")

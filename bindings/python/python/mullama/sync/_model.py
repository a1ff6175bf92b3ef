"""The blocking `Model`."""

from __future__ import annotations

from .. import _mullama
from .._closing import Closing
from .._model import ModelState, request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Any

    from typing_extensions import Self, Unpack

    from .._options import GenerateOptions, LoadOptions
    from .._types import Generation, LayerPlacement, ModelInfo
    from ._stream import TokenStream


class Model(ModelState, Closing):
    """A loaded model, served by one native engine thread. Threads may share
    it; their tokens are computed together."""

    __slots__ = ()

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Unpack[LoadOptions]) -> Self:
        """Loads a GGUF file; raises as `mullama.Model.load` does."""
        rest: dict[str, Any] = {**options}
        on_progress = rest.pop("on_progress", None)
        return cls._of(_mullama.load(path, rest, on_progress is not None).wait(on_progress))

    def generate(self, prompt: str, max_tokens: int | None = None, **options: Unpack[GenerateOptions]) -> str:
        """The answer's text; raises as `mullama.Model.generate` does."""
        text: str = self._native.generate(prompt, request(max_tokens, options)).wait()
        return text

    def generate_with(
        self, prompt: str, max_tokens: int | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """The answer with its tokens, counts, timings, seed and
        log-probabilities."""
        result: Generation = self._native.generate_with(prompt, request(max_tokens, options)).wait()
        return result

    def generate_stream(
        self, prompt: str, max_tokens: int | None = None, **options: Unpack[GenerateOptions]
    ) -> TokenStream:
        """The answer token by token, for `for`."""
        from ._stream import TokenStream

        return TokenStream(self._native.generate_stream(prompt, request(max_tokens, options)))

    def tokenize(self, text: str, add_bos: bool = True, parse_special: bool = False) -> list[int]:
        """The text's tokens; `add_bos` puts the model's beginning-of-text
        token first, if it has one; `parse_special` reads names of special
        tokens such as `<|im_start|>` as those tokens."""
        tokens: list[int] = self._native.tokenize(text, add_bos, parse_special).wait()
        return tokens

    def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of the tokens."""
        text: str = self._native.detokenize(tokens).wait()
        return text

    def info(self) -> ModelInfo:
        """Facts about the model; works after `close` too."""
        return self._native.info()

    def metadata(self) -> dict[str, str]:
        """The metadata of the GGUF file."""
        return self._native.metadata()

    def placement(self) -> list[LayerPlacement]:
        """Where the model's layers are: one entry a device that holds any."""
        return self._native.placement()

    def is_ready(self) -> bool:
        """Whether the model is loaded and not closed."""
        return self._native.is_ready()

    def close(self) -> None:
        """Stops what runs (it fails with `ClosedError`) and waits until the
        native memory is free. Idempotent."""
        self._native.close().wait()

    def __repr__(self) -> str:
        return self._describe("mullama.sync.Model")

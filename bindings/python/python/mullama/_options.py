"""The keyword options, for type checkers and editors. What they mean, their
defaults and their ranges are the Rust core's; `None` is its default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias, TypedDict

KvType: TypeAlias = Literal["f32", "f16", "bf16", "q8_0"]
"""The number type of half of the KV cache."""


class GenerateOptions(TypedDict, total=False):
    """Sampling and limits of one request, except `max_tokens`."""

    temperature: float | None
    """0 takes the likeliest token; at most 100. Default 0.8."""
    top_k: int | None
    """Sample among the `top_k` likeliest tokens; 0 is off. Default 40."""
    top_p: float | None
    """Sample among the likeliest tokens whose probabilities sum to `top_p`;
    1 is off. Default 0.95."""
    min_p: float | None
    """Drop tokens less likely than `min_p` times the likeliest; 0 is off.
    Default 0.05."""
    typical_p: float | None
    """Locally typical sampling over this mass; 1 is off. Default 1."""
    repeat_penalty: float | None
    """Weakens tokens seen lately; 1 is off. Default 1."""
    repeat_last_n: int | None
    """How many of the last tokens the penalties look at. Default 64."""
    frequency_penalty: float | None
    """Taken from a token's logit for each time it was seen lately. Default 0."""
    presence_penalty: float | None
    """Taken once from the logit of each token seen lately. Default 0."""
    seed: int | None
    """Default: a fresh one, which the result reports."""
    stop: str | Iterable[str] | None
    """Texts that end the answer, none of which is returned. Default none."""
    logprobs: int | None
    """Report the log-probability of each token and of this many likeliest
    ones at its place. Default: none are reported."""
    logit_bias: Mapping[int, float] | None
    """Added to the logits of single tokens; `-math.inf` bans one."""
    ignore_eos: bool | None
    """Never end by an end-of-generation token. Default `False`."""
    buffer_size: int | None
    """Tokens that may wait for a slow reader of a stream before its sequence
    pauses. Default 32."""
    timeout_ms: int | None
    """Milliseconds from submission to the last token; 0 is no limit. Default:
    the model's."""


class LoadOptions(TypedDict, total=False):
    """How a model is loaded."""

    context_size: int | None
    """Tokens (prompt and answer) that each request may use. Default 2048."""
    gpu_layers: int | None
    """Layers to keep on a GPU; 0 (the default) none, -1 all."""
    threads: int | None
    """Threads that decode. Default: the processors that the process may use."""
    max_concurrent: int | None
    """Requests that generate at the same time; more wait. Default 4."""
    max_queue: int | None
    """Requests that may wait; one more fails with `QueueFullError`. Default
    4096."""
    timeout_ms: int | None
    """Milliseconds from submission to the last token, for requests that set
    none of their own; 0 is no limit. Default 30000."""
    flash_attention: bool | None
    """Force flash attention on or off. Default: llama.cpp decides."""
    batch_size: int | None
    """Most tokens evaluated in one decode step. Default 512."""
    cache_size: int | None
    """Tokens that the KV cache holds over all requests; at least
    `context_size`. Default: room for `max_concurrent` full requests. With
    less, a request may have to wait for others to end; none fails by it."""
    kv_type_k: KvType | None
    """Number type of the K half of the KV cache. Default `'f16'`."""
    kv_type_v: KvType | None
    """Number type of the V half of the KV cache. Default `'f16'`."""
    prefix_cache_bytes: int | None
    """Bytes of RAM for what requests have computed, so that later ones with
    the same beginning need not compute it again; 0 keeps nothing. Requests that
    are served at the same time share what they have in common in any case.
    Default: a quarter of the KV cache's bytes, and at most half of the memory
    that is free after the load. Taken as it fills."""
    use_mmap: bool | None
    """Map the file instead of reading it into memory. Default `True`."""
    deterministic: bool | None
    """Whether a request gives the same tokens and log-probabilities whatever
    runs beside it. Default `False`. CPU only; keys of type `'f16'` become
    `'q8_0'`, attention is flash attention, and each request has `context_size`
    tokens of its own, so `cache_size` can't be less than all of them."""
    prompt_lookup: bool | None
    """Whether a request that is served alone guesses its next tokens from
    where its last ones stood before, and evaluates several at once where that
    is quicker. Default `True`."""
    on_progress: Callable[[float], object] | None
    """Called with the share of the load that is done, 0 to 1: in the event
    loop's thread, or for `mullama.sync` in the calling one. An exception from
    it ends the load and is raised by it."""


class ContextOptions(TypedDict, total=False):
    """How a `Context` is made."""

    context_size: int | None
    """Tokens that the context holds over all of its sequences, prompts and
    answers. Default: the model's `context_size`."""
    max_sequences: int | None
    """Sequences that batches may name, from 0 on; 1 to 256. Default 8."""
    batch_size: int | None
    """Most tokens evaluated in one decode step. Default: the model's."""
    threads: int | None
    """Threads that decode. Default: the model's."""
    flash_attention: bool | None
    """Force flash attention on or off. Default: the model's."""
    kv_type_k: KvType | None
    """Number type of the K half of the KV cache. Default: the model's."""
    kv_type_v: KvType | None
    """Number type of the V half of the KV cache. Default: the model's."""


class RuntimeOptions(TypedDict, total=False):
    """How the runtime of the process is made. It passes messages and tokenizes;
    models compute on threads of their own."""

    worker_threads: int | None
    """Threads that run tasks, 1 to 1024. Default 1."""
    max_blocking_threads: int | None
    """Most threads at once for work that blocks, such as tokenizing, 1 to 16384.
    They come when needed and go when idle. Default 512."""
    thread_stack_size: int | None
    """Bytes of stack of each of these threads, 128 KiB to 1 GiB. Default 2 MiB."""
    thread_name: str | None
    """Their name, of which Linux shows the first 15 bytes. Default
    `'mullama-runtime'`."""
    shutdown_timeout_ms: int | None
    """Milliseconds that a shutdown would wait for tasks. The runtime of the
    process lives until that ends, so it is checked and has no effect. Default
    10000."""

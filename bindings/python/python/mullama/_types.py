"""What calls give back: frozen dataclasses. The native module makes them by
position, in the order of the fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

FinishReason: TypeAlias = Literal["stop", "stop_string", "length", "context_full", "cancelled"]
"""Why a generation ended: an end-of-generation token, a stop string,
`max_tokens`, the end of `context_size`, or the caller."""

DeviceKind: TypeAlias = Literal["cpu", "gpu", "integrated_gpu", "accelerator"]
"""What kind of thing computes. An integrated GPU shares the CPU's memory; an
accelerator works beside the CPU, such as a matrix unit or a BLAS library."""

WorkerState: TypeAlias = Literal["running", "completed", "failed", "panicked", "stopped"]
"""What became of a worker: at work, returned, ended with an error, ended with
a bug of native code, or stopped by `stop_all`."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and its log-probability."""

    token_id: int
    text: str
    """The token's own text. Bytes that are not whole characters show as U+FFFD."""
    logprob: float
    """Natural logarithm of its probability, 0 or less."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log-probabilities at one place of a `Generation`."""

    token_id: int
    """The token that was generated."""
    logprob: float
    top: list[TokenLogprob]
    """The likeliest tokens there, likeliest first."""


@dataclass(frozen=True, slots=True)
class TokenData:
    """One generated token of a stream."""

    text: str
    """The text that became certain with this token: whole characters only,
    never any part of a stop string. May be empty."""
    token_id: int
    index: int
    """0 for the first generated token."""
    logprob: float | None
    """The token's log-probability, when `logprobs` was asked for."""
    top_logprobs: list[TokenLogprob]
    """The likeliest tokens there, likeliest first, when `logprobs` asked for any."""
    is_final: bool
    """Whether this is the last token."""
    finish_reason: FinishReason | None
    """Why the generation ended; on the last token alone."""
    stop_string: str | None
    """The stop string, when `finish_reason` is `'stop_string'`."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a request."""

    prompt_tokens: int
    cached_tokens: int
    """How many of the prompt's tokens were taken from a cache."""
    completion_tokens: int
    """Tokens generated, an end-of-generation token included."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a request went, in seconds."""

    queued: float
    """From submission to admission."""
    prefill: float
    """From admission to the first token."""
    decode: float
    """From the first token to the last."""
    time_to_first_token: float
    """From submission to the first token."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The whole result of a generation."""

    text: str
    """The generated text, without the stop string that ended it."""
    tokens: list[int]
    """The generated tokens, the last (end-of-generation) one included."""
    finish_reason: FinishReason
    stop_string: str | None
    """The stop string, when `finish_reason` is `'stop_string'`."""
    usage: Usage
    timings: Timings
    seed: int
    """The seed that was used; the same seed and options repeat the draw."""
    logprobs: list[TokenLogprobs] | None
    """One entry a token, when `logprobs` was asked for."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts about a loaded model."""

    name: str
    architecture: str
    n_params: int
    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    n_ctx_train: int
    """Tokens of context the model was trained for."""
    size_bytes: int
    """Bytes of all tensors together."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """A count of durations by upper bound, in seconds."""

    bounds: list[float]
    """Upper bounds of the buckets, ascending; the last bucket has none."""
    counts: list[int]
    """Observations in each bucket (not cumulated); one more than `bounds`."""
    sum: float
    """Sum of all observations."""


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Live figures of one model's engine. Counts go from the load on."""

    queued: int
    """Requests waiting for admission, now."""
    active: int
    """Requests being served, now."""
    completed: int
    cancelled: int
    failed: int
    """Requests that ended with an error, a timeout included."""
    prompt_tokens: int
    """Prompt tokens computed."""
    cached_tokens: int
    """Prompt tokens taken from a cache."""
    generated_tokens: int
    drafted_tokens: int
    """Tokens that prompt lookup guessed and evaluated."""
    accepted_tokens: int
    """Those of them that were drawn, and so saved a step."""
    steps: int
    """Decode steps."""
    step_time: Histogram
    time_to_first_token: Histogram
    threads: int
    """Threads that decode, now."""
    cache_bytes: int
    """Bytes of the KV cache that hold live tokens, now."""
    prefix_cache_bytes: int
    """Bytes of RAM that hold what requests have computed, for later ones that
    begin alike, now. At most the model's `prefix_cache_bytes`."""
    preemptions: int
    """How many times a request made room for others: its memory went to RAM,
    and back when there was room again."""
    cache_size_bytes: int
    """Bytes of the whole KV cache, whether tokens lie in it or not."""
    weights_bytes: int
    """Bytes of the weights."""
    weights_shared: bool
    """Whether the load found the weights in the process: another model has
    the same file, loaded with the same `gpu_layers`, `use_mmap` and
    `deterministic`. They are in memory once then."""
    load_time: float
    """How long the load took, in seconds."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Figures of a `ModelPool`."""

    size: int
    """Leases that may be out at the same time."""
    available: int
    """Leases that can be taken without waiting, now."""
    in_use: int
    """Leases that are out, now. More than `size` for a while after the pool was
    made smaller."""
    waiting: int
    """Calls of `acquire` that wait, now."""
    acquired_total: int
    """Leases given out since the pool was made."""
    wait_ms_avg: float
    """How long those had to be waited for on average, in milliseconds."""


@dataclass(frozen=True, slots=True)
class RuntimeMetrics:
    """Live figures of the runtime that all models of the process share.
    Counts go from its start on."""

    active_tasks: int
    """Tasks of the runtime that have not ended, now. A call that is being
    served is one."""
    completed_tasks: int
    """Tasks that have ended: with a result, with an error, or cancelled."""
    worker_threads: int
    """Threads that run tasks."""
    blocking_threads: int
    """Threads that exist for work that blocks, now."""
    total_generations: int
    """Generations of the process that ended with a result: all models and
    contexts; neither cancelled nor failed ones."""
    avg_generation_ms: float
    """How long those took on average, in milliseconds from submission to the
    last token."""
    uptime_seconds: int
    """Whole seconds since the runtime was started."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker of a `TaskManager` does, or how it ended."""

    state: WorkerState
    message: str | None
    """Why it failed or panicked."""


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A part of llama.cpp that computes, as it was built in or found."""

    name: str
    n_devices: int
    """Devices that it found on this machine."""
    variant: str | None
    """Which of its variants was chosen for this processor, such as `haswell`;
    None where the build has one only."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """Something that models can compute with."""

    name: str
    description: str
    """The vendor's name for it."""
    backend: str
    """The backend that drives it, as `BackendInfo.name`."""
    kind: DeviceKind
    memory_free: int
    """Bytes, now."""
    memory_total: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class LayerPlacement:
    """How many of a model's layers one device holds."""

    device: str
    """As `DeviceInfo.name`."""
    n_layers: int

"""Which names of the languages are one concept, and where they differ on
purpose. Everything else of the parity table is derived from the code.

A column is a surface of `parity_surfaces`: `rust` and `blocking` are the crate
for async code and for code without a runtime, `node`, `python` for asyncio, and
`sync` is `mullama.sync`.
"""

from __future__ import annotations

from dataclasses import dataclass

from parity_surfaces import FUNCTIONS

COLUMNS = {
    "rust": "Rust, async",
    "blocking": "Rust, blocking",
    "node": "Node",
    "python": "Python",
    "sync": "`mullama.sync`",
}


@dataclass(frozen=True)
class Concept:
    """The types that are one, in each column; several where one language has
    the members in more types than the others."""

    name: str
    types: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Group:
    """One table of the page."""

    title: str
    text: str
    columns: tuple[str, ...]
    concepts: tuple[Concept, ...]


@dataclass(frozen=True)
class Spec:
    groups: tuple[Group, ...]
    aliases: dict[str, str]
    exceptions: tuple[tuple[str, str, str], ...]
    no_concept: dict[str, set[str]]


def each(columns: tuple[str, ...], name: str, **others: str | tuple[str, ...] | None) -> Concept:
    """A concept of one name in all columns but `others`; `None` is no type."""
    named: dict[str, str | tuple[str, ...] | None] = {**dict.fromkeys(columns, name), **others}
    types = {column: (it,) if isinstance(it, str) else it for column, it in named.items() if it is not None}
    return Concept(name or "Functions", types)


ALL = ("rust", "blocking", "node", "python", "sync")
# What is the same for asynchronous and blocking code.
VALUES = ("rust", "node", "python")

GROUPS = (
    Group(
        "Classes and functions",
        "",
        ALL,
        (
            each(ALL, FUNCTIONS),
            each(ALL, "Model", rust="AsyncModel"),
            each(ALL, "TokenStream", blocking="TokenIter"),
            each(ALL, "Context", rust="AsyncContext"),
            each(ALL, "Batch"),
            each(ALL, "ModelPool", blocking="BlockingModelPool"),
            each(ALL, "PooledModel", blocking="BlockingPooledModel"),
            each(ALL, "MullamaRuntime", blocking=None),
            each(ALL, "TaskManager", blocking=None),
            each(ALL, "GenerationTask", blocking=None),
        ),
    ),
    Group(
        "Options",
        "In Rust a struct; in Node an object; in Python keyword arguments, the same for `mullama.sync`.",
        VALUES,
        (
            each(VALUES, "LoadOptions", rust=("ModelOptions", "AsyncConfig"), node=("LoadOptions", "PoolOptions")),
            each(VALUES, "GenerateOptions", rust="StreamConfig"),
            each(VALUES, "ContextOptions"),
            each(VALUES, "RuntimeOptions", rust="MullamaRuntimeBuilder"),
            each(VALUES, "KvType"),
        ),
    ),
    Group(
        "Results",
        "The same for blocking code.",
        VALUES,
        (
            each(VALUES, "Generation"),
            each(VALUES, "TokenData", node="Token"),
            each(VALUES, "FinishReason"),
            each(VALUES, "Usage"),
            each(VALUES, "Timings"),
            each(VALUES, "TokenLogprobs"),
            each(VALUES, "TokenLogprob"),
            each(VALUES, "ModelInfo"),
            each(VALUES, "LayerPlacement"),
            each(VALUES, "EngineMetrics"),
            each(VALUES, "Histogram"),
            each(VALUES, "PoolStats"),
            each(VALUES, "RuntimeMetrics"),
            each(VALUES, "WorkerState", rust="WorkerStatus"),
            each(VALUES, "WorkerStatus", rust=None),
            each(VALUES, "BackendInfo"),
            each(VALUES, "DeviceInfo"),
            each(VALUES, "DeviceKind"),
        ),
    ),
    Group(
        "Errors",
        "One type in Rust and Node, a class for each kind in Python. The kinds have the same codes.",
        VALUES,
        (
            each(VALUES, "ErrorCode", rust="MullamaError", python="MullamaError.codes"),
            each(VALUES, "MullamaError", rust="MullamaError.fields"),
        ),
    ),
)

# Members that go by another name in one surface: the name in the table, after
# `Concept.` where it belongs to another one. One name may stand for several.
ALIASES = {
    "rust AsyncModel.model_info": "info",
    "rust AsyncModel.tokenize_async": "tokenize",
    "rust AsyncModel.load_with": "load",
    "rust AsyncModel.load_with_config": "load",
    "rust Model.load_with": "load",
    "rust PooledModel.model_info": "info",
    "rust PooledModel.tokenize_async": "tokenize",
    "rust AsyncContext.new": "create",
    "rust AsyncContext.with_options": "create",
    "rust AsyncContext.generate_stream_with": "generate_stream",
    "rust Context.new": "create",
    "rust Context.generate_stream_with": "generate_stream",
    "rust Batch.len": "length",
    "rust ModelPool.new": "create",
    "rust ModelPool.with_options": "create",
    "rust ModelPool.acquire_timeout": "acquire",
    "rust BlockingModelPool.new": "create",
    "rust BlockingModelPool.acquire_timeout": "acquire",
    "python TokenStream.aclose": "close",
    "sync GenerationTask.result": "await",
    "rust TaskManager.spawn_metrics_collector_with": "spawn_metrics_collector",
    "rust MullamaRuntime.new": "Functions.configure_runtime",
    "rust MullamaRuntime.configure_shared": "Functions.configure_runtime",
    "rust MullamaRuntime.shared": "Functions.runtime",
    "rust ModelOptions.timeout": "timeout_ms",
    "rust ModelOptions.progress": "on_progress",
    "rust ModelOptions.cancellation": "signal",
    "rust StreamConfig.timeout": "timeout_ms",
    "rust MullamaRuntimeBuilder.shutdown_timeout": "shutdown_timeout_ms",
    "rust MullamaError.code": "MullamaError.code",
}

# Where a column lacks what another has, and why: the concept and the member
# (`*` is any, no member the concept itself), the columns, the reason.
EXCEPTIONS = (
    ("*.scope", "rust blocking", "a value that goes out of scope ends by itself"),
    ("TokenStream.close", "rust blocking", "dropping it does that, and `cancel`"),
    ("PooledModel.release", "rust blocking", "dropping the lease gives it back"),
    ("TokenStream.stop_string", "rust blocking", "it is inside `FinishReason::StopString`"),
    ("Generation.stop_string", "rust", "it is inside `FinishReason::StopString`"),
    ("TokenData.stop_string", "rust", "it is inside `FinishReason::StopString`"),
    ("TokenStream.next_batch", "blocking node python sync", "for Rust programs without a crate for streams"),
    ("TokenStream.to_readable_stream", "rust blocking python sync", "a web stream is JavaScript's own"),
    ("MullamaRuntime", "blocking", "its calls are async; blocking code needs no runtime"),
    ("TaskManager", "blocking", "it runs on a `MullamaRuntime`; blocking code has threads"),
    ("GenerationTask", "blocking", "it comes from a `TaskManager`"),
    ("Functions.runtime", "blocking", "blocking code needs no runtime"),
    ("Functions.configure_runtime", "blocking", "blocking code needs no runtime"),
    ("MullamaRuntime.new", "rust node", "`runtime()` gives the one of the process"),
    ("MullamaRuntime.spawn*", "node python sync", "only Rust code can run on it"),
    ("MullamaRuntime.shutdown*", "node python sync", "the process's own runtime ends with the process"),
    ("MullamaRuntime.tokio", "node python sync", "tokio is Rust's own"),
    ("TaskManager.watch_metrics", "node python sync", "a channel of tokio's; `metrics_history` has the same samples"),
    ("Functions.timeout_from_ms", "node python sync", "options there are milliseconds already"),
    ("Functions.close_all", "node python sync", "the package calls it when the process exits"),
    ("Functions.check_cpu", "node python sync", "the package calls it when it is imported"),
    ("Functions.system_info", "node python sync", "for reports of bugs; `backends` and `devices` tell a program"),
    ("LoadOptions.model_path", "python", "the first argument of `load` and `create`"),
    ("GenerateOptions.max_tokens", "python", "an argument of its own, after the prompt"),
    ("*Options.signal", "rust python", "cancelled by dropping the future, or cancelling the task"),
    ("LoadOptions.validate", "node python", "every call checks its options"),
    ("GenerateOptions.validate", "node python", "every call checks its options"),
    ("GenerateOptions.new", "node python", "options need no constructor"),
    ("RuntimeOptions.enable_*", "node python", "the process's own runtime always has both"),
    ("RuntimeOptions.build", "node python", "the process's own runtime is made when it is first used"),
    ("FinishReason.name", "node python", "the value is its name there"),
    ("KvType.name", "node python", "the value is its name there"),
    ("DeviceKind.name", "node python", "the value is its name there"),
    ("WorkerStatus", "rust", "the message is inside `WorkerStatus::Failed` and `WorkerStatus::Panicked`"),
    ("MullamaError.name", "rust python", "every class of errors in JavaScript has one"),
    ("MullamaError.cause", "rust python", "Rust: `source()`; Python: `__cause__`"),
    ("MullamaError.message", "node python", "the text of the error itself"),
)

# Types that only say what an argument or a callback is.
NO_CONCEPT = {
    "rust": {"ProgressCallback", "SeqId", "TokenId", "WorkerOutput"},
    "node": {
        "AcquireOptions",  # arguments of `acquire` elsewhere
        "CollectorOptions",  # arguments of `spawn_metrics_collector` elsewhere
        "ModelMethods",  # what Model and PooledModel have in common
        "SignalOptions",
        "TokenId",
        "TokenList",
        "WorkerContext",
    },
    "python": set[str](),
    "sync": set[str](),
}

SPEC = Spec(GROUPS, ALIASES, EXCEPTIONS, NO_CONCEPT)

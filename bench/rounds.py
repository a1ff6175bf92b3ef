"""What a round runs, in which order. Each step is a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import packages, rows, tools
from bench.neighbour import busy_core
from bench.settings import BENCH, ROOT, Settings
from bench.systems import llama_tools

Line = dict[str, Any]
NODE_PEER_FILE = "node_modules/node-llama-cpp/dist/index.js"
# Room for a short prompt and its answer, and for the longest ones.
SHORT_CONTEXT, LONG_CONTEXT, LONGER_CONTEXT = 512, 2304, 4224
AT_ONCE = 16
STEP_SECONDS = 120.0
TRACE_SECONDS = 900.0
TRACE_LOADS = (50, 80, 120)
PYTHON_IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
NODE_IMPORT = "const start = performance.now(); await import('{}'); console.log((performance.now() - start) / 1e3)"


def rust_folder() -> Path:
    return Path(os.environ["CARGO_TARGET_DIR"]) / os.environ.get("CARGO_BUILD_TARGET", "") / "release"


def of(system: str, lines: Iterator[Line]) -> Iterator[Line]:
    """The lines as that system's."""
    for line in lines:
        yield {"system": system, **line}


class Rounds:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failures: list[str] = []
        # Of the round that runs, from 1.
        self.number = 1
        # Seconds a process may take; some get no processor time on a busy core.
        self.limit = STEP_SECONDS
        self.texts = settings.folder / "texts.json"
        self.short_tokens = int(json.loads(self.texts.read_text())["short_tokens"])
        peer = str(tools.peers_python())
        self.commands: dict[str, list[str]] = {
            rows.RUST: [str(rust_folder() / "bench-rows")],
            rows.PYTHON: [str(packages.python()), "-m", "bench.systems.mullama_python"],
            rows.NODE: ["node", str(BENCH / "systems/mullama_node.mjs")],
            rows.XLLAMA: [peer, "-m", "bench.systems.xllamacpp_server"],
            rows.NODE_LLAMA: ["node", str(BENCH / "systems/node_llama_cpp.mjs")],
        }
        if tools.has_llama_cpp_python():
            self.commands[rows.LLAMA_CPP_PYTHON] = [peer, "-m", "bench.systems.llama_cpp_python"]

    def run(self, system: str, workloads: list[str], at_once: int, context: int, rate: float = 0.0) -> Iterator[Line]:
        """One process of that system, which loads the model and runs these."""
        job = self.settings.folder / "job.json"
        job.write_text(
            json.dumps(
                {
                    "model": self.settings.model,
                    "threads": self.settings.threads,
                    "texts": str(self.texts),
                    "workloads": workloads,
                    "at_once": at_once,
                    "context": context,
                    "rate": rate,
                    "peer": str(tools.node_peers() / NODE_PEER_FILE),
                    "mullama": str(packages.node_package()),
                }
            )
        )
        for line in llama_tools.objects(self.printed([*self.commands[system], str(job)])):
            line["workload"] = "cancel" if line["workload"].startswith("cancel") else line["workload"]
            yield {"system": system, **line}

    def printed(self, command: list[str]) -> str:
        """What it prints; up to its failure, if it fails, which the report
        tells: one system must not cost the others their figures."""
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=packages.rust_environment() if command[0].startswith(str(rust_folder())) else None,
            errors="replace",
        ) as process:
            try:
                out, err = process.communicate(timeout=self.limit)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                err += f"\nended after {self.limit:.0f} s"
        if process.returncode != 0:
            what = " ".join(Path(part).name for part in command)
            self.failures.append(f"{what}: {err.strip().splitlines()[-1] if err.strip() else process.returncode}")
            print(err[-3000:], file=sys.stderr, flush=True)
        return out

    def load(self) -> Iterator[Line]:
        peer = str(tools.peers_python())
        in_python = {rows.PYTHON: (str(packages.python()), "mullama"), rows.XLLAMA: (peer, "xllamacpp")}
        if rows.LLAMA_CPP_PYTHON in self.commands:
            in_python[rows.LLAMA_CPP_PYTHON] = (peer, "llama_cpp")
        for workload, before in (("import", ""), ("import_asyncio", "asyncio, ")):
            for system, (python, name) in in_python.items():
                if printed := self.printed([python, "-c", PYTHON_IMPORT.format(before + name)]).split():
                    yield {"system": system, "workload": workload, "seconds": float(printed[-1])}
        in_node = {
            rows.NODE: packages.node_package(),
            rows.NODE_LLAMA: tools.node_peers() / NODE_PEER_FILE,
        }
        for system, file in in_node.items():
            command = ["node", "--input-type=module", "-e", NODE_IMPORT.format(file.as_uri())]
            if printed := self.printed(command).split():
                yield {"system": system, "workload": "import", "seconds": float(printed[-1])}
        for system in self.commands:
            yield from self.run(system, ["load"], 1, 2048)

    def in_turn(self, steps: list[Iterator[Line]]) -> Iterator[Line]:
        """All of them, each round from another one on: what ran right before
        makes a difference, and must not make it for the same system each time."""
        first = self.number % len(steps)
        for step in steps[first:] + steps[:first]:
            yield from step

    def speed(self) -> Iterator[Line]:
        model, threads, prompt = self.settings.model, self.settings.threads, self.short_tokens
        counts = self.settings.counts
        steps = [of(rows.LLAMA_BENCH, llama_tools.single(self.printed, model, threads, prompt))]
        for count in (count for count in counts if count <= 32):
            lines = llama_tools.at_once(self.printed, model, threads, prompt, count, f"at_once-{count}")
            steps.append(of(rows.BATCHED, lines))
        workloads = ["single", *(f"at_once-{n}" for n in counts)]
        steps += [self.run(system, workloads, max(counts), SHORT_CONTEXT) for system in rows.OURS]
        for system in (rows.XLLAMA, rows.NODE_LLAMA):
            # A context of its own size for each count, as its users would give it.
            steps.append(self.run(system, ["single", "at_once-16"], 16, SHORT_CONTEXT))
            if 32 in counts:
                steps.append(self.run(system, ["at_once-32"], 32, SHORT_CONTEXT))
        if rows.LLAMA_CPP_PYTHON in self.commands:
            steps.append(self.run(rows.LLAMA_CPP_PYTHON, ["single"], 1, SHORT_CONTEXT))
        yield from self.in_turn(steps)

    def shared(self) -> Iterator[Line]:
        yield from self.in_turn([self.run(system, ["shared"], AT_ONCE, 1024) for system in (rows.PYTHON, rows.XLLAMA)])

    def gap(self) -> Iterator[Line]:
        systems = (*rows.OURS, rows.XLLAMA, rows.NODE_LLAMA)
        yield from self.in_turn([self.run(system, ["gap"], 4, LONG_CONTEXT) for system in systems])

    def busy(self) -> Iterator[Line]:
        model, prompt = self.settings.model, self.short_tokens
        workloads = ["busy_single", f"busy-{AT_ONCE}"]
        systems = (*rows.OURS, rows.XLLAMA, rows.NODE_LLAMA)
        steps = [self.run(system, workloads, AT_ONCE, SHORT_CONTEXT) for system in systems]
        for threads in range(1, self.settings.threads + 1):
            suffix = f", {threads} thread{'s' if threads > 1 else ''}"
            lines = llama_tools.single(self.printed, model, threads, prompt, workloads[0])
            steps.append(of(rows.LLAMA_BENCH + suffix, lines))
            lines = llama_tools.at_once(self.printed, model, threads, prompt, AT_ONCE, workloads[1])
            steps.append(of(rows.BATCHED + suffix, lines))
        with busy_core():
            yield from self.in_turn(steps)

    def cancel(self) -> Iterator[Line]:
        for system in (*rows.OURS, rows.XLLAMA, rows.NODE_LLAMA):
            yield from self.run(system, ["cancel-8" if system in rows.OURS else "cancel-2"], 2, LONGER_CONTEXT)

    def pool(self) -> Iterator[Line]:
        """Leases of a pool; about ourselves only."""
        commands = {
            rows.RUST: [str(rust_folder() / "mullama-bench"), self.settings.model, "leases"],
            rows.PYTHON: [str(packages.python()), str(BENCH / "leases.py"), self.settings.model],
            rows.NODE: ["node", str(BENCH / "leases.mjs"), self.settings.model, str(packages.node_package())],
        }
        for system, command in commands.items():
            for line in llama_tools.objects(self.printed(command)):
                yield {"system": system, "workload": "leases", **line["result"]}

    def trace(self) -> Iterator[Line]:
        """The mixed trace, once: rates are shares of what we can serve."""
        self.limit = TRACE_SECONDS
        capacities = {}
        for system in (rows.PYTHON, rows.XLLAMA):
            for line in self.run(system, ["capacity"], AT_ONCE, LONG_CONTEXT):
                capacities[system] = line["requests_per_second"]
                yield line
        if rows.PYTHON not in capacities:
            return
        for load in TRACE_LOADS:
            for system in (rows.PYTHON, rows.XLLAMA):
                yield from self.run(system, [f"trace-{load}"], AT_ONCE, LONG_CONTEXT, capacities[rows.PYTHON])

    def endurance(self) -> Iterator[Line]:
        self.limit = TRACE_SECONDS
        printed = self.printed([str(packages.python()), str(BENCH / "endurance.py"), self.settings.model])
        for line in llama_tools.objects(printed):
            yield {"system": rows.PYTHON, "workload": "endurance", **line}

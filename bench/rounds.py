"""What a round runs, in which order. Each step is a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import packages, rows, tools
from bench.neighbour import busy_core
from bench.settings import BENCH, ROOT, Settings
from bench.systems import llama_tools

Line = dict[str, Any]
Step = Callable[[], Iterator[Line]]
"""Runs a process and gives what it measured."""
# Those that every part has.
PEERS = (rows.XLLAMA, rows.NODE_LLAMA)
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
                    "prompt_lookup": workloads != ["plain"],
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

    def in_turn(self, steps: list[Step], turn: int = 0) -> Iterator[Line]:
        """All of them, each time from another one on: what ran right before
        makes a difference, and must not make it for the same system each time."""
        first = (self.number + turn) % len(steps)
        for step in steps[first:] + steps[:first]:
            yield from step()

    def compare(self, close: list[Step], far: list[Step]) -> Iterator[Line]:
        """One workload of all systems, so that what is compared lies seconds
        apart: the close ones, of which some percent are asked, a few times in
        turn; the far ones, whose figures are multiples, once."""
        for turn in range(self.settings.turns):
            yield from self.in_turn(close, turn)
        if far:
            yield from self.in_turn(far)

    def speeds(self, workload: str, count: int, systems: Sequence[str]) -> list[Step]:
        """That workload of each of them, with a context of a size for it."""
        return [partial(self.run, system, [workload], count, SHORT_CONTEXT) for system in systems]

    def tool(self, workload: str, count: int, threads: int, suffix: str = "") -> Step:
        """The same of llama.cpp's tool."""
        name, measure = (rows.LLAMA_BENCH, llama_tools.single) if count == 1 else (rows.BATCHED, llama_tools.at_once)
        model, prompt = self.settings.model, self.short_tokens
        return lambda: of(name + suffix, measure(self.printed, model, threads, prompt, count, workload))

    def speed(self) -> Iterator[Line]:
        for count in (1, *self.settings.counts):
            workload = "single" if count == 1 else f"at_once-{count}"
            tool = self.tool(workload, count, self.settings.threads)
            # 64 at once are about what our bindings add; llama-cpp-python serves one at a time.
            peers = list(PEERS if count <= 32 else ())
            if count == 1 and rows.LLAMA_CPP_PYTHON in self.commands:
                peers.append(rows.LLAMA_CPP_PYTHON)
            yield from self.compare(
                [*self.speeds(workload, count, rows.OURS), tool], self.speeds(workload, count, peers)
            )
            if count == 1:
                tool = self.tool("plain", count, self.settings.threads)
                yield from self.compare([*self.speeds("plain", count, rows.OURS), tool], [])

    def shared(self) -> Iterator[Line]:
        systems = (rows.PYTHON, rows.XLLAMA)
        yield from self.in_turn([partial(self.run, system, ["shared"], AT_ONCE, 1024) for system in systems])

    def gap(self) -> Iterator[Line]:
        systems = (*rows.OURS, *PEERS)
        yield from self.in_turn([partial(self.run, system, ["gap"], 4, LONG_CONTEXT) for system in systems])

    def busy(self) -> Iterator[Line]:
        with busy_core():
            for workload, count in (("busy_single", 1), (f"busy-{AT_ONCE}", AT_ONCE)):
                tools = [
                    self.tool(workload, count, threads, f", {threads} thread{'s' if threads > 1 else ''}")
                    for threads in range(1, self.settings.threads + 1)
                ]
                yield from self.compare(
                    [*self.speeds(workload, count, rows.OURS), *tools], self.speeds(workload, count, PEERS)
                )

    def cancel(self) -> Iterator[Line]:
        for system in (*rows.OURS, *PEERS):
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

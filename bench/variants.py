"""Which variant of the CPU backend is the fastest on this machine (docs/cpu.md).

    python bench/variants.py MODEL.gguf [--rounds N] [--threads N] [--only NAMES] [--beside PYTHON]

For a Python that has mullama's wheel installed. Every round runs each variant
in a process of its own, in another order, and what mullama chooses by itself
as `chosen`. `--only` takes some of the variants, with commas between them;
`--beside` names another Python whose mullama takes part too, such as that of a
build with one variant. Prints the medians of prompt and answer tokens a second,
and their ranges.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import mullama
import mullama.sync

PROMPT = " ".join(f"item {i * 7919 % 1000}," for i in range(80))
ANSWER_TOKENS = 64


class System(NamedTuple):
    """A Python and the folder of modules that its mullama is given, if any."""

    python: str
    modules: str = ""


class Figures(NamedTuple):
    """Tokens a second."""

    prefill: float
    decode: float


def measure(path: str, threads: int) -> Figures:
    """One prompt and one answer of the mullama in this process, after a warm-up."""
    with mullama.sync.Model.load(path, context_size=1024, threads=threads, prompt_lookup=False) as model:
        model.generate("warm", max_tokens=8, ignore_eos=True)
        start = time.perf_counter()
        model.generate(PROMPT, max_tokens=1)
        prefill = len(model.tokenize(PROMPT)) / (time.perf_counter() - start)
        stream = model.generate_stream("Once upon a time", max_tokens=ANSWER_TOKENS, temperature=0.0, ignore_eos=True)
        times = [time.perf_counter() for _ in stream]
        return Figures(prefill, (len(times) - 1) / (times[-1] - times[0]))


def run(system: System, model: str, threads: int) -> Figures | None:
    """The figures of a process, or `None` where the processor can't run it."""
    env = os.environ | {"MULLAMA_BACKENDS_DIR": system.modules}
    command = [system.python, __file__, model, "--threads", str(threads), "--here"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode == 0:
        return Figures(*json.loads(done.stdout))
    if "UnsupportedError" in done.stderr:
        return None
    raise SystemExit(done.stderr)


def systems(arguments: argparse.Namespace, root: Path) -> dict[str, System]:
    """What takes part. Each variant is alone in a folder below `root`."""
    found = {"chosen": System(sys.executable)}
    for module in sorted((Path(mullama.__file__).parent / "backends").glob("*ggml-cpu-*")):
        name = module.stem.split("ggml-cpu-")[1]
        if not arguments.only or name in arguments.only.split(","):
            (root / name).mkdir()
            shutil.copy(module, root / name)
            found[name] = System(sys.executable, str(root / name))
    if len(found) == 1:
        raise SystemExit("there is nothing to compare: install the wheel of `make wheel`, and look at --only")
    if arguments.beside:
        found["beside"] = System(arguments.beside)
    return found


def cell(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})" if values else "can't run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only")
    parser.add_argument("--beside")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.model, arguments.threads)))
        return

    with tempfile.TemporaryDirectory() as root:
        taking_part = systems(arguments, Path(root))
        taken: dict[str, list[Figures]] = {name: [] for name in taking_part}
        order = list(taking_part)
        for _ in range(arguments.rounds):
            for name in order:
                if figures := run(taking_part[name], arguments.model, arguments.threads):
                    taken[name].append(figures)
            order.append(order.pop(0))

    print("| variant | prefill, tok/s | decode, tok/s |\n|---|---|---|")
    for name, rounds in taken.items():
        print(f"| {name} | {cell([it.prefill for it in rounds])} | {cell([it.decode for it in rounds])} |")


if __name__ == "__main__":
    main()

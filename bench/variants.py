"""Which variant of the CPU backend is the fastest on this machine (docs/cpu.md).

    python bench/variants.py MODEL.gguf [--rounds N] [--threads N] [--beside PYTHON]

For a Python that has mullama's wheel installed. Every round runs each variant
that this processor can run in a process of its own, in another order, and what
mullama chooses by itself as `chosen`. `--beside` names another Python whose
mullama takes part too, such as that of a build with one variant. Prints the
medians of prompt and answer tokens a second, and their ranges.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT_WORDS = 160
ANSWER_TOKENS = 64


def measure(model_path: str, threads: int) -> dict[str, float]:
    """One prompt and one answer of the mullama in this process, after a warm-up."""
    import mullama.sync

    words = ["a", "river", "bends", "where", "old", "stones", "keep", "the", "sun", "warm", "and", "birds", "count", "boats"]
    with mullama.sync.Model.load(model_path, context_size=1024, threads=threads) as model:
        model.generate("warm", max_tokens=8, ignore_eos=True)
        prompt = " ".join(f"{words[i * 5 % len(words)]}{i % 9}" for i in range(PROMPT_WORDS))
        start = time.perf_counter()
        model.generate(prompt, max_tokens=1)
        prefill = len(model.tokenize(prompt)) / (time.perf_counter() - start)
        request = {"max_tokens": ANSWER_TOKENS, "temperature": 0.0, "ignore_eos": True}
        times = [time.perf_counter() for _ in model.generate_stream("Once upon a time", **request)]
        return {"prefill": prefill, "decode": (len(times) - 1) / (times[-1] - times[0])}


def run(python: str, arguments: argparse.Namespace, folder: str | None) -> dict[str, float] | None:
    """The figures of a process, or `None` where it can't run."""
    env = dict(os.environ)
    env.pop("MULLAMA_BACKENDS_DIR", None)
    if folder:
        env["MULLAMA_BACKENDS_DIR"] = folder
    command = [python, __file__, arguments.model, "--threads", str(arguments.threads), "--one"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


def alone(modules: list[Path], root: Path) -> dict[str, str]:
    """A folder for each variant, with its module alone."""
    folders = {}
    for module in modules:
        name = module.stem.split("ggml-cpu-")[1]
        (root / name).mkdir()
        (root / name / module.name).write_bytes(module.read_bytes())
        folders[name] = str(root / name)
    return folders


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--beside", metavar="PYTHON")
    parser.add_argument("--only", metavar="NAMES", help="some of the variants, with commas between them")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.model, arguments.threads)))
        return 0

    import mullama

    modules = sorted((Path(mullama.__file__).parent / "backends").glob("*ggml-cpu-*"))
    if not modules:
        print("this mullama has one variant only: install the wheel of `make wheel`", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as root:
        systems: dict[str, tuple[str, str | None]] = {"chosen": (sys.executable, None)}
        for name, folder in alone(modules, Path(root)).items():
            if not arguments.only or name in arguments.only.split(","):
                systems[name] = (sys.executable, folder)
        if arguments.beside:
            systems["beside"] = (arguments.beside, None)
        figures: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
        for number in range(arguments.rounds):
            order = list(systems)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                python, folder = systems[name]
                if found := run(python, arguments, folder):
                    figures[name].append(found)

    print("| variant | rounds | prefill, tok/s | decode, tok/s |\n|---|---|---|---|")
    for name, taken in figures.items():
        cells = [name, str(len(taken))]
        for metric in ("prefill", "decode"):
            values = [entry[metric] for entry in taken]
            text = f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})" if values else "can't run"
            cells.append(text)
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

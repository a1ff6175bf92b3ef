"""Measures, and writes the report: `python -m bench`; `python -m bench render`
writes it again from the results that are there. `make bench` calls both."""

import json
import shutil
import subprocess
import sys
import time
from typing import Any

from bench import machine, packages, report, settings, tools
from bench.commands import say
from bench.rounds import Rounds
from bench.settings import BENCH, Settings

# Once a run, after the rounds: too long to repeat.
ONCE = ("trace", "endurance")


def measure(chosen: Settings) -> None:
    tools.main()
    folder = chosen.folder
    folder.mkdir(parents=True, exist_ok=True)
    say("making the texts")
    command = [str(packages.python()), "-m", "bench.texts", chosen.model, str(folder / "texts.json")]
    subprocess.run(command, check=True, cwd=settings.ROOT)
    rounds = Rounds(chosen)
    start = time.monotonic()
    with open(folder / "results.jsonl", "w") as results:

        def write(line: dict[str, Any]) -> None:
            results.write(json.dumps(line) + "\n")
            results.flush()

        def run(part: str, number: int) -> None:
            minutes, seconds = divmod(round(time.monotonic() - start), 60)
            say(f"{minutes}:{seconds:02} round {number} of {chosen.rounds}: {part}")
            rounds.number = number
            for line in getattr(rounds, part)():
                write({"round": number, **line})
                shown = {key: round(value, 3) for key, value in line.items() if isinstance(value, float)}
                print(f"    {line['system']}, {line['workload']}: {shown}", flush=True)

        write({"settings": chosen.described(), "machine": machine.described()})
        for number in range(1, chosen.rounds + 1):
            for part in (part for part in settings.PARTS if part in chosen.parts and part not in ONCE):
                run(part, number)
        for part in (part for part in ONCE if part in chosen.parts):
            run(part, chosen.rounds)
        for failure in rounds.failures:
            write({"system": "", "workload": "failure", "what": failure})


def write_report(chosen: Settings) -> None:
    lines = [json.loads(line) for line in (chosen.folder / "results.jsonl").read_text().splitlines()]
    # A quick run's report stays beside its results.
    to = chosen.folder if chosen.quick else BENCH
    shutil.rmtree(to / "plots", ignore_errors=True)
    (to / "plots").mkdir()
    for name, text in report.render(lines[0], lines[1:]).items():
        (to / name).write_text(text)
    say(f"the report is {to / 'report.md'}")


def main() -> None:
    chosen = settings.from_environment()
    if sys.argv[1:] != ["render"]:
        measure(chosen)
    write_report(chosen)
    if chosen.quick:
        print((chosen.folder / "report.md").read_text())


if __name__ == "__main__":
    main()

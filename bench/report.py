"""Renders results as the report and its plots. Pure: `render` maps lines of
results to texts of files, so a report can be made again without measuring."""

import math
from collections.abc import Callable
from typing import Any

from bench import plots, rows
from bench.rows import OURS, PYTHON, ROWS, XLLAMA, Results, Row, Verdict
from bench.stats import median, number, spread


def render(header: dict[str, Any], results: Results) -> dict[str, str]:
    """The report and its plots, by file name."""
    files: dict[str, str] = {}
    parts: list[Callable[[Results, dict[str, str]], list[str]]] = [goals, *map(section, ROWS), trace, pools, endurance]
    parts.append(failures)
    lines = introduction(header)
    for part in parts:
        lines += part(results, files)
    return {"report.md": "\n".join(lines).rstrip() + "\n", **files}


def introduction(header: dict[str, Any]) -> list[str]:
    settings, machine = header["settings"], header["machine"]
    same = "the same files" if machine["same_source"] else "not the same files"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(machine["versions"].items()))
    return [
        "# Benchmark report",
        "",
        f"Written by `make bench{' QUICK=1' if settings['quick'] else ''}` at commit {machine['commit']}.",
        "",
        f"- Machine: {machine['cpu']}, {machine['processors']} processors, {machine['memory_gib']} GiB, "
        f"{machine['system']}; load average at the start {machine['load_at_start']}.",
        f"- Model: {settings['model']}; prompts: {'own' if settings['prompts'] else 'built in'}; "
        f"threads: {settings['threads']}; rounds: {settings['rounds']}.",
        f"- Python {machine['python']}, Node {machine['node']}; {versions}.",
        f"- llama.cpp's tools and our engine: compiled from {same}, with the same flags, OpenMP off, for the same",
        f"  instruction sets: {instruction_sets(machine)}.",
        "  What differs: `llama-bench` attaches a thread pool as our engine does, `llama-batched-bench` starts and",
        "  joins its threads in every step. What mullama changes in llama.cpp when it compiles it (`core/cmake`), the",
        "  tools have as well. The peers' packages are prebuilt and choose their instruction sets at run time.",
        "",
        "All systems run in turn within each round, workload by workload, each in a process of its own. Of speeds,",
        f"the systems whose figures are close run in turn {settings['turns']} times a round. Figures are medians, with",
        "the smallest and the largest value. Ratios are medians of the ratios of each turn; more than 1 is in our",
        "favour.",
        "",
    ]


def instruction_sets(machine: dict[str, Any]) -> str:
    if variant := machine.get("variant"):
        return f"those of the variant `{variant}`, which mullama's installed packages choose on this machine"
    return "AVX2, FMA, F16C, BMI2, in a build of mullama with one variant"


def goals(results: Results, files: dict[str, str]) -> list[str]:
    """All verdicts in one table."""
    del files
    lines = ["## Goals", "", "| workload | goal | " + " | ".join(OURS) + " |", "|---|---|" + "---|" * len(OURS)]
    for row in ROWS:
        verdicts = rows.judge(results, row, median)
        for goal in row.goals:
            by_system = {verdict.system: verdict for verdict in verdicts if verdict.goal is goal}
            if by_system:
                cells = [verdict_cell(by_system[name], row) if name in by_system else "" for name in OURS]
                lines.append(f"| {row.title} | {goal.text} | {' | '.join(cells)} |")
    return [*lines, ""]


def verdict_cell(verdict: Verdict, row: Row) -> str:
    value = f"{number(verdict.value)} {row.unit}".strip() if verdict.goal.limit is not None else f"{verdict.value:.2f}"
    return f"{value}, {'met' if verdict.met else '**not met**'}"


def section(row: Row) -> Callable[[Results, dict[str, str]], list[str]]:
    """The table, the plot and the losses of a row."""

    def render_row(results: Results, files: dict[str, str]) -> list[str]:
        groups = {system: rows.values(results, row, system) for system in rows.systems(results, row)}
        if not groups:
            return []
        title = row.title[0].upper() + row.title[1:]
        plot = f"plots/{row.workload}-{row.metric}.svg".replace("_", "-")
        files[plot] = plots.bars(title, row.unit, groups)
        lines = [f"## {title}", "", row.what, "", f"| system | {row.unit or 'ratio'} |", "|---|---|"]
        lines += [f"| {system} | {spread(values)} |" for system, values in groups.items()]
        return [*lines, "", *losses(row, groups), f"![{title}]({plot})", ""]

    return render_row


def losses(row: Row, groups: dict[str, list[float]]) -> list[str]:
    """Who is ahead of us, and by how much."""
    own = {system: median(values) for system, values in groups.items() if system in OURS}
    rivals = {system: median(values) for system, values in groups.items() if system not in OURS}
    if not own or not rivals:
        return []
    said = []
    for system, value in own.items():
        ahead = {
            name: other / value for name, other in rivals.items() if (other > value) == row.higher and other != value
        }
        if ahead:
            named = ", ".join(f"{name} ({ratio:.2f} of our figure)" for name, ratio in sorted(ahead.items()))
            said.append(f"{system} loses to {named}.")
    return [" ".join(said) if said else "We lose to none of these.", ""]


def trace(results: Results, files: dict[str, str]) -> list[str]:
    own = [line for line in results if line["workload"].startswith("trace-")]
    if not own:
        return []
    capacity = {line["system"]: line["requests_per_second"] for line in results if line["workload"] == "capacity"}
    count = own[0]["requests"] + own[0]["cancelled"]
    lines = [
        "## Mixed trace",
        "",
        f"{count} requests that arrive as a Poisson process, prompts of 3 to 2,000 tokens, answers of 8 to 256, a",
        "tenth cancelled, 16 served at once. 100 % is what we serve when many requests are there from the beginning:",
        f"{capacity[PYTHON]:.2f} a second; xllamacpp served {capacity.get(XLLAMA, math.nan):.2f}. Both get the same",
        "requests at the same times. Tokens and latencies are those of requests that weren't cancelled. Per token is",
        "the time between two tokens as their reader gets them, next to nothing where they come together.",
        "",
        "| load | system | " + " | ".join(title for _, title in rows.TRACE_METRICS) + " |",
        "|---|---|" + "---|" * len(rows.TRACE_METRICS),
    ]
    for workload in dict.fromkeys(line["workload"] for line in own):
        load = workload.removeprefix("trace-")
        firsts = {line["system"]: line["firsts_ms"] for line in own if line["workload"] == workload}
        plot = f"plots/trace-{load}-first.svg"
        files[plot] = plots.curves(f"Time to the first token at {load} % load", "milliseconds", firsts)
        for line in (line for line in own if line["workload"] == workload):
            cells = " | ".join(number(line[key]) for key, _ in rows.TRACE_METRICS)
            lines.append(f"| {load} % | {line['system']} | {cells} |")
    lines += ["", *trace_losses(own)]
    for plot in (name for name in files if name.startswith("plots/trace-")):
        lines += [f"![Time to the first token]({plot})", ""]
    return lines


def trace_losses(own: Results) -> list[str]:
    """Where the peer is ahead of us in the trace."""
    of = {(line["workload"], line["system"]): line for line in own}
    said = []
    for workload in dict.fromkeys(line["workload"] for line in own):
        ours, other = of.get((workload, PYTHON)), of.get((workload, XLLAMA))
        if ours is None or other is None:
            continue
        ahead = [
            f"{title} ({other[key] / ours[key]:.2f} of our figure)"
            for key, title in rows.TRACE_METRICS
            if (other[key] > ours[key] if key == rows.SPEED else other[key] < ours[key])
        ]
        if ahead:
            said.append(f"At {workload.removeprefix('trace-')} % load we lose to {XLLAMA} in {'; '.join(ahead)}.")
    return [" ".join(said) if said else "We lose in none of these.", ""]


def failures(results: Results, files: dict[str, str]) -> list[str]:
    del files
    said = dict.fromkeys(line["what"] for line in results if line["workload"] == "failure")
    return (
        ["## Failures", "", "Their figures are missing above.", "", *(f"- {what}" for what in said), ""] if said else []
    )


def pools(results: Results, files: dict[str, str]) -> list[str]:
    del files
    own = [line for line in results if line["workload"] == "leases"]
    if not own:
        return []
    lines = ["## Pools", "", "| a lease, microseconds | free: acquired and released | passed from task to task |"]
    lines.append("|---|---|---|")
    for system in dict.fromkeys(line["system"] for line in own):
        keys = ("acquire_and_release_us", "passed_from_task_to_task_us")
        cells = (spread([line[key] for line in own if line["system"] == system]) for key in keys)
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return [*lines, ""]


def endurance(results: Results, files: dict[str, str]) -> list[str]:
    del files
    lines = []
    for line in (line for line in results if line["workload"] == "endurance"):
        lines += [
            "## 1,000 requests",
            "",
            f"From one asyncio loop, 30 % cancelled at random: {line['complete']} complete, {line['cancelled']}",
            f"cancelled, {line['wrong']} wrong. Resident memory after each hundred, MiB:",
            ", ".join(map(str, line["resident_mib_after_each_hundred"])) + ".",
            "",
        ]
    return lines

"""The parts of the benchmark that measure nothing: statistics, the trace, the
goals, the report and its plots."""

import sys
from typing import Any
from xml.etree import ElementTree

import pytest
from machine import ROOT

sys.path.insert(0, str(ROOT))

from bench import plots, report, rows, stats, tools, trace

HEADER = {
    "settings": {"model": "tiny.gguf", "prompts": None, "threads": 2, "rounds": 3, "turns": 2, "quick": False},
    "machine": {
        "commit": "0123abc",
        "cpu": "a processor",
        "processors": 2,
        "memory_gib": 8.0,
        "system": "Linux x86_64",
        "load_at_start": 0.1,
        "python": "3.11",
        "node": "v20",
        "versions": {"xllamacpp": "1.0"},
        "same_source": True,
    },
}


def single(system: str, *speeds: float, turns: int = 1) -> list[dict[str, Any]]:
    """Of as many rounds as that makes."""
    line = {"system": system, "workload": "single"}
    return [line | {"round": n // turns, "tokens_per_second": speed} for n, speed in enumerate(speeds)]


def row(workload: str, metric: str) -> rows.Row:
    (found,) = (row for row in rows.ROWS if (row.workload, row.metric) == (workload, metric))
    return found


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [30.0, 10.0, 20.0, 40.0]
    assert [stats.percentile(values, share) for share in (0.0, 0.25, 0.5, 0.51, 0.99, 1.0)] == [10, 10, 20, 30, 40, 40]


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        stats.percentile([], 0.5)


@pytest.mark.parametrize(("value", "text"), [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234")])
def test_figures_have_three_digits_that_count(value: float, text: str) -> None:
    assert stats.number(value) == text


def test_the_trace_of_a_seed_is_always_the_same() -> None:
    assert trace.arrivals(50, seed=7) == trace.arrivals(50, seed=7)
    assert trace.arrivals(50, seed=7) != trace.arrivals(50, seed=8)


def test_the_trace_keeps_its_bounds_and_cancels_a_tenth() -> None:
    made = trace.arrivals(2000, seed=1)
    assert all(3 <= arrival.prompt_tokens <= 2000 and 8 <= arrival.answer_tokens <= 256 for arrival in made)
    assert sum(arrival.cancel_after is not None for arrival in made) == 200
    assert [arrival.at for arrival in made] == sorted(arrival.at for arrival in made)


def test_arrivals_come_one_in_a_mean_gap() -> None:
    assert trace.arrivals(5000, seed=1)[-1].at == pytest.approx(5000, rel=0.1)


def test_lengths_reach_both_ends_of_their_bounds() -> None:
    assert [trace.power_law(chance, 3, 2000) for chance in (0.0, 1.0)] == [3, 2000]


def test_a_ratio_is_that_of_the_same_round() -> None:
    """The machine halves its speed in the third round: no ratio changes."""
    results = single(rows.RUST, 100, 102, 50) + single(rows.LLAMA_BENCH, 100, 100, 50)
    (verdict,) = rows.judge(results, row("single", "tokens_per_second"), stats.median)
    assert (verdict.value, verdict.met) == (1.0, True)


def test_a_ratio_is_that_of_the_same_turn_where_both_were_measured_as_often() -> None:
    results = single(rows.RUST, 100, 50, 30, turns=3) + single(rows.LLAMA_BENCH, 100, 100, 30, turns=3)
    (verdict,) = rows.judge(results, row("single", "tokens_per_second"), stats.median)
    assert verdict.value == 1.0


def test_a_ratio_is_that_of_the_middle_turn_where_the_other_was_measured_once() -> None:
    results = single(rows.RUST, 90, 100, 110, 40, 50, 60, turns=3) + single(rows.LLAMA_BENCH, 80, 100)
    (verdict,) = rows.judge(results, row("single", "tokens_per_second"), stats.median)
    assert verdict.value == stats.median([100 / 80, 50 / 100])


def test_a_round_in_which_the_other_failed_is_left_out() -> None:
    results = single(rows.RUST, 100, 50) + single(rows.LLAMA_BENCH, 100)
    (verdict,) = rows.judge(results, row("single", "tokens_per_second"), stats.median)
    assert verdict.value == 1.0


def test_a_ratio_below_the_goal_does_not_meet_it() -> None:
    results = single(rows.NODE, 97) + single(rows.LLAMA_BENCH, 100)
    (verdict,) = rows.judge(results, row("single", "tokens_per_second"), stats.median)
    assert not verdict.met


def test_of_fixed_numbers_of_threads_the_best_counts() -> None:
    results = [
        {"round": 1, "system": system, "workload": "busy_single", "tokens_per_second": speed}
        for system, speed in ((rows.PYTHON, 90), ("llama-bench, 1 thread", 100), ("llama-bench, 2 threads", 20))
    ]
    (verdict,) = rows.judge(results, row("busy_single", "tokens_per_second"), stats.median)
    assert (verdict.value, verdict.met) == (0.9, True)


def test_where_less_is_better_the_ratio_says_how_many_times_as_fast_we_are() -> None:
    results = [
        {"round": 1, "system": system, "workload": "shared", "cold_seconds": seconds}
        for system, seconds in ((rows.PYTHON, 5.0), (rows.XLLAMA, 40.0))
    ]
    (verdict,) = rows.judge(results, row("shared", "cold_seconds"), stats.median)
    assert (verdict.value, verdict.met) == (8.0, True)


def test_one_slow_cancellation_fails_the_goal() -> None:
    results = [{"round": 1, "system": rows.RUST, "workload": "cancel", "idle_ms": [1.0, 2.0, 101.0]}]
    (verdict,) = rows.judge(results, row("cancel", "idle_ms"), stats.median)
    assert (verdict.value, verdict.met) == (101.0, False)


def test_a_goal_against_a_system_that_was_not_measured_is_left_out() -> None:
    assert rows.judge(single(rows.RUST, 100), row("single", "tokens_per_second"), stats.median) == []


def test_the_report_says_where_we_lose() -> None:
    results = single(rows.RUST, 100, 110) + single(rows.PYTHON, 90, 80) + single(rows.XLLAMA, 95, 95)
    text = report.render(HEADER, results)["report.md"]
    assert "| mullama (Rust) | 105 (100-110) |" in text
    assert "mullama (Python) loses to xllamacpp (1.12 of our figure)." in text
    assert "mullama (Rust) loses" not in text


def test_every_plot_of_the_report_is_drawn_and_is_xml() -> None:
    results = single(rows.RUST, 100, 110) + single(rows.XLLAMA, 95, 95) + traced(rows.PYTHON) + traced(rows.XLLAMA)
    files = report.render(HEADER, results)
    drawn = {name for name in files if name.endswith(".svg")}
    assert drawn == {"plots/single-tokens-per-second.svg", "plots/trace-50-first.svg"}
    assert all(f"]({name})" in files["report.md"] for name in drawn)
    for name in drawn:
        ElementTree.fromstring(files[name])


def traced(system: str) -> list[dict[str, Any]]:
    figures = dict.fromkeys((metric for metric, _ in rows.TRACE_METRICS), 1.0)
    return [
        {"system": system, "workload": "capacity", "requests_per_second": 2.0},
        {"system": system, "workload": "trace-50", "requests": 9, "cancelled": 1, "firsts_ms": [1.0, 50.0], **figures},
    ]


def test_names_are_escaped_in_a_plot() -> None:
    drawn = plots.bars("a < b", "&", {"<system>": [1.0, 2.0]})
    assert "<system>" not in drawn
    ElementTree.fromstring(drawn)


def test_a_plot_of_nothing_but_zeros_is_drawn() -> None:
    ElementTree.fromstring(plots.bars("zeros", "ms", {"system": [0.0]}))
    ElementTree.fromstring(plots.curves("zeros", "ms", {"system": [0.0]}))


GGML_BUILD = """
function(ggml_add_cpu_backend_variant tag_name)
    ggml_add_cpu_backend_variant_impl(${tag_name})
        ggml_add_cpu_backend_variant(x64)
        ggml_add_cpu_backend_variant(haswell            SSE42 AVX F16C FMA AVX2 BMI2)
            ggml_add_cpu_backend_variant(armv8.2_1    DOTPROD)
    ggml_add_cpu_backend_variant_impl("")
"""


def turned_on(variant: str | None) -> set[str]:
    return {name for name, value in tools.instruction_sets(variant, GGML_BUILD).items() if value == "ON"}


def test_the_tools_have_the_instruction_sets_of_the_variant_and_no_others() -> None:
    assert list(tools.variants(GGML_BUILD)) == ["x64", "haswell", "armv8.2_1"]
    assert turned_on("x64") == set()
    assert turned_on("haswell") == {f"GGML_{name}" for name in ("SSE42", "AVX", "F16C", "FMA", "AVX2", "BMI2")}
    assert turned_on(None) == turned_on("haswell")


def test_the_tools_have_what_the_machine_has_where_ggml_has_no_such_options() -> None:
    assert turned_on("armv8.2_1") == {"GGML_NATIVE"}


def test_the_report_names_the_variant() -> None:
    header = {**HEADER, "machine": {**HEADER["machine"], "variant": "zen4"}}
    assert "those of the variant `zen4`" in report.render(header, [])["report.md"]
    assert "AVX2" in report.render(HEADER, [])["report.md"]

"""Each example runs as it is and does what it says."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples/python"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, EXAMPLES / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", ["hello.py", "sync_hello.py"])
def test_hello_streams_an_answer(name: str, model_path: str) -> None:
    assert run(name, model_path, "What is the capital of France?").strip()


def test_concurrent_answers_each_question(model_path: str) -> None:
    answers = run("concurrent_requests.py", model_path).strip().splitlines()
    assert len(answers) == 5
    assert "tokens" in answers[-1]


def test_cancel_frees_the_engine(model_path: str) -> None:
    output = run("cancel.py", model_path)
    assert "0 requests active" in output.splitlines()[-1]


def test_generate_prints_an_answer_and_the_model(model_path: str) -> None:
    *answer, info = run("generate.py", model_path).splitlines()
    assert "".join(answer).strip()
    assert info.endswith(" parameters")


def test_configure_loads_with_every_setting(model_path: str) -> None:
    output = run("configure.py", model_path)
    assert "100% loaded" in output
    assert "ready: True" in output
    assert " layers on " in output


def test_cancel_by_event_raises_and_frees_the_engine(model_path: str) -> None:
    assert run("cancel_by_event.py", model_path) == "Cancelled\n1 request cancelled, 0 active\n"


def test_configure_runtime_makes_the_runtime_as_it_says() -> None:
    running, refused = run("configure_runtime.py").splitlines()
    assert running == "running: True, 4 worker threads"
    assert refused.startswith("unsupported: ")


def test_pool_counts_its_leases(model_path: str) -> None:
    in_use, stats, leases = run("pool.py", model_path).splitlines()[-3:]
    assert (in_use, stats) == ("in use: 1", "available: 4, in use: 0")
    assert leases == "9 leases, 2 at a time"


def test_tokenization_is_the_same_either_way(model_path: str) -> None:
    blocking, asynchronous = run("tokenization.py", model_path).splitlines()
    assert blocking == asynchronous
    assert blocking.startswith("[")


def test_all_in_one_ends_with_the_metrics(model_path: str) -> None:
    active, _, generations = run("all_in_one.py", model_path).splitlines()[-3:]
    assert active == "active tasks: 0"
    assert generations.startswith("generations: 2, ")


def test_context_state_goes_on_in_the_next_run(model_path: str, tmp_path: Path) -> None:
    counts = []
    for _ in range(2):
        output = run("context_state.py", model_path, str(tmp_path / "state"))
        counts.append(int(output.splitlines()[-2].removesuffix(" tokens")))
    assert counts[1] > counts[0] > 0
    assert run("context_state.py", model_path).endswith(" bytes saved\n")


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "all_in_one.py",
        "cancel.py",
        "cancel_by_event.py",
        "concurrent_requests.py",
        "configure.py",
        "configure_runtime.py",
        "context_state.py",
        "generate.py",
        "hello.py",
        "pool.py",
        "sync_hello.py",
        "tokenization.py",
    }

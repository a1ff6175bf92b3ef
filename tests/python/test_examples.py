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


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "hello.py",
        "sync_hello.py",
        "concurrent_requests.py",
        "cancel.py",
    }

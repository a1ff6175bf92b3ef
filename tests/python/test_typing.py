"""The types are complete and true."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import mullama
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")

# mypy takes the alias of a Literal for a union, and the runtime's is none.
ALLOWED = """
mullama._options.KvType
mullama._types.DeviceKind
mullama._types.FinishReason
mullama._types.WorkerState
"""


def check(*command: str | Path) -> None:
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_strict_users_and_the_package_itself_pass(tmp_path: Path) -> None:
    package = Path(mullama.__file__).parent
    check("mypy", "--strict", "--cache-dir", tmp_path, package, HERE / "typing/usage.py")


def test_the_stubs_agree_with_the_native_module(tmp_path: Path) -> None:
    allowlist = tmp_path / "allowed"
    allowlist.write_text(ALLOWED)
    check("mypy.stubtest", "mullama", "--allowlist", allowlist)
    assert (Path(mullama.__file__).parent / "py.typed").exists()

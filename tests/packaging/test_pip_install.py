"""`pip install .` on a machine that has Rust and a C++ compiler, and neither
CMake nor Ninja nor libclang: they come in by the build requirements."""

import os
import shutil
from pathlib import Path

from machine import BUILD_TOOLS, ROOT, empty_venv, environment, generate_with_python, run

# A cold build compiles llama.cpp, in a target folder of its own: this build
# has other tools than the Makefile's, and Cargo would start over each time
# the two take turns.
COLD_BUILD_SECONDS = 45 * 60


def checkout_files() -> set[str]:
    ignored = {".git", ".venv", "__pycache__", "dist", "node_modules", "target", ".pytest_cache"}
    found = set()
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ignored]
        found |= {os.path.join(folder, name) for name in files}
    return found


def test_pip_installs_a_checkout_with_only_rust_and_a_compiler(tmp_path: Path) -> None:
    target = Path(os.environ["MULLAMA_CACHE"]) / "target-pip"
    env = environment(tmp_path / "path", without=BUILD_TOOLS, CARGO_TARGET_DIR=str(target))
    for tool in BUILD_TOOLS:
        assert shutil.which(tool, path=env["PATH"]) is None
    for tool in ("cargo", "c++"):
        assert shutil.which(tool, path=env["PATH"])

    before = checkout_files()
    python = empty_venv(tmp_path / "venv")
    run(python, "-m", "pip", "install", ROOT, cwd=tmp_path, env=env, seconds=COLD_BUILD_SECONDS)
    assert checkout_files() == before

    generate_with_python(python, tmp_path / "elsewhere", env)

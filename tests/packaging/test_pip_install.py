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


def source_files() -> set[Path]:
    """What is in the checkout's own folders, where a build must leave nothing."""
    files = {path for folder in ("bindings", "core", "scripts") for path in (ROOT / folder).rglob("*")}
    return {*ROOT.glob("[!.]*"), *files} - {path for path in files if "__pycache__" in path.parts}


def test_pip_installs_a_checkout_with_only_rust_and_a_compiler(tmp_path: Path) -> None:
    target = Path(os.environ["MULLAMA_CACHE"]) / "target-pip"
    env = environment(tmp_path / "path", without=BUILD_TOOLS, CARGO_TARGET_DIR=str(target))
    for tool in BUILD_TOOLS:
        assert shutil.which(tool, path=env["PATH"]) is None
    for tool in ("cargo", "c++"):
        assert shutil.which(tool, path=env["PATH"])

    before = source_files()
    python = empty_venv(tmp_path / "venv")
    run(python, "-m", "pip", "install", ROOT, cwd=tmp_path, env=env, seconds=COLD_BUILD_SECONDS)
    assert source_files() == before

    generate_with_python(python, tmp_path / "elsewhere", env)

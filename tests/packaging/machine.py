"""A machine within the machine: what the packaging tests share.

A package must work where the tools that built it are not. So commands run in
folders of their own, with a PATH that lacks the named tools and without the
variables that the Makefile exports.
"""

import json
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"

BUILD_TOOLS = ("cmake", "ninja", "clang", "llvm-config", "maturin")
RUST = ("cargo", "rustc", "rustup", "rust")

# Set by the Makefile or by a developer for the builds of the checkout.
BUILD_VARIABLES = (
    "BINDGEN_EXTRA_CLANG_ARGS",
    "CARGO_TARGET_DIR",
    "CMAKE_GENERATOR",
    "LIBCLANG_PATH",
    "MAKEFLAGS",
    "MFLAGS",
    "NODE_PATH",
    "PYO3_BUILD_EXTENSION_MODULE",
    "PYO3_CONFIG_FILE",
    "PYTHONPATH",
    "VIRTUAL_ENV",
)


class Project(NamedTuple):
    """A Node project with the tarballs installed, and the environment in
    which it works."""

    folder: Path
    env: dict[str, str]


def model() -> str:
    """The model that packages generate with; the Makefile names it."""
    return os.environ["MULLAMA_TEST_MODEL"]


def environment(folder: Path, without: tuple[str, ...], **more: str) -> dict[str, str]:
    """An environment whose PATH has every command of this machine, but none
    whose name starts with one of `without`. `folder` must be empty."""
    folder.mkdir(parents=True)
    for directory in os.environ["PATH"].split(os.pathsep):
        if not os.path.isdir(directory):
            continue
        for command in os.scandir(directory):
            link = folder / command.name
            if not command.name.startswith(without) and not link.is_symlink():
                link.symlink_to(command.path)
    env = {name: value for name, value in os.environ.items() if name not in BUILD_VARIABLES}
    return env | {"PATH": str(folder)} | more


def run(*command: str | Path, cwd: Path, env: dict[str, str], seconds: float = 120) -> str:
    """Runs a command that must succeed and gives what it printed."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=seconds
    )
    if done.returncode != 0:
        shown = " ".join(str(word) for word in command)
        raise AssertionError(f"`{shown}` gave {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}")
    return done.stdout


def empty_venv(folder: Path) -> Path:
    """Makes a virtual environment with nothing but pip; gives its Python."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def manifest(tarball: Path) -> dict[str, Any]:
    """The package.json of an npm tarball."""
    with tarfile.open(tarball) as archive:
        file = archive.extractfile("package/package.json")
        assert file is not None
        return json.load(file)


GENERATE_IN_PYTHON = """
import asyncio, sys
import mullama, mullama.sync

async def main():
    async with await mullama.Model.load(sys.argv[1]) as model:
        request = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
        text = await model.generate(**request)
        streamed = [token.text async for token in model.generate_stream(**request)]
        print(len(text) > 0, "".join(streamed) == text)

asyncio.run(main())
print(mullama.__file__)
"""


def generate_with_python(python: Path, folder: Path, env: dict[str, str]) -> None:
    """Generates and streams a few tokens with the mullama installed for
    `python`, from `folder`, and sees that it is that one."""
    folder.mkdir()
    program = folder / "program.py"
    program.write_text(GENERATE_IN_PYTHON)
    results, package = run(python, "-W", "error", program, model(), cwd=folder, env=env).splitlines()
    assert results == "True True"
    assert Path(package).resolve().is_relative_to(python.parents[1].resolve())

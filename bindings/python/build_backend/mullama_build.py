"""The PEP 517 backend: maturin's, with its tools within reach.

`pip install .` must work where there are only Rust and a C++ compiler. CMake,
Ninja, libclang and maturin come from PyPI into pip's isolated environment;
this module tells the build where they are. A variable that is set already is
left alone, so the Makefile's own tools stay in use under it.

The isolated environment has another path each time and is removed afterwards,
while the target folder stays. So nothing that Cargo or CMake remember may
differ from one build to the next: libclang is reached through a link in the
target folder, and a CMake cache that names a removed tool is dropped.

`--config-settings gpu=cuda` adds a backend to the build, several with commas
between them (docs/gpu.md). All other settings are maturin's.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import cmake_state
import gpu_backends
import maturin
from maturin import get_requires_for_build_editable, get_requires_for_build_sdist, get_requires_for_build_wheel

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = dict[str, Any] | None


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    prepare()
    name: str = maturin.build_wheel(wheel_directory, maturin_settings(config_settings), metadata_directory)
    return name


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    prepare()
    name: str = maturin.build_editable(wheel_directory, maturin_settings(config_settings), metadata_directory)
    return name


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    name: str = maturin.build_sdist(sdist_directory, config_settings)
    return name


# A frontend asks for the metadata first, so a wrong setting is told before
# anything is built.
def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    name: str = maturin.prepare_metadata_for_build_wheel(metadata_directory, maturin_settings(config_settings))
    return name


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings = None) -> str:
    name: str = maturin.prepare_metadata_for_build_editable(metadata_directory, maturin_settings(config_settings))
    return name


def maturin_settings(config_settings: Settings) -> Settings:
    """The settings as maturin knows them: `gpu` becomes Cargo features. Those
    that the caller gives maturin itself, by a setting or by its environment
    variable, stay in force."""
    settings = dict(config_settings or {})
    if "gpu" not in settings:
        return config_settings
    try:
        features = gpu_backends.chosen(settings.pop("gpu"))
    except ValueError as error:
        raise SystemExit(f"mullama: --config-settings gpu: {error}") from None
    given = maturin.get_maturin_pep517_args(settings)
    settings.pop("maturin.build-args", None)
    return settings | {"build-args": [*given, "--features", ",".join(features)]}


def prepare() -> None:
    """Sets the variables that the native build reads."""
    # Where pip does not look: `python -m build` and `--no-build-isolation`.
    scripts = sysconfig.get_path("scripts")
    path = os.environ.get("PATH", "")
    if scripts not in path.split(os.pathsep):
        os.environ["PATH"] = f"{path}{os.pathsep}{scripts}"
    target = Path(os.environ.setdefault("CARGO_TARGET_DIR", str(Path.cwd() / "target")))
    cmake_state.forget_lost_tools(target)
    cmake_state.build_again_after_change(target)
    if shutil.which("ninja"):
        os.environ.setdefault("CMAKE_GENERATOR", "Ninja")
    if "LIBCLANG_PATH" not in os.environ and (library := libclang()):
        os.environ["LIBCLANG_PATH"] = str(linked(library, target))
    if "BINDGEN_EXTRA_CLANG_ARGS" not in os.environ and (headers := compiler_headers()):
        os.environ["BINDGEN_EXTRA_CLANG_ARGS"] = f"-I{headers}"


def libclang() -> Path | None:
    """The library of the PyPI package `libclang`."""
    package = importlib.util.find_spec("clang")
    folders = package.submodule_search_locations if package else None
    found = [library for folder in folders or () for library in Path(folder).glob("native/*clang*")]
    return found[0] if found else None


def linked(library: Path, target: Path) -> Path:
    """A folder that holds the library and has the same path in every build:
    Cargo rebuilds bindgen and all after it when LIBCLANG_PATH changes."""
    if sys.platform == "win32":
        # Links need a privilege there.
        return library.parent
    folder = target / "libclang"
    folder.mkdir(parents=True, exist_ok=True)
    cmake_state.replace_link(folder / library.name, library)
    return folder


def compiler_headers() -> str | None:
    """The C compiler's own headers (`stddef.h` and such), which the libclang
    package lacks."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    try:
        asked = subprocess.run([*compiler, "-print-file-name=include"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    folder = asked.stdout.strip()
    return folder if os.path.isabs(folder) else None

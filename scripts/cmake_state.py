"""What CMake and Ninja left in a Cargo target folder: how far llama.cpp's
build is, and whether it still refers to tools that exist."""

import hashlib
import os
import re
import shutil
from pathlib import Path

# Of this checkout; llama.cpp's own build includes what is there.
INCLUDES = Path(__file__).resolve().parent.parent / "core/cmake"
TOOL = re.compile(r"^(?:CMAKE_COMMAND|CMAKE_MAKE_PROGRAM|CMAKE_PROJECT_INCLUDE):\w+=(.+)$", re.MULTILINE)


def build_files(target: Path, name: str) -> list[Path]:
    """The files of that name in llama.cpp's build folders, newest last. Cargo
    has a folder for each profile and, inside one for each named target, again."""
    folder = "build/llama-cpp-sys-2-*/out/build"
    found = [*target.glob(f"*/{folder}/{name}"), *target.glob(f"*/*/{folder}/{name}")]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def forget_lost_tools(target: Path) -> None:
    """Makes CMake configure again where its cache names a tool that is gone.

    CMake's cache keeps the absolute paths of cmake and ninja, and of the file
    of this checkout that its build includes. Where they were in a folder that
    was removed (an isolated pip build, a cleaned cache, another checkout), the
    next build would fail. Without the cache CMake configures again, and Ninja
    recompiles nothing whose command is the same.
    """
    for cache in build_files(target, "CMakeCache.txt"):
        tools = TOOL.findall(cache.read_text(errors="replace"))
        if not all(os.path.exists(tool) for tool in tools):
            cache.unlink(missing_ok=True)


def includes_digest(includes: Path = INCLUDES) -> str:
    """What the files say that llama.cpp's own build includes."""
    whole = hashlib.sha256()
    for file in sorted(includes.iterdir()):
        whole.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return whole.hexdigest()


def build_again_after_change(target: Path, includes: Path = INCLUDES) -> None:
    """Makes Cargo run llama.cpp's build again where the files of `includes`
    were others when it ran last.

    Cargo does not know of them, and CMake would include those that it was told
    of at first. Ninja then compiles what is another command or another file.
    """
    digest = includes_digest(includes)
    newest = max(file.stat().st_mtime for file in includes.iterdir())
    # The cache may be gone: see `forget_lost_tools`.
    for plan in build_files(target, "build.ninja"):
        stamp = plan.with_name("mullama-include.sha256")
        before = stamp.read_text() if stamp.exists() else ""
        # Without a stamp it was configured by a run that is over just now, or
        # by one that wrote none.
        is_older = not before and newest < plan.stat().st_mtime
        if before != digest and not is_older:
            crate = plan.parents[2]
            profile = crate.parents[1]
            shutil.rmtree(profile / ".fingerprint" / crate.name, ignore_errors=True)
            # The crate has llama.cpp inside: without it Cargo links anew at
            # once, and not at the next run only.
            for library in (profile / "deps").glob("libllama_cpp_sys_2-*"):
                library.unlink()
            plan.with_name("CMakeCache.txt").unlink(missing_ok=True)
        stamp.write_text(digest)


def compiled_files(target: Path) -> tuple[int, int] | None:
    """How many object files of the newest llama.cpp build are there, and how
    many there will be."""
    logs = build_files(target, ".ninja_log")
    if not logs:
        return None
    built = {line.split("\t")[3] for line in logs[-1].read_text().splitlines() if line.count("\t") >= 4}
    plan = logs[-1].with_name("build.ninja").read_text()
    planned = set(re.findall(r"^build (\S+\.o): ", plan, re.MULTILINE))
    return len(built & planned), len(planned)


def replace_link(link: Path, to: Path) -> None:
    """Points the symbolic link at `to`, in one step that nobody sees half done."""
    if link.is_symlink() and os.readlink(link) == str(to):
        return
    fresh = link.with_name(f"{link.name}.{os.getpid()}")
    fresh.symlink_to(to)
    fresh.replace(link)

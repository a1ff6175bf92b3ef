"""Runs a command with the build tools that a plain machine lacks.

    python3 scripts/with_tools.py cargo test --release

CMake, Ninja, libclang and maturin come from PyPI into a virtual environment in
the cache. Its name is a hash of the pinned versions, so every checkout shares
it and it does not move: CMake remembers the paths of its tools in the target
folder. The command's environment gets the tools on its PATH, libclang for
bindgen, and one target folder for all builds, so that llama.cpp is compiled
once. A variable that is set already is left alone.

The target is named even though it is the host: the napi CLI always names it,
and Cargo keeps a build with a named target apart from one without.

pyo3 gets what maturin would find out for the wheel (abi3 of Python 3.10, an
extension module), so that cargo and maturin build the same: else each would
compile pyo3 again after the other, and cargo would need libpython.

    MULLAMA_CACHE     where all this is kept; default ~/.cache/mullama
    CARGO_TARGET_DIR  default $MULLAMA_CACHE/target
    CARGO_BUILD_TARGET, CMAKE_GENERATOR, LIBCLANG_PATH,
    BINDGEN_EXTRA_CLANG_ARGS, PYO3_CONFIG_FILE, PYO3_BUILD_EXTENSION_MODULE
"""

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cmake_state

SCRIPTS = Path(__file__).resolve().parent
REQUIREMENTS = SCRIPTS / "requirements-tools.txt"
ON_PATH = ("cmake", "ninja", "maturin")
PROGRESS_SECONDS = 10.0


def cache_dir() -> Path:
    """The cache folder; the Makefile uses the same rule."""
    if chosen := os.environ.get("MULLAMA_CACHE"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mullama"


def tools_venv() -> Path:
    """The tools' virtual environment, made first if it is not there.

    Safe when interrupted, and when several builds start at once: the stamp is
    written last, and a lock lets one of them install.
    """
    identity = f"{REQUIREMENTS.read_text()}{sys.version_info[:2]}".encode()
    venv = cache_dir() / "tools" / hashlib.sha256(identity).hexdigest()[:12]
    stamp = venv / "complete"
    venv.parent.mkdir(parents=True, exist_ok=True)
    with open(venv.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            say(f"installing the build tools into {venv}")
            shutil.rmtree(venv, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            pip: list[str | Path] = [venv / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
            subprocess.run([*pip, "-r", REQUIREMENTS], check=True, stdout=sys.stderr)
            (venv / "path").mkdir()
            for name in ON_PATH:
                (venv / "path" / name).symlink_to(f"../bin/{name}")
            stamp.touch()
    return venv


def environment(venv: Path) -> dict[str, str]:
    """The environment of the command."""
    env = dict(os.environ)
    # Not `bin`: its `python` would hide the caller's.
    env["PATH"] = f"{venv / 'path'}{os.pathsep}{env.get('PATH', '')}"
    target = Path(env.setdefault("CARGO_TARGET_DIR", str(cache_dir() / "target")))
    if "CARGO_BUILD_TARGET" not in env and (host := rust_host()):
        env["CARGO_BUILD_TARGET"] = host
    env.setdefault("CMAKE_GENERATOR", "Ninja")
    env.setdefault("PYO3_CONFIG_FILE", str(SCRIPTS / "pyo3-config.txt"))
    env.setdefault("PYO3_BUILD_EXTENSION_MODULE", "1")
    if "LIBCLANG_PATH" not in env:
        env["LIBCLANG_PATH"] = str(stable_libclang(venv, target))
    if "BINDGEN_EXTRA_CLANG_ARGS" not in env and (headers := compiler_headers()):
        env["BINDGEN_EXTRA_CLANG_ARGS"] = f"-I{headers}"
    return env


def rust_host() -> str | None:
    """The target triple of this machine."""
    asked = subprocess.run(["rustc", "-vV"], capture_output=True, text=True)
    found = re.search(r"^host: (\S+)$", asked.stdout, re.MULTILINE)
    return found and found[1]


def stable_libclang(venv: Path, target: Path) -> Path:
    """A folder whose path depends on the target folder alone.

    Cargo rebuilds bindgen, and all that is after it, when LIBCLANG_PATH
    changes. So the target folder holds links, and a newer tools folder or
    another Python only moves the links.
    """
    stable = target / "libclang"
    stable.mkdir(parents=True, exist_ok=True)
    for library in venv.glob("lib/python*/site-packages/clang/native/libclang*"):
        cmake_state.replace_link(stable / library.name, library)
    return stable


def compiler_headers() -> str | None:
    """GCC's own headers (stddef.h and such), which the libclang wheel lacks."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    try:
        asked = subprocess.run([*compiler, "-print-file-name=include"], capture_output=True, text=True)
    except OSError:
        return None
    folder = asked.stdout.strip()
    return folder if os.path.isabs(folder) else None


def run(command: list[str], env: dict[str, str]) -> int:
    """Runs the command, reporting how far llama.cpp's build is."""
    done = threading.Event()
    target = Path(env["CARGO_TARGET_DIR"])
    reporter = threading.Thread(target=report_progress, args=(target, done), daemon=True)
    program = shutil.which(command[0], path=env["PATH"])
    if program is None:
        say(f"there is no command '{command[0]}'")
        return 127
    # A shell's background jobs ignore Ctrl-C, and so would all that they start:
    # tests of an interrupt would wait for ever.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(command, executable=program, env=env)
    # Ctrl-C reaches the child by itself; this process must outlive it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    reporter.start()
    status = child.wait()
    done.set()
    return status if status >= 0 else 128 - status


def report_progress(target: Path, done: threading.Event) -> None:
    """Says every few seconds how many of llama.cpp's files are compiled, while
    that number changes: Cargo shows nothing of it."""
    before = cmake_state.compiled_files(target)
    while not done.wait(PROGRESS_SECONDS):
        now = cmake_state.compiled_files(target)
        if now and now != before:
            say(f"llama.cpp: {now[0]} of {now[1]} files compiled")
            before = now


def say(line: str) -> None:
    print(f"    {line}", file=sys.stderr, flush=True)


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        venv = tools_venv()
    except subprocess.CalledProcessError:
        say("the build tools could not be installed; the lines above say why")
        return 1
    env = environment(venv)
    cmake_state.forget_lost_tools(Path(env["CARGO_TARGET_DIR"]))
    cmake_state.build_again_after_change(Path(env["CARGO_TARGET_DIR"]))
    return run(sys.argv[1:], env)


if __name__ == "__main__":
    sys.exit(main())

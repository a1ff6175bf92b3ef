"""Installs what is measured: the wheel and the npm tarballs of dist/, as a user
would, into folders of their own. Again when dist/ has others."""

import functools
import hashlib
import os
import shutil
import sys
from pathlib import Path

from bench.commands import run, say
from bench.settings import ROOT, from_environment

DIST = ROOT / "dist"
INSTALLED = DIST / "bench"
VARIANT = """
import sys
import mullama, mullama.sync
with mullama.sync.Model.load(sys.argv[1], context_size=64):
    print(next(backend.variant or "" for backend in mullama.backends() if backend.name == "CPU"))
"""


def python() -> Path:
    """The Python that has the wheel."""
    return INSTALLED / "python/bin/python"


def node_package() -> Path:
    """What `import 'mullama'` resolves to where the tarballs are installed."""
    return INSTALLED / "node/node_modules/mullama/bindings/node/index.mjs"


def backends() -> Path | None:
    """The wheel's variants of the CPU backend; `None` where it was built with
    one variant."""
    return next((INSTALLED / "python").glob("lib/python*/site-packages/mullama/backends"), None)


def rust_environment() -> dict[str, str]:
    """In which a program in Rust finds the wheel's variants."""
    found = backends()
    # Who names others in the environment means them for all languages.
    return ({"MULLAMA_BACKENDS_DIR": str(found)} if found else {}) | os.environ


@functools.cache
def variant() -> str | None:
    """The variant of the CPU backend that the packages choose on this machine;
    `None` where they were built with one."""
    return run(python(), "-c", VARIANT, from_environment().model).strip() or None


def built(pattern: str, count: int) -> list[Path]:
    found = sorted(DIST.glob(pattern))
    if len(found) != count:
        raise SystemExit(f"dist/ holds {len(found)} of {pattern}, not {count}; run `make wheel npm`")
    return found


def digest(files: list[Path]) -> str:
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.name}\n" for file in files)


def install() -> None:
    wheel = built("*.whl", 1)
    stamp = INSTALLED / "python/complete"
    if not stamp.exists() or stamp.read_text() != digest(wheel):
        say("installing the wheel")
        run(sys.executable, "-m", "venv", "--clear", INSTALLED / "python")
        run(python(), "-m", "pip", "install", "--disable-pip-version-check", "--no-index", *wheel)
        stamp.write_text(digest(wheel))
    tarballs = built("*.tgz", 2)
    stamp = INSTALLED / "node/complete"
    if not stamp.exists() or stamp.read_text() != digest(tarballs):
        say("installing the npm package")
        project = INSTALLED / "node"
        shutil.rmtree(project, ignore_errors=True)
        project.mkdir(parents=True)
        (project / "package.json").write_text('{ "private": true }\n')
        env = os.environ | {"npm_config_cache": str(project / "cache")}
        run("npm", "install", "--offline", "--no-audit", "--no-fund", *tarballs, cwd=project, env=env)
        stamp.write_text(digest(tarballs))

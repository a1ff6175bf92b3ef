"""The house rules that no linter knows. Prints each breach and fails on any.

- `unsafe` stands in core/src/llama alone.
- Lock files name no host: a package comes from the registry of the machine.
- A relative link in a Markdown file leads to a file.
- Version numbers agree.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Folders that hold what was built or fetched.
IGNORED = {".git", ".venv", "__pycache__", "dist", "node_modules", "target"}

# The word in code: not in a comment, a string or a lint's name.
UNSAFE = re.compile(r"\bunsafe\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
HOST = re.compile(r"https?://[^\s\"']+")


def files(folder: Path = ROOT) -> Iterator[Path]:
    """Every file of the checkout that was written by hand."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in IGNORED and not path.is_symlink():
                yield from files(path)
        else:
            yield path


def unsafe_outside_llama(path: Path) -> Iterator[str]:
    if path.suffix != ".rs" or path.is_relative_to(ROOT / "core/src/llama"):
        return
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if UNSAFE.search(re.sub(r'"(?:[^"\\]|\\.)*"', '""', line.split("//")[0])):
            yield f"line {number}: `unsafe` outside core/src/llama"


def hosts_in_lock_files(path: Path) -> Iterator[str]:
    if path.name == "package-lock.json":
        for name, package in json.loads(path.read_text())["packages"].items():
            if "resolved" in package and HOST.match(package["resolved"]):
                yield f"{name}: 'resolved' names a host; npm config omit-lockfile-registry-resolved leaves it out"
    if path.name.startswith("requirements"):
        for host in HOST.findall(path.read_text()):
            yield f"names the host {host}"


def broken_links(path: Path) -> Iterator[str]:
    if path.suffix != ".md":
        return
    for target in LINK.findall(path.read_text()):
        if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
            yield f"the link to {target} leads nowhere"


CHECKS = (unsafe_outside_llama, hosts_in_lock_files, broken_links)


def versions_apart() -> Iterator[str]:
    version = first_version(ROOT / "Cargo.toml")
    node = json.loads((ROOT / "package.json").read_text())
    others = {"package.json": node["version"]}
    others |= {name: wanted for name, wanted in node.get("optionalDependencies", {}).items()}
    for manifest in sorted((ROOT / "bindings/node").glob("npm/*/package.json")):
        others[str(manifest.relative_to(ROOT))] = json.loads(manifest.read_text())["version"]
    # Without a version of its own the wheel takes Cargo's.
    others["pyproject.toml"] = first_version(ROOT / "pyproject.toml") or version
    for name, other in others.items():
        if other != version:
            yield f"{name} says version {other}, Cargo.toml says {version}"


def first_version(manifest: Path) -> str | None:
    """The first `version = "..."` of a TOML file (Python 3.10 can't parse TOML)."""
    found = re.search(r'^version\s*=\s*"([^"]+)"', manifest.read_text(), re.MULTILINE)
    return found and found[1]


def main() -> int:
    breaches = [f"{path.relative_to(ROOT)}: {breach}" for path in files() for check in CHECKS for breach in check(path)]
    breaches += versions_apart()
    for breach in breaches:
        print(breach, file=sys.stderr)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())

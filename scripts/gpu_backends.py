"""The backends that a build can add to llama.cpp's CPU backend (docs/gpu.md).

    python3 scripts/gpu_backends.py cuda,opencl

Checks a choice and prints it as a list of Cargo features. The known names are
the features of the Python binding; a test holds those of the core and of the
Node binding against them.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

MANIFEST = Path(__file__).resolve().parent.parent / "bindings/python/Cargo.toml"


def known() -> list[str]:
    """The names, as the manifest has them (Python 3.10 can't parse TOML)."""
    section = re.search(r"^\[features\]\n((?:[^\[\n].*\n|\n)*)", MANIFEST.read_text(), re.MULTILINE)
    return re.findall(r"^(\w+) *=", section[1], re.MULTILINE) if section else []


def chosen(choice: str | Iterable[str]) -> list[str]:
    """The names in a choice: separated by commas, or several such texts.

    Raises `ValueError` for a name that is not known, and for no name at all.
    """
    texts = [choice] if isinstance(choice, str) else choice
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in known():
            raise ValueError(f"unknown GPU backend '{name}'; use one or more of {', '.join(known())}")
    return list(dict.fromkeys(names))


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(",".join(chosen(sys.argv[1])))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

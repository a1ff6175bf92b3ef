"""Builds the reference of each language from its docstrings, into dist/docs.

    python scripts/build_docs.py        with the Python of .venv, by `make docs`

rustdoc reads the crate, typedoc the declarations of the Node package, pdoc the
installed Python package. A warning of any of them fails the build, and so does
a public name without documentation.
"""

import html
import inspect
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pdoc
from check_repository import first_version

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "dist/docs"
FEATURES = "tokio-runtime"

REFERENCES = {
    "Rust": ("rust/mullama/index.html", "the crate mullama"),
    "Node": ("node/index.html", "the package mullama for JavaScript and TypeScript"),
    "Python": ("python/mullama.html", "the package mullama, with mullama.sync and mullama.errors"),
}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mullama {version}: reference</title>
<style>body {{ font: 1.1rem/1.6 system-ui, sans-serif; margin: 4rem auto; max-width: 40rem; padding: 0 1rem }}</style>
<h1>mullama {version}</h1>
<p>Local language models as a first-class async library, run by llama.cpp. The reference of each language:</p>
<ul>
{items}
</ul>
</html>
"""


def build_rust() -> None:
    # Cargo keeps the pages of every crate that was ever documented there.
    pages = Path(os.environ["CARGO_TARGET_DIR"], os.environ.get("CARGO_BUILD_TARGET", ""), "doc")
    shutil.rmtree(pages, ignore_errors=True)
    command = ["cargo", "doc", "--release", "--no-deps", "--package", "mullama", "--features", FEATURES]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"RUSTDOCFLAGS": "-D warnings"}, check=True)
    shutil.copytree(pages, OUT / "rust")


def build_node() -> None:
    command = ["node", "node_modules/typedoc/bin/typedoc", "--options", "bindings/node/typedoc.json"]
    subprocess.run([*command, "--out", OUT / "node"], cwd=ROOT, check=True)


def build_python() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pdoc.pdoc("mullama", output_directory=OUT / "python")
    if undocumented := list(without_docstring(pdoc.doc.Module.from_name("mullama"))):
        raise SystemExit("without a docstring: " + ", ".join(undocumented))


def without_docstring(of: pdoc.doc.Namespace) -> Iterator[str]:
    """Public modules, classes and functions that say nothing. Fields may: their
    class explains those that a name doesn't."""
    for member in of.flattened_own_members if isinstance(of, pdoc.doc.Class) else of.members.values():
        if not public(member):
            continue
        if not member.docstring and not isinstance(member, pdoc.doc.Variable):
            yield member.fullname
        if isinstance(member, pdoc.doc.Class) or (isinstance(member, pdoc.doc.Module) and member.name != of.name):
            yield from without_docstring(member)


def public(member: pdoc.doc.Doc[object]) -> bool:
    return not member.name.startswith("_") and not inspect.isbuiltin(member.obj)


def write_index() -> None:
    version = html.escape(first_version(ROOT / "Cargo.toml") or "")
    items = "\n".join(
        f'<li><a href="{page}">{language}</a>: {html.escape(what)}</li>'
        for language, (page, what) in REFERENCES.items()
    )
    for page, _ in REFERENCES.values():
        assert (OUT / page).is_file(), f"no page {page}"
    (OUT / "index.html").write_text(PAGE.format(version=version, items=items))


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    try:
        build_rust()
        build_node()
        build_python()
    except subprocess.CalledProcessError as error:
        return error.returncode
    except UserWarning as warning:
        print(f"pdoc: {warning}", file=sys.stderr)
        return 1
    write_index()
    print(OUT / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The code in README.md and docs/ runs as it is printed.

A block marked `python` or `js` is run with the packages of dist/; the path
model.gguf is that of the test model. A block may use `model`, a loaded model,
without loading it. Rust blocks are doctests (tests/rust/src/lib.rs).
"""

import re
from pathlib import Path

import pytest
from machine import ROOT, Project, model, run

BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Runs a block that awaits at its top level, as in Python's asyncio REPL.
RUN_PYTHON = """
import ast, asyncio, inspect, sys
import mullama

async def main():
    source, path = open(sys.argv[1]).read(), sys.argv[2]
    names = {"__name__": "__main__", "mullama": mullama, "asyncio": asyncio}
    if "model" in sys.argv[3:]:
        names["model"] = await mullama.Model.load(path)
    code = compile(source, sys.argv[1], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result

asyncio.run(main())
"""

JS_IMPORT = "import { Model, MullamaError } from 'mullama'\n"
# Under a name that no block uses.
JS_MODEL = "import * as itsPackage from 'mullama'\nconst model = await itsPackage.Model.load({path!r})\n"


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[object]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            if match[1] == language:
                line = text.count("\n", 0, match.start()) + 1
                found.append(pytest.param(match[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def wants_model(block: str) -> bool:
    """Whether it uses a model that it does not load. No other block gets one:
    what configures the runtime must come before any load."""
    return "Model.load(" not in block and re.search(r"\bmodel\b", block) is not None


def with_model_path(block: str) -> str:
    return block.replace("model.gguf", model())


@pytest.mark.parametrize("block", blocks("python"))
def test_python_block_runs(block: str, wheel_python: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    python, env = wheel_python
    (tmp_path / "block.py").write_text(with_model_path(block))
    if "asyncio.run(" in block or "mullama.sync" in block:
        run(python, "block.py", cwd=tmp_path, env=env)
    else:
        (tmp_path / "run_block.py").write_text(RUN_PYTHON)
        names = ["model"] if wants_model(block) else []
        run(python, "run_block.py", "block.py", model(), *names, cwd=tmp_path, env=env)


@pytest.mark.parametrize("block", blocks("js"))
def test_js_block_runs(block: str, node_project: Project) -> None:
    folder, env = node_project
    source = with_model_path(block)
    if wants_model(block):
        source = JS_MODEL.format(path=model()) + source
    if "require('mullama')" not in block and "from 'mullama'" not in block:
        source = JS_IMPORT + source
    program = folder / ("block.cjs" if "require('mullama')" in block else "block.mjs")
    program.write_text(source)
    run("node", program, cwd=folder, env=env)


def test_every_page_with_rust_is_a_doctest() -> None:
    doctests = (ROOT / "tests/rust/src/lib.rs").read_text()
    for page in PAGES:
        if any(match[1] == "rust" for match in BLOCK.finditer(page.read_text())):
            assert f'include_str!("../../../{page.relative_to(ROOT)}")' in doctests


def test_every_language_has_blocks() -> None:
    """Were the pattern wrong, the tests above would pass by being empty."""
    assert min(len(blocks("python")), len(blocks("js")), len(blocks("rust"))) > 3

"""The variants of the CPU backend inside both packages: which is chosen, and
that the packages work where only the plainest is usable, and where another
llama.cpp is in the process."""

import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machine import Project, model, run

X86 = platform.machine() in ("x86_64", "AMD64")
linux = pytest.mark.skipif(sys.platform != "linux", reason="about the files and the linker of Linux")
x86 = pytest.mark.skipif(not X86, reason="about the variants of x86-64")

# Those that every compiler of the platform builds.
X86_VARIANTS = {"x64", "sse42", "sandybridge", "haswell", "alderlake"}
X86_VARIANTS |= {"skylakex", "cannonlake", "cascadelake", "icelake"}
SUFFIX = ".dll" if sys.platform == "win32" else ".so"

PYTHON = """
import asyncio, json, os, sys
import mullama

def modules():
    if not os.path.exists("/proc/self/maps"):
        return []
    with open("/proc/self/maps") as maps:
        return sorted({line.split("/")[-1].strip() for line in maps if "ggml-cpu" in line})

imported = modules()

async def main():
    try:
        async with await mullama.Model.load(sys.argv[1]) as model:
            text = await model.generate(prompt="The capital of France is", max_tokens=4, temperature=0)
        [cpu] = [backend for backend in mullama.backends() if backend.name == "CPU"]
        print(json.dumps({"text": text, "variant": cpu.variant, "imported": imported, "modules": modules()}))
    except mullama.MullamaError as error:
        print(json.dumps({"code": error.code, "message": str(error)}))

asyncio.run(main())
"""

# Alone a request's rows are multiplied one by one, beside others together.
DETERMINISTIC = """
import asyncio, json, sys
import mullama

async def main():
    options = {"deterministic": True, "prefix_cache_bytes": 0, "max_concurrent": 9, "context_size": 128}
    try:
        async with await mullama.Model.load(sys.argv[1], **options) as model:
            async def ask(n):
                answer = await model.generate_with(f"{n} is", max_tokens=8, temperature=0, ignore_eos=True, logprobs=1)
                return [(place.token_id, place.logprob) for place in answer.logprobs]
            alone = [await ask(n) for n in range(9)]
            together = await asyncio.gather(*(ask(n) for n in range(9)))
        print(json.dumps({"same": alone == together}))
    except mullama.MullamaError as error:
        print(json.dumps({"code": error.code, "message": str(error)}))

asyncio.run(main())
"""

NODE = """
import { existsSync, readFileSync } from 'node:fs'
import { Model, backends } from 'mullama'

function modules() {
  if (!existsSync('/proc/self/maps')) return []
  const lines = readFileSync('/proc/self/maps', 'utf8').split('\\n').filter((line) => line.includes('ggml-cpu'))
  return [...new Set(lines.map((line) => line.split('/').at(-1)))]
}

const imported = modules()
try {
  const model = await Model.load(process.argv[2])
  const text = await model.generate('The capital of France is', { maxTokens: 4, temperature: 0 })
  await model.close()
  const { variant } = backends().find(({ name }) => name === 'CPU')
  console.log(JSON.stringify({ text, variant, imported, modules: modules() }))
} catch ({ code, message }) {
  console.log(JSON.stringify({ code, message }))
}
"""

Report = dict[str, Any]
Ask = Callable[..., Report]


@pytest.fixture(params=["python", "node"])
def ask(
    request: pytest.FixtureRequest,
    wheel_python: tuple[Path, dict[str, str]],
    node_project: Project,
    tmp_path: Path,
) -> Ask:
    """Runs a program of the installed package, in an environment with more
    variables, and gives what it reports."""
    if request.param == "python":
        python, env = wheel_python
        folder, command, source = tmp_path, [python, "-W", "error"], PYTHON
    else:
        (folder, env), command, source = node_project, ["node"], NODE
    program = folder / ("variants.py" if request.param == "python" else "variants.mjs")
    program.write_text(source)

    def report(**variables: str) -> Report:
        return json.loads(run(*command, program, model(), cwd=folder, env=env | variables))

    return report


@pytest.fixture(scope="session")
def modules(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The modules of the wheel, by their variants."""
    folder = tmp_path_factory.mktemp("modules")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith("mullama/backends/")])
    found = (folder / "mullama/backends").iterdir()
    return {file.name.split("ggml-cpu-")[1].removesuffix(SUFFIX): file for file in found}


def only(folder: Path, *files: Path) -> str:
    """A folder with copies of these modules and nothing else."""
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    return str(folder)


@x86
def test_the_wheel_has_the_variants_of_x86(modules: dict[str, Path]) -> None:
    assert modules.keys() >= X86_VARIANTS


def test_both_packages_have_the_same_variants(modules: dict[str, Path], tarballs: dict[str, Path]) -> None:
    with tarfile.open(tarballs["platform"]) as archive:
        files = [member for member in archive.getmembers() if member.name.startswith("package/backends/")]
    # No links: neither package format has them.
    assert all(member.isfile() for member in files)
    assert {Path(member.name).name for member in files} == {file.name for file in modules.values()}


def test_a_variant_is_chosen_and_named(ask: Ask, modules: dict[str, Path]) -> None:
    report = ask()
    assert report["text"]
    assert report["variant"] in modules


@linux
def test_no_module_is_loaded_on_import_and_one_remains(ask: Ask) -> None:
    report = ask()
    assert report["imported"] == []
    assert report["modules"] == [f"libggml-cpu-{report['variant']}.so"]


@linux
@x86
def test_the_choice_has_what_the_processor_has(ask: Ask) -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split())
    variant = ask()["variant"]
    if {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"} <= flags:
        assert variant not in ("x64", "sse42", "sandybridge", "ivybridge", "piledriver", "haswell", "alderlake")
    elif {"avx2", "fma", "f16c", "bmi2"} <= flags:
        assert variant in ("haswell", "alderlake")


def told_with_each(
    program: str, modules: dict[str, Path], wheel_python: tuple[Path, dict[str, str]], folder: Path
) -> dict[str, dict[str, Any]]:
    """What a program in Python prints where it finds one variant alone, for each
    that this processor can run."""
    python, env = wheel_python
    file = folder / "program.py"
    file.write_text(program)
    told = {}
    for variant, module in modules.items():
        chosen = env | {"MULLAMA_BACKENDS_DIR": only(folder / variant, module)}
        done = subprocess.run([python, file, model()], capture_output=True, text=True, cwd=folder, env=chosen)
        assert done.returncode == 0, (variant, done.returncode, done.stderr)
        report = json.loads(done.stdout)
        if "runs on this CPU" not in report.get("message", ""):
            told[variant] = report
    assert {"x64", "sse42"} <= told.keys()
    return told


@x86
def test_every_variant_answers_or_is_refused(
    modules: dict[str, Path], wheel_python: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    for variant, report in told_with_each(PYTHON, modules, wheel_python, tmp_path).items():
        assert report["text"]
        assert report["variant"] == variant


@x86
def test_no_variant_computes_a_row_otherwise_beside_others(
    modules: dict[str, Path], wheel_python: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    told = told_with_each(DETERMINISTIC, modules, wheel_python, tmp_path)
    assert [variant for variant, report in told.items() if report != {"same": True}] == []


@x86
@pytest.mark.parametrize("variant", ["x64", "sse42"])
def test_a_processor_without_avx_gets_a_variant_without_it(
    variant: str, ask: Ask, modules: dict[str, Path], tmp_path: Path
) -> None:
    folder = only(tmp_path / "one", modules[variant])
    report = ask(MULLAMA_BACKENDS_DIR=folder)
    assert report["text"]
    assert report["variant"] == variant


def test_without_a_variant_the_error_says_where_it_looked(ask: Ask, tmp_path: Path) -> None:
    report = ask(MULLAMA_BACKENDS_DIR=only(tmp_path / "none"))
    assert report["code"] == "unsupported"
    assert f"there is no CPU backend in '{tmp_path / 'none'}'" in report["message"]
    assert "MULLAMA_BACKENDS_DIR" in report["message"]


def test_a_damaged_variant_is_passed_over(ask: Ask, modules: dict[str, Path], tmp_path: Path) -> None:
    plain = "x64" if X86 else min(modules)
    folder = only(tmp_path / "damaged", modules[plain])
    (tmp_path / "damaged" / modules[plain].name.replace(plain, "aaa")).write_text("no module")
    assert ask(MULLAMA_BACKENDS_DIR=folder)["variant"] == plain


def test_with_a_damaged_variant_alone_the_error_names_it(ask: Ask, modules: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / next(iter(modules.values())).name.replace("-cpu-", "-cpu-zzz")).write_text("no module")
    report = ask(MULLAMA_BACKENDS_DIR=str(folder))
    assert report["code"] == "unsupported"
    assert f"no CPU backend in '{folder}' runs on this CPU ('zzz" in report["message"]


def tool(*command: str | Path) -> str:
    """A program of the binary utilities, which come with every C compiler."""
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout


@linux
def test_a_module_needs_the_system_alone_and_shows_three_names(modules: dict[str, Path]) -> None:
    system = ("libc.", "libm.", "libstdc++.", "libgcc_s.", "libpthread.", "libdl.", "ld-linux", "ld-musl")
    for module in modules.values():
        needed = [line.split("[")[1] for line in tool("readelf", "-d", module).splitlines() if "(NEEDED)" in line]
        assert all(name.startswith(system) for name in needed), f"{module.name} needs {needed}"
        shown = {line.split()[-1] for line in tool("nm", "-D", "--defined-only", module).splitlines()}
        assert shown == {"ggml_backend_init", "ggml_backend_score", "ggml_log_set"}


@linux
def test_a_module_needs_no_newer_c_library_than_the_wheel_says(wheel: Path, modules: dict[str, Path]) -> None:
    # Any version suits a wheel for musl, or for the machine that built it.
    tag = re.search(r"manylinux_(\d+)_(\d+)", wheel.name)
    said = tuple(int(part) for part in tag.groups()) if tag else (math.inf,)
    for module in modules.values():
        wanted = [word.strip("()") for word in tool("readelf", "-V", module).split() if word.startswith("GLIBC_2")]
        versions = [tuple(int(part) for part in name.removeprefix("GLIBC_").split(".")[:2]) for name in wanted]
        assert all(version <= said for version in versions), module.name


@linux
@x86
def test_the_plain_variant_has_no_instruction_beyond_the_baseline(modules: dict[str, Path]) -> None:
    # It has a part of ggml's base inside, which is compiled once for all.
    code = tool("objdump", "-d", "--no-show-raw-insn", modules["x64"])
    words = [line.split("\t")[1].split() for line in code.splitlines() if line.count("\t") >= 1]
    names = {word[0] for word in words if word}
    assert len(names) > 100
    # All names that AVX, FMA and F16C add start with a v; `verr` and `verw` are old.
    wide = {name for name in names if name.startswith("v") and name not in ("verr", "verw")}
    assert wide == set()
    assert {"popcnt", "pshufb", "pinsrd", "pextrd", "shlx", "shrx", "sarx", "mulx", "lzcnt", "movbe"} & names == set()


# Every name ends the process. Whoever calls one of another library, as the
# linker lets him by default, is found out.
PEER = """
#include <stdlib.h>
#define TRAP(name) void name(void) { abort(); }
"""
TRAPS = """
ggml_abort ggml_aligned_malloc ggml_are_same_shape ggml_backend_buft_alloc_buffer ggml_backend_buft_is_host
ggml_backend_cpu_buffer_type ggml_backend_cpu_init ggml_backend_cpu_reg ggml_backend_dev_count ggml_backend_init
ggml_backend_load ggml_backend_reg_count ggml_backend_score ggml_blck_size ggml_cpu_init ggml_element_size ggml_free
ggml_get_type_traits ggml_get_type_traits_cpu ggml_graph_compute ggml_init ggml_is_contiguous ggml_log_set
ggml_log_internal ggml_nbytes ggml_nelements ggml_new_tensor_1d ggml_nrows ggml_row_size ggml_threadpool_new
ggml_time_init ggml_time_us ggml_type_name ggml_type_size gguf_init_from_file llama_backend_init llama_decode
llama_init_from_model llama_log_set llama_model_load_from_file llama_print_system_info llama_tokenize
quantize_row_q8_0 quantize_row_q8_0_ref quantize_row_q8_1_ref
"""


@linux
def test_another_llama_cpp_in_the_process_is_never_called(ask: Ask, tmp_path: Path) -> None:
    source = tmp_path / "peer.c"
    source.write_text(PEER + "".join(f"TRAP({name})\n" for name in TRAPS.split()))
    libraries = [tmp_path / f"lib{name}.so" for name in ("llama", "ggml", "ggml-base", "ggml-cpu")]
    for library in libraries:
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, source]
        subprocess.run(command, check=True)
    # Before everything else, and in the scope that all libraries look in first.
    assert ask(LD_PRELOAD=":".join(map(str, libraries)))["text"] == ask()["text"]


def test_the_folder_of_the_build_is_not_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (native,) = [name for name in archive.namelist() if "/_mullama." in name and not name.endswith(".pyi")]
        assert b"MULLAMA_BACKENDS_DIR" in archive.read(native)
        assert os.environ["CARGO_TARGET_DIR"].encode() not in archive.read(native)

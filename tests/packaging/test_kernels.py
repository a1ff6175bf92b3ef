"""The code that mullama puts into ggml and llama.cpp, attention, matrix kernels, clearing and
loading, against the plainest way to do the same. That answers stay right is what the tests of
the three languages say."""

import platform
import subprocess
from pathlib import Path

import pytest
from machine import ROOT

CMAKE = ROOT / "core/cmake"
# One for each, which prints what is wrong.
PROGRAMS = ROOT / "tests/packaging/kernels"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
# Instruction sets that the kernels have code for, by their names on Linux.
AVX2 = ("avx2", "fma", "f16c")
AVX512F = (*AVX2, "avx512f")
AVX512 = (*AVX512F, "avx512bw")
AVX512VL = (*AVX512, "avx512vl")
MATRICES = [
    AVX2,
    (*AVX2, "avx_vnni"),
    AVX512,
    (*AVX512, "avx512_vnni"),
    AVX512VL,
    (*AVX512VL, "avx512_vnni"),
]


def processor_flags() -> set[str]:
    """`/proc/cpuinfo` tells the instruction sets."""
    return set(Path("/proc/cpuinfo").read_text().split()) if platform.system() == "Linux" else set()


def run(folder: Path, program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What the compiler says where it fails, or else the program."""
    built = folder / "program"
    command = ["c++", *options, "-pthread", f"-I{CMAKE}", str(PROGRAMS / program), "-o", str(built)]
    compiled = subprocess.run(command, capture_output=True, text=True)
    return compiled if compiled.returncode else subprocess.run([str(built)], capture_output=True, text=True)


def run_with(folder: Path, program: str, needs: tuple[str, ...]) -> str:
    """What it prints, compiled for these instruction sets."""
    if not set(needs) <= processor_flags():
        pytest.skip("the processor lacks an instruction set")
    sets = [f"-m{name.replace('_vnni', 'vnni')}" for name in needs]
    ran = run(folder, program, "-std=gnu++17", "-O3", *sets)
    if "unrecognized" in ran.stderr or "unknown argument" in ran.stderr:
        pytest.skip("the compiler lacks an instruction set")
    # Warnings alone are no fault: GCC's own headers have some.
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_hidden_cells_are_found(tmp_path: Path) -> None:
    ran = run(tmp_path, "masked_cells.cpp", "-std=c++17", "-O2", *WARNINGS)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_load_on_two_threads_is_one_on_one(tmp_path: Path) -> None:
    ran = run(tmp_path, "loading.cpp", "-std=c++17", "-O2", *WARNINGS)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_memory_is_filled_to_its_ends(tmp_path: Path) -> None:
    ran = run(tmp_path, "cleared_memory.cpp", "-std=c++17", "-O2", *WARNINGS)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_attention_is_right_and_the_same_for_all_instruction_sets(tmp_path: Path) -> None:
    possible = [needs for needs in (AVX2, AVX512F) if set(needs) <= processor_flags()]
    results = [run_with(tmp_path, "attention.cpp", needs) for needs in possible or [AVX2]]
    assert len(set(results)) == 1, results


@pytest.mark.parametrize("needs", MATRICES, ids="-".join)
def test_matrix_kernels_sum_up_in_the_order_of_blocks(tmp_path: Path, needs: tuple[str, ...]) -> None:
    assert run_with(tmp_path, "matrices.cpp", needs) == ""

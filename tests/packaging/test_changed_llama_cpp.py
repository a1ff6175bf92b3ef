"""What mullama changes in ggml is compiled, and another text than the expected one ends
the build. What the changed code computes is in test_kernels.py."""

import subprocess
import sys
from pathlib import Path

import pytest
from machine import ROOT

CMAKE = ROOT / "core/cmake"
CALLS = (
    "mullama::last_masked(mp, ic, ic_end)",
    "!mullama::see_different(dst->src[3], neq1, nek1)",
    "const mullama::Attention attention(params, dst)",
)
OPERATORS = """
static void ggml_compute_forward_flash_attn_ext_f16(
    if (use_split_kv_path) {
            if (mv == -INFINITY) {
                continue;
            }
        bool use_tiled = (q->type == GGML_TYPE_F32 &&
                          neq1 >= Q_TILE_SZ);
"""
BUFFER = """
// backend buffer
void ggml_backend_buffer_set_usage(ggml_backend_buffer_t buffer, enum ggml_backend_buffer_usage usage) {
    buffer->usage = usage;

    // FIXME: add a generic callback to the buffer interface
}
static void ggml_backend_cpu_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    memset(buffer->context, value, buffer->size);
}
static size_t ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {
    return TENSOR_ALIGNMENT;
}
"""
NAMES = """
    if (strcmp(name, "ggml_threadpool_new") == 0) {
"""
MATRICES = """
#include "sgemm.h"
bool llamafile_sgemm() {
    // only enable sgemm for prompt processing
    return false;
}
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def cmake(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, ROOT / "scripts/with_tools.py", "cmake", *arguments)


def configured(
    folder: Path, operators: str = OPERATORS, buffer: str = BUFFER, names: str = NAMES, matrices: str = MATRICES
) -> subprocess.CompletedProcess[str]:
    """A build with these texts where llama.cpp's has the ones that differ."""
    source = folder / "ggml/src"
    (source / "ggml-cpu/llamafile").mkdir(parents=True)
    (source / "ggml-cpu/ops.cpp").write_text(operators)
    (source / "ggml-cpu/llamafile/sgemm.cpp").write_text(matrices)
    (source / "ggml-backend.cpp").write_text(buffer)
    (source / "ggml-cpu/ggml-cpu.cpp").write_text(names)
    (source / "CMakeLists.txt").write_text(
        "add_library(ggml-base STATIC ggml-backend.cpp)\n"
        "add_library(ggml-cpu-x STATIC ggml-cpu/ggml-cpu.cpp ggml-cpu/ops.cpp ggml-cpu/llamafile/sgemm.cpp)\n"
    )
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.19)\nproject(llama.cpp CXX)\nadd_subdirectory(ggml/src)\n"
    )
    return cmake("-S", folder, "-B", folder / "build", f"-DCMAKE_PROJECT_INCLUDE={CMAKE / 'llama_cpp.cmake'}")


def test_copies_with_the_changes_are_compiled_instead(tmp_path: Path) -> None:
    done = configured(tmp_path)
    assert done.returncode == 0, done.stderr
    copies = tmp_path / "build/mullama"
    operators = (copies / "ops.cpp").read_text()
    assert [operators.count(call) for call in CALLS] == [1] * len(CALLS)
    assert "return multiply(mullama::Q4_1{});" in (copies / "sgemm.cpp").read_text()
    buffers = (copies / "ggml-backend.cpp").read_text()
    assert "    return 64;" in buffers
    assert "MADV_HUGEPAGE" in buffers
    assert "return (void *)mullama_promise_cleared_memory;" in (copies / "ggml-cpu.cpp").read_text()
    built = cmake("--build", tmp_path / "build", "--verbose", "--", "-k", "0").stdout
    assert "mullama/ops.cpp" in built
    assert "mullama/ggml-cpu.cpp" in built
    assert "mullama/sgemm.cpp" in built
    assert "mullama/ggml-backend.cpp" in built


@pytest.mark.parametrize("change", ["no such place", "twice"])
def test_the_build_ends_where_ggml_has_another_attention(tmp_path: Path, change: str) -> None:
    other = {"no such place": OPERATORS.replace("continue", "break"), "twice": OPERATORS * 2}[change]
    done = configured(tmp_path, operators=other)
    assert done.returncode != 0
    assert "ggml's attention is not the one" in done.stderr


@pytest.mark.parametrize("place", ["TENSOR_ALIGNMENT", "memset", "// backend buffer\n"])
def test_the_build_ends_where_ggml_has_another_buffer(tmp_path: Path, place: str) -> None:
    done = configured(tmp_path, buffer=BUFFER.replace(place, "other"))
    assert done.returncode != 0
    assert "ggml's buffer on the CPU is not the one" in done.stderr


def test_the_build_ends_where_ggml_takes_weights_in_another_way(tmp_path: Path) -> None:
    done = configured(tmp_path, buffer=BUFFER.replace("->usage = usage", "->usage = other"))
    assert done.returncode != 0
    assert "ggml's buffer of weights is not the one" in done.stderr


def test_the_build_ends_where_ggml_names_its_functions_in_another_way(tmp_path: Path) -> None:
    done = configured(tmp_path, names=NAMES.replace("threadpool", "other"))
    assert done.returncode != 0
    assert "the list of ggml's functions is not the one" in done.stderr


@pytest.mark.parametrize("place", ["only enable sgemm", '"sgemm.h"'])
def test_the_build_ends_where_ggml_has_other_matrix_kernels(tmp_path: Path, place: str) -> None:
    done = configured(tmp_path, matrices=MATRICES.replace(place, "other"))
    assert done.returncode != 0
    assert "the list of ggml's matrix kernels is not the one" in done.stderr

"""What mullama changes in ggml: the functions for its attention, against the
plainest way to do the same, and that another text than the expected one ends the
build. That answers stay right is what the tests of the three languages say."""

import subprocess
import sys
from pathlib import Path

import pytest
from machine import ROOT

CMAKE = ROOT / "core/cmake"
CALLS = ("mullama::last_masked(mp, ic, ic_end)", "!mullama::see_different(dst->src[3], neq1, nek1)")
OPERATORS = """
            if (mv == -INFINITY) {
                continue;
            }
        bool use_tiled = (q->type == GGML_TYPE_F32 &&
                          neq1 >= Q_TILE_SZ);
"""
BUFFER = """
static size_t ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {
    return TENSOR_ALIGNMENT;
}
"""
PROGRAM = """
#include "masked_cells.h"
#include <cstdio>
#include <random>
#include <vector>

struct Tensor { void * data; std::size_t nb[2]; };

int main() {
    std::mt19937 random(1);
    std::vector<std::uint16_t> mask(1000);
    for (int round = 0; round < 20000; ++round) {
        // Runs of hidden and of seen cells, some with a bias.
        const std::uint16_t seen[] = {0x0000, 0x8000, 0xFBFF, 0x7C00};
        for (std::size_t i = 0; i < mask.size();) {
            const bool hidden = random() % 2;
            for (std::size_t n = 1 + random() % (random() % 4 ? 5 : 300); n > 0 && i < mask.size(); --n) {
                mask[i++] = hidden ? mullama::MASKED : seen[random() % 4];
            }
        }
        const std::int64_t end = 1 + random() % mask.size();
        const std::int64_t first = random() % end;
        mask[first] = mullama::MASKED;
        std::int64_t last = first;
        while (last + 1 < end && mask[last + 1] == mullama::MASKED) ++last;
        const std::int64_t found = mullama::last_masked(mask.data(), first, end);
        if (found != last) {
            return std::printf("%ld from %ld, not %ld\\n", long(found), long(first), long(last));
        }
    }
    // Rows of 200 cells and 8 more that only pad them: `of_each` rows of each sequence.
    for (const std::int64_t of_each : {1, 8, 64, 128}) {
        const std::int64_t n_rows = 128, n_cells = 200, stride = n_cells + 8;
        std::vector<std::uint16_t> rows(n_rows * stride, mullama::MASKED);
        for (std::int64_t row = 0; row < n_rows; ++row) {
            for (std::int64_t i = 0; i < n_cells; ++i) {
                if (i % (n_rows / of_each) == row / of_each) rows[row * stride + i] = 0;
            }
        }
        const Tensor tensor = {rows.data(), {2, stride * 2}};
        const bool differ = mullama::see_different(&tensor, n_rows, n_cells);
        if (differ != (of_each <= 8)) return std::printf("%ld rows a sequence: %d\\n", (long) of_each, differ);
        if (mullama::see_different(&tensor, 63, n_cells)) return std::printf("fewer rows than a tile has\\n");
    }
    if (mullama::see_different((const Tensor *) nullptr, 128, 200)) return std::printf("without a mask\\n");
}
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def cmake(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, ROOT / "scripts/with_tools.py", "cmake", *arguments)


def test_the_functions_do_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "main.cpp").write_text(PROGRAM)
    program = tmp_path / "program"
    built = run("c++", "-std=c++17", "-O2", "-Wall", "-Werror", f"-I{CMAKE}", tmp_path / "main.cpp", "-o", program)
    assert built.returncode == 0, built.stderr
    ran = run(program)
    assert (ran.returncode, ran.stdout) == (0, "")


def configured(folder: Path, operators: str = OPERATORS, buffer: str = BUFFER) -> subprocess.CompletedProcess[str]:
    """A build with these texts where llama.cpp's has the ones that differ."""
    source = folder / "ggml/src"
    (source / "ggml-cpu").mkdir(parents=True)
    (source / "ggml-cpu/ops.cpp").write_text(operators)
    (source / "ggml-backend.cpp").write_text(buffer)
    (source / "CMakeLists.txt").write_text(
        "add_library(ggml-base STATIC ggml-backend.cpp)\nadd_library(ggml-cpu-x STATIC ggml-cpu/ops.cpp)\n"
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
    assert [operators.count(call) for call in CALLS] == [1, 1]
    assert "    return 64;" in (copies / "ggml-backend.cpp").read_text()
    built = cmake("--build", tmp_path / "build", "--verbose", "--", "-k", "0").stdout
    assert "mullama/ops.cpp" in built
    assert "mullama/ggml-backend.cpp" in built


@pytest.mark.parametrize("change", ["no such place", "twice"])
def test_the_build_ends_where_ggml_has_another_attention(tmp_path: Path, change: str) -> None:
    other = {"no such place": OPERATORS.replace("continue", "break"), "twice": OPERATORS * 2}[change]
    done = configured(tmp_path, operators=other)
    assert done.returncode != 0
    assert "ggml's attention is not the one" in done.stderr


def test_the_build_ends_where_ggml_aligns_in_another_way(tmp_path: Path) -> None:
    done = configured(tmp_path, buffer=BUFFER.replace("TENSOR_ALIGNMENT", "128"))
    assert done.returncode != 0
    assert "ggml's buffer on the CPU is not the one" in done.stderr

"""The code that mullama puts into ggml, attention and matrix kernels, against the plainest
way to do the same. That answers stay right is what the tests of the three languages say."""

import platform
import subprocess
from pathlib import Path

import pytest
from machine import ROOT

CMAKE = ROOT / "core/cmake"
# Instruction sets that the kernel has code for, by their names on Linux.
AVX2 = ("avx2", "fma", "f16c")
AVX512 = (*AVX2, "avx512f", "avx512bw")
AVX512VL = (*AVX512, "avx512vl")
KERNELS = [
    AVX2,
    (*AVX2, "avx_vnni"),
    AVX512,
    (*AVX512, "avx512_vnni"),
    AVX512VL,
    (*AVX512VL, "avx512_vnni"),
]
MULTIPLY = """
#include "matrix_kernels.h"
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

using namespace mullama;

std::mt19937 random_bits(1);

std::uint16_t any() { return _cvtss_sh(std::uniform_real_distribution<float>(-1, 1)(random_bits), 0); }

void fill(Q4_1::Weights & block) {
    block.scale = any();
    block.least = any();
    for (auto & byte : block.nibbles) byte = std::uint8_t(random_bits());
}

void fill(Q4_1::Values & block) {
    block.scale = any();
    block.sum = any();
    for (auto & byte : block.bytes) byte = std::int8_t(int(random_bits() % 255) - 127);
}

void fill(Q5_0::Weights & block) {
    block.scale = any();
    for (auto & byte : block.bits) byte = std::uint8_t(random_bits());
    for (auto & byte : block.nibbles) byte = std::uint8_t(random_bits());
}

void fill(Q5_1::Weights & block) {
    block.scale = any();
    block.least = any();
    for (auto & byte : block.bits) byte = std::uint8_t(random_bits());
    for (auto & byte : block.nibbles) byte = std::uint8_t(random_bits());
}

void fill(Q8_0::Weights & block) {
    block.scale = any();
    for (auto & byte : block.bytes) byte = std::int8_t(int(random_bits() % 255) - 127);
}

// The largest weights there can be, and the least values.
template <class Weights> void largest(Weights & block) {
    std::memset(block.nibbles, 0xFF, sizeof(block.nibbles));
    if constexpr (!std::is_same_v<Weights, Q4_1::Weights>) std::memset(block.bits, 0xFF, sizeof(block.bits));
}
void largest(Q8_0::Weights & block) { std::memset(block.bytes, -128, sizeof(block.bytes)); }

template <class Weights> int nibble(const Weights & block, int i) {
    return i < 16 ? block.nibbles[i] & 15 : block.nibbles[i - 16] >> 4;
}
template <class Weights> int bit(const Weights & block, int i) { return block.bits[i / 8] >> i % 8 & 1; }
int weight(const Q4_1::Weights & block, int i) { return nibble(block, i); }
int weight(const Q5_0::Weights & block, int i) { return nibble(block, i) + 16 * bit(block, i) - 16; }
int weight(const Q5_1::Weights & block, int i) { return nibble(block, i) + 16 * bit(block, i); }
int weight(const Q8_0::Weights & block, int i) { return block.bytes[i]; }
template <class Weights> float rest(float sums, const Weights & row, const Q4_1::Values & column) {
    return std::fma(_cvtsh_ss(row.least), _cvtsh_ss(column.sum), sums);
}
template <class Weights> float rest(float sums, const Weights &, const Q8_0::Values &) { return sums; }

// In the order of the blocks, whatever is multiplied together.
template <class Weights, class Values> float product(const Weights * row, const Values * column, long n_blocks) {
    float sums = 0;
    for (long block = 0; block < n_blocks; ++block) {
        int products = 0;
        for (int i = 0; i < 32; ++i) products += weight(row[block], i) * column[block].bytes[i];
        const float scale = _cvtsh_ss(row[block].scale) * _cvtsh_ss(column[block].scale);
        sums = rest(std::fma(scale, float(products), sums), row[block], column[block]);
    }
    return sums;
}

// Runs all `n` pieces, the last one first, and says whether each writes its own places
// alone, once.
template <class Run> bool are_apart(std::vector<float> & results, long n, long wanted, Run run) {
    long written = 0;
    for (long piece = n - 1; piece >= 0; --piece) {
        const std::vector<float> before = results;
        const long places = run(piece);
        long others = 0;
        for (std::size_t i = 0; i < results.size(); ++i) {
            others += std::isnan(before[i]) ? !std::isnan(results[i]) : 0;
            if (!std::isnan(before[i]) && before[i] != results[i]) return std::printf("written again\\n"), false;
        }
        if (others != places) return std::printf("piece %ld: %ld of %ld places\\n", piece, others, places), false;
        written += others;
    }
    return written == wanted || (std::printf("%ld of %ld places\\n", written, wanted), false);
}

template <class Format> bool is_right(const char * name, long n_blocks, long n_rows, long n_columns, long n_threads) {
    // Rows and columns lie a block further apart than they are long, but nothing is
    // behind the last.
    const long stride = n_blocks + 1, out_stride = n_rows + 1;
    std::vector<typename Format::Weights> weights((n_rows - 1) * stride + n_blocks);
    std::vector<typename Format::Values> values((n_columns - 1) * stride + n_blocks);
    for (auto & block : weights) fill(block);
    for (auto & block : values) fill(block);
    largest(weights[0]);
    std::memset(values[0].bytes, -127, sizeof(values[0].bytes));
    const Matrix<Format> matrix{weights.data(), stride, n_blocks};
    const Parts parts(n_rows, n_columns, n_threads);
    std::vector<float> in_parts((n_columns - 1) * out_stride + n_rows, NAN), by_threads = in_parts;
    const bool are_own = are_apart(in_parts, parts.n, n_rows * n_columns, [&](long part) {
        multiply_part(matrix, n_rows, values.data(), stride, n_columns, in_parts.data(), out_stride, parts, part);
        return std::min<long>(parts.rows, n_rows - parts.first_row(part)) *
               std::min<long>(parts.columns, n_columns - parts.first_column(part));
    }) && are_apart(by_threads, n_threads, n_rows * n_columns, [&](long thread) {
        const long from = first_row_of(thread, n_threads, n_rows), to = first_row_of(thread + 1, n_threads, n_rows);
        matrix.multiply(from, to, values.data(), stride, n_columns, by_threads.data(), out_stride);
        return (to - from) * n_columns;
    });
    if (!are_own) return false;
    for (long column = 0; column < n_columns; ++column) {
        for (long row = 0; row < n_rows; ++row) {
            const float wanted = product(&weights[row * stride], &values[column * stride], n_blocks);
            const float got = in_parts[column * out_stride + row];
            if (got != wanted || by_threads[column * out_stride + row] != wanted) {
                std::printf("%s, %ld blocks, %ld threads, row %ld of %ld, column %ld of %ld: %g and %g, not %g\\n",
                            name, n_blocks, n_threads, row, n_rows, column, n_columns, got,
                            by_threads[column * out_stride + row], wanted);
                return false;
            }
        }
    }
    return true;
}

bool are_right(long n_blocks, long n_rows, long n_columns, long n_threads) {
    return is_right<Q4_1>("Q4_1", n_blocks, n_rows, n_columns, n_threads) &&
           is_right<Q5_0>("Q5_0", n_blocks, n_rows, n_columns, n_threads) &&
           is_right<Q5_1>("Q5_1", n_blocks, n_rows, n_columns, n_threads) &&
           is_right<Q8_0>("Q8_0", n_blocks, n_rows, n_columns, n_threads);
}

int main() {
    for (long n_rows : {16, 17, 20, 33, 48}) {
        for (long n_columns : {1, 2, 3, 4, 5, 31, 32, 33, 70}) {
            for (long n_blocks : {1, 18}) {
                if (!are_right(n_blocks, n_rows, n_columns, 2)) return 1;
            }
        }
        for (long n_columns : {1, 4, 9}) {
            for (long n_blocks : {BLOCKS - 1, BLOCKS, BLOCKS + 1, 3 * BLOCKS + 2}) {
                if (!are_right(n_blocks, n_rows, n_columns, 1)) return 1;
            }
        }
    }
    for (long n_threads : {1, 2, 3, 16, 100}) {
        for (long n_rows : {16, 63, 192, 577}) {
            for (long n_columns : {1, 2, 16, 41, 256}) {
                if (!are_right(1, n_rows, n_columns, n_threads)) return 1;
                for (long thread = 0; thread < n_threads; ++thread) {
                    const long from = first_row_of(thread, n_threads, n_rows);
                    const long to = first_row_of(thread + 1, n_threads, n_rows);
                    if ((thread == 0 && from != 0) || from > to || (thread + 1 == n_threads && to != n_rows)) {
                        return std::printf("thread %ld has %ld to %ld of %ld\\n", thread, from, to, n_rows);
                    }
                }
                // Each place is in one part, and many threads have some.
                const Parts parts(n_rows, n_columns, n_threads);
                long places = 0;
                for (long part = 0; part < parts.n; ++part) {
                    const long rows = std::min<long>(parts.rows, n_rows - parts.first_row(part));
                    const long columns = std::min<long>(parts.columns, n_columns - parts.first_column(part));
                    if (rows < 1 || columns < 1) return std::printf("an empty part\\n");
                    places += rows * columns;
                }
                if (places != n_rows * n_columns) return std::printf("%ld places\\n", places);
                const long tiles = (n_rows + 31) / 32 * ((n_columns + COLUMNS - 1) / COLUMNS);
                if (parts.n < std::min(n_threads, tiles / 2)) {
                    return std::printf("%ld x %ld: %ld parts\\n", n_rows, n_columns, long(parts.n));
                }
            }
        }
    }
}
"""
MASKED_CELLS = """
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
TILES = """
#include "attention_tiles.h"
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

float to_float(std::uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    float value = exponent == 0 ? std::ldexp(float(fraction), -24) : std::ldexp(float(1024 + fraction), exponent - 25);
    if (exponent == 31) value = INFINITY;
    return half >> 15 ? -value : value;
}

bool are_same(const std::vector<float> & some, const std::vector<float> & others) {
    return std::memcmp(some.data(), others.data(), some.size() * sizeof(float)) == 0;
}

int main() {
    std::mt19937 random(1);
    // Any number but those that are none: finite, tiny, minus infinity.
    const auto half = [&] {
        const auto bits = std::uint16_t(random());
        return (bits >> 10 & 31) == 31 ? std::uint16_t(0xFC00) : bits;
    };
    for (int round = 0; round < 2000; ++round) {
        const int n = 1 + random() % 70;
        const float slope = round % 2 ? 1.0f : std::ldexp(1.0f, -int(random() % 9)) * 0.7f;
        // Some rows see nothing, or one cell alone.
        std::vector<std::uint16_t> mask(n, 0xFC00);
        if (round % 3 == 0) for (auto & cell : mask) cell = half();
        if (round % 3 == 1) mask[random() % n] = half();
        std::vector<float> wide(n + 1, 7), wanted(n + 1, 7);
        bool is_seen = false;
        for (int i = 0; i < n; ++i) {
            wanted[i] = slope * to_float(mask[i]);
            is_seen = is_seen || wanted[i] != -INFINITY;
        }
        if (mullama::widen_mask(mask.data(), n, slope, wide.data(), to_float) != is_seen || !are_same(wide, wanted)) {
            return std::printf("a mask of %d cells\\n", n);
        }

        float most = -INFINITY;
        for (int i = 0; i < n; ++i) most = most > wanted[i] ? most : wanted[i];
        if (mullama::largest(wanted.data(), n) != most) return std::printf("the largest of %d\\n", n);

        // Cells lie apart; some have numbers that no vector is full of.
        const int numbers = round % 5 ? 8 * (1 + random() % 16) : 1 + random() % 70, stride = numbers + random() % 9;
        std::vector<std::uint16_t> cells((n - 1) * stride + numbers);
        for (auto & number : cells) number = half();
        std::vector<float> turned(numbers * 72, 7), turned_wanted = turned;
        const int done = mullama::transpose_cells(reinterpret_cast<const char *>(cells.data()), 2 * stride, n, numbers,
                                                  turned.data(), 72);
        for (int i = 0; i < done; ++i) {
            for (int d = 0; d < numbers; ++d) turned_wanted[d * 72 + i] = to_float(cells[i * stride + d]);
        }
        if (done > n || !are_same(turned, turned_wanted)) return std::printf("%d cells of %d\\n", n, numbers);
#ifdef MULLAMA_TILES_IN_VECTORS
        if (numbers % 8 == 0 && done != n / 8 * 8) return std::printf("%d of %d cells\\n", done, n);
#endif
    }
}
"""


def processor_flags() -> set[str]:
    return set(Path("/proc/cpuinfo").read_text().split())


def run(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What the compiler says where it fails, or else the program."""
    (folder / "main.cpp").write_text(text)
    program = folder / "program"
    command = ["c++", *options, f"-I{CMAKE}", str(folder / "main.cpp"), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    return built if built.returncode else subprocess.run([str(program)], capture_output=True, text=True)


WARNINGS = ("-Wall", "-Wextra", "-Werror")


def test_hidden_cells_are_found(tmp_path: Path) -> None:
    ran = run(tmp_path, MASKED_CELLS, "-std=c++17", "-O2", *WARNINGS)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("sets", [(), ("avx", "f16c")], ids=["plain", "vectors"])
def test_tiles_of_attention_are_read_as_ggml_reads_them(tmp_path: Path, sets: tuple[str, ...]) -> None:
    if sets and not (platform.system() == "Linux" and set(sets) <= processor_flags()):
        pytest.skip("the processor lacks an instruction set")
    ran = run(tmp_path, TILES, "-std=c++17", "-O2", *WARNINGS, *(f"-m{name}" for name in sets))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.skipif(platform.system() != "Linux", reason="/proc/cpuinfo tells the instruction sets")
@pytest.mark.parametrize("needs", KERNELS, ids="-".join)
def test_matrix_kernels_sum_up_in_the_order_of_blocks(tmp_path: Path, needs: tuple[str, ...]) -> None:
    if not set(needs) <= processor_flags():
        pytest.skip("the processor lacks an instruction set")
    sets = [f"-m{name.replace('_vnni', 'vnni')}" for name in needs]
    ran = run(tmp_path, MULTIPLY, "-std=gnu++17", "-O3", *sets)
    if "unrecognized" in ran.stderr or "unknown argument" in ran.stderr:
        pytest.skip("the compiler lacks an instruction set")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")

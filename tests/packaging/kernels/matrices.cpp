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
            if (!std::isnan(before[i]) && before[i] != results[i]) return std::printf("written again\n"), false;
        }
        if (others != places) return std::printf("piece %ld: %ld of %ld places\n", piece, others, places), false;
        written += others;
    }
    return written == wanted || (std::printf("%ld of %ld places\n", written, wanted), false);
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
                std::printf("%s, %ld blocks, %ld threads, row %ld of %ld, column %ld of %ld: %g and %g, not %g\n",
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
                        return std::printf("thread %ld has %ld to %ld of %ld\n", thread, from, to, n_rows);
                    }
                }
                // Each place is in one part, and many threads have some.
                const Parts parts(n_rows, n_columns, n_threads);
                long places = 0;
                for (long part = 0; part < parts.n; ++part) {
                    const long rows = std::min<long>(parts.rows, n_rows - parts.first_row(part));
                    const long columns = std::min<long>(parts.columns, n_columns - parts.first_column(part));
                    if (rows < 1 || columns < 1) return std::printf("an empty part\n");
                    places += rows * columns;
                }
                if (places != n_rows * n_columns) return std::printf("%ld places\n", places);
                const long tiles = (n_rows + 31) / 32 * ((n_columns + COLUMNS - 1) / COLUMNS);
                if (parts.n < std::min(n_threads, tiles / 2)) {
                    return std::printf("%ld x %ld: %ld parts\n", n_rows, n_columns, long(parts.n));
                }
            }
        }
    }
}

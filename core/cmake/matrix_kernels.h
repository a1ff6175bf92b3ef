// Stands in a copy of ggml's matrix kernels: see `matrix_kernels.cmake`. Pure, and
// without a name of ggml's, so that a test can compile it alone.
//
// A lane of a vector is for a row. What it sums up for a column, and in which order,
// is the same however many rows and columns are computed together, and with each
// instruction set.

#include "matrix_formats.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#if defined(MULLAMA_MATRIX_KERNELS)

namespace mullama {

// Columns for which weights are unpacked once, and blocks of a row for which the
// numbers of these columns are kept on the stack of a thread: 16 KiB.
constexpr int COLUMNS = 32;
constexpr std::int64_t BLOCKS = 64;

template <class Format> struct Matrix {
    using Weights = typename Format::Weights;
    using Values = typename Format::Values;

    // Rows are `stride` blocks apart. There are at least as many as a vector has lanes.
    const Weights * first;
    std::int64_t stride, n_blocks;

    // Rows `from..to` times `n` columns, which are `columns_stride` blocks apart.
    // What row `i` gives for column `j` goes to `out[j * out_stride + i]`.
    void multiply(std::int64_t from, std::int64_t to, const Values * columns, std::int64_t columns_stride,
                  std::int64_t n, float * out, std::int64_t out_stride) const {
        for (std::int64_t c = 0; c < n; c += COLUMNS) {
            const int some = static_cast<int>(std::min<std::int64_t>(n - c, COLUMNS));
            const Columns of{columns + c * columns_stride, columns_stride, some, out + c * out_stride, out_stride};
            for (std::int64_t block = 0; block < n_blocks; block += BLOCKS) {
                multiply_blocks(block, std::min(block + BLOCKS, n_blocks), from, to, of);
            }
        }
    }

  private:
    struct Columns {
        const Values * first;
        std::int64_t stride;
        int n;
        float * out;
        std::int64_t out_stride;
    };

    // Some blocks of all rows.
    void multiply_blocks(std::int64_t from, std::int64_t to, std::int64_t first_row, std::int64_t end_row,
                         const Columns & columns) const {
        Number<Format> numbers[BLOCKS * COLUMNS], * number = numbers;
        for (std::int64_t block = from; block < to; ++block) {
            for (int c = 0; c < columns.n; ++c) *number++ = Number<Format>::of(columns.first[c * columns.stride + block]);
        }
        for (std::int64_t row = first_row; row < end_row; row += LANES) {
            switch (columns.n) {
                case 1: tile<1>(from, to, row, end_row, columns, numbers); break;
                case 2: tile<2>(from, to, row, end_row, columns, numbers); break;
                case 3: tile<3>(from, to, row, end_row, columns, numbers); break;
                case 4: tile<4>(from, to, row, end_row, columns, numbers); break;
                default: tile<ANY>(from, to, row, end_row, columns, numbers); break;
            }
        }
    }

    // So many columns, whose lanes stay in registers, or any number of them.
    static constexpr int ANY = 0;
    template <int N>
    __attribute__((noinline)) void tile(std::int64_t from, std::int64_t to, std::int64_t row, std::int64_t end_row,
                                        const Columns & columns, const Number<Format> * number) const {
        // Where fewer rows are left than there are lanes, they are the last lanes.
        const std::int64_t first_row = std::min(row, end_row - LANES);
        const int n_rows = static_cast<int>(first_row + LANES - row), n = N == ANY ? columns.n : N;
        Rows<Weights> rows(first + first_row * stride + from, stride * sizeof(Weights));
        const Values * values = columns.first + from;
        float * out = columns.out + row;

        Lanes lanes[N == ANY ? COLUMNS : N];
        for (int c = 0; c < n; ++c) {
            lanes[c] = from == 0 ? Vectors::all_lanes(0.0f) : last_lanes(out + c * columns.out_stride, n_rows);
        }
        for (std::int64_t block = from; block < to; ++block, rows.to_next_block(), ++values) {
            // The same blocks of the next tile: rows are too short for the processor to
            // see which come next.
            if (block % std::int64_t(64 / sizeof(Weights)) == 0) {
                for (int r = 0; r < LANES; ++r) {
                    __builtin_prefetch(reinterpret_cast<const char *>(&rows[r]) + LANES * rows.stride);
                }
            }
            const Unpacked<Format> weights(rows);
            const auto [scales, least] = Vectors::from_halves(first_four([&](int r) { return &rows[r]; }));
            const Values * column = values;
            for (int c = 0; c < n; ++c, ++number, column += columns.stride) {
                const Lanes scale = Vectors::times(scales, Vectors::all_lanes(number->scale));
                const Lanes sums = Vectors::from_integers(weights.sums(column->bytes, number->start));
                lanes[c] = Vectors::plus_product(lanes[c], scale, sums);
                if constexpr (Format::HAS_LEAST) {
                    lanes[c] = Vectors::plus_product(lanes[c], least, Vectors::all_lanes(number->sum));
                }
            }
        }
        for (int c = 0; c < n; ++c) store_last(lanes[c], n_rows, out + c * columns.out_stride);
    }

    static Lanes last_lanes(const float * from, int n) {
        if (n == LANES) return Vectors::load(from);
        float all[LANES] = {};
        std::copy_n(from, n, all + LANES - n);
        return Vectors::load(all);
    }

    static void store_last(Lanes lanes, int n, float * to) {
        if (n == LANES) return Vectors::store(to, lanes);
        float all[LANES];
        Vectors::store(all, lanes);
        std::copy_n(all + LANES - n, n, to);
    }
};

// The parts of a product that threads take in turn: rows, and columns too where
// there are too few rows for some parts for each thread. A part has so many rows
// that the numbers of its columns are converted for some tiles.
struct Parts {
    std::int64_t rows, columns, n_by_rows, n;

    Parts(std::int64_t n_rows, std::int64_t n_columns, std::int64_t n_threads) {
        const std::int64_t wanted = 8 * n_threads;
        rows = std::clamp<std::int64_t>(n_rows / wanted / LANES * LANES, 32, 128);
        n_by_rows = parts(n_rows, rows);
        const std::int64_t tiles = parts(n_columns, COLUMNS);
        columns = parts(tiles, std::min(tiles, parts(wanted, n_by_rows))) * COLUMNS;
        n = n_by_rows * parts(n_columns, columns);
    }

    std::int64_t first_row(std::int64_t part) const { return part % n_by_rows * rows; }
    std::int64_t first_column(std::int64_t part) const { return part / n_by_rows * columns; }

  private:
    static std::int64_t parts(std::int64_t all, std::int64_t of) { return (all + of - 1) / of; }
};

// Whether a product takes a thread 0.2 ms at most, by some 100 multiplications a
// nanosecond, or has one column: there memory is what limits it. Then each thread has
// rows of its own: barriers would cost some percent, and a thread that is kept waiting
// is kept longer than the others could help out.
inline bool is_short(std::int64_t n_rows, std::int64_t n_columns, std::int64_t n_blocks, std::int64_t n_threads) {
    constexpr std::int64_t MOST = 20'000'000 / 32;
    const std::int64_t n_tiles = (n_rows + LANES - 1) / LANES;
    return n_columns == 1 || n_rows * n_columns * n_blocks <= MOST * std::min(n_threads, n_tiles);
}

// Where the rows of such a thread begin.
inline std::int64_t first_row_of(std::int64_t thread, std::int64_t n_threads, std::int64_t n_rows) {
    const std::int64_t n_tiles = (n_rows + LANES - 1) / LANES;
    return std::min(n_tiles * thread / n_threads * LANES, n_rows);
}

// One part of the matrix times `n` columns.
template <class Format>
inline void multiply_part(const Matrix<Format> & matrix, std::int64_t n_rows, const typename Format::Values * columns,
                          std::int64_t columns_stride, std::int64_t n_columns, float * out, std::int64_t out_stride,
                          const Parts & parts, std::int64_t part) {
    const std::int64_t row = parts.first_row(part), column = parts.first_column(part);
    matrix.multiply(row, std::min(row + parts.rows, n_rows), columns + column * columns_stride, columns_stride,
                    std::min(parts.columns, n_columns - column), out + column * out_stride, out_stride);
}

} // namespace mullama

#endif

// Stands in a copy of ggml's matrix kernels: see `matrix_kernels.cmake`. Pure, and
// without a name of ggml's, so that a test can compile it alone.

#include "matrix_formats.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(MULLAMA_MATRIX_KERNELS)

namespace mullama {

// Rows of a tile, and vectors of its columns at most.
constexpr int ROWS = 4;
constexpr int MOST_VECTORS = 4;

// Columns of a vector, and of a tile at most.
constexpr int IN_VECTOR = Widest::COLUMNS;
constexpr int COLUMNS = MOST_VECTORS * IN_VECTOR;
using Lanes = Widest::Lanes;
using Sums = Widest::Sums;
static_assert(sizeof(Sums) == COLUMNS * sizeof(float));

// Tiles between the one that is computed and the one whose weights are fetched:
// rows are too short for the processor to see what comes next.
constexpr int AHEAD = 2;

// Blocks of a row at most: what lies on the stack of a thread is 64 KiB then, or
// 32 KiB with AVX2.
constexpr std::int64_t MOST_BLOCKS = 1024;

// Scales and sums of a block of each column.
struct Numbers {
    alignas(Sums) float scale[COLUMNS], sum[COLUMNS];
};

// Scales of a block of some rows, each followed by the least weight where there is
// one, as ggml has them: in 16 bits.
template <class Format> constexpr int OF_ROW_IN = Format::HAS_LEAST ? 2 : 1;
template <class Format, int N>
inline __m128i halves_of(const typename Format::Weights * const * rows, std::int64_t block) {
    if constexpr (Format::HAS_LEAST) {
        // Both of a row at once. Put together in wider numbers they take GCC twice as
        // many instructions.
        static_assert(offsetof(typename Format::Weights, least) == 2);
        std::int32_t both[4] = {};
        for (int r = 0; r < N; ++r) std::memcpy(&both[r], &rows[r][block], sizeof(both[r]));
        return _mm_set_epi32(both[3], both[2], both[1], both[0]);
    } else {
        std::uint64_t half = 0;
        for (int r = 0; r < N; ++r) half |= static_cast<std::uint64_t>(rows[r][block].scale) << r * 16;
        return _mm_set_epi64x(0, static_cast<long long>(half));
    }
}

// Scales and least weights of a block of some rows, converted at once. They go
// through memory, whatever the compiler thinks of it: an instruction reads one for
// all lanes in less time than it takes to spread it from a register.
template <class Format, int ROWS_AT_ONCE> class RowNumbers {
    static constexpr int OF_ROW = OF_ROW_IN<Format>;
    alignas(32) float numbers[8];

  public:
    static constexpr int N = ROWS_AT_ONCE;

    RowNumbers(const typename Format::Weights * const * rows, std::int64_t block) {
        const __m128i all = halves_of<Format, N>(rows, block);
        if constexpr (OF_ROW * N > 4) {
            _mm256_store_ps(numbers, _mm256_cvtph_ps(all));
        } else {
            _mm_store_ps(numbers, _mm_cvtph_ps(all));
        }
        asm("" : "+m"(numbers));
    }
    float scale(int row) const { return numbers[OF_ROW * row]; }
    float least(int row) const { return numbers[OF_ROW * row + 1]; }
};

// What the sums of a block are multiplied with. Where registers are few, the
// products for several columns are made at once and go through memory, too.
template <class Rows, int VECTORS, bool IN_MEMORY = (IN_VECTOR == 1)> class Scales {
    const Rows & rows;
    Lanes columns[VECTORS];

  public:
    Scales(const Rows & rows, const float * columns) : rows(rows) {
        for (int v = 0; v < VECTORS; ++v) this->columns[v] = Widest::for_columns(columns + v * IN_VECTOR);
    }
    Lanes of(int row, int vector) const {
        return Widest::times(Widest::all_lanes(rows.scale(row)), columns[vector]);
    }
};

template <class Rows, int VECTORS> class Scales<Rows, VECTORS, true> {
    alignas(16) float products[Rows::N][4];

  public:
    Scales(const Rows & rows, const float * columns) {
        for (int r = 0; r < Rows::N; ++r) {
            _mm_store_ps(products[r], _mm_mul_ps(_mm_set1_ps(rows.scale(r)), _mm_load_ps(columns)));
        }
        asm("" : "+m"(products));
    }
    Lanes of(int row, int vector) const { return Widest::all_lanes(products[row][vector]); }
};

template <class Format> struct Matrix {
    using Weights = typename Format::Weights;
    using Values = typename Format::Values;

    // Rows are `stride` blocks apart.
    const Weights * first;
    std::int64_t stride, n_blocks;

    // Rows `from..to` times `n` columns, which are `columns_stride` blocks apart.
    // What row `i` gives for column `j` goes to `out[j * out_stride + i]`.
    void multiply(std::int64_t from, std::int64_t to, const Values * columns, std::int64_t columns_stride,
                  std::int64_t n, float * out, std::int64_t out_stride) const {
        for (std::int64_t c = 0; c < n; c += COLUMNS) {
            const int left = n - c < COLUMNS ? static_cast<int>(n - c) : COLUMNS;
            const Values * some = columns + c * columns_stride;
            float * results = out + c * out_stride;
            switch (left == 1 ? 0 : (left + IN_VECTOR - 1) / IN_VECTOR) {
                case 0: one_column(from, to, some, results); break;
                case 1: some_columns<1>(from, to, some, columns_stride, left, results, out_stride); break;
                case 2: some_columns<2>(from, to, some, columns_stride, left, results, out_stride); break;
                case 3: some_columns<3>(from, to, some, columns_stride, left, results, out_stride); break;
                default: some_columns<MOST_VECTORS>(from, to, some, columns_stride, left, results, out_stride); break;
            }
        }
    }

  private:
    // One column. In wider vectors half would be for nothing, and the numbers of the
    // rows of a tile are multiplied with its own at once.
    __attribute__((noinline)) void one_column(std::int64_t from, std::int64_t to, const Values * column,
                                              float * out) const {
        float scales[MOST_BLOCKS], sums[MOST_BLOCKS];
        for (std::int64_t block = 0; block < n_blocks; ++block) {
            scales[block] = _cvtsh_ss(column[block].scale);
            if constexpr (Format::HAS_LEAST) sums[block] = _cvtsh_ss(column[block].sum);
        }
        for (std::int64_t row = from; row < to; row += ROWS) {
            const Weights * rows[ROWS];
            const int n_rows = some_rows_from(row, to, rows);
            // Of the rows in turn, as the numbers are: those of scales are for nothing.
            __m256 lanes[ROWS], multiples = _mm256_setzero_ps();
            for (auto & of_row : lanes) of_row = _mm256_setzero_ps();
            for (std::int64_t block = 0; block < n_blocks; ++block) {
                const __m256 numbers = _mm256_cvtph_ps(halves_of<Format, ROWS>(rows, block));
                alignas(32) float products[8];
                _mm256_store_ps(products, _mm256_mul_ps(numbers, _mm256_set1_ps(scales[block])));
                asm("" : "+m"(products));
                if constexpr (Format::HAS_LEAST) {
                    multiples = _mm256_fmadd_ps(numbers, _mm256_set1_ps(sums[block]), multiples);
                }
                const auto factor = Factor<Format, Narrow>::of(Narrow::from_bytes(column[block].bytes));
                for (int r = 0; r < ROWS; ++r) {
                    const Weights & weights = rows[r][block];
                    __builtin_prefetch(&weights + AHEAD * ROWS * stride);
                    const __m256 sums = Narrow::from_integers(factor.sums(Factor<Format, Narrow>::weights(weights)));
                    lanes[r] = _mm256_fmadd_ps(_mm256_set1_ps(products[OF_ROW_IN<Format> * r]), sums, lanes[r]);
                }
            }
            alignas(32) float least[8];
            _mm256_store_ps(least, multiples);
            __m128 results = sums_of_lanes(lanes);
            if constexpr (Format::HAS_LEAST) {
                results = _mm_add_ps(results, _mm_set_ps(least[7], least[5], least[3], least[1]));
            }
            store(results, n_rows, out + row);
        }
    }

    // The rows of a tile. One that is not there is another one.
    int some_rows_from(std::int64_t row, std::int64_t to, const Weights * (&rows)[ROWS]) const {
        const int n_rows = to - row < ROWS ? static_cast<int>(to - row) : ROWS;
        for (int r = 0; r < ROWS; ++r) rows[r] = first + (row + (r < n_rows ? r : n_rows - 1)) * stride;
        return n_rows;
    }

    // Of each row what its eight lanes give.
    static __m128 sums_of_lanes(const __m256 (&lanes)[ROWS]) {
        __m128 quarters[ROWS];
        for (int r = 0; r < ROWS; ++r) {
            quarters[r] = _mm_add_ps(_mm256_extractf128_ps(lanes[r], 1), _mm256_castps256_ps128(lanes[r]));
        }
        _MM_TRANSPOSE4_PS(quarters[0], quarters[1], quarters[2], quarters[3]);
        const __m128 even = _mm_add_ps(quarters[0], quarters[2]), odd = _mm_add_ps(quarters[1], quarters[3]);
        return _mm_add_ps(even, odd);
    }

    static void store(__m128 results, int n_rows, float * out) {
        float four[ROWS];
        _mm_storeu_ps(four, results);
        std::copy_n(four, n_rows, out);
    }

    // The columns of so many vectors, of which `n` are wanted. One that is not there
    // is computed as another one.
    template <int VECTORS>
    __attribute__((noinline)) void some_columns(std::int64_t from, std::int64_t to, const Values * values,
                                                std::int64_t columns_stride, int n, float * out,
                                                std::int64_t out_stride) const {
        const Values * columns[COLUMNS];
        Numbers numbers[MOST_BLOCKS];
        // All sums and scales of a block are multiplied, whatever there is of columns.
        constexpr bool ARE_LEFT_OUT = VECTORS * IN_VECTOR < COLUMNS;
        for (std::int64_t block = 0; (Format::HAS_LEAST || ARE_LEFT_OUT) && block < n_blocks; ++block) {
            numbers[block] = {};
        }
        for (int c = 0; c < VECTORS * IN_VECTOR; ++c) {
            columns[c] = values + (c < n ? c : n - 1) * columns_stride;
            for (std::int64_t block = 0; block < n_blocks; ++block) {
                numbers[block].scale[c] = _cvtsh_ss(columns[c][block].scale);
                if constexpr (Format::HAS_LEAST) numbers[block].sum[c] = _cvtsh_ss(columns[c][block].sum);
            }
        }
        for (std::int64_t row = from; row < to; row += ROWS) {
            const Weights * rows[ROWS];
            const int n_rows = some_rows_from(row, to, rows);
            __m128 results[VECTORS * IN_VECTOR];
            tile<VECTORS>(rows, columns, numbers, results);
            for (int c = 0; c < n; ++c) store(results[c], n_rows, out + c * out_stride + row);
        }
    }

    template <int VECTORS>
    void tile(const Weights * const (&rows)[ROWS], const Values * const (&columns)[COLUMNS], const Numbers * numbers,
              __m128 (&out)[VECTORS * IN_VECTOR]) const {
        constexpr int AT_ONCE = std::min(ROWS, Widest::IN_REGISTERS / VECTORS);
        static_assert(AT_ONCE == ROWS || 2 * AT_ONCE == ROWS);
        Lanes lanes[ROWS][VECTORS];
        Sums sums[ROWS];
        if constexpr (AT_ONCE == ROWS) {
            some_rows<ROWS, VECTORS>(rows, columns, numbers, lanes, sums);
        } else {
            half<VECTORS>(rows, columns, numbers, lanes, sums);
            half<VECTORS>(rows + AT_ONCE, columns, numbers, lanes + AT_ONCE, sums + AT_ONCE);
        }
        for (int c = 0; c < VECTORS * IN_VECTOR; ++c) {
            __m256 of_column[ROWS];
            for (int r = 0; r < ROWS; ++r) of_column[r] = Widest::of_column(lanes[r][c / IN_VECTOR], c % IN_VECTOR);
            out[c] = sums_of_lanes(of_column);
            if constexpr (Format::HAS_LEAST) {
                out[c] = _mm_add_ps(out[c], _mm_set_ps(sums[3][c], sums[2][c], sums[1][c], sums[0][c]));
            }
        }
    }

    // Of half a tile. A function of its own has all registers.
    template <int VECTORS>
    __attribute__((noinline)) void half(const Weights * const * rows, const Values * const (&columns)[COLUMNS],
                                        const Numbers * numbers, Lanes (*lanes)[VECTORS], Sums * sums) const {
        some_rows<ROWS / 2, VECTORS>(rows, columns, numbers, lanes, sums);
    }

    // What each lane sums up, in registers, and each row's multiples of the columns'
    // sums.
    template <int AT_ONCE, int VECTORS>
    __attribute__((always_inline)) void some_rows(const Weights * const * rows,
                                                  const Values * const (&columns)[COLUMNS], const Numbers * numbers,
                                                  Lanes (*all_lanes)[VECTORS], Sums * all_sums) const {
        Lanes lanes[AT_ONCE][VECTORS];
        Sums sums[AT_ONCE];
        for (int r = 0; r < AT_ONCE; ++r) {
            sums[r] = Widest::no_sums();
            for (auto & vector : lanes[r]) vector = Widest::no_lanes();
        }
        for (std::int64_t block = 0; block < n_blocks; ++block) {
            const RowNumbers<Format, AT_ONCE> of_rows(rows, block);
            const Scales<RowNumbers<Format, AT_ONCE>, VECTORS> scales(of_rows, numbers[block].scale);
            Factor<Format, Widest> factors[VECTORS];
            for (int v = 0; v < VECTORS; ++v) {
                const std::int8_t * bytes[IN_VECTOR];
                for (int c = 0; c < IN_VECTOR; ++c) bytes[c] = columns[v * IN_VECTOR + c][block].bytes;
                factors[v] = Factor<Format, Widest>::of(Widest::from_columns(bytes));
            }
            Sums sums_of_columns;
            if constexpr (Format::HAS_LEAST) std::memcpy(&sums_of_columns, numbers[block].sum, sizeof(Sums));
            for (int r = 0; r < AT_ONCE; ++r) {
                const Weights & row = rows[r][block];
                __builtin_prefetch(&row + AHEAD * ROWS * stride);
                const Widest::Bytes weights = Factor<Format, Widest>::weights(row);
                if constexpr (Format::HAS_LEAST) {
                    sums[r] = Widest::plus_multiple(sums[r], of_rows.least(r), sums_of_columns);
                }
                for (int v = 0; v < VECTORS; ++v) {
                    const Lanes products = Widest::from_integers(factors[v].sums(weights));
                    lanes[r][v] = Widest::plus_product(lanes[r][v], scales.of(r, v), products);
                }
            }
        }
        for (int r = 0; r < AT_ONCE; ++r) {
            // One by one: a copy of the whole would keep them in memory.
            for (int v = 0; v < VECTORS; ++v) all_lanes[r][v] = lanes[r][v];
            all_sums[r] = sums[r];
        }
    }
};

// The parts of a product that threads take in turn: rows, and columns too where
// there are too few rows for some parts for each thread. A part has so many rows
// that the numbers of its columns are converted for some tiles.
struct Parts {
    std::int64_t rows, columns, n_by_rows, n;

    Parts(std::int64_t n_rows, std::int64_t n_columns, std::int64_t n_threads) {
        const std::int64_t wanted = 4 * n_threads;
        rows = std::clamp<std::int64_t>(n_rows / wanted / ROWS * ROWS, 4 * ROWS, 16 * ROWS);
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
// nanosecond. Then each has rows of its own: barriers would cost some percent, and
// a thread that is kept waiting is kept longer than the others could help out.
inline bool is_short(std::int64_t n_rows, std::int64_t n_columns, std::int64_t n_blocks, std::int64_t n_threads) {
    constexpr std::int64_t MOST = 20'000'000 / 32;
    return n_columns == 1 || n_rows * n_columns * n_blocks <= MOST * n_threads;
}

// Where the rows of such a thread begin.
inline std::int64_t first_row_of(std::int64_t thread, std::int64_t n_threads, std::int64_t n_rows) {
    const std::int64_t n_tiles = (n_rows + ROWS - 1) / ROWS;
    return std::min(n_tiles * thread / n_threads * ROWS, n_rows);
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

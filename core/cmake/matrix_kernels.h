// Stands in a copy of ggml's matrix kernels: see `matrix_kernels.cmake`. Pure, and
// without a name of ggml's, so that a test can compile it alone.

#include "matrix_vectors.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(MULLAMA_MATRIX_KERNELS)

namespace mullama {

// Rows of a tile, and vectors of its columns at most.
constexpr int ROWS = 4;
constexpr int MOST_VECTORS = 4;

// Columns of a tile at most.
constexpr int COLUMNS = MOST_VECTORS * IN_VECTOR;
static_assert(sizeof(Sums) == COLUMNS * sizeof(float));

// Tiles between the one that is computed and the one whose weights are fetched:
// rows are too short for the processor to see what comes next.
constexpr int AHEAD = 2;

// Blocks of a row at most: what lies on the stack of a thread is 64 KiB then, or
// 32 KiB with AVX2.
constexpr std::int64_t MOST_BLOCKS = 1024;

// The formats. `Weights` is ggml's block of 32 weights, `Values` that of as many
// values.

struct Q4_1 {
    // Each is `scale` times a nibble, plus `least`.
    struct Weights {
        std::uint16_t scale, least;
        std::uint8_t nibbles[16];
    };
    // Each is `scale` times a byte; `sum` is that of them all.
    struct Values {
        std::uint16_t scale, sum;
        std::int8_t bytes[32];
    };
    static constexpr bool HAS_LEAST = true;
    static constexpr bool IS_SIGNED = false;
    static Bytes bytes(const Weights & block) { return from_nibbles(block.nibbles); }
};

struct Q8_0 {
    // Each is `scale` times a byte.
    struct Weights {
        std::uint16_t scale;
        std::int8_t bytes[32];
    };
    using Values = Weights;
    static constexpr bool HAS_LEAST = false;
    static constexpr bool IS_SIGNED = true;
    static Bytes bytes(const Weights & block) { return from_bytes(block.bytes); }
};

inline std::uint32_t four_bytes(const std::uint8_t (&bytes)[4]) {
    std::uint32_t bits;
    std::memcpy(&bits, bytes, sizeof(bits));
    return bits;
}

struct Q5_0 {
    // Each is `scale` times a nibble, less 16 where its bit is not set.
    struct Weights {
        std::uint16_t scale;
        std::uint8_t bits[4], nibbles[16];
    };
    using Values = Q8_0::Values;
    static constexpr bool HAS_LEAST = false;
    static constexpr bool IS_SIGNED = true;
    static Bytes bytes(const Weights & block) {
        return joined(from_nibbles(block.nibbles), from_bits(four_bytes(block.bits), -16, 0));
    }
};

struct Q5_1 {
    // Each is `scale` times a nibble, and 16 where its bit is set, plus `least`.
    struct Weights {
        std::uint16_t scale, least;
        std::uint8_t bits[4], nibbles[16];
    };
    using Values = Q4_1::Values;
    static constexpr bool HAS_LEAST = true;
    static constexpr bool IS_SIGNED = false;
    static Bytes bytes(const Weights & block) {
        return joined(from_nibbles(block.nibbles), from_bits(four_bytes(block.bits), 0, 16));
    }
};

// Exact sums of products of bytes, four to a lane. One factor of the instructions
// has no sign. Where they add to a sum, 128 is added to weights that have one,
// and the sum begins with what is too much.
#if defined(MULLAMA_SUMS_OF_FOUR)

template <class Format> struct Factor {
    Bytes bytes, start;
    static Factor of(Bytes column) {
        if constexpr (!Format::IS_SIGNED) return {column, no_bytes()};
        return {column, minus(plus_sums_of_four(no_bytes(), all_bytes(128), column))};
    }
    Bytes sums(Bytes weights) const { return plus_sums_of_four(start, weights, bytes); }
    static Bytes weights(const typename Format::Weights & block) {
        return Format::IS_SIGNED ? flip(Format::bytes(block), all_bytes(128)) : Format::bytes(block);
    }
};

#else

template <class Format> struct Factor {
    Bytes bytes;
    static Factor of(Bytes column) { return {column}; }
    Bytes sums(Bytes weights) const {
        if constexpr (Format::IS_SIGNED) return sums_of_four(magnitude(weights), with_signs_of(bytes, weights));
        return sums_of_four(weights, bytes);
    }
    static Bytes weights(const typename Format::Weights & block) { return Format::bytes(block); }
};

#endif

// Scales and sums of a block of each column.
struct Numbers {
    alignas(Sums) float scale[COLUMNS], sum[COLUMNS];
};

// Scales and least weights of a block of some rows, converted at once. They go
// through memory, whatever the compiler thinks of it: an instruction reads one for
// all lanes in less time than it takes to spread it from a register.
template <class Format, int ROWS_AT_ONCE> class RowNumbers {
    static constexpr int OF_ROW = Format::HAS_LEAST ? 2 : 1;
    alignas(32) float numbers[8];

  public:
    static constexpr int N = ROWS_AT_ONCE;

    RowNumbers(const typename Format::Weights * const * rows, std::int64_t block) {
        std::uint64_t halves[2] = {};
        for (int r = 0; r < N; ++r) {
            std::uint64_t of_row = rows[r][block].scale;
            if constexpr (Format::HAS_LEAST) of_row |= static_cast<std::uint64_t>(rows[r][block].least) << 16;
            halves[OF_ROW * r / 4] |= of_row << OF_ROW * r % 4 * 16;
        }
        const __m128i all = _mm_set_epi64x(static_cast<long long>(halves[1]), static_cast<long long>(halves[0]));
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
template <class Rows, int VECTORS, bool IN_MEMORY = (VECTORS > 1 && IN_VECTOR == 1)> class Scales {
    const Rows & rows;
    Lanes columns[VECTORS];

  public:
    Scales(const Rows & rows, const float * columns) : rows(rows) {
        for (int v = 0; v < VECTORS; ++v) this->columns[v] = for_columns(columns + v * IN_VECTOR);
    }
    Lanes of(int row, int vector) const { return times(all_lanes(rows.scale(row)), columns[vector]); }
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
    Lanes of(int row, int vector) const { return all_lanes(products[row][vector]); }
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
            switch ((left + IN_VECTOR - 1) / IN_VECTOR) {
                case 1: some_columns<1>(from, to, some, columns_stride, left, results, out_stride); break;
                case 2: some_columns<2>(from, to, some, columns_stride, left, results, out_stride); break;
                case 3: some_columns<3>(from, to, some, columns_stride, left, results, out_stride); break;
                default: some_columns<MOST_VECTORS>(from, to, some, columns_stride, left, results, out_stride); break;
            }
        }
    }

  private:
    // The columns of so many vectors, of which `n` are wanted. A row or a column
    // that is not there is computed as another one.
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
            const int n_rows = to - row < ROWS ? static_cast<int>(to - row) : ROWS;
            const Weights * rows[ROWS];
            for (int r = 0; r < ROWS; ++r) rows[r] = first + (row + (r < n_rows ? r : n_rows - 1)) * stride;
            __m128 results[VECTORS * IN_VECTOR];
            tile<VECTORS>(rows, columns, numbers, results);
            for (int c = 0; c < n; ++c) {
                float four[ROWS];
                _mm_storeu_ps(four, results[c]);
                std::copy_n(four, n_rows, out + c * out_stride + row);
            }
        }
    }

    template <int VECTORS>
    void tile(const Weights * const (&rows)[ROWS], const Values * const (&columns)[COLUMNS], const Numbers * numbers,
              __m128 (&out)[VECTORS * IN_VECTOR]) const {
        constexpr int AT_ONCE = std::min(ROWS, IN_REGISTERS / VECTORS);
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
            __m128 quarters[ROWS];
            for (int r = 0; r < ROWS; ++r) {
                const __m256 eight = of_column(lanes[r][c / IN_VECTOR], c % IN_VECTOR);
                quarters[r] = _mm_add_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
            }
            _MM_TRANSPOSE4_PS(quarters[0], quarters[1], quarters[2], quarters[3]);
            const __m128 even = _mm_add_ps(quarters[0], quarters[2]), odd = _mm_add_ps(quarters[1], quarters[3]);
            out[c] = _mm_add_ps(even, odd);
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
            sums[r] = no_sums();
            for (auto & vector : lanes[r]) vector = no_lanes();
        }
        for (std::int64_t block = 0; block < n_blocks; ++block) {
            const RowNumbers<Format, AT_ONCE> of_rows(rows, block);
            const Scales<RowNumbers<Format, AT_ONCE>, VECTORS> scales(of_rows, numbers[block].scale);
            Factor<Format> factors[VECTORS];
            for (int v = 0; v < VECTORS; ++v) {
                const std::int8_t * bytes[IN_VECTOR];
                for (int c = 0; c < IN_VECTOR; ++c) bytes[c] = columns[v * IN_VECTOR + c][block].bytes;
                factors[v] = Factor<Format>::of(from_columns(bytes));
            }
            Sums sums_of_columns;
            if constexpr (Format::HAS_LEAST) std::memcpy(&sums_of_columns, numbers[block].sum, sizeof(Sums));
            for (int r = 0; r < AT_ONCE; ++r) {
                const Weights & row = rows[r][block];
                __builtin_prefetch(&row + AHEAD * ROWS * stride);
                const Bytes weights = Factor<Format>::weights(row);
                if constexpr (Format::HAS_LEAST) sums[r] = plus_multiple(sums[r], of_rows.least(r), sums_of_columns);
                for (int v = 0; v < VECTORS; ++v) {
                    const Lanes products = from_integers(factors[v].sums(weights));
                    lanes[r][v] = plus_product(lanes[r][v], scales.of(r, v), products);
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

// Stands in a copy of ggml's matrix kernels: see `q4_1_matrix.cmake`. Pure, and
// without a name of ggml's, so that a test can compile it alone.

#include <algorithm>
#include <cstdint>

#if defined(__GNUC__) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MULLAMA_Q4_1_MATRIX

#include <immintrin.h>

namespace mullama {

// ggml's `block_q4_1`: 32 weights, each `scale` times a nibble, plus `least`.
struct Weights {
    std::uint16_t scale, least;
    std::uint8_t nibbles[16];
};

// ggml's `block_q8_1`: 32 values, each `scale` times a byte; `sum` is that of
// them all.
struct Values {
    std::uint16_t scale, sum;
    std::int8_t bytes[32];
};

// Rows of a tile, and vectors of its columns at most.
constexpr int ROWS = 4;
constexpr int MOST_VECTORS = 4;

// A vector is for 32 products of each of its columns. What eight lanes sum up
// for one column, and in which order, is what ggml's `vec_dot` does.
#if defined(__AVX512F__) && defined(__AVX512BW__)

constexpr int IN_VECTOR = 2;
using Lanes = __m512;
using Bytes = __m512i;

inline Bytes weights(const Weights & block) {
    const Bytes both = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(block.nibbles)));
    const Bytes shifts = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    return _mm512_and_si512(_mm512_srlv_epi64(both, shifts), _mm512_set1_epi8(15));
}

inline Bytes values(const Values * const (&columns)[IN_VECTOR], std::int64_t block) {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(columns[0][block].bytes));
    const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(columns[1][block].bytes));
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

inline Lanes scales(const float * columns) {
    const __m512i lanes = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128 both = _mm_castpd_ps(_mm_load_sd(reinterpret_cast<const double *>(columns)));
    return _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(both));
}

inline Lanes products(Bytes weights, Bytes values) {
#if defined(__AVX512VNNI__)
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, values));
#else
    return _mm512_cvtepi32_ps(_mm512_madd_epi16(_mm512_set1_epi16(1), _mm512_maddubs_epi16(weights, values)));
#endif
}

inline Lanes zero() { return _mm512_setzero_ps(); }
inline Lanes all(float value) { return _mm512_set1_ps(value); }
inline Lanes add(Lanes scale, Lanes column, Lanes products, Lanes to) {
    return _mm512_fmadd_ps(_mm512_mul_ps(scale, column), products, to);
}

inline __m256 of_column(Lanes lanes, int column) {
    return column == 0 ? _mm512_castps512_ps256(lanes)
                       : _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(lanes), 1));
}

#else

constexpr int IN_VECTOR = 1;
using Lanes = __m256;
using Bytes = __m256i;

inline Bytes weights(const Weights & block) {
    const Bytes both = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(block.nibbles)));
    return _mm256_and_si256(_mm256_srlv_epi64(both, _mm256_set_epi64x(4, 4, 0, 0)), _mm256_set1_epi8(15));
}

inline Bytes values(const Values * const (&columns)[IN_VECTOR], std::int64_t block) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(columns[0][block].bytes));
}

inline Lanes scales(const float * columns) { return _mm256_broadcast_ss(columns); }

inline Lanes products(Bytes weights, Bytes values) {
#if defined(__AVXVNNI__)
    return _mm256_cvtepi32_ps(_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), weights, values));
#else
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_set1_epi16(1), _mm256_maddubs_epi16(weights, values)));
#endif
}

inline Lanes zero() { return _mm256_setzero_ps(); }
inline Lanes all(float value) { return _mm256_set1_ps(value); }
inline Lanes add(Lanes scale, Lanes column, Lanes products, Lanes to) {
    return _mm256_fmadd_ps(_mm256_mul_ps(scale, column), products, to);
}

inline __m256 of_column(Lanes lanes, int) { return lanes; }

#endif

// Columns of a tile at most.
constexpr int COLUMNS = MOST_VECTORS * IN_VECTOR;
typedef float Sums __attribute__((vector_size(sizeof(float) * COLUMNS)));

// Scales and sums of a block of each column.
struct Factors {
    float scale[COLUMNS];
    Sums sum;
};

// Blocks of a row at most: what lies on the stack of a thread is 64 KiB then.
constexpr std::int64_t MOST_BLOCKS = 1024;

// Four rows times the columns of so many vectors.
template <int VECTORS>
inline void tile(const Weights * const (&rows)[ROWS], const Values * const (&columns)[MOST_VECTORS][IN_VECTOR],
                 const Factors * factors, std::int64_t n_blocks, __m128 (&out)[VECTORS * IN_VECTOR]) {
    Lanes lanes[ROWS][VECTORS];
    Sums sums[ROWS] = {};
    for (auto & row : lanes) {
        for (auto & vector : row) vector = zero();
    }
    for (std::int64_t block = 0; block < n_blocks; ++block) {
        Bytes bytes[VECTORS];
        Lanes column_scales[VECTORS];
        for (int v = 0; v < VECTORS; ++v) {
            bytes[v] = values(columns[v], block);
            column_scales[v] = scales(factors[block].scale + v * IN_VECTOR);
        }
        for (int r = 0; r < ROWS; ++r) {
            const Weights & row = rows[r][block];
            const Bytes nibbles = weights(row);
            const Lanes scale = all(_cvtsh_ss(row.scale));
            // One expression, so that the compiler rounds it as it rounds ggml's.
            sums[r] += _cvtsh_ss(row.least) * factors[block].sum;
            for (int v = 0; v < VECTORS; ++v) {
                lanes[r][v] = add(scale, column_scales[v], products(nibbles, bytes[v]), lanes[r][v]);
            }
        }
    }
    for (int c = 0; c < VECTORS * IN_VECTOR; ++c) {
        __m128 quarters[ROWS];
        for (int r = 0; r < ROWS; ++r) {
            const __m256 eight = of_column(lanes[r][c / IN_VECTOR], c % IN_VECTOR);
            quarters[r] = _mm_add_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
        }
        _MM_TRANSPOSE4_PS(quarters[0], quarters[1], quarters[2], quarters[3]);
        const __m128 even = _mm_add_ps(quarters[0], quarters[2]), odd = _mm_add_ps(quarters[1], quarters[3]);
        out[c] = _mm_add_ps(_mm_add_ps(even, odd), _mm_set_ps(sums[3][c], sums[2][c], sums[1][c], sums[0][c]));
    }
}

// A matrix of Q4_1, whose rows are `stride` blocks apart.
struct Matrix {
    const Weights * first;
    std::int64_t stride, n_blocks;
};

// Rows `from..to` of it times the columns of so many vectors, of which `n` are
// wanted. A row or a column that is not there is computed as another one.
template <int VECTORS>
inline void some_columns(const Matrix & matrix, std::int64_t from, std::int64_t to, const Values * values,
                         std::int64_t stride, int n, float * out, std::int64_t out_stride) {
    const Values * columns[MOST_VECTORS][IN_VECTOR];
    Factors factors[MOST_BLOCKS];
    for (int c = 0; c < COLUMNS; ++c) {
        const Values * column = values + (c < n ? c : n - 1) * stride;
        columns[c / IN_VECTOR][c % IN_VECTOR] = column;
        for (std::int64_t block = 0; block < matrix.n_blocks; ++block) {
            factors[block].scale[c] = _cvtsh_ss(column[block].scale);
            factors[block].sum[c] = _cvtsh_ss(column[block].sum);
        }
    }
    for (std::int64_t row = from; row < to; row += ROWS) {
        const int n_rows = to - row < ROWS ? static_cast<int>(to - row) : ROWS;
        const Weights * rows[ROWS];
        for (int r = 0; r < ROWS; ++r) {
            rows[r] = matrix.first + (row + (r < n_rows ? r : n_rows - 1)) * matrix.stride;
        }
        __m128 results[VECTORS * IN_VECTOR];
        tile<VECTORS>(rows, columns, factors, matrix.n_blocks, results);
        for (int c = 0; c < n; ++c) {
            float four[ROWS];
            _mm_storeu_ps(four, results[c]);
            __builtin_memcpy(out + c * out_stride + row, four, sizeof(float) * n_rows);
        }
    }
}

// Rows that a thread takes at a time, of `n_rows`: so few that all have some,
// and so many that the factors of the columns are made for some tiles.
inline std::int64_t rows_of_chunk(std::int64_t n_rows, std::int64_t n_threads) {
    const std::int64_t quarter = n_rows / (4 * n_threads) / ROWS * ROWS;
    return std::clamp<std::int64_t>(quarter, 4 * ROWS, 16 * ROWS);
}

// Rows `from..to` of the matrix times `n` columns, which are `stride` blocks
// apart. What row `i` gives for column `j` goes to `out[j * out_stride + i]`.
inline void multiply(const Matrix & matrix, std::int64_t from, std::int64_t to, const Values * values,
                     std::int64_t stride, std::int64_t n, float * out, std::int64_t out_stride) {
    for (std::int64_t c = 0; c < n; c += COLUMNS) {
        const int left = n - c < COLUMNS ? static_cast<int>(n - c) : COLUMNS;
        const auto some = [&](auto function) {
            function(matrix, from, to, values + c * stride, stride, left, out + c * out_stride, out_stride);
        };
        switch ((left + IN_VECTOR - 1) / IN_VECTOR) {
            case 1: some(some_columns<1>); break;
            case 2: some(some_columns<2>); break;
            case 3: some(some_columns<3>); break;
            default: some(some_columns<MOST_VECTORS>); break;
        }
    }
}

} // namespace mullama

#endif

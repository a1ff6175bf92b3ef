// Stands before a copy of ggml's operators: see `attention.cmake`. Pure, and without
// a name of ggml's, so that a test can compile it alone. All results are those of the
// loops that it replaces, bit for bit.

#include <cmath>
#include <cstddef>
#include <cstdint>

#if defined(__AVX__) && defined(__F16C__)
#define MULLAMA_TILES_IN_VECTORS
#include <immintrin.h>
#endif

namespace mullama {

// `slope` times a row's mask of `n` cells, in 32 bits. Whether the row sees one of them.
template <class ToFloat>
inline bool widen_mask(const std::uint16_t * mask, int n, float slope, float * out, ToFloat to_float) {
    bool is_seen = false;
    int i = 0;
#ifdef MULLAMA_TILES_IN_VECTORS
    const __m256 hidden = _mm256_set1_ps(-INFINITY), factor = _mm256_set1_ps(slope);
    __m256 seen = _mm256_setzero_ps();
    for (; i + 8 <= n; i += 8) {
        const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i *>(mask + i));
        const __m256 values = _mm256_mul_ps(factor, _mm256_cvtph_ps(halves));
        _mm256_storeu_ps(out + i, values);
        seen = _mm256_or_ps(seen, _mm256_cmp_ps(values, hidden, _CMP_NEQ_UQ));
    }
    is_seen = _mm256_movemask_ps(seen) != 0;
#endif
    for (; i < n; ++i) {
        out[i] = slope * to_float(mask[i]);
        is_seen = is_seen || out[i] != -INFINITY;
    }
    return is_seen;
}

// Number `d` of cell `i` goes to `out[d * out_stride + i]`, in 32 bits. Cells are `stride`
// bytes apart. Returns how many of the `n` cells, from the first, are done.
inline int transpose_cells(const char * cells, std::size_t stride, int n, std::int64_t numbers, float * out,
                           std::int64_t out_stride) {
#ifdef MULLAMA_TILES_IN_VECTORS
    if (numbers % 8 != 0) {
        return 0;
    }
    int done = 0;
    for (; done + 8 <= n; done += 8) {
        for (std::int64_t d = 0; d < numbers; d += 8) {
            __m256 rows[8], pairs[8], fours[8];
            for (int i = 0; i < 8; ++i) {
                const char * numbers_of_cell = cells + (done + i) * stride + d * sizeof(std::uint16_t);
                rows[i] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(numbers_of_cell)));
            }
            for (int i = 0; i < 8; i += 2) {
                pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
                pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
            }
            for (int i = 0; i < 8; i += 4) {
                for (int half = 0; half < 2; ++half) {
                    const __m256 one = pairs[i + half], other = pairs[i + 2 + half];
                    fours[i + 2 * half] = _mm256_shuffle_ps(one, other, 0x44);
                    fours[i + 2 * half + 1] = _mm256_shuffle_ps(one, other, 0xEE);
                }
            }
            float * to = out + d * out_stride + done;
            for (int i = 0; i < 4; ++i) {
                _mm256_storeu_ps(to + i * out_stride, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
                _mm256_storeu_ps(to + (i + 4) * out_stride, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
            }
        }
    }
    return done;
#else
    (void) cells, (void) stride, (void) n, (void) numbers, (void) out, (void) out_stride;
    return 0;
#endif
}

// The largest of `n` numbers, or minus infinity.
inline float largest(const float * values, int n) {
    float most = -INFINITY;
    int i = 0;
#ifdef MULLAMA_TILES_IN_VECTORS
    if (n >= 8) {
        __m256 lanes = _mm256_loadu_ps(values);
        for (i = 8; i + 8 <= n; i += 8) {
            lanes = _mm256_max_ps(lanes, _mm256_loadu_ps(values + i));
        }
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        most = _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
    }
#endif
    for (; i < n; ++i) {
        most = values[i] > most ? values[i] : most;
    }
    return most;
}

}  // namespace mullama

// Stands before a copy of ggml's operators: see `attention.cmake`. Pure, and without
// a name of ggml's, so that a test can compile it alone.
//
// Attention of a row, for heads that share a KV head. The cells that the row sees are
// taken in chunks of the same size, wherever they lie. A chunk has all its logits, its
// largest one, its weights and its sum of values, in that order; then it is merged with
// those before. So the result is the same, bit for bit, whatever cells lie between, on
// whatever thread a chunk is computed, and with AVX2 and AVX-512 alike.

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__) && defined(__F16C__))
#define MULLAMA_ROWS_IN_VECTORS
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace mullama {

#if defined(__AVX512F__)

// Sixteen numbers.
struct Sixteen {
    __m512 all;
};

// Sums over the lanes of as many vectors are made at once.
constexpr int SUMS = 16;

inline Sixteen same(float value) { return {_mm512_set1_ps(value)}; }
inline Sixteen load(const float * from) { return {_mm512_loadu_ps(from)}; }
inline void store(float * to, Sixteen x) { _mm512_storeu_ps(to, x.all); }
inline Sixteen add(Sixteen a, Sixteen b) { return {_mm512_add_ps(a.all, b.all)}; }
inline Sixteen subtract(Sixteen a, Sixteen b) { return {_mm512_sub_ps(a.all, b.all)}; }
inline Sixteen multiply(Sixteen a, Sixteen b) { return {_mm512_mul_ps(a.all, b.all)}; }
inline Sixteen multiply_add(Sixteen a, Sixteen b, Sixteen c) { return {_mm512_fmadd_ps(a.all, b.all, c.all)}; }
inline Sixteen larger(Sixteen a, Sixteen b) { return {_mm512_max_ps(a.all, b.all)}; }
inline Sixteen nearest_integers(Sixteen x) { return {_mm512_roundscale_ps(x.all, 0)}; }

inline Sixteen two_to_the(Sixteen integers) {
    const __m512i exponents = _mm512_add_epi32(_mm512_cvtps_epi32(integers.all), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(exponents, 23))};
}

// `x`, or 0 where `decider` is less than `least`.
inline Sixteen zero_below(Sixteen decider, float least, Sixteen x) {
    const __mmask16 keep = _mm512_cmp_ps_mask(decider.all, _mm512_set1_ps(least), _CMP_NLT_UQ);
    return {_mm512_maskz_mov_ps(keep, x.all)};
}

inline Sixteen widen_f16(const char * from) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)))};
}

inline Sixteen widen_bf16(const char * from) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}

inline __m256 first_half(Sixteen x) { return _mm512_castps512_ps256(x.all); }
inline __m256 second_half(Sixteen x) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x.all), 1)); }

// The sum of the lanes of `x[i]` goes to `sums[i]`. Lanes are added in the order that
// halving gives: lane i and lane i + 8, then i + 4, i + 2, i + 1.
inline void sum_lanes(const Sixteen * x, float * sums) {
    __m512 eight[8], four[4], two[2];
    for (int i = 0; i < 8; ++i) {
        // Two of the vectors that end in the same part of 128 bits.
        const __m512 one = x[4 * (2 * i % 4) + i / 2].all, other = x[4 * (2 * i % 4 + 1) + i / 2].all;
        eight[i] = _mm512_add_ps(_mm512_shuffle_f32x4(one, other, 0x44), _mm512_shuffle_f32x4(one, other, 0xEE));
    }
    for (int i = 0; i < 4; ++i) {
        const __m512 one = eight[2 * i], other = eight[2 * i + 1];
        four[i] = _mm512_add_ps(_mm512_shuffle_f32x4(one, other, 0x88), _mm512_shuffle_f32x4(one, other, 0xDD));
    }
    for (int i = 0; i < 2; ++i) {
        const __m512 one = four[2 * i], other = four[2 * i + 1];
        two[i] = _mm512_add_ps(_mm512_shuffle_ps(one, other, 0x44), _mm512_shuffle_ps(one, other, 0xEE));
    }
    _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_shuffle_ps(two[0], two[1], 0x88),
                                         _mm512_shuffle_ps(two[0], two[1], 0xDD)));
}

#else

struct Sixteen {
    __m256 first, second;
};

constexpr int SUMS = 4;

inline Sixteen same(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline Sixteen load(const float * from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline void store(float * to, Sixteen x) {
    _mm256_storeu_ps(to, x.first);
    _mm256_storeu_ps(to + 8, x.second);
}
inline Sixteen add(Sixteen a, Sixteen b) { return {_mm256_add_ps(a.first, b.first), _mm256_add_ps(a.second, b.second)}; }
inline Sixteen subtract(Sixteen a, Sixteen b) {
    return {_mm256_sub_ps(a.first, b.first), _mm256_sub_ps(a.second, b.second)};
}
inline Sixteen multiply(Sixteen a, Sixteen b) {
    return {_mm256_mul_ps(a.first, b.first), _mm256_mul_ps(a.second, b.second)};
}
inline Sixteen multiply_add(Sixteen a, Sixteen b, Sixteen c) {
    return {_mm256_fmadd_ps(a.first, b.first, c.first), _mm256_fmadd_ps(a.second, b.second, c.second)};
}
inline Sixteen larger(Sixteen a, Sixteen b) {
    return {_mm256_max_ps(a.first, b.first), _mm256_max_ps(a.second, b.second)};
}
inline Sixteen nearest_integers(Sixteen x) { return {_mm256_round_ps(x.first, 0), _mm256_round_ps(x.second, 0)}; }

inline __m256 two_to_the(__m256 integers) {
    const __m256i exponents = _mm256_add_epi32(_mm256_cvtps_epi32(integers), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponents, 23));
}
inline Sixteen two_to_the(Sixteen integers) { return {two_to_the(integers.first), two_to_the(integers.second)}; }

inline Sixteen zero_below(Sixteen decider, float least, Sixteen x) {
    const __m256 bound = _mm256_set1_ps(least);
    return {_mm256_and_ps(_mm256_cmp_ps(decider.first, bound, _CMP_NLT_UQ), x.first),
            _mm256_and_ps(_mm256_cmp_ps(decider.second, bound, _CMP_NLT_UQ), x.second)};
}

inline Sixteen widen_f16(const char * from) {
    const __m128i * halves = reinterpret_cast<const __m128i *>(from);
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}

inline __m256 widen_bf16(__m128i halves) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
inline Sixteen widen_bf16(const char * from) {
    const __m128i * halves = reinterpret_cast<const __m128i *>(from);
    return {widen_bf16(_mm_loadu_si128(halves)), widen_bf16(_mm_loadu_si128(halves + 1))};
}

inline __m256 first_half(Sixteen x) { return x.first; }
inline __m256 second_half(Sixteen x) { return x.second; }

inline void sum_lanes(const Sixteen * x, float * sums) {
    __m256 eight[4];
    for (int i = 0; i < 4; ++i) {
        eight[i] = _mm256_add_ps(x[i].first, x[i].second);
    }
    const __m256 even = _mm256_add_ps(_mm256_permute2f128_ps(eight[0], eight[2], 0x20),
                                      _mm256_permute2f128_ps(eight[0], eight[2], 0x31));
    const __m256 odd = _mm256_add_ps(_mm256_permute2f128_ps(eight[1], eight[3], 0x20),
                                     _mm256_permute2f128_ps(eight[1], eight[3], 0x31));
    // In each half: two numbers of an even vector, then two of an odd one.
    const __m256 two = _mm256_add_ps(_mm256_shuffle_ps(even, odd, 0x44), _mm256_shuffle_ps(even, odd, 0xEE));
    const __m256 one = _mm256_add_ps(_mm256_shuffle_ps(two, two, 0x88), _mm256_shuffle_ps(two, two, 0xDD));
    _mm_storeu_ps(sums, _mm_movelh_ps(_mm256_castps256_ps128(one), _mm256_extractf128_ps(one, 1)));
}

#endif

struct F16 {
    static Sixteen widen(const char * from) { return widen_f16(from); }
};

struct BF16 {
    static Sixteen widen(const char * from) { return widen_bf16(from); }
};

inline float sum_of_lanes(Sixteen x) {
    const __m256 eight = _mm256_add_ps(first_half(x), second_half(x));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

inline float largest_lane(Sixteen x) {
    const __m256 eight = _mm256_max_ps(first_half(x), second_half(x));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// e to the power of `x`, which is not larger than 0, and 0 from -87 down. The series
// of the exponential function to its seventh power, of what is left of `x` without
// multiples of ln 2: at the most ln 2 / 2, so what is left out is less than 6e-9.
inline Sixteen exponential(Sixteen x) {
    constexpr float LN_2_FIRST = 0.693359375f, LN_2_REST = -2.12194440e-4f;
    const Sixteen n = nearest_integers(multiply(x, same(1.44269504f)));
    Sixteen rest = multiply_add(n, same(-LN_2_FIRST), x);
    rest = multiply_add(n, same(-LN_2_REST), rest);
    Sixteen sum = same(1.0f / 5040);
    for (const float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
        sum = multiply_add(sum, rest, same(factor));
    }
    return zero_below(x, -87.0f, multiply(sum, two_to_the(n)));
}

inline float exponential(float x) {
    float lanes[16];
    store(lanes, exponential(same(x)));
    return lanes[0];
}

// Cells that are taken together.
constexpr int CHUNK = 128;

// Most heads that are computed together: their sums fit the registers.
constexpr int HEADS = 4;

// Most numbers of a cell, for a head.
constexpr int NUMBERS = 576;

// Cells that a row sees, up to a chunk, in their order.
struct Seen {
    int n;
    std::int32_t cells[CHUNK];
    std::uint16_t biases[CHUNK];
};

// The next cells that the row sees, from cell `from` on. Returns where the following
// chunk begins: `end` when there is none. Without a mask all are seen.
inline std::int64_t find_seen(const std::uint16_t * mask, std::int64_t from, std::int64_t end, Seen & seen) {
    std::int64_t cell = from;
    int n = 0;
    while (cell < end && n < CHUNK) {
        const std::int64_t block_end = std::min(end, cell + BLOCK);
        if (mask != nullptr && is_masked(mask + cell, block_end - cell)) {
            cell = block_end;
            continue;
        }
        for (; cell < block_end && n < CHUNK; ++cell) {
            const std::uint16_t bias = mask == nullptr ? 0 : mask[cell];
            seen.cells[n] = std::int32_t(cell);
            seen.biases[n] = bias;
            n += bias != MASKED;
        }
    }
    seen.n = n;
    for (; n % 16 != 0; ++n) {
        seen.biases[n] = 0;
    }
    return cell;
}

// The keys or values of a KV head: `n` numbers a cell, of 16 bits.
struct Cells {
    const char * first;
    std::size_t stride;
    std::int64_t n;

    const char * at(std::int32_t cell, std::int64_t number) const { return first + cell * stride + number * 2; }
};

// What a chunk, or several, come to for a head, beside their weighted sum of values.
struct Weight {
    float largest;  // logit
    float sum;      // of the weights, each as against the largest
};

constexpr Weight NOTHING = {-INFINITY, 0};

// How logits are changed, as ggml's operator has it.
struct Shape {
    float softcap;  // 0: none
    float slope;    // of the mask
};

template <class Half, int H>
inline void find_logits(const float * const * queries, const Cells & keys, const Seen & seen, float (*logits)[CHUNK]) {
    constexpr int AT_ONCE = SUMS / (H == 3 ? 4 : H);
    for (int i = 0; i < seen.n; i += AT_ONCE) {
        Sixteen sums[SUMS];
        const char * cells[AT_ONCE];
        #pragma GCC unroll 16
        for (int c = 0; c < AT_ONCE; ++c) {
            cells[c] = keys.at(seen.cells[std::min(i + c, seen.n - 1)], 0);
        }
        #pragma GCC unroll 16
        for (int s = 0; s < SUMS; ++s) {
            sums[s] = same(0.0f);
        }
        for (std::int64_t d = 0; d < keys.n; d += 16) {
        #pragma GCC unroll 16
            for (int c = 0; c < AT_ONCE; ++c) {
                const Sixteen key = Half::widen(cells[c] + d * 2);
        #pragma GCC unroll 16
                for (int h = 0; h < H; ++h) {
                    sums[h * AT_ONCE + c] = multiply_add(key, load(queries[h] + d), sums[h * AT_ONCE + c]);
                }
            }
        }
        float results[SUMS];
        sum_lanes(sums, results);
        #pragma GCC unroll 16
        for (int h = 0; h < H; ++h) {
            std::memcpy(logits[h] + i, results + h * AT_ONCE, AT_ONCE * sizeof(float));
        }
    }
}

// Turns logits into weights.
inline Weight weigh(const Seen & seen, const Shape & shape, float * logits) {
    if (shape.softcap != 0) {
        for (int i = 0; i < seen.n; ++i) {
            logits[i] = shape.softcap * std::tanh(logits[i]);
        }
    }
    const int padded = (seen.n + 15) / 16 * 16;
    for (int i = seen.n; i < padded; ++i) {
        logits[i] = -INFINITY;
    }
    Sixteen most = same(-INFINITY);
    for (int i = 0; i < padded; i += 16) {
        const Sixteen bias = widen_f16(reinterpret_cast<const char *>(seen.biases + i));
        const Sixteen logit = multiply_add(bias, same(shape.slope), load(logits + i));
        store(logits + i, logit);
        most = larger(most, logit);
    }
    const float largest = largest_lane(most);
    Sixteen sum = same(0.0f);
    for (int i = 0; i < padded; i += 16) {
        const Sixteen weight = exponential(subtract(load(logits + i), same(largest)));
        store(logits + i, weight);
        sum = add(sum, weight);
    }
    return {largest, sum_of_lanes(sum)};
}

// `N` vectors of the weighted sums, from number `d` on.
template <class Half, int H, int N>
inline void sum_values(const Cells & values, std::int64_t d, const Seen & seen, const float (*weights)[CHUNK],
                       float * const * results) {
    Sixteen sums[H][N];
        #pragma GCC unroll 16
    for (int h = 0; h < H; ++h) {
        #pragma GCC unroll 16
        for (int v = 0; v < N; ++v) {
            sums[h][v] = same(0.0f);
        }
    }
    for (int i = 0; i < seen.n; ++i) {
        const char * cell = values.at(seen.cells[i], d);
        #pragma GCC unroll 16
        for (int v = 0; v < N; ++v) {
            const Sixteen value = Half::widen(cell + v * 32);
        #pragma GCC unroll 16
            for (int h = 0; h < H; ++h) {
                sums[h][v] = multiply_add(value, same(weights[h][i]), sums[h][v]);
            }
        }
    }
        #pragma GCC unroll 16
    for (int h = 0; h < H; ++h) {
        #pragma GCC unroll 16
        for (int v = 0; v < N; ++v) {
            store(results[h] + d + v * 16, sums[h][v]);
        }
    }
}

// A chunk, which has a cell at least, for `H` heads.
template <class Half, int H>
inline void attend(const float * const * queries, const Cells & keys, const Cells & values, const Seen & seen,
                   const Shape * shapes, Weight * weights, float * const * results) {
    alignas(64) float logits[H][CHUNK];
    find_logits<Half, H>(queries, keys, seen, logits);
        #pragma GCC unroll 16
    for (int h = 0; h < H; ++h) {
        weights[h] = weigh(seen, shapes[h], logits[h]);
    }
    // As many as the registers hold.
    constexpr int N = SUMS == 16 ? 4 : 4 / H;
    std::int64_t d = 0;
    for (; d + N * 16 <= values.n; d += N * 16) {
        sum_values<Half, H, N>(values, d, seen, logits, results);
    }
    for (; d < values.n; d += 16) {
        sum_values<Half, H, 1>(values, d, seen, logits, results);
    }
}

// Adds what a chunk came to. It has a cell at least.
inline void merge(Weight & all, float * sums, const Weight & chunk, const float * of_chunk, std::int64_t n) {
    if (all.sum == 0) {
        all = chunk;
        std::memcpy(sums, of_chunk, n * sizeof(float));
        return;
    }
    const float largest = std::max(all.largest, chunk.largest);
    const float before = exponential(all.largest - largest), now = exponential(chunk.largest - largest);
    for (std::int64_t d = 0; d < n; d += 16) {
        store(sums + d, multiply_add(load(of_chunk + d), same(now), multiply(load(sums + d), same(before))));
    }
    all = {largest, std::fma(chunk.sum, now, all.sum * before)};
}

// What all chunks came to is divided by the sum of weights. `sink`, if there is one,
// is a logit that counts in that sum alone.
inline void finish(const Weight & all, const float * sink, float * sums, std::int64_t n) {
    float factor = all.sum == 0 ? 0 : 1 / all.sum;
    if (all.sum != 0 && sink != nullptr) {
        const float largest = std::max(all.largest, *sink);
        const float before = exponential(all.largest - largest);
        factor = before / std::fma(all.sum, before, exponential(*sink - largest));
    }
    for (std::int64_t d = 0; d < n; d += 16) {
        store(sums + d, all.sum == 0 ? same(0.0f) : multiply(load(sums + d), same(factor)));
    }
}

}  // namespace mullama

#endif

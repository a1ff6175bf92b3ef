// The vectors of `attention_rows.h`, with the same results for each instruction set.

#if defined(__F16C__) && (defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__)))
#define MULLAMA_ROWS_IN_VECTORS

// For loops over vectors that are to be in registers.
#if defined(__GNUC__)
#define MULLAMA_UNROLLED _Pragma("GCC unroll 16")
#else
#define MULLAMA_UNROLLED
#endif

#include <immintrin.h>

#include <cstdint>

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

inline Sixteen widen_bytes(const std::int8_t * from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}

inline __m256 first_half(Sixteen x) { return _mm512_castps512_ps256(x.all); }
inline __m256 second_half(Sixteen x) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x.all), 1)); }

// Lane i of vector j becomes lane j of vector i.
inline void transpose(Sixteen * x) {
    __m512 pairs[16], fours[16], parts[16];
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_ps(x[i].all, x[i + 1].all);
        pairs[i + 1] = _mm512_unpackhi_ps(x[i].all, x[i + 1].all);
    }
    // Of four vectors: lane j of each part of 128 bits.
    for (int i = 0; i < 16; i += 4) {
        for (int half = 0; half < 2; ++half) {
            const __m512 one = pairs[i + half], other = pairs[i + 2 + half];
            fours[i + 2 * half] = _mm512_shuffle_ps(one, other, 0x44);
            fours[i + 2 * half + 1] = _mm512_shuffle_ps(one, other, 0xEE);
        }
    }
    for (int j = 0; j < 4; ++j) {
        parts[j] = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0x88);
        parts[4 + j] = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0xDD);
        parts[8 + j] = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0x88);
        parts[12 + j] = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0xDD);
    }
    for (int j = 0; j < 4; ++j) {
        x[j] = {_mm512_shuffle_f32x4(parts[j], parts[8 + j], 0x88)};
        x[4 + j] = {_mm512_shuffle_f32x4(parts[4 + j], parts[12 + j], 0x88)};
        x[8 + j] = {_mm512_shuffle_f32x4(parts[j], parts[8 + j], 0xDD)};
        x[12 + j] = {_mm512_shuffle_f32x4(parts[4 + j], parts[12 + j], 0xDD)};
    }
}

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
inline Sixteen add(Sixteen a, Sixteen b) {
    return {_mm256_add_ps(a.first, b.first), _mm256_add_ps(a.second, b.second)};
}
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

inline __m256 widen_bytes(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }
inline Sixteen widen_bytes(const std::int8_t * from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
    return {widen_bytes(bytes), widen_bytes(_mm_unpackhi_epi64(bytes, bytes))};
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

// The types that cells may have. `widen` gives 16 numbers of a cell, from number `d`,
// a multiple of 16, on.

struct CellOfF32 {
    static Sixteen widen(const char * cell, std::int64_t d) { return load(reinterpret_cast<const float *>(cell) + d); }
};

struct CellOfF16 {
    static Sixteen widen(const char * cell, std::int64_t d) { return widen_f16(cell + d * 2); }
};

struct CellOfBF16 {
    static Sixteen widen(const char * cell, std::int64_t d) { return widen_bf16(cell + d * 2); }
};

struct CellOfQ8_0 {
    struct Block {
        std::uint16_t scale;
        std::int8_t numbers[32];
    };
    static Sixteen widen(const char * cell, std::int64_t d) {
        const Block & block = reinterpret_cast<const Block *>(cell)[d / 32];
        const float scale = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(block.scale)));
        return multiply(widen_bytes(block.numbers + d % 32), same(scale));
    }
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

}  // namespace mullama

#endif

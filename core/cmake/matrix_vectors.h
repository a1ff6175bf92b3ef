// The vectors of `matrix_kernels.h`, for each instruction set.

#include <cstddef>
#include <cstdint>

#if defined(__GNUC__) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MULLAMA_MATRIX_KERNELS

// Where a call would put all vectors into memory.
#define MULLAMA_INLINE __attribute__((always_inline)) inline

#include <immintrin.h>

namespace mullama {

// A lane has 32 bits: a number, two sums, or four bytes. Parts of 128 bits are alike.

// 256 bits.
struct Narrow {
    static constexpr int LANES = 8;
    using Lanes = __m256;
    using Bytes = __m256i;

    static Bytes all_bytes(int byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
    static Bytes all_lanes(std::int32_t value) { return _mm256_set1_epi32(value); }
    static Lanes all_lanes(float value) { return _mm256_set1_ps(value); }

    // 16 bytes for each part: what `at` gives for every fourth number.
    template <class At> MULLAMA_INLINE static Bytes every_fourth(At at, int first) {
        const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i *>(at(first)));
        const __m128i other = _mm_loadu_si128(reinterpret_cast<const __m128i *>(at(first + 4)));
        return _mm256_inserti128_si256(_mm256_castsi128_si256(part), other, 1);
    }
    // Of each part two lanes, or two pairs of lanes, in turn with those of the others.
    static Bytes lower_lanes(Bytes some, Bytes others) { return _mm256_unpacklo_epi32(some, others); }
    static Bytes upper_lanes(Bytes some, Bytes others) { return _mm256_unpackhi_epi32(some, others); }
    static Bytes lower_pairs(Bytes some, Bytes others) { return _mm256_unpacklo_epi64(some, others); }
    static Bytes upper_pairs(Bytes some, Bytes others) { return _mm256_unpackhi_epi64(some, others); }

    static Bytes low_nibbles(Bytes bytes) { return _mm256_and_si256(bytes, all_bytes(15)); }
    static Bytes high_nibbles(Bytes bytes) { return low_nibbles(_mm256_srli_epi16(bytes, 4)); }
    static Bytes flip(Bytes bytes, Bytes bits) { return _mm256_xor_si256(bytes, bits); }

    // What fits into 16 bytes for each part.
    static Bytes all_parts(__m128i part) { return _mm256_broadcastsi128_si256(part); }
    // 16 more in each byte that has one of its `bits` in the byte of `mask` that
    // `place` says.
    static Bytes plus_16_where(Bytes bytes, Bytes mask, Bytes place, Bytes bits) {
        const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(mask, place), bits), bits);
        return _mm256_or_si256(bytes, _mm256_and_si256(is_set, all_bytes(16)));
    }

    // Of two floating-point numbers of 16 bits in each lane.
    struct Halves {
        Lanes lower, upper;
    };
    static Halves from_halves(Bytes lanes) {
        const __m128i in_parts = _mm_set_epi8(15, 14, 11, 10, 7, 6, 3, 2, 13, 12, 9, 8, 5, 4, 1, 0);
        const Bytes sorted = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(lanes, all_parts(in_parts)), 0xD8);
        const __m128i lower = _mm256_castsi256_si128(sorted), upper = _mm256_extracti128_si256(sorted, 1);
        return {_mm256_cvtph_ps(lower), _mm256_cvtph_ps(upper)};
    }

    // Sums of products of four bytes, added to others or not.
#if defined(__AVXVNNI__)
    static constexpr bool ADDS = true;
    static Bytes plus_sums_of_four(Bytes to, Bytes without_sign, Bytes bytes) {
        return _mm256_dpbusd_avx_epi32(to, without_sign, bytes);
    }
#else
    static constexpr bool ADDS = false;
#endif
    static Bytes sums_of_two(Bytes without_sign, Bytes bytes) { return _mm256_maddubs_epi16(without_sign, bytes); }
    static Bytes plus_two(Bytes some, Bytes others) { return _mm256_add_epi16(some, others); }
    static Bytes sums_of_neighbours(Bytes sums) { return _mm256_madd_epi16(_mm256_set1_epi16(1), sums); }
    static Bytes plus(Bytes some, Bytes others) { return _mm256_add_epi32(some, others); }
    static Bytes magnitude(Bytes bytes) { return _mm256_abs_epi8(bytes); }
    static Bytes with_signs_of(Bytes bytes, Bytes signs) { return _mm256_sign_epi8(bytes, signs); }

    static Lanes from_integers(Bytes integers) { return _mm256_cvtepi32_ps(integers); }
    static Lanes times(Lanes one, Lanes other) { return _mm256_mul_ps(one, other); }
    static Lanes plus_product(Lanes to, Lanes one, Lanes other) { return _mm256_fmadd_ps(one, other, to); }
    static Lanes load(const float * from) { return _mm256_loadu_ps(from); }
    static void store(float * to, Lanes lanes) { _mm256_storeu_ps(to, lanes); }
};

#if defined(__AVX512F__) && defined(__AVX512BW__)

// 512 bits.
struct Wide {
    static constexpr int LANES = 16;
    using Lanes = __m512;
    using Bytes = __m512i;

    static Bytes all_bytes(int byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
    static Bytes all_lanes(std::int32_t value) { return _mm512_set1_epi32(value); }
    static Lanes all_lanes(float value) { return _mm512_set1_ps(value); }

    template <class At> MULLAMA_INLINE static Bytes every_fourth(At at, int first) {
        // Not inserted: that takes the one unit that shuffles.
        const auto part = [&](int i) {
            return _mm_loadu_si128(reinterpret_cast<const __m128i *>(at(first + 4 * i)));
        };
        Bytes parts = _mm512_castsi128_si512(part(0));
        parts = _mm512_mask_broadcast_i32x4(parts, 0x00F0, part(1));
        parts = _mm512_mask_broadcast_i32x4(parts, 0x0F00, part(2));
        parts = _mm512_mask_broadcast_i32x4(parts, 0xF000, part(3));
        return parts;
    }
    static Bytes lower_lanes(Bytes some, Bytes others) { return _mm512_unpacklo_epi32(some, others); }
    static Bytes upper_lanes(Bytes some, Bytes others) { return _mm512_unpackhi_epi32(some, others); }
    static Bytes lower_pairs(Bytes some, Bytes others) { return _mm512_unpacklo_epi64(some, others); }
    static Bytes upper_pairs(Bytes some, Bytes others) { return _mm512_unpackhi_epi64(some, others); }

    static Bytes low_nibbles(Bytes bytes) { return _mm512_and_si512(bytes, all_bytes(15)); }
    static Bytes high_nibbles(Bytes bytes) { return low_nibbles(_mm512_srli_epi16(bytes, 4)); }
    static Bytes flip(Bytes bytes, Bytes bits) { return _mm512_xor_si512(bytes, bits); }

    static Bytes all_parts(__m128i part) { return _mm512_broadcast_i32x4(part); }
    static Bytes plus_16_where(Bytes bytes, Bytes mask, Bytes place, Bytes bits) {
        const __mmask64 is_set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(mask, place), bits);
        return _mm512_mask_add_epi8(bytes, is_set, bytes, all_bytes(16));
    }

    struct Halves {
        Lanes lower, upper;
    };
    static Halves from_halves(Bytes lanes) {
        const auto order = [](std::int64_t first) { return first * 0x0001000100010001 + 0x0006000400020000; };
        const Bytes sorted = _mm512_permutexvar_epi16(
            _mm512_set_epi64(order(25), order(17), order(9), order(1), order(24), order(16), order(8), order(0)), lanes);
        const __m256i lower = _mm512_castsi512_si256(sorted), upper = _mm512_extracti64x4_epi64(sorted, 1);
        return {_mm512_cvtph_ps(lower), _mm512_cvtph_ps(upper)};
    }

#if defined(__AVX512VNNI__)
    static constexpr bool ADDS = true;
    static Bytes plus_sums_of_four(Bytes to, Bytes without_sign, Bytes bytes) {
        return _mm512_dpbusd_epi32(to, without_sign, bytes);
    }
#else
    static constexpr bool ADDS = false;
#endif
    static Bytes sums_of_two(Bytes without_sign, Bytes bytes) { return _mm512_maddubs_epi16(without_sign, bytes); }
    static Bytes plus_two(Bytes some, Bytes others) { return _mm512_add_epi16(some, others); }
    static Bytes sums_of_neighbours(Bytes sums) { return _mm512_madd_epi16(_mm512_set1_epi16(1), sums); }
    static Bytes plus(Bytes some, Bytes others) { return _mm512_add_epi32(some, others); }
    static Bytes magnitude(Bytes bytes) { return _mm512_abs_epi8(bytes); }
    static Bytes with_signs_of(Bytes bytes, Bytes signs) {
        return _mm512_mask_sub_epi8(bytes, _mm512_movepi8_mask(signs), _mm512_setzero_si512(), bytes);
    }

    static Lanes from_integers(Bytes integers) { return _mm512_cvtepi32_ps(integers); }
    static Lanes times(Lanes one, Lanes other) { return _mm512_mul_ps(one, other); }
    static Lanes plus_product(Lanes to, Lanes one, Lanes other) { return _mm512_fmadd_ps(one, other, to); }
    static Lanes load(const float * from) { return _mm512_loadu_ps(from); }
    static void store(float * to, Lanes lanes) { _mm512_storeu_ps(to, lanes); }
};

using Vectors = Wide;

#else

using Vectors = Narrow;

#endif

constexpr int LANES = Vectors::LANES;
using Lanes = Vectors::Lanes;
using Bytes = Vectors::Bytes;

} // namespace mullama

#endif

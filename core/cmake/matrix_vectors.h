// The vectors of `matrix_kernels.h`, for each instruction set.

#include <cstddef>
#include <cstdint>

#if defined(__GNUC__) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MULLAMA_MATRIX_KERNELS

#include <immintrin.h>

namespace mullama {

// A vector is for 32 products of each of its columns. There are registers for so
// many vectors of sums, and for what is added to them. What eight lanes sum up
// for one column, and in which order, is what ggml's `vec_dot` does.

// 256 bits.
struct Narrow {
    static constexpr int COLUMNS = 1;
    static constexpr int IN_REGISTERS = 8;
    using Lanes = __m256;
    using Bytes = __m256i;

    static Bytes all_bytes(int byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
    static Bytes no_bytes() { return _mm256_setzero_si256(); }

    static Bytes from_nibbles(const std::uint8_t * nibbles) {
        const Bytes both = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(nibbles)));
        return _mm256_and_si256(_mm256_srlv_epi64(both, _mm256_set_epi64x(4, 4, 0, 0)), all_bytes(15));
    }

    static Bytes from_bytes(const std::int8_t * bytes) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes));
    }

    static Bytes from_columns(const std::int8_t * const (&columns)[COLUMNS]) { return from_bytes(columns[0]); }

    // One of two bytes, by the bit of each.
    static Bytes from_bits(std::uint32_t bits, int unset, int set) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        return _mm256_mask_blend_epi8(bits, all_bytes(unset), all_bytes(set));
#else
        const __m256i in_bytes = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
        const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
        const __m256i eight = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), in_bytes);
        const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(eight, bit), bit);
        return _mm256_blendv_epi8(all_bytes(unset), all_bytes(set), is_set);
#endif
    }

    static Bytes flip(Bytes bytes, Bytes bits) { return _mm256_xor_si256(bytes, bits); }
    static Bytes joined(Bytes some, Bytes others) { return _mm256_or_si256(some, others); }
    static Bytes minus(Bytes numbers) { return _mm256_sub_epi32(no_bytes(), numbers); }

    // Sums of products of four bytes, added to others or not.
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    static constexpr bool ADDS = true;
    static Bytes plus_sums_of_four(Bytes to, Bytes without_sign, Bytes bytes) {
        return _mm256_dpbusd_epi32(to, without_sign, bytes);
    }
#elif defined(__AVXVNNI__)
    static constexpr bool ADDS = true;
    static Bytes plus_sums_of_four(Bytes to, Bytes without_sign, Bytes bytes) {
        return _mm256_dpbusd_avx_epi32(to, without_sign, bytes);
    }
#else
    static constexpr bool ADDS = false;
#endif
    static Bytes sums_of_four(Bytes without_sign, Bytes bytes) {
        return _mm256_madd_epi16(_mm256_set1_epi16(1), _mm256_maddubs_epi16(without_sign, bytes));
    }
    static Bytes magnitude(Bytes bytes) { return _mm256_abs_epi8(bytes); }
    static Bytes with_signs_of(Bytes bytes, Bytes signs) { return _mm256_sign_epi8(bytes, signs); }

    static Lanes no_lanes() { return _mm256_setzero_ps(); }
    static Lanes all_lanes(float value) { return _mm256_set1_ps(value); }
    static Lanes from_integers(Bytes integers) { return _mm256_cvtepi32_ps(integers); }
    static Lanes times(Lanes one, Lanes other) { return _mm256_mul_ps(one, other); }
    static Lanes plus_product(Lanes to, Lanes one, Lanes other) { return _mm256_fmadd_ps(one, other, to); }

    // Of all columns of a tile.
    using Sums = __m128;
    static Sums no_sums() { return _mm_setzero_ps(); }
    static Sums plus_multiple(Sums to, float factor, Sums of) { return _mm_fmadd_ps(_mm_set1_ps(factor), of, to); }

    static Lanes for_columns(const float * values) { return _mm256_broadcast_ss(values); }
    static __m256 of_column(Lanes lanes, int) { return lanes; }
};

#if defined(__AVX512F__) && defined(__AVX512BW__)

// 512 bits. For one column they are not worth it: half of each is for nothing.
struct Wide {
    static constexpr int COLUMNS = 2;
    static constexpr int IN_REGISTERS = 16;
    using Lanes = __m512;
    using Bytes = __m512i;

    static Bytes all_bytes(int byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
    static Bytes no_bytes() { return _mm512_setzero_si512(); }

    static Bytes from_nibbles(const std::uint8_t * nibbles) {
        const Bytes both = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(nibbles)));
        return _mm512_and_si512(_mm512_srlv_epi64(both, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0)), all_bytes(15));
    }

    static Bytes from_bytes(const std::int8_t * bytes) {
        return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes)));
    }

    static Bytes from_columns(const std::int8_t * const (&columns)[COLUMNS]) {
        const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(columns[0]));
        const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(columns[1]));
        return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
    }

    static Bytes from_bits(std::uint32_t bits, int unset, int set) {
        const __mmask64 twice = bits | static_cast<std::uint64_t>(bits) << 32;
        return _mm512_mask_blend_epi8(twice, all_bytes(unset), all_bytes(set));
    }

    static Bytes flip(Bytes bytes, Bytes bits) { return _mm512_xor_si512(bytes, bits); }
    static Bytes joined(Bytes some, Bytes others) { return _mm512_or_si512(some, others); }
    static Bytes minus(Bytes numbers) { return _mm512_sub_epi32(no_bytes(), numbers); }

#if defined(__AVX512VNNI__)
    static constexpr bool ADDS = true;
    static Bytes plus_sums_of_four(Bytes to, Bytes without_sign, Bytes bytes) {
        return _mm512_dpbusd_epi32(to, without_sign, bytes);
    }
#else
    static constexpr bool ADDS = false;
#endif
    static Bytes sums_of_four(Bytes without_sign, Bytes bytes) {
        return _mm512_madd_epi16(_mm512_set1_epi16(1), _mm512_maddubs_epi16(without_sign, bytes));
    }
    static Bytes magnitude(Bytes bytes) { return _mm512_abs_epi8(bytes); }
    static Bytes with_signs_of(Bytes bytes, Bytes signs) {
        return _mm512_mask_sub_epi8(bytes, _mm512_movepi8_mask(signs), no_bytes(), bytes);
    }

    static Lanes no_lanes() { return _mm512_setzero_ps(); }
    static Lanes all_lanes(float value) { return _mm512_set1_ps(value); }
    static Lanes from_integers(Bytes integers) { return _mm512_cvtepi32_ps(integers); }
    static Lanes times(Lanes one, Lanes other) { return _mm512_mul_ps(one, other); }
    static Lanes plus_product(Lanes to, Lanes one, Lanes other) { return _mm512_fmadd_ps(one, other, to); }

    using Sums = __m256;
    static Sums no_sums() { return _mm256_setzero_ps(); }
    static Sums plus_multiple(Sums to, float factor, Sums of) {
        return _mm256_fmadd_ps(_mm256_set1_ps(factor), of, to);
    }

    static Lanes for_columns(const float * values) {
        const __m512i lanes = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
        const __m128 both = _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(values)));
        return _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(both));
    }

    static __m256 of_column(Lanes lanes, int column) {
        return column == 0 ? _mm512_castps512_ps256(lanes)
                           : _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(lanes), 1));
    }
};

using Widest = Wide;

#else

using Widest = Narrow;

#endif

} // namespace mullama

#endif

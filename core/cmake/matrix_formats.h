// The formats of `matrix_kernels.h`: ggml's blocks, and what they are multiplied as.

#include "matrix_vectors.h"

#include <cstdint>
#include <cstring>

#if defined(MULLAMA_MATRIX_KERNELS)

namespace mullama {

// A block of as many neighbouring rows as a vector has lanes, `stride` bytes apart.
// GCC has registers for pointers to every fourth.
template <class Weights> struct Rows {
    const char * fours[LANES / 4];
    std::int64_t stride;

    Rows(const Weights * first, std::int64_t stride) : stride(stride) {
        for (int i = 0; i < LANES / 4; ++i) fours[i] = reinterpret_cast<const char *>(first) + 4 * i * stride;
    }
    MULLAMA_INLINE const Weights & operator[](int row) const {
        return *reinterpret_cast<const Weights *>(fours[row / 4] + row % 4 * stride);
    }
    MULLAMA_INLINE void to_next_block() {
        for (auto & four : fours) {
            four += sizeof(Weights);
            // Not two at once in a vector.
            asm("" : "+r"(four));
        }
    }
};

// 16 bytes of each row, four to a vector, where each row has its lane.
template <class At> MULLAMA_INLINE void transpose(At at, Bytes * out) {
    Bytes rows[4];
    for (int i = 0; i < 4; ++i) rows[i] = Vectors::every_fourth(at, i);
    const Bytes a = Vectors::lower_lanes(rows[0], rows[1]), b = Vectors::lower_lanes(rows[2], rows[3]);
    const Bytes c = Vectors::upper_lanes(rows[0], rows[1]), d = Vectors::upper_lanes(rows[2], rows[3]);
    out[0] = Vectors::lower_pairs(a, b);
    out[1] = Vectors::upper_pairs(a, b);
    out[2] = Vectors::lower_pairs(c, d);
    out[3] = Vectors::upper_pairs(c, d);
}

// The first four bytes of what has 16 at least.
template <class At> MULLAMA_INLINE Bytes first_four(At at) {
    Bytes all[4];
    transpose(at, all);
    return all[0];
}

// The 32 weights of each row, four to a vector.
template <class Weights> MULLAMA_INLINE void from_nibbles(const Rows<Weights> & rows, Bytes (&out)[8]) {
    Bytes both[4];
    transpose([&](int row) { return rows[row].nibbles; }, both);
    for (int i = 0; i < 4; ++i) {
        out[i] = Vectors::low_nibbles(both[i]);
        out[4 + i] = Vectors::high_nibbles(both[i]);
    }
}

template <class Weights> MULLAMA_INLINE void from_nibbles_and_bits(const Rows<Weights> & rows, Bytes (&out)[8]) {
    from_nibbles(rows, out);
    const Bytes mask = first_four([&](int row) { return rows[row].bits; });
    const Bytes first_bytes = Vectors::all_parts(_mm_set_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0));
    for (int i = 0; i < 8; ++i) {
        const Bytes place = Vectors::plus(first_bytes, Vectors::all_lanes(0x01010101 * (i / 2)));
        const Bytes bits = Vectors::all_lanes(i % 2 == 0 ? 0x08040201 : static_cast<std::int32_t>(0x80402010));
        out[i] = Vectors::plus_16_where(out[i], mask, place, bits);
    }
}

// `Weights` is ggml's block of 32 weights, `Values` that of as many values, whose bytes
// are at least -127. What is unpacked is `ZERO` more than the weight, and `MOST` at most,
// with a sign or without.

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
    static constexpr bool HAS_LEAST = true, IS_SIGNED = false;
    static constexpr int ZERO = 0, MOST = 15;
    MULLAMA_INLINE static void unpack(const Rows<Weights> & rows, Bytes (&out)[8]) { from_nibbles(rows, out); }
};

struct Q8_0 {
    // Each is `scale` times a byte.
    struct Weights {
        std::uint16_t scale;
        std::int8_t bytes[32];
    };
    using Values = Weights;
    static constexpr bool HAS_LEAST = false, IS_SIGNED = true;
    static constexpr int ZERO = 0, MOST = 128;
    MULLAMA_INLINE static void unpack(const Rows<Weights> & rows, Bytes (&out)[8]) {
        transpose([&](int row) { return rows[row].bytes; }, out);
        transpose([&](int row) { return rows[row].bytes + 16; }, out + 4);
    }
};

struct Q5_0 {
    // Each is `scale` times a nibble, less 16 where its bit is not set.
    struct Weights {
        std::uint16_t scale;
        std::uint8_t bits[4], nibbles[16];
    };
    using Values = Q8_0::Values;
    static constexpr bool HAS_LEAST = false, IS_SIGNED = false;
    static constexpr int ZERO = 16, MOST = 31;
    MULLAMA_INLINE static void unpack(const Rows<Weights> & rows, Bytes (&out)[8]) { from_nibbles_and_bits(rows, out); }
};

struct Q5_1 {
    // Each is `scale` times a nibble, and 16 where its bit is set, plus `least`.
    struct Weights {
        std::uint16_t scale, least;
        std::uint8_t bits[4], nibbles[16];
    };
    using Values = Q4_1::Values;
    static constexpr bool HAS_LEAST = true, IS_SIGNED = false;
    static constexpr int ZERO = 0, MOST = 31;
    MULLAMA_INLINE static void unpack(const Rows<Weights> & rows, Bytes (&out)[8]) { from_nibbles_and_bits(rows, out); }
};

// Four values, for each row.
MULLAMA_INLINE Bytes four_for_all(const std::int8_t * values) {
    std::int32_t four;
    std::memcpy(&four, values, sizeof(four));
    return Vectors::all_lanes(four);
}

// A block of each row, to be multiplied with blocks of columns: exact sums of 32
// products. One factor of the instructions has no sign. Where they add to a sum, 128
// is added to weights that have one. A sum begins with what is too much.
template <class Format, class V = Vectors, bool ADDS = V::ADDS> class Unpacked {
    Bytes weights[8];

  public:
    static constexpr int ZERO = Format::IS_SIGNED ? 128 : Format::ZERO;

    MULLAMA_INLINE explicit Unpacked(const Rows<typename Format::Weights> & rows) {
        Format::unpack(rows, weights);
        for (int i = 0; Format::IS_SIGNED && i < 8; ++i) weights[i] = V::flip(weights[i], V::all_bytes(128));
    }
    MULLAMA_INLINE Bytes sums(const std::int8_t * values, std::int32_t start) const {
        Bytes sums = V::all_lanes(start);
        for (int i = 0; i < 8; ++i) sums = V::plus_sums_of_four(sums, weights[i], four_for_all(values + 4 * i));
        return sums;
    }
};

// Without such instructions sums of two products are added up in 16 bits as long as
// they fit.
template <class Format, class V> class Unpacked<Format, V, false> {
    static constexpr int FIT = Format::MOST <= 15 ? 8 : Format::MOST <= 31 ? 4 : 1;
    static_assert(2 * FIT * Format::MOST * 127 < 1 << 15);
    Bytes weights[8];

    MULLAMA_INLINE Bytes sums_of_two(int of, const std::int8_t * values) const {
        const Bytes four = four_for_all(values + 4 * of);
        if constexpr (!Format::IS_SIGNED) return V::sums_of_two(weights[of], four);
        return V::sums_of_two(V::magnitude(weights[of]), V::with_signs_of(four, weights[of]));
    }
    MULLAMA_INLINE Bytes sums_that_fit(int from, const std::int8_t * values) const {
        Bytes sums = sums_of_two(from, values);
        for (int i = 1; i < FIT; ++i) sums = V::plus_two(sums, sums_of_two(from + i, values));
        return V::sums_of_neighbours(sums);
    }

  public:
    static constexpr int ZERO = Format::ZERO;

    MULLAMA_INLINE explicit Unpacked(const Rows<typename Format::Weights> & rows) { Format::unpack(rows, weights); }
    MULLAMA_INLINE Bytes sums(const std::int8_t * values, std::int32_t start) const {
        Bytes sums = sums_that_fit(0, values);
        for (int i = FIT; i < 8; i += FIT) sums = V::plus(sums, sums_that_fit(i, values));
        return ZERO == 0 ? sums : V::plus(sums, V::all_lanes(start));
    }
};

// Numbers of a block of a column. A format has a least weight or a `ZERO`, which is taken
// off all sums of products, not both.
template <class Format, bool HAS_LEAST = Format::HAS_LEAST> struct Number {
    static_assert(Unpacked<Format>::ZERO == 0);
    float scale, sum;

    static Number of(const typename Format::Values & values) {
        return {_cvtsh_ss(values.scale), _cvtsh_ss(values.sum)};
    }
    static constexpr std::int32_t start = 0;
};

template <class Format> struct Number<Format, false> {
    float scale;
    std::int32_t start;

    static Number of(const typename Format::Values & values) {
        constexpr int ZERO = Unpacked<Format>::ZERO;
        return {_cvtsh_ss(values.scale), ZERO == 0 ? 0 : -ZERO * sum_of(values.bytes)};
    }

  private:
    static std::int32_t sum_of(const std::int8_t (&bytes)[32]) {
        const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes));
        const __m256i without_sign = _mm256_xor_si256(all, _mm256_set1_epi8(static_cast<char>(128)));
        const __m256i fours = _mm256_sad_epu8(without_sign, _mm256_setzero_si256());
        const __m128i twos = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
        return _mm_extract_epi32(twos, 0) + _mm_extract_epi32(twos, 2) - 32 * 128;
    }
};

} // namespace mullama

#endif

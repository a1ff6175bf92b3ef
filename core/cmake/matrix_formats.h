// The formats of `matrix_kernels.h`: ggml's blocks, and what they are multiplied as.

#include "matrix_vectors.h"

#include <cstdint>
#include <cstring>

#if defined(MULLAMA_MATRIX_KERNELS)

namespace mullama {

// `Weights` is ggml's block of 32 weights, `Values` that of as many values.

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
    template <class Vectors> static typename Vectors::Bytes bytes(const Weights & block) {
        return Vectors::from_nibbles(block.nibbles);
    }
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
    template <class Vectors> static typename Vectors::Bytes bytes(const Weights & block) {
        return Vectors::from_bytes(block.bytes);
    }
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
    template <class Vectors> static typename Vectors::Bytes bytes(const Weights & block) {
        return Vectors::joined(Vectors::from_nibbles(block.nibbles),
                               Vectors::from_bits(four_bytes(block.bits), -16, 0));
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
    template <class Vectors> static typename Vectors::Bytes bytes(const Weights & block) {
        return Vectors::joined(Vectors::from_nibbles(block.nibbles),
                               Vectors::from_bits(four_bytes(block.bits), 0, 16));
    }
};

// Exact sums of products of bytes, four to a lane. One factor of the instructions
// has no sign. Where they add to a sum, 128 is added to weights that have one,
// and the sum begins with what is too much.
template <class Format, class Vectors, bool ADDS = Vectors::ADDS> struct Factor {
    using Bytes = typename Vectors::Bytes;
    Bytes bytes, start;
    static Factor of(Bytes column) {
        const Bytes none = Vectors::no_bytes();
        if constexpr (!Format::IS_SIGNED) return {column, none};
        return {column, Vectors::minus(Vectors::plus_sums_of_four(none, Vectors::all_bytes(128), column))};
    }
    Bytes sums(Bytes weights) const { return Vectors::plus_sums_of_four(start, weights, bytes); }
    static Bytes weights(const typename Format::Weights & block) {
        const Bytes all = Format::template bytes<Vectors>(block);
        return Format::IS_SIGNED ? Vectors::flip(all, Vectors::all_bytes(128)) : all;
    }
};

template <class Format, class Vectors> struct Factor<Format, Vectors, false> {
    using Bytes = typename Vectors::Bytes;
    Bytes bytes;
    static Factor of(Bytes column) { return {column}; }
    Bytes sums(Bytes weights) const {
        if constexpr (!Format::IS_SIGNED) return Vectors::sums_of_four(weights, bytes);
        return Vectors::sums_of_four(Vectors::magnitude(weights), Vectors::with_signs_of(bytes, weights));
    }
    static Bytes weights(const typename Format::Weights & block) { return Format::template bytes<Vectors>(block); }
};

} // namespace mullama

#endif

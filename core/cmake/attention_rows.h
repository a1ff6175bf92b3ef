// Stands before a copy of ggml's operators, behind `masked_cells.h` and
// `attention_vectors.h`: see `attention.cmake`. Pure, and without a name of ggml's, so
// that a test can compile it alone.
//
// Attention of queries, each a row's of a head. The cells that a row sees are taken in
// chunks of the same size, wherever they lie. A chunk has all its logits, its largest
// one, its weights and its sum of values, in that order; then it is merged with those
// before. So the result is the same, bit for bit, whatever cells lie between, whatever
// queries are computed together, on whatever thread, and with AVX2 and AVX-512 alike.

#ifdef MULLAMA_ROWS_IN_VECTORS

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace mullama {

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

// Most queries that are computed together: their sums fit the registers.
constexpr int QUERIES = 4;

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

// The keys or values of a KV head: `n` numbers a cell.
struct Cells {
    const char * first;
    std::size_t stride;
    std::int64_t n;

    const char * at(std::int32_t cell) const { return first + cell * stride; }
};

// What a chunk, or several, come to for a head, beside their weighted sum of values.
struct Weight {
    float largest;  // logit
    float sum;      // of the weights, each as against the largest
};

constexpr Weight NOTHING = {-INFINITY, 0};

// How products become logits, as ggml's operator has it.
struct Shape {
    float scale;
    float softcap;  // 0: none
};

template <class Type, int Q>
inline void find_products(const float * const * queries, const Cells & keys, const std::int32_t * cells, int n,
                          float (*products)[CHUNK]) {
    constexpr int AT_ONCE = SUMS / (Q == 3 ? 4 : Q);
    for (int i = 0; i < n; i += AT_ONCE) {
        Sixteen sums[SUMS];
        const char * at[AT_ONCE];
        MULLAMA_UNROLLED
        for (int c = 0; c < AT_ONCE; ++c) {
            at[c] = keys.at(cells[std::min(i + c, n - 1)]);
        }
        MULLAMA_UNROLLED
        for (int s = 0; s < SUMS; ++s) {
            sums[s] = same(0.0f);
        }
        for (std::int64_t d = 0; d < keys.n; d += 16) {
            MULLAMA_UNROLLED
            for (int c = 0; c < AT_ONCE; ++c) {
                const Sixteen key = Type::widen(at[c], d);
                MULLAMA_UNROLLED
                for (int q = 0; q < Q; ++q) {
                    sums[q * AT_ONCE + c] = multiply_add(key, load(queries[q] + d), sums[q * AT_ONCE + c]);
                }
            }
        }
        float results[SUMS];
        sum_lanes(sums, results);
        MULLAMA_UNROLLED
        for (int q = 0; q < Q; ++q) {
            std::memcpy(products[q] + i, results + q * AT_ONCE, AT_ONCE * sizeof(float));
        }
    }
}

// Turns products with the cells that are seen into weights. Up to `n` cells the others
// weigh nothing.
inline Weight weigh(const Seen & seen, const Shape & shape, float slope, int n, float * products) {
    const int padded = (seen.n + 15) / 16 * 16;
    for (int i = 0; i < padded; i += 16) {
        store(products + i, multiply(load(products + i), same(shape.scale)));
    }
    if (shape.softcap != 0) {
        for (int i = 0; i < seen.n; ++i) {
            products[i] = shape.softcap * std::tanh(products[i] / shape.softcap);
        }
    }
    for (int i = seen.n; i < padded; ++i) {
        products[i] = -INFINITY;
    }
    Sixteen most = same(-INFINITY);
    for (int i = 0; i < padded; i += 16) {
        const Sixteen bias = widen_f16(reinterpret_cast<const char *>(seen.biases + i));
        const Sixteen logit = multiply_add(bias, same(slope), load(products + i));
        store(products + i, logit);
        most = larger(most, logit);
    }
    const float largest = largest_lane(most);
    // Nothing weighs where all is minus infinity; what is not a number stays that.
    const float base = largest == -INFINITY ? 0 : largest;
    Sixteen sum = same(0.0f);
    for (int i = 0; i < padded; i += 16) {
        const Sixteen weight = exponential(subtract(load(products + i), same(base)));
        store(products + i, weight);
        sum = add(sum, weight);
    }
    for (int i = padded; i < n; i += 16) {
        store(products + i, same(0.0f));
    }
    return {largest, sum_of_lanes(sum)};
}

// `N` vectors of the weighted sums, from number `d` on.
template <class Type, int Q, int N>
inline void sum_some_values(const Cells & values, std::int64_t d, const std::int32_t * cells, int n,
                            const float (*weights)[CHUNK], float * const * results) {
    Sixteen sums[Q][N];
    MULLAMA_UNROLLED
    for (int q = 0; q < Q; ++q) {
        MULLAMA_UNROLLED
        for (int v = 0; v < N; ++v) {
            sums[q][v] = same(0.0f);
        }
    }
    for (int i = 0; i < n; ++i) {
        const char * cell = values.at(cells[i]);
        MULLAMA_UNROLLED
        for (int v = 0; v < N; ++v) {
            const Sixteen value = Type::widen(cell, d + v * 16);
            MULLAMA_UNROLLED
            for (int q = 0; q < Q; ++q) {
                sums[q][v] = multiply_add(value, same(weights[q][i]), sums[q][v]);
            }
        }
    }
    MULLAMA_UNROLLED
    for (int q = 0; q < Q; ++q) {
        MULLAMA_UNROLLED
        for (int v = 0; v < N; ++v) {
            store(results[q] + d + v * 16, sums[q][v]);
        }
    }
}

template <class Type, int Q>
inline void sum_values(const Cells & values, const std::int32_t * cells, int n, const float (*weights)[CHUNK],
                       float * const * results) {
    // As many as the registers hold.
    constexpr int N = SUMS == 16 ? 4 : 4 / Q;
    std::int64_t d = 0;
    for (; d + N * 16 <= values.n; d += N * 16) {
        sum_some_values<Type, Q, N>(values, d, cells, n, weights, results);
    }
    for (; d < values.n; d += 16) {
        sum_some_values<Type, Q, 1>(values, d, cells, n, weights, results);
    }
}

// What depends on the types of keys and values, for each number of queries but 0.
struct Kernels {
    decltype(&find_products<CellOfF16, 1>) products[QUERIES];
    decltype(&sum_values<CellOfF16, 1>) values[QUERIES];

    template <class Keys, class Values> static Kernels of() {
        return {{find_products<Keys, 1>, find_products<Keys, 2>, find_products<Keys, 3>, find_products<Keys, 4>},
                {sum_values<Values, 1>, sum_values<Values, 2>, sum_values<Values, 3>, sum_values<Values, 4>}};
    }
};

// The cells of some queries, one at least, in a KV head. Each query may see the first of
// them alone.
struct Chunk {
    Kernels kernels;
    Cells keys, values;
    const std::int32_t * cells;
    int n;
};

// A query in a chunk of which it sees a cell at least.
struct Query {
    const float * numbers;
    const Seen * seen;
    float slope;  // of the mask
    float * result;
};

// What a chunk gives for `n` queries.
inline void attend(const Chunk & chunk, const Shape & shape, const Query * queries, int n, Weight * weights) {
    const float * numbers[QUERIES];
    float * results[QUERIES];
    for (int q = 0; q < n; ++q) {
        numbers[q] = queries[q].numbers;
        results[q] = queries[q].result;
    }
    alignas(64) float products[QUERIES][CHUNK];
    chunk.kernels.products[n - 1](numbers, chunk.keys, chunk.cells, chunk.n, products);
    for (int q = 0; q < n; ++q) {
        weights[q] = weigh(*queries[q].seen, shape, queries[q].slope, chunk.n, products[q]);
    }
    chunk.kernels.values[n - 1](chunk.values, chunk.cells, chunk.n, products, results);
}

// Copies cells, so that many queries need not widen them. Whether all numbers are
// finite.
template <class Type> inline bool widen_cells(const Cells & from, const Seen & seen, float * to) {
    Sixteen zeros = same(0.0f);
    for (int i = 0; i < seen.n; ++i) {
        const char * cell = from.at(seen.cells[i]);
        for (std::int64_t d = 0; d < from.n; d += 16) {
            const Sixteen numbers = Type::widen(cell, d);
            store(to + i * from.n + d, numbers);
            zeros = multiply_add(numbers, same(0.0f), zeros);
        }
    }
    return sum_of_lanes(zeros) == 0;
}

#if defined(__AVX512F__)

// Keys in columns: of 16 cells all first numbers, then all second ones, and so on. So
// nothing is summed up over lanes, for which many queries pay once. The last cell stands
// for those that lack.
template <class Type> inline void widen_keys(const Cells & from, const Seen & seen, float * to) {
    for (int i = 0; i < seen.n; i += 16) {
        for (std::int64_t d = 0; d < from.n; d += 16) {
            Sixteen numbers[16];
            MULLAMA_UNROLLED
            for (int c = 0; c < 16; ++c) {
                numbers[c] = Type::widen(from.at(seen.cells[std::min(i + c, seen.n - 1)]), d);
            }
            transpose(numbers);
            MULLAMA_UNROLLED
            for (int c = 0; c < 16; ++c) {
                store(to + i * from.n + (d + c) * 16, numbers[c]);
            }
        }
    }
}

// Products of `Q` queries with 16 cells.
template <int Q> struct Products {
    Sixteen of[Q];
};

// The part of the products that the lanes `LANE`, `LANE + STEP` and so on of a vector
// have in `find_products`, summed up in the order of `sum_lanes`.
template <int Q, int STEP, int LANE>
inline Products<Q> sum_columns(const float * const * queries, const float * columns, std::int64_t n) {
    Products<Q> sums;
    if constexpr (STEP == 16) {
        MULLAMA_UNROLLED
        for (int q = 0; q < Q; ++q) {
            sums.of[q] = same(0.0f);
        }
        for (std::int64_t d = LANE; d < n; d += 16) {
            const Sixteen keys = load(columns + d * 16);
            MULLAMA_UNROLLED
            for (int q = 0; q < Q; ++q) {
                sums.of[q] = multiply_add(keys, same(queries[q][d]), sums.of[q]);
            }
        }
    } else {
        sums = sum_columns<Q, 2 * STEP, LANE>(queries, columns, n);
        const Products<Q> others = sum_columns<Q, 2 * STEP, LANE + STEP>(queries, columns, n);
        MULLAMA_UNROLLED
        for (int q = 0; q < Q; ++q) {
            sums.of[q] = add(sums.of[q], others.of[q]);
        }
    }
    return sums;
}

// `find_products` of keys in columns, to the bit.
template <int Q>
inline void find_products_of_columns(const float * const * queries, const Cells & keys, const std::int32_t *, int n,
                                     float (*products)[CHUNK]) {
    for (int i = 0; i < n; i += 16) {
        const float * columns = reinterpret_cast<const float *>(keys.first) + i * keys.n;
        const Products<Q> sums = sum_columns<Q, 1, 0>(queries, columns, keys.n);
        for (int q = 0; q < Q; ++q) {
            store(products[q] + i, sums.of[q]);
        }
    }
}

inline Kernels kernels_of_widened() {
    Kernels kernels = Kernels::of<CellOfF32, CellOfF32>();
    kernels.products[0] = find_products_of_columns<1>;
    kernels.products[1] = find_products_of_columns<2>;
    kernels.products[2] = find_products_of_columns<3>;
    kernels.products[3] = find_products_of_columns<4>;
    return kernels;
}

#else

template <class Type> inline void widen_keys(const Cells & from, const Seen & seen, float * to) {
    widen_cells<Type>(from, seen, to);
}

inline Kernels kernels_of_widened() { return Kernels::of<CellOfF32, CellOfF32>(); }

#endif

// Whether one row sees the first of the cells that the other sees, in a chunk.
inline bool is_beginning(const Seen & some, const Seen & of) {
    return some.n <= of.n && std::memcmp(some.cells, of.cells, some.n * sizeof(some.cells[0])) == 0;
}

// Adds what a chunk came to.
inline void merge(Weight & all, float * sums, const Weight & chunk, const float * of_chunk, std::int64_t n) {
    if (chunk.sum == 0) {
        return;
    }
    if (all.sum == 0) {
        all = chunk;
        std::memcpy(sums, of_chunk, n * sizeof(float));
        return;
    }
    const float largest = std::max(all.largest, chunk.largest);
    const float factor = exponential(std::min(all.largest, chunk.largest) - largest);
    const float before = all.largest < chunk.largest ? factor : 1, now = all.largest < chunk.largest ? 1 : factor;
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

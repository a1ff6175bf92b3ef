// Attention against the plainest way to do the same, and the same bits whatever is
// computed together, on however many threads, with however much memory to work in.
// Prints a hash of all results, which is the same for each instruction set.

#include "masked_cells.h"

#include "attention_vectors.h"

#include "attention_rows.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

// As much of ggml as the operator knows.
enum ggml_type { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0 };
struct ggml_tensor {
    ggml_type type;
    std::int64_t ne[4];
    std::size_t nb[4];
    std::int32_t op_params[4];
    ggml_tensor * src[5];
    void * data;
};
struct ggml_threadpool {
    int n_threads;
    std::atomic<int> chunk{0}, n_arrived{0}, n_passed{0};
};
struct ggml_compute_params {
    int ith, nth;
    std::size_t wsize;
    void * wdata;
    ggml_threadpool * threadpool;
    bool use_ref;
};
void ggml_threadpool_chunk_set(ggml_threadpool * pool, int value) { pool->chunk = value; }
int ggml_threadpool_chunk_add(ggml_threadpool * pool, int value) { return pool->chunk.fetch_add(value); }
void ggml_barrier(ggml_threadpool * pool) {
    const int passed = pool->n_passed;
    if (pool->n_arrived.fetch_add(1) + 1 == pool->n_threads) {
        pool->n_arrived = 0;
        ++pool->n_passed;
    }
    while (pool->n_passed == passed) std::this_thread::yield();
}

#include "attention_operator.h"

std::mt19937 random_bits(1);
long below(long n) { return long(random_bits() % std::uint32_t(n)); }
float any() { return std::uniform_real_distribution<float>(-1, 1)(random_bits); }

std::size_t size_of(ggml_type type, long numbers) {
    return type == GGML_TYPE_Q8_0 ? numbers / 32 * 34 : type == GGML_TYPE_F32 ? numbers * 4 : numbers * 2;
}

// One number of a row, as it is in memory.
float number(ggml_type type, const char * row, long i) {
    std::uint16_t half;
    if (type == GGML_TYPE_Q8_0) {
        std::memcpy(&half, row + i / 32 * 34, 2);
        return _cvtsh_ss(half) * float(row[i / 32 * 34 + 2 + i % 32]);
    }
    std::memcpy(&half, row + i * 2, 2);
    if (type == GGML_TYPE_F16) return _cvtsh_ss(half);
    const std::uint32_t bits = std::uint32_t{half} << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

void fill(ggml_type type, char * row, long numbers) {
    for (long i = 0; i < numbers; ++i) {
        std::uint16_t half = _cvtss_sh(any(), 0);
        if (type == GGML_TYPE_Q8_0) {
            if (i % 32 == 0) half = _cvtss_sh(std::abs(any()) / 100, 0), std::memcpy(row + i / 32 * 34, &half, 2);
            row[i / 32 * 34 + 2 + i % 32] = char(below(255) - 127);
            continue;
        }
        const float value = any();
        std::uint32_t bits;
        std::memcpy(&bits, &value, 4);
        if (type == GGML_TYPE_BF16) half = std::uint16_t(bits >> 16);
        std::memcpy(row + i * 2, &half, 2);
    }
}

struct Case {
    long n_keys, n_values, n_heads, n_kv_heads, n_rows, n_sequences, n_cells;
    ggml_type keys, values;
    // 0: rows of one sequence; 1: each row sees others; 2: some rows see what others see.
    int kind;
    float max_bias, softcap;
    bool has_sinks, has_mask;
    // Heads and sequences take these in turn.
    long n_masks = 1, n_mask_sequences = 1;
    // Values are the first numbers of keys.
    bool is_view = false;
    // The last cell has a value that is not finite.
    bool has_infinity = false;
};

struct Operation {
    Case of;
    std::vector<float> queries, results, sinks;
    std::vector<char> keys, values;
    std::vector<std::uint16_t> mask;
    ggml_tensor q{}, k{}, v{}, m{}, s{}, dst{};

    explicit Operation(const Case & of) : of(of) {
        queries.resize(of.n_sequences * of.n_rows * of.n_heads * of.n_keys);
        for (auto & x : queries) x = 3 * any();
        results.assign(of.n_sequences * of.n_rows * of.n_heads * of.n_values, NAN);
        sinks.resize(of.n_heads);
        for (auto & x : sinks) x = any();
        const auto make_cells = [&](std::vector<char> & cells, ggml_type type, long numbers) {
            const std::size_t size = size_of(type, numbers), n = of.n_sequences * of.n_cells * of.n_kv_heads;
            cells.resize(n * size);
            for (std::size_t i = 0; i < n; ++i) fill(type, &cells[i * size], numbers);
        };
        make_cells(keys, of.keys, of.n_keys);
        make_cells(values, of.values, of.n_values);
        make_mask();
        spoil_cells();
        const auto row = long(of.n_keys * of.n_heads * 4);
        q = {GGML_TYPE_F32, {of.n_keys, of.n_rows, of.n_heads, of.n_sequences},
             {4, std::size_t(row), std::size_t(of.n_keys * 4), std::size_t(row * of.n_rows)}, {}, {}, queries.data()};
        const auto cells = [&](ggml_type type, long numbers, std::vector<char> & data) {
            const std::size_t size = size_of(type, numbers), cell = size * of.n_kv_heads;
            return ggml_tensor{type, {numbers, of.n_cells, of.n_kv_heads, of.n_sequences},
                               {2, cell, size, cell * of.n_cells}, {}, {}, data.data()};
        };
        k = cells(of.keys, of.n_keys, keys), v = cells(of.values, of.n_values, values);
        if (of.is_view) v = k, v.ne[0] = of.n_values;
        const std::size_t by_head = of.n_cells * 2 * of.n_rows;
        m = {GGML_TYPE_F16, {of.n_cells, of.n_rows, of.n_masks, of.n_mask_sequences},
             {2, std::size_t(of.n_cells * 2), by_head, by_head * of.n_masks}, {}, {}, mask.data()};
        s.data = sinks.data();
        const std::size_t result = of.n_values * 4;
        dst = {GGML_TYPE_F32, {of.n_values, of.n_heads, of.n_rows, of.n_sequences},
               {4, result, result * of.n_heads, result * of.n_heads * of.n_rows}, {},
               {&q, &k, &v, of.has_mask ? &m : nullptr, of.has_sinks ? &s : nullptr}, results.data()};
        const float params[] = {0.3f, of.max_bias, of.softcap};
        std::memcpy(dst.op_params, params, sizeof(params));
    }

    std::uint16_t & mask_at(long sequence, long head, long row, long cell) {
        const long place = sequence % of.n_mask_sequences * of.n_masks + head % of.n_masks;
        return mask[(place * of.n_rows + row) * of.n_cells + cell];
    }

    void make_mask() {
        mask.assign(of.n_mask_sequences * of.n_masks * of.n_rows * of.n_cells, mullama::MASKED);
        for (long i = 0; i < of.n_mask_sequences * of.n_masks; ++i) {
            // Which row a cell belongs to, and whether rows of one sequence see it.
            std::vector<long> owner(of.n_cells), is_ours(of.n_cells);
            for (auto & x : owner) x = below(of.n_rows);
            for (auto & x : is_ours) x = below(5) > 0;
            for (long row = 0; row < of.n_rows; ++row) {
                for (long cell = 0; cell < of.n_cells; ++cell) {
                    const bool before = is_ours[cell] && cell <= of.n_cells - of.n_rows + row;
                    const bool apart = owner[cell] == row;
                    const bool mixed = row % 7 == 3 ? apart : row % 7 == 5 ? false : before;
                    const bool is_seen = of.kind == 0 ? before : of.kind == 1 ? apart : mixed;
                    const float bias = of.max_bias > 0 ? -float(std::abs(row - cell)) / 8 : 0;
                    if (is_seen) mask_at(i / of.n_masks, i % of.n_masks, row, cell) = _cvtss_sh(bias, 0);
                }
            }
        }
    }

    // What nobody sees is no number.
    void spoil_cells() {
        const auto spoil = [&](std::vector<char> & cells, ggml_type type, long numbers, long place, std::uint16_t with) {
            for (long d = 0; d < numbers; d += type == GGML_TYPE_Q8_0 ? 32 : 1) {
                std::memcpy(&cells[place * size_of(type, numbers) + size_of(type, d)], &with, 2);
            }
        };
        for (long cell = 0; of.has_mask && cell < of.n_cells * of.n_sequences; ++cell) {
            bool is_seen = false;
            for (long i = 0; i < of.n_rows * of.n_masks; ++i) {
                is_seen |= mask_at(cell / of.n_cells, i / of.n_rows, i % of.n_rows, cell % of.n_cells) != mullama::MASKED;
            }
            for (long head = 0; head < of.n_kv_heads; ++head) {
                const long place = cell * of.n_kv_heads + head;
                if (!is_seen) spoil(keys, of.keys, of.n_keys, place, 0x7FFF);
                if (!is_seen) spoil(values, of.values, of.n_values, place, 0x7FFF);
                if (of.has_infinity && (cell + 1) % of.n_cells == 0) {
                    spoil(values, of.values, of.n_values, place, of.values == GGML_TYPE_BF16 ? 0x7F80 : 0x7C00);
                }
            }
        }
    }

    std::vector<float> run(int n_threads, std::size_t n_bytes) {
        std::fill(results.begin(), results.end(), NAN);
        // It must not write beside its memory.
        constexpr std::size_t BESIDE = 64;
        std::vector<float> work(BESIDE + n_bytes / 4 + BESIDE, 7);
        ggml_threadpool pool;
        pool.n_threads = n_threads;
        const auto compute = [&](int thread) {
            const ggml_compute_params params{thread, n_threads, n_bytes, work.data() + BESIDE, &pool, false};
            const mullama::Attention attention(&params, &dst);
            if (attention.is_fit()) attention.compute();
        };
        std::vector<std::thread> others;
        for (int thread = 1; thread < n_threads; ++thread) others.emplace_back(compute, thread);
        compute(0);
        for (auto & other : others) other.join();
        for (std::size_t i = 0; i < BESIDE; ++i) {
            if (work[i] != 7 || work[work.size() - 1 - i] != 7) std::printf("wrote beside its memory\n"), std::exit(1);
        }
        return results;
    }

    // What ggml plans for attention.
    std::size_t planned(int n_threads) const { return (128 * (of.n_keys + of.n_values) + 8192) * 4 * n_threads; }

    // A row alone, of each sequence: the same cells and its own mask.
    std::vector<float> run_alone(long row, int n_threads, std::size_t n_bytes) {
        ggml_tensor lone_q = q, lone_mask = m, lone_dst = dst;
        lone_q.ne[1] = lone_mask.ne[1] = lone_dst.ne[2] = 1;
        lone_q.data = reinterpret_cast<char *>(queries.data()) + row * q.nb[1];
        lone_mask.data = mask.data() + row * of.n_cells;
        std::vector<float> alone(of.n_sequences * of.n_heads * of.n_values, NAN);
        lone_dst.data = alone.data();
        lone_dst.nb[3] = lone_dst.nb[2];
        lone_dst.src[0] = &lone_q;
        if (of.has_mask) lone_dst.src[3] = &lone_mask;
        std::swap(dst, lone_dst);
        run(n_threads, n_bytes);
        std::swap(dst, lone_dst);
        return alone;
    }

    double wanted(long sequence, long row, long head, std::vector<double> & sums) {
        const long kv_head = head / (of.n_heads / of.n_kv_heads);
        const long place = (sequence * of.n_cells) * of.n_kv_heads + kv_head;
        const std::size_t key_size = size_of(of.keys, of.n_keys);
        const std::size_t value_size = of.is_view ? key_size : size_of(of.values, of.n_values);
        const char * of_values = of.is_view ? keys.data() : values.data();
        const float * query = &queries[((sequence * of.n_rows + row) * of.n_heads + head) * of.n_keys];
        // ALiBi's slopes, of any number of heads (Press et al. 2021, as Hugging Face has them).
        const long power = 1L << long(std::floor(std::log2(of.n_heads)));
        const double slope = of.max_bias == 0 ? 1 : head < power
            ? std::pow(2.0, -of.max_bias / power * (head + 1))
            : std::pow(2.0, -of.max_bias / 2 / power * (2 * (head - power) + 1));
        std::vector<double> logits(of.n_cells, -INFINITY);
        double most = of.has_sinks ? sinks[head] : -INFINITY;
        for (long cell = 0; cell < of.n_cells; ++cell) {
            const std::uint16_t bias = of.has_mask ? mask_at(sequence, head, row, cell) : 0;
            if (bias == mullama::MASKED) continue;
            double product = 0;
            const char * key = &keys[(place + cell * of.n_kv_heads) * key_size];
            for (long d = 0; d < of.n_keys; ++d) product += double(query[d]) * number(of.keys, key, d);
            double logit = 0.3f * product;
            if (of.softcap != 0) logit = of.softcap * std::tanh(logit / of.softcap);
            logits[cell] = logit + slope * _cvtsh_ss(bias);
            most = std::max(most, logits[cell]);
        }
        double sum = of.has_sinks ? std::exp(sinks[head] - most) : 0;
        sums.assign(of.n_values, 0);
        for (long cell = 0; cell < of.n_cells; ++cell) {
            if (logits[cell] == -INFINITY) continue;
            const double weight = std::exp(logits[cell] - most);
            const char * value = of_values + (place + cell * of.n_kv_heads) * value_size;
            sum += weight;
            for (long d = 0; d < of.n_values; ++d) sums[d] += weight * number(of.values, value, d);
        }
        return sum;
    }
};

std::uint32_t hash = 0;

bool is_right(const Case & of) {
    Operation operation(of);
    const std::vector<float> results = operation.run(1, operation.planned(1));
    const auto is_same = [&](const std::vector<float> & others) {
        return std::memcmp(others.data(), results.data(), results.size() * 4) == 0;
    };
    for (const int n_threads : {2, 3, 5, 8}) {
        if (!is_same(operation.run(n_threads, operation.planned(n_threads)))) {
            return std::printf("%d threads\n", n_threads), false;
        }
    }
    if (!is_same(operation.run(2, 64))) return std::printf("without memory to work in\n"), false;
    // Room for none, for a few chunks of each head, and for all.
    const std::size_t few = of.n_heads * (2 + 2 * (of.n_values + 2)) * 4;
    for (const std::size_t n_bytes : {std::size_t{64}, few, operation.planned(7)}) {
        const long row = below(of.n_rows);
        const std::vector<float> alone = operation.run_alone(row, 7, n_bytes);
        for (long sequence = 0; sequence < of.n_sequences; ++sequence) {
            const std::size_t size = of.n_heads * of.n_values;
            if (std::memcmp(&alone[sequence * size], &results[(sequence * of.n_rows + row) * size], size * 4) != 0) {
                return std::printf("row %ld alone, %zu bytes\n", row, n_bytes), false;
            }
        }
    }
    for (long i = 0; i < of.n_sequences * of.n_rows; ++i) {
        for (long head = 0; head < of.n_heads; ++head) {
            std::vector<double> sums;
            const double sum = operation.wanted(i / of.n_rows, i % of.n_rows, head, sums);
            for (long d = 0; d < of.n_values; ++d) {
                const double wanted = sum == 0 ? 0 : sums[d] / sum;
                const float got = results[(i * of.n_heads + head) * of.n_values + d];
                if (!std::isfinite(wanted) && !std::isfinite(got)) continue;
                if (!(std::abs(got - wanted) < 2e-5)) {
                    return std::printf("row %ld, head %ld, number %ld: %g, not %g\n", i, head, d, got, wanted), false;
                }
                std::uint32_t bits;
                std::memcpy(&bits, &got, 4);
                hash = hash * 31 + bits;
            }
        }
    }
    return true;
}

int main() {
    const ggml_type types[] = {GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0};
    const long numbers[] = {32, 64, 96, 128, 256};
    const long heads[][2] = {{3, 1}, {9, 3}, {4, 4}, {5, 1}, {14, 2}, {16, 1}};
    for (int round = 0; round < 300; ++round) {
        const auto & [n_heads, n_kv_heads] = heads[below(6)];
        const long n_rows = std::vector<long>{1, 1, 2, 17, 63, 64, 100}[below(7)];
        Case of{numbers[below(5)], numbers[below(5)], n_heads, n_kv_heads, n_rows, below(4) == 0 ? 2 : 1,
                n_rows + below(500), types[below(3)], types[below(3)], int(below(3)),
                below(4) == 0 ? 8.0f : 0.0f, below(5) == 0 ? 5.0f : 0.0f, below(4) == 0, below(6) > 0};
        of.n_masks = below(6) > 0 ? 1 : below(2) > 0 ? n_heads : n_heads % 2 == 0 ? 2 : 3;
        of.n_mask_sequences = below(2) > 0 ? of.n_sequences : 1;
        of.has_infinity = below(5) == 0;
        of.is_view = below(8) == 0;
        if (of.is_view) of.n_keys = 576, of.n_values = 512, of.values = of.keys, of.has_infinity = false;
        if (!of.has_mask) of.max_bias = 0;
        if (!is_right(of)) {
            return std::printf("%ld and %ld numbers, %ld heads of %ld, %ld rows, %ld sequences, %ld cells, types %d and "
                               "%d, kind %d, bias %g, cap %g, sinks %d, mask %d, %ld masks of %ld, view %d, infinity %d\n",
                               of.n_keys, of.n_values, of.n_heads, of.n_kv_heads, of.n_rows, of.n_sequences, of.n_cells,
                               of.keys, of.values, of.kind, of.max_bias, of.softcap, of.has_sinks, of.has_mask,
                               of.n_masks, of.n_mask_sequences, of.is_view, of.has_infinity);
        }
    }
    // What the operator leaves to ggml.
    Operation operation({48, 64, 2, 1, 1, 1, 10, GGML_TYPE_F16, GGML_TYPE_F16, 0, 0, 0, false, true});
    const ggml_compute_params params{0, 1, 0, nullptr, nullptr, false}, reference{0, 1, 0, nullptr, nullptr, true};
    const auto is_fit = [&](const ggml_compute_params & params) {
        return mullama::Attention(&params, &operation.dst).is_fit();
    };
    if (!is_fit(params) || is_fit(reference)) return std::printf("the reference\n");
    operation.k.ne[0] = 40;
    if (is_fit(params)) return std::printf("heads of 40 numbers\n");
    operation.k.ne[0] = 48, operation.v.type = GGML_TYPE_F32;
    if (is_fit(params)) return std::printf("values of 32 bits\n");
    std::printf("%08x\n", hash);
}

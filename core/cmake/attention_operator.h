// Stands in a copy of ggml's operators, before the one for attention: see
// `attention.cmake`. Which queries a thread computes with `attention_rows.h`, and when.

#ifdef MULLAMA_ROWS_IN_VECTORS

#include <array>
#include <numeric>

namespace mullama {

// One operation.
class Attention {
  public:
    Attention(const ggml_compute_params * params, ggml_tensor * dst)
        : params(params), dst(dst), q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), mask(dst->src[3]),
          sinks(dst->src[4]), group(q->ne[2] / k->ne[2]) {
        std::memcpy(&shape.scale, dst->op_params, sizeof(float));
        std::memcpy(&max_bias, dst->op_params + 1, sizeof(float));
        std::memcpy(&shape.softcap, dst->op_params + 2, sizeof(float));
    }

    // Whether it can be computed here.
    bool is_fit() const {
        const auto has_type = [](const ggml_tensor * x) {
            return x->type == GGML_TYPE_F16 || x->type == GGML_TYPE_BF16 || x->type == GGML_TYPE_Q8_0;
        };
        return !params->use_ref && q->type == GGML_TYPE_F32 && has_type(k) && has_type(v) &&
            (mask == nullptr || mask->type == GGML_TYPE_F16) && k->ne[0] % 16 == 0 && v->ne[0] % 16 == 0 &&
            k->ne[0] <= NUMBERS && v->ne[0] <= NUMBERS && v->ne[2] == k->ne[2] && v->ne[3] == k->ne[3] &&
            group * k->ne[2] == q->ne[2];
    }

    void compute() const {
        // Divided among threads by heads, a lone row may leave some of them idle.
        const bool is_lone = q->ne[1] * q->ne[3] == 1 && k->ne[2] % params->nth != 0;
        if (is_lone && n_chunks() > 1 && !has_masks_by_head() && n_chunks_with_room() > 0) {
            compute_chunks();
        } else {
            compute_blocks();
        }
    }

  private:
    const ggml_compute_params * params;
    ggml_tensor * dst;
    const ggml_tensor *q, *k, *v, *mask, *sinks;
    std::int64_t group;  // heads that share a KV head
    Shape shape;
    float max_bias;

    // Rows whose queries share what is read: those of a long prompt.
    static constexpr std::int64_t ROWS = 16;
    static constexpr std::int64_t LONG = 64;

    // A KV head of the cells that a row may see.
    struct Place {
        std::int64_t kv_head, sequence;
    };

    Cells cells(const ggml_tensor * x, Place place) const {
        const char * first = static_cast<const char *>(x->data) + place.kv_head * x->nb[2] +
            place.sequence / (q->ne[3] / x->ne[3]) * x->nb[3];
        return {first, x->nb[1], x->ne[0]};
    }

    bool has_masks_by_head() const { return mask != nullptr && mask->ne[2] > 1; }

    const std::uint16_t * mask_of(std::int64_t row, std::int64_t head, std::int64_t sequence) const {
        return mask == nullptr ? nullptr : reinterpret_cast<const std::uint16_t *>(
            static_cast<const char *>(mask->data) + row * mask->nb[1] + head % mask->ne[2] * mask->nb[2] +
            sequence % mask->ne[3] * mask->nb[3]);
    }

    // ALiBi, as ggml has it.
    float slope(std::int64_t head) const {
        if (max_bias <= 0) {
            return 1;
        }
        const std::int64_t n = std::int64_t{1} << std::int64_t(std::floor(std::log2(q->ne[2])));
        return head < n ? std::pow(std::pow(2.0f, -max_bias / n), float(head + 1))
                        : std::pow(std::pow(2.0f, -max_bias / 2 / n), float(2 * (head - n) + 1));
    }

    Query query(std::int64_t row, std::int64_t head, std::int64_t sequence, const Seen & seen, float * result) const {
        const std::size_t place = row * q->nb[1] + head * q->nb[2] + sequence * q->nb[3];
        const auto * numbers = reinterpret_cast<const float *>(static_cast<const char *>(q->data) + place);
        return {numbers, &seen, slope(head), result};
    }

    float * result(std::int64_t row, std::int64_t head, std::int64_t sequence) const {
        const std::int64_t place = sequence * dst->ne[2] * dst->ne[1] + row * dst->ne[1] + head;
        return reinterpret_cast<float *>(static_cast<char *>(dst->data) + place * dst->nb[1]);
    }

    const float * sink(std::int64_t head) const {
        return sinks == nullptr ? nullptr : static_cast<const float *>(sinks->data) + head;
    }

    // For cells of that type.
    template <class With> static auto with_type(ggml_type type, With with) {
        switch (type) {
            case GGML_TYPE_F16: return with(CellOfF16());
            case GGML_TYPE_BF16: return with(CellOfBF16());
            default: return with(CellOfQ8_0());
        }
    }

    Chunk chunk(Place place, const Seen & seen) const {
        const Kernels kernels = with_type(k->type, [&](auto keys) {
            return with_type(v->type, [&](auto values) { return Kernels::of<decltype(keys), decltype(values)>(); });
        });
        return {kernels, cells(k, place), cells(v, place), seen.cells, seen.n};
    }

    // Calls `compute` with numbers below `n`, each on one of the threads, in turn.
    template <class Compute> void take_in_turn(std::int64_t n, Compute compute) const {
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        for (std::int64_t i = params->ith; i < n; i = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            compute(i);
        }
    }

    // What a thread computes at once: some rows, and some of the heads that share a KV
    // head. The more, the less is read, but threads may have nothing to do.
    struct Unit {
        std::int64_t rows, heads;
    };

    Unit unit() const {
        const bool are_blocks = q->ne[1] >= LONG && !has_masks_by_head() && has_room_for_blocks();
        const std::int64_t heads = has_masks_by_head() ? 1 : std::min<std::int64_t>(QUERIES, group);
        Unit unit = are_blocks ? Unit{ROWS, group} : Unit{1, heads};
        while (!keeps_busy(n_units(unit)) && (unit.rows > 4 || unit.heads > 1)) {
            (unit.rows > 4 ? unit.rows : unit.heads) /= 2;
        }
        return unit;
    }

    // Whether so many units keep all threads busy but for an eighth of the time.
    bool keeps_busy(std::int64_t n) const {
        const std::int64_t turns = n_parts(n, params->nth) * params->nth;
        return n >= 4 * params->nth || 8 * (turns - n) <= turns;
    }

    static std::int64_t n_parts(std::int64_t all, std::int64_t part) { return (all + part - 1) / part; }

    std::int64_t n_units(Unit unit) const {
        return n_parts(q->ne[1], unit.rows) * n_parts(group, unit.heads) * k->ne[2] * q->ne[3];
    }

    void compute_blocks() const {
        const Unit unit = this->unit();
        const std::int64_t n_blocks = n_parts(q->ne[1], unit.rows), n_heads = n_parts(group, unit.heads);
        take_in_turn(n_units(unit), [&](std::int64_t i) {
            const std::int64_t first = i % n_blocks * unit.rows, head = i / n_blocks % n_heads * unit.heads;
            const Place place{i / n_blocks / n_heads % k->ne[2], i / n_blocks / n_heads / k->ne[2]};
            const Heads heads{place.kv_head * group + head, std::min(unit.heads, group - head)};
            if (unit.rows == 1) {
                compute_row(first, heads, place);
            } else {
                compute_block(first, std::min(unit.rows, q->ne[1] - first), heads, place);
            }
        });
    }

    // `n` heads of a KV head, from `first` on.
    struct Heads {
        std::int64_t first, n;
    };

    // At most `QUERIES` heads.
    void compute_row(std::int64_t row, Heads heads, Place place) const {
        const std::uint16_t * mask_of_heads = mask_of(row, heads.first, place.sequence);
        Weight all[QUERIES] = {NOTHING, NOTHING, NOTHING, NOTHING};
        Seen seen;
        for (std::int64_t cell = 0; cell < k->ne[1];) {
            cell = find_seen(mask_of_heads, cell, k->ne[1], seen);
            if (seen.n > 0) {
                add_heads(row, heads.first, int(heads.n), place, seen, all);
            }
        }
        for (std::int64_t h = 0; h < heads.n; ++h) {
            finish(all[h], sink(heads.first + h), result(row, heads.first + h, place.sequence), v->ne[0]);
        }
    }

    // Adds a chunk to what a row has of `n` heads.
    void add_heads(std::int64_t row, std::int64_t head, int n, Place place, const Seen & seen, Weight * all) const {
        alignas(64) float of_chunk[QUERIES][NUMBERS];
        Query queries[QUERIES];
        Weight weights[QUERIES];
        for (int h = 0; h < n; ++h) {
            queries[h] = query(row, head + h, place.sequence, seen, of_chunk[h]);
        }
        attend(chunk(place, seen), shape, queries, n, weights);
        for (int h = 0; h < n; ++h) {
            merge(all[h], result(row, head + h, place.sequence), weights[h], of_chunk[h], v->ne[0]);
        }
    }

    // A thread's part of ggml's work memory has room for what a chunk of cells is when it
    // is widened, and for what all queries of a block have.

    float * part_of_memory() const {
        return static_cast<float *>(params->wdata) + params->wsize / sizeof(float) / params->nth * params->ith;
    }
    bool has_room_for_blocks() const {
        const std::int64_t needed = CHUNK * (k->ne[0] + v->ne[0]) + 2 * ROWS * group;
        return needed <= std::int64_t(params->wsize / sizeof(float) / params->nth);
    }

    void compute_block(std::int64_t first, std::int64_t n_rows, Heads heads, Place place) const {
        float * const keys = part_of_memory();
        float * const values = keys + CHUNK * k->ne[0];
        Weight * const all = reinterpret_cast<Weight *>(values + CHUNK * v->ne[0]);
        std::fill_n(all, n_rows * heads.n, NOTHING);
        Seen own[ROWS];
        const Seen * seen[ROWS];
        std::int64_t next[ROWS] = {};
        while (find_block(first, n_rows, place, own, seen, next)) {
            const Seen & most = **std::max_element(seen, seen + n_rows, [](auto a, auto b) { return a->n < b->n; });
            if (widen_block(most, seen, n_rows, place, keys, values)) {
                add_block(first, n_rows, heads, place, seen, widened(keys, values, most.n), all);
                continue;
            }
            for (std::int64_t row = 0; row < n_rows; ++row) {
                for (std::int64_t head = 0; seen[row]->n > 0 && head < heads.n; head += QUERIES) {
                    const int n = int(std::min<std::int64_t>(QUERIES, heads.n - head));
                    add_heads(first + row, heads.first + head, n, place, *seen[row], all + row * heads.n + head);
                }
            }
        }
        for (std::int64_t i = 0; i < n_rows * heads.n; ++i) {
            const std::int64_t head = heads.first + i % heads.n;
            finish(all[i], sink(head), result(first + i / heads.n, head, place.sequence), v->ne[0]);
        }
    }

    // Whether the rows can be computed together: each sees the first of the cells that
    // `most` has, and what it does not see weighs nothing, as only what is finite does.
    bool widen_block(const Seen & most, const Seen * const * seen, std::int64_t n_rows, Place place, float * keys,
                     float * values) const {
        const auto all_of = [&](auto is_true) {
            return std::all_of(seen, seen + n_rows, [&](const Seen * row) { return is_true(*row); });
        };
        if (!all_of([&](const Seen & row) { return is_beginning(row, most); })) {
            return false;
        }
        const bool are_finite =
            with_type(v->type, [&](auto type) { return widen_cells<decltype(type)>(cells(v, place), most, values); });
        if (!are_finite && !all_of([&](const Seen & row) { return row.n == most.n; })) {
            return false;
        }
        with_type(k->type, [&](auto type) { widen_keys<decltype(type)>(cells(k, place), most, keys); });
        return true;
    }

    // The next cells that each row of a block sees, from cell `next` on. Most rows see
    // what the last one sees. Returns whether any sees one.
    bool find_block(std::int64_t first, std::int64_t n_rows, Place place, Seen * own, const Seen ** seen,
                    std::int64_t * next) const {
        const auto mask_from = [&](std::int64_t row, std::int64_t cell) {
            return mask == nullptr ? nullptr : mask_of(first + row, 0, place.sequence) + cell;
        };
        const std::int64_t last = n_rows - 1, from = next[last], end = k->ne[1];
        next[last] = find_seen(mask_from(last, 0), from, end, own[last]);
        seen[last] = &own[last];
        bool any = own[last].n > 0;
        for (std::int64_t row = 0; row < last; ++row) {
            const std::uint16_t * some = mask_from(row, from);
            if (next[row] == from && (mask == nullptr || std::equal(some, some + next[last] - from, mask_from(last, from)))) {
                next[row] = next[last];
                seen[row] = seen[last];
            } else {
                next[row] = find_seen(mask_from(row, 0), next[row], end, own[row]);
                seen[row] = &own[row];
            }
            any = any || seen[row]->n > 0;
        }
        return any;
    }

    Chunk widened(const float * keys, const float * values, int n) const {
        static const auto in_order = [] {
            std::array<std::int32_t, CHUNK> cells;
            std::iota(cells.begin(), cells.end(), 0);
            return cells;
        }();
        const auto cells = [](const float * first, std::int64_t numbers) {
            return Cells{reinterpret_cast<const char *>(first), numbers * sizeof(float), numbers};
        };
        return {kernels_of_widened(), cells(keys, k->ne[0]), cells(values, v->ne[0]), in_order.data(), n};
    }

    // Adds a chunk, of which each row sees the first cells, to what a block has.
    void add_block(std::int64_t first, std::int64_t n_rows, Heads heads, Place place, const Seen * const * seen,
                   const Chunk & chunk, Weight * all) const {
        alignas(64) float of_chunk[QUERIES][NUMBERS];
        Query queries[QUERIES];
        std::int64_t indices[QUERIES];
        int n = 0;
        for (std::int64_t i = 0; i < n_rows * heads.n; ++i) {
            const std::int64_t row = i / heads.n, head = heads.first + i % heads.n;
            if (seen[row]->n > 0) {
                queries[n] = query(first + row, head, place.sequence, *seen[row], of_chunk[n]);
                indices[n++] = i;
            }
            if (n == QUERIES || (n > 0 && i + 1 == n_rows * heads.n)) {
                Weight weights[QUERIES];
                attend(chunk, shape, queries, n, weights);
                for (int at = 0; at < n; ++at) {
                    const std::int64_t index = indices[at];
                    float * sums = result(first + index / heads.n, heads.first + index % heads.n, place.sequence);
                    merge(all[index], sums, weights[at], of_chunk[at], v->ne[0]);
                }
                n = 0;
            }
        }
    }

    // Of a lone row threads take chunks in turn, and merge them when all are there, or as
    // many as ggml's work memory has room for. It has what each head has of all, then
    // what chunks came to: the weight and the sums.

    std::int64_t n_chunks() const { return n_parts(k->ne[1], CHUNK); }
    std::int64_t chunk_size() const { return v->ne[0] + 2; }
    std::int64_t n_chunks_with_room() const {
        const std::int64_t room = std::int64_t(params->wsize / sizeof(float)) / q->ne[2] - 2;
        return std::min(n_chunks(), room / chunk_size());
    }
    float * of_all(std::int64_t head) const { return static_cast<float *>(params->wdata) + 2 * head; }
    float * of_chunk(std::int64_t head, std::int64_t at) const {
        return of_all(q->ne[2]) + (head * n_chunks_with_room() + at) * chunk_size();
    }

    static Weight weight_at(const float * from) {
        Weight weight;
        std::memcpy(&weight, from, sizeof(weight));
        return weight;
    }

    void compute_chunks() const {
        const std::int64_t together = n_chunks_with_room();
        Seen seen;
        std::int64_t n_found = 0, cell = 0;
        for (std::int64_t first = 0; first < n_chunks(); first += together) {
            const std::int64_t n = std::min(together, n_chunks() - first);
            take_in_turn(n * k->ne[2], [&](std::int64_t i) {
                for (; n_found <= first + i / k->ne[2]; ++n_found) {
                    cell = find_seen(mask_of(0, 0, 0), cell, k->ne[1], seen);
                }
                compute_chunk({i % k->ne[2], 0}, i / k->ne[2], seen);
            });
            ggml_barrier(params->threadpool);
            for (std::int64_t head = params->ith; head < q->ne[2]; head += params->nth) {
                Weight all = first == 0 ? NOTHING : weight_at(of_all(head));
                for (std::int64_t at = 0; at < n; ++at) {
                    merge(all, result(0, head, 0), weight_at(of_chunk(head, at)), of_chunk(head, at) + 2, v->ne[0]);
                }
                std::memcpy(of_all(head), &all, sizeof(all));
                if (first + n == n_chunks()) {
                    finish(all, sink(head), result(0, head, 0), v->ne[0]);
                }
            }
        }
    }

    void compute_chunk(Place place, std::int64_t at, const Seen & seen) const {
        for (std::int64_t head = 0; head < group; head += QUERIES) {
            const std::int64_t first = place.kv_head * group + head;
            const int n = int(std::min<std::int64_t>(QUERIES, group - head));
            Query queries[QUERIES];
            Weight weights[QUERIES] = {NOTHING, NOTHING, NOTHING, NOTHING};
            for (int h = 0; h < n; ++h) {
                queries[h] = query(0, first + h, 0, seen, of_chunk(first + h, at) + 2);
            }
            if (seen.n > 0) {
                attend(chunk(place, seen), shape, queries, n, weights);
            }
            for (int h = 0; h < n; ++h) {
                std::memcpy(of_chunk(first + h, at), &weights[h], sizeof(Weight));
            }
        }
    }
};

}  // namespace mullama

#endif

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
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        // Divided among threads by heads, a lone row may leave some of them idle.
        const bool is_lone = q->ne[1] * q->ne[3] == 1 && k->ne[2] % params->nth != 0;
        if (is_lone && n_chunks() > 1 && !has_masks_by_head() && has_room_for_chunks()) {
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
        const char * numbers = static_cast<const char *>(q->data) + row * q->nb[1] + head * q->nb[2] + sequence * q->nb[3];
        return {reinterpret_cast<const float *>(numbers), &seen, slope(head), result};
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

    // Threads take blocks of rows, for a KV head, in turn: rows see different numbers of
    // cells.
    void compute_blocks() const {
        const std::int64_t rows = q->ne[1] >= LONG && !has_masks_by_head() && has_room_for_blocks() ? ROWS : 1;
        const std::int64_t n_blocks = (q->ne[1] + rows - 1) / rows, n_units = n_blocks * k->ne[2] * q->ne[3];
        for (std::int64_t unit = params->ith; unit < n_units; unit = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const std::int64_t first = unit % n_blocks * rows;
            const Place place{unit / n_blocks % k->ne[2], unit / n_blocks / k->ne[2]};
            if (rows == 1) {
                compute_row(first, place);
            } else {
                compute_block(first, std::min(rows, q->ne[1] - first), place);
            }
        }
    }

    void compute_row(std::int64_t row, Place place) const {
        const std::int64_t end = (place.kv_head + 1) * group, together = has_masks_by_head() ? 1 : QUERIES;
        for (std::int64_t head = place.kv_head * group; head < end; head += together) {
            const int n = int(std::min(together, end - head));
            const std::uint16_t * mask_of_heads = mask_of(row, head, place.sequence);
            Weight all[QUERIES] = {NOTHING, NOTHING, NOTHING, NOTHING};
            Seen seen;
            for (std::int64_t cell = 0; cell < k->ne[1];) {
                cell = find_seen(mask_of_heads, cell, k->ne[1], seen);
                if (seen.n > 0) {
                    add_heads(row, head, n, place, seen, all);
                }
            }
            for (int h = 0; h < n; ++h) {
                finish(all[h], sink(head + h), result(row, head + h, place.sequence), v->ne[0]);
            }
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

    void compute_block(std::int64_t first, std::int64_t n_rows, Place place) const {
        const std::int64_t first_head = place.kv_head * group;
        float * const keys = part_of_memory();
        float * const values = keys + CHUNK * k->ne[0];
        Weight * const all = reinterpret_cast<Weight *>(values + CHUNK * v->ne[0]);
        std::fill_n(all, n_rows * group, NOTHING);
        Seen own[ROWS];
        const Seen * seen[ROWS];
        std::int64_t next[ROWS] = {};
        while (find_block(first, n_rows, place, own, seen, next)) {
            const Seen & most = **std::max_element(seen, seen + n_rows, [](auto a, auto b) { return a->n < b->n; });
            if (std::all_of(seen, seen + n_rows, [&](auto row) { return is_beginning(*row, most); })) {
                with_type(k->type, [&](auto type) { widen_keys<decltype(type)>(cells(k, place), most, keys); });
                with_type(v->type, [&](auto type) { widen_cells<decltype(type)>(cells(v, place), most, values); });
                add_block(first, n_rows, place, seen, widened(keys, values, most.n), all);
                continue;
            }
            for (std::int64_t row = 0; row < n_rows; ++row) {
                for (std::int64_t head = 0; seen[row]->n > 0 && head < group; head += QUERIES) {
                    const int n = int(std::min<std::int64_t>(QUERIES, group - head));
                    add_heads(first + row, first_head + head, n, place, *seen[row], all + row * group + head);
                }
            }
        }
        for (std::int64_t i = 0; i < n_rows * group; ++i) {
            const std::int64_t head = first_head + i % group;
            finish(all[i], sink(head), result(first + i / group, head, place.sequence), v->ne[0]);
        }
    }

    // The next cells that each row of a block sees, from cell `next` on. Most rows see
    // what the last one sees. Returns whether any sees one.
    bool find_block(std::int64_t first, std::int64_t n_rows, Place place, Seen * own, const Seen ** seen,
                    std::int64_t * next) const {
        const auto mask_of_row = [&](std::int64_t row) { return mask_of(first + row, 0, place.sequence); };
        const std::int64_t last = n_rows - 1, from = next[last], end = k->ne[1];
        next[last] = find_seen(mask_of_row(last), from, end, own[last]);
        seen[last] = &own[last];
        bool any = own[last].n > 0;
        for (std::int64_t row = 0; row < last; ++row) {
            if (next[row] == from && (mask == nullptr || std::equal(mask_of_row(row) + from, mask_of_row(row) + next[last],
                                                                     mask_of_row(last) + from))) {
                next[row] = next[last];
                seen[row] = seen[last];
            } else {
                next[row] = find_seen(mask_of_row(row), next[row], end, own[row]);
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
    void add_block(std::int64_t first, std::int64_t n_rows, Place place, const Seen * const * seen, const Chunk & chunk,
                   Weight * all) const {
        alignas(64) float of_chunk[QUERIES][NUMBERS];
        Query queries[QUERIES];
        std::int64_t indices[QUERIES];
        int n = 0;
        for (std::int64_t i = 0; i < n_rows * group; ++i) {
            const std::int64_t row = i / group, head = place.kv_head * group + i % group;
            if (seen[row]->n > 0) {
                queries[n] = query(first + row, head, place.sequence, *seen[row], of_chunk[n]);
                indices[n++] = i;
            }
            if (n == QUERIES || (n > 0 && i + 1 == n_rows * group)) {
                Weight weights[QUERIES];
                attend(chunk, shape, queries, n, weights);
                for (int at = 0; at < n; ++at) {
                    const std::int64_t index = indices[at];
                    merge(all[index], result(first + index / group, place.kv_head * group + index % group, place.sequence),
                          weights[at], of_chunk[at], v->ne[0]);
                }
                n = 0;
            }
        }
    }

    // Of a lone row threads take chunks in turn, and merge them when all are there. What
    // a chunk came to lies in ggml's work memory: the weight, then the sums.

    std::int64_t n_chunks() const { return (k->ne[1] + CHUNK - 1) / CHUNK; }
    std::int64_t chunk_size() const { return v->ne[0] + 2; }
    bool has_room_for_chunks() const {
        return std::size_t(n_chunks() * q->ne[2] * chunk_size()) * sizeof(float) <= params->wsize;
    }
    float * of_chunk(std::int64_t head, std::int64_t index) const {
        return static_cast<float *>(params->wdata) + (head * n_chunks() + index) * chunk_size();
    }

    void compute_chunks() const {
        Seen seen;
        std::int64_t n_found = 0, cell = 0;
        for (std::int64_t unit = params->ith; unit < n_chunks() * k->ne[2];
             unit = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const std::int64_t index = unit / k->ne[2];
            const Place place{unit % k->ne[2], 0};
            for (; n_found <= index; ++n_found) {
                cell = find_seen(mask_of(0, 0, 0), cell, k->ne[1], seen);
            }
            const std::int64_t end = (place.kv_head + 1) * group;
            for (std::int64_t head = place.kv_head * group; head < end; head += QUERIES) {
                compute_chunk(head, int(std::min<std::int64_t>(QUERIES, end - head)), place, index, seen);
            }
        }
        ggml_barrier(params->threadpool);
        for (std::int64_t head = params->ith; head < q->ne[2]; head += params->nth) {
            Weight all = NOTHING;
            for (std::int64_t index = 0; index < n_chunks(); ++index) {
                Weight weight;
                std::memcpy(&weight, of_chunk(head, index), sizeof(weight));
                if (weight.sum != 0) {
                    merge(all, result(0, head, 0), weight, of_chunk(head, index) + 2, v->ne[0]);
                }
            }
            finish(all, sink(head), result(0, head, 0), v->ne[0]);
        }
    }

    void compute_chunk(std::int64_t head, int n, Place place, std::int64_t index, const Seen & seen) const {
        Weight weights[QUERIES] = {NOTHING, NOTHING, NOTHING, NOTHING};
        if (seen.n > 0) {
            Query queries[QUERIES];
            for (int h = 0; h < n; ++h) {
                queries[h] = query(0, head + h, 0, seen, of_chunk(head + h, index) + 2);
            }
            attend(chunk(place, seen), shape, queries, n, weights);
        }
        for (int h = 0; h < n; ++h) {
            std::memcpy(of_chunk(head + h, index), &weights[h], sizeof(Weight));
        }
    }
};

}  // namespace mullama

#endif

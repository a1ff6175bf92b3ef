// Stands in a copy of ggml's operators, before the one for attention: see
// `attention.cmake`. Which rows and heads a thread computes with `attention_rows.h`.

#ifdef MULLAMA_ROWS_IN_VECTORS

namespace mullama {

// One operation. A unit of it is a row and a KV head, whose heads are computed together.
class Attention {
  public:
    Attention(const ggml_compute_params * params, ggml_tensor * dst)
        : params(params), dst(dst), q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), mask(dst->src[3]),
          sinks(dst->src[4]), group(q->ne[2] / k->ne[2]) {
        std::memcpy(&scale, dst->op_params, sizeof(float));
        std::memcpy(&max_bias, dst->op_params + 1, sizeof(float));
        std::memcpy(&softcap, dst->op_params + 2, sizeof(float));
    }

    // Whether rows of this kind can be computed here.
    bool is_fit() const {
        return !params->use_ref && q->type == GGML_TYPE_F32 && k->type == v->type &&
            (k->type == GGML_TYPE_F16 || k->type == GGML_TYPE_BF16) && (mask == nullptr || mask->type == GGML_TYPE_F16) &&
            k->ne[0] % 16 == 0 && v->ne[0] % 16 == 0 && k->ne[0] <= NUMBERS && v->ne[0] <= NUMBERS &&
            v->ne[2] == k->ne[2] && v->ne[3] == k->ne[3] && group * k->ne[2] == q->ne[2];
    }

    void compute() const {
        const bool is_lone = q->ne[1] * q->ne[3] == 1 && !has_masks_by_head();
        if (is_lone && k->ne[2] % params->nth != 0 && n_parts() > 1 && has_room()) {
            compute_in_parts();
        } else {
            compute_units();
        }
    }

  private:
    const ggml_compute_params * params;
    ggml_tensor * dst;
    const ggml_tensor *q, *k, *v, *mask, *sinks;
    std::int64_t group;  // heads that share a KV head
    float scale, max_bias, softcap;

    // Up to `HEADS` heads, from `head` on, of a row.
    struct Heads {
        std::int64_t row, head, sequence;
        int n;
        Cells keys, values;
        Shape shapes[HEADS];
        alignas(64) float queries[HEADS][NUMBERS];
    };

    Heads heads(std::int64_t row, std::int64_t head, std::int64_t sequence, int n) const {
        Heads heads;
        heads.row = row, heads.head = head, heads.sequence = sequence, heads.n = n;
        const auto cells = [&](const ggml_tensor * x) {
            const char * first = static_cast<const char *>(x->data) + head / group * x->nb[2] +
                sequence / (q->ne[3] / x->ne[3]) * x->nb[3];
            return Cells{first, x->nb[1], x->ne[0]};
        };
        heads.keys = cells(k), heads.values = cells(v);
        const float factor = softcap == 0 ? scale : scale / softcap;
        for (int h = 0; h < n; ++h) {
            heads.shapes[h] = {softcap, slope(head + h)};
            const auto * numbers = reinterpret_cast<const float *>(static_cast<const char *>(q->data) + row * q->nb[1] +
                (head + h) * q->nb[2] + sequence * q->nb[3]);
            for (std::int64_t d = 0; d < k->ne[0]; ++d) {
                heads.queries[h][d] = numbers[d] * factor;
            }
        }
        return heads;
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

    bool has_masks_by_head() const { return mask != nullptr && mask->ne[2] > 1; }

    const std::uint16_t * mask_of(std::int64_t row, std::int64_t head, std::int64_t sequence) const {
        return mask == nullptr ? nullptr : reinterpret_cast<const std::uint16_t *>(
            static_cast<const char *>(mask->data) + row * mask->nb[1] + head % mask->ne[2] * mask->nb[2] +
            sequence % mask->ne[3] * mask->nb[3]);
    }

    float * result(std::int64_t row, std::int64_t head, std::int64_t sequence) const {
        const std::int64_t place = sequence * dst->ne[2] * dst->ne[1] + row * dst->ne[1] + head;
        return reinterpret_cast<float *>(static_cast<char *>(dst->data) + place * dst->nb[1]);
    }

    const float * sink(std::int64_t head) const {
        return sinks == nullptr ? nullptr : static_cast<const float *>(sinks->data) + head;
    }

    template <class Half>
    static void attend_to(const Heads & heads, const Seen & seen, Weight * weights, float * const * results) {
        const float * queries[HEADS];
        for (int h = 0; h < heads.n; ++h) {
            queries[h] = heads.queries[h];
        }
        const auto run = [&](auto attend) {
            attend(queries, heads.keys, heads.values, seen, heads.shapes, weights, results);
        };
        switch (heads.n) {
            case 1: return run(attend<Half, 1>);
            case 2: return run(attend<Half, 2>);
            case 3: return run(attend<Half, 3>);
            default: return run(attend<Half, 4>);
        }
    }

    void attend_to(const Heads & heads, const Seen & seen, Weight * weights, float * const * results) const {
        if (k->type == GGML_TYPE_F16) {
            attend_to<F16>(heads, seen, weights, results);
        } else {
            attend_to<BF16>(heads, seen, weights, results);
        }
    }

    // Threads take units in turn: rows see different numbers of cells.
    void compute_units() const {
        const std::int64_t n_units = q->ne[1] * k->ne[2] * q->ne[3];
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        for (std::int64_t unit = params->ith; unit < n_units; unit = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const std::int64_t row = unit % q->ne[1], kv_head = unit / q->ne[1] % k->ne[2];
            const std::int64_t sequence = unit / q->ne[1] / k->ne[2];
            const std::int64_t end = (kv_head + 1) * group;
            const std::int64_t most = has_masks_by_head() ? 1 : HEADS;
            for (std::int64_t head = kv_head * group; head < end; head += most) {
                compute_whole(heads(row, head, sequence, int(std::min(most, end - head))));
            }
        }
    }

    void compute_whole(const Heads & heads) const {
        alignas(64) float of_chunk[HEADS][NUMBERS];
        float *results[HEADS], *chunk_results[HEADS];
        Weight all[HEADS], chunk[HEADS];
        for (int h = 0; h < heads.n; ++h) {
            results[h] = result(heads.row, heads.head + h, heads.sequence);
            chunk_results[h] = of_chunk[h];
            all[h] = NOTHING;
        }
        const std::uint16_t * mask_of_heads = mask_of(heads.row, heads.head, heads.sequence);
        Seen seen;
        for (std::int64_t cell = 0; cell < k->ne[1];) {
            cell = find_seen(mask_of_heads, cell, k->ne[1], seen);
            if (seen.n == 0) {
                break;
            }
            attend_to(heads, seen, chunk, chunk_results);
            for (int h = 0; h < heads.n; ++h) {
                merge(all[h], results[h], chunk[h], of_chunk[h], v->ne[0]);
            }
        }
        for (int h = 0; h < heads.n; ++h) {
            finish(all[h], sink(heads.head + h), results[h], v->ne[0]);
        }
    }

    // One row has few units. Then threads take chunks of them in turn, and merge them
    // when all are there. What a chunk came to lies in ggml's work memory: the weight,
    // then the sums.

    std::int64_t n_parts() const { return (k->ne[1] + CHUNK - 1) / CHUNK; }
    std::int64_t part_size() const { return v->ne[0] + 2; }
    bool has_room() const {
        return std::size_t(n_parts() * q->ne[2] * part_size()) * sizeof(float) <= params->wsize;
    }
    float * part(std::int64_t head, std::int64_t chunk) const {
        return static_cast<float *>(params->wdata) + (head * n_parts() + chunk) * part_size();
    }

    void compute_in_parts() const {
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        Seen seen;
        std::int64_t n_found = 0, cell = 0;
        for (std::int64_t item = params->ith; item < n_parts() * k->ne[2];
             item = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const std::int64_t chunk = item / k->ne[2], kv_head = item % k->ne[2], end = (kv_head + 1) * group;
            for (; n_found <= chunk; ++n_found) {
                cell = find_seen(mask_of(0, 0, 0), cell, k->ne[1], seen);
            }
            for (std::int64_t head = kv_head * group; head < end; head += HEADS) {
                compute_part(heads(0, head, 0, int(std::min<std::int64_t>(HEADS, end - head))), chunk, seen);
            }
        }
        ggml_barrier(params->threadpool);
        for (std::int64_t head = params->ith; head < q->ne[2]; head += params->nth) {
            Weight all = NOTHING;
            for (std::int64_t chunk = 0; chunk < n_parts(); ++chunk) {
                Weight weight;
                std::memcpy(&weight, part(head, chunk), sizeof(weight));
                if (weight.sum != 0) {
                    merge(all, result(0, head, 0), weight, part(head, chunk) + 2, v->ne[0]);
                }
            }
            finish(all, sink(head), result(0, head, 0), v->ne[0]);
        }
    }

    void compute_part(const Heads & heads, std::int64_t chunk, const Seen & seen) const {
        Weight weights[HEADS] = {NOTHING, NOTHING, NOTHING, NOTHING};
        if (seen.n > 0) {
            float * results[HEADS];
            for (int h = 0; h < heads.n; ++h) {
                results[h] = part(heads.head + h, chunk) + 2;
            }
            attend_to(heads, seen, weights, results);
        }
        for (int h = 0; h < heads.n; ++h) {
            std::memcpy(part(heads.head + h, chunk), &weights[h], sizeof(Weight));
        }
    }
};

}  // namespace mullama

#endif

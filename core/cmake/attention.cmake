# Attention on the CPU takes little time for the cells of other sequences, and for
# reading what it multiplies.
#
# All sequences of a model share one KV cache, so a row's mask hides the cells of
# all others. As it comes, ggml looks at them one by one, for each row, head and
# layer; and from 64 rows on it multiplies whole tiles of rows and cells, hidden
# or not. With many sequences that is most of a step. Here a copy of ggml's
# operators passes over hidden cells in blocks, and takes no tiles where rows see
# different cells. Which cells count stays the same; sums are rounded as ggml
# rounds them for fewer rows.
#
# Before a tile is multiplied, ggml widens its mask and its cells number by number,
# of hidden tiles as well, and looks for the largest products in the same way. That
# takes longer than the products. Here vectors of AVX do it, with the same results.
#
# Fewer rows ggml takes cell by cell and head by head: a call for each product, the
# exponential function of each logit by itself, sums of 16 bits. Here the heads that
# share a cell are computed together, many cells at once, with sums of 32 bits.
#
# `masked_cells.h`, `attention_tiles.h` and `attention_rows.h` have the functions; the
# places that call them are replaced below.

set(MULLAMA_MASKED_CELLS "${CMAKE_CURRENT_LIST_DIR}/masked_cells.h")
set(MULLAMA_ATTENTION_TILES "${CMAKE_CURRENT_LIST_DIR}/attention_tiles.h")
set(MULLAMA_ATTENTION_ROWS "${CMAKE_CURRENT_LIST_DIR}/attention_rows.h")
set(MULLAMA_ATTENTION_OPERATOR "${CMAKE_CURRENT_LIST_DIR}/attention_operator.h")

function(mullama_change_attention)
    set(file "ggml-cpu/ops.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
        "${MULLAMA_MASKED_CELLS}" "${MULLAMA_ATTENTION_TILES}" "${MULLAMA_ATTENTION_ROWS}"
        "${MULLAMA_ATTENTION_OPERATOR}")
    file(READ "${MULLAMA_MASKED_CELLS}" cells)
    file(READ "${MULLAMA_ATTENTION_TILES}" tiles)
    file(READ "${MULLAMA_ATTENTION_ROWS}" rows)
    file(READ "${MULLAMA_ATTENTION_OPERATOR}" operator)
    file(READ "${original}" text)
    mullama_replace_once(text "ggml's attention"
        "static void ggml_compute_forward_flash_attn_ext_f16(\n"
        "${operator}\nstatic void ggml_compute_forward_flash_attn_ext_f16(\n")
    mullama_replace_once(text "ggml's attention"
        "    if (use_split_kv_path) {\n"
        "#ifdef MULLAMA_ROWS_IN_VECTORS
    const bool is_for_tiles = !use_ref && q->type == GGML_TYPE_F32 && kv_is_f32_or_f16 && k->type == v->type &&
        neq1 >= ggml_fa_tile_config::Q && !mullama::see_different(dst->src[3], neq1, nek1);
    if (const mullama::Attention attention(params, dst); !is_for_tiles && attention.is_fit()) {
        attention.compute();
        return;
    }
#endif
    if (use_split_kv_path) {\n")
    mullama_replace_once(text "ggml's attention"
        "if (mv == -INFINITY) {\n                continue;"
        "if (mv == -INFINITY) { ic = mullama::last_masked(mp, ic, ic_end);\n                continue;")
    mullama_replace_once(text "ggml's attention"
        "neq1 >= Q_TILE_SZ);"
        "neq1 >= Q_TILE_SZ && !mullama::see_different(dst->src[3], neq1, nek1));")
    mullama_replace_once(text "ggml's attention"
        "for (int tk = 0; tk < kv_tile; tk++) {
                        mask32[tq * KV_TILE_SZ + tk] = slope * GGML_CPU_FP16_TO_FP32(mp_row[ic + tk]);
                        if (mask32[tq * KV_TILE_SZ + tk] != -INFINITY) {
                            can_skip = false;
                        }
                    }"
        "if (mullama::widen_mask(mp_row + ic, kv_tile, slope, mask32 + tq * KV_TILE_SZ,
                                            [](ggml_fp16_t half) { return GGML_CPU_FP16_TO_FP32(half); })) {
                        can_skip = false;
                    }")
    mullama_replace_once(text "ggml's attention"
        "for (int tk = 0; tk < kv_tile; tk++) {\n                const char * k_data ="
        "const int n_transposed = kv_type != GGML_TYPE_F16 ? 0 : mullama::transpose_cells(
                (const char *)k->data + ic*nbk1 + ik2*nbk2 + ik3*nbk3, nbk1, kv_tile, DK, K_f32, KV_TILE_SZ);
            for (int tk = n_transposed; tk < kv_tile; tk++) {\n                const char * k_data =")
    mullama_replace_once(text "ggml's attention"
        "float tile_max;\n                ggml_vec_max_f32(KV_TILE_SZ, &tile_max, kq_row);"
        "const float tile_max = mullama::largest(kq_row, KV_TILE_SZ);")
    mullama_compile_copy("${file}" "${cells}\n${tiles}\n${rows}\n#line 1 \"${original}\"\n${text}")
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_change_attention)

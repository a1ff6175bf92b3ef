# Attention on the CPU takes little time for cells that a row does not see, and reads
# those once that several queries see.
#
# All sequences of a model share one KV cache, so a row's mask hides the cells of all
# others. As it comes, ggml looks at them one by one, for each row, head and layer; and
# from 64 rows on it multiplies whole tiles of rows and cells, hidden or not. With many
# sequences that is most of a step. What a row sees is computed cell by cell and head by
# head: a call for each product, the exponential function of each logit by itself, sums
# of 16 bits. Tiles widen mask and cells number by number, for each head again.
#
# Here hidden cells are passed over in blocks, and all queries of a KV head that see the
# same cells are computed together, many cells at once, with sums of 32 bits. That needs
# AVX2 or AVX-512, and cells of 16 or 8 bits. What lacks that is computed as ggml does
# it, but for hidden cells: these are passed over, and no tiles are taken where rows see
# different ones.
#
# `masked_cells.h` and `attention_rows.h` have the functions, `attention_operator.h`
# calls them.

set(MULLAMA_MASKED_CELLS "${CMAKE_CURRENT_LIST_DIR}/masked_cells.h")
set(MULLAMA_ATTENTION_VECTORS "${CMAKE_CURRENT_LIST_DIR}/attention_vectors.h")
set(MULLAMA_ATTENTION_ROWS "${CMAKE_CURRENT_LIST_DIR}/attention_rows.h")
set(MULLAMA_ATTENTION_OPERATOR "${CMAKE_CURRENT_LIST_DIR}/attention_operator.h")

function(mullama_change_attention)
    set(file "ggml-cpu/ops.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
        "${MULLAMA_MASKED_CELLS}" "${MULLAMA_ATTENTION_VECTORS}" "${MULLAMA_ATTENTION_ROWS}"
        "${MULLAMA_ATTENTION_OPERATOR}")
    file(READ "${MULLAMA_MASKED_CELLS}" cells)
    file(READ "${MULLAMA_ATTENTION_VECTORS}" vectors)
    file(READ "${MULLAMA_ATTENTION_ROWS}" rows)
    file(READ "${MULLAMA_ATTENTION_OPERATOR}" operator)
    file(READ "${original}" text)
    mullama_replace_once(text "ggml's attention"
        "static void ggml_compute_forward_flash_attn_ext_f16(\n"
        "${operator}\nstatic void ggml_compute_forward_flash_attn_ext_f16(\n")
    mullama_replace_once(text "ggml's attention"
        "    if (use_split_kv_path) {\n"
        "#ifdef MULLAMA_ROWS_IN_VECTORS
    if (const mullama::Attention attention(params, dst); attention.is_fit()) {
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
    mullama_compile_copy("ggml/src" "${file}" "${cells}\n${vectors}\n${rows}\n#line 1 \"${original}\"\n${text}")
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_change_attention)

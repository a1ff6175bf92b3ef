# Attention on the CPU takes little time for the cells of other sequences.
#
# All sequences of a model share one KV cache, so a row's mask hides the cells of
# all others. As it comes, ggml looks at them one by one, for each row, head and
# layer; and from 64 rows on it multiplies whole tiles of rows and cells, hidden
# or not. With many sequences that is most of a step. Here a copy of ggml's
# operators passes over hidden cells in blocks, and takes no tiles where rows see
# different cells. Which cells count stays the same; sums are rounded as ggml
# rounds them for fewer rows.
#
# `masked_cells.h` has the functions; the places that call them are replaced
# below.

set(MULLAMA_MASKED_CELLS "${CMAKE_CURRENT_LIST_DIR}/masked_cells.h")

function(mullama_pass_over_masked_cells)
    set(file "ggml-cpu/ops.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${MULLAMA_MASKED_CELLS}")
    file(READ "${MULLAMA_MASKED_CELLS}" functions)
    file(READ "${original}" text)
    mullama_replace_once(text "ggml's attention"
        "if (mv == -INFINITY) {\n                continue;"
        "if (mv == -INFINITY) { ic = mullama::last_masked(mp, ic, ic_end);\n                continue;")
    mullama_replace_once(text "ggml's attention"
        "neq1 >= Q_TILE_SZ);"
        "neq1 >= Q_TILE_SZ && !mullama::see_different(dst->src[3], neq1, nek1));")
    mullama_compile_copy("${file}" "${functions}\n#line 1 \"${original}\"\n${text}")
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_pass_over_masked_cells)

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
# below. Where the pinned llama.cpp has other text there, the build ends.

set(MULLAMA_MASKED_CELLS "${CMAKE_CURRENT_LIST_DIR}/masked_cells.h")

function(mullama_replace_once variable from to)
    string(FIND "${${variable}}" "${from}" first)
    string(FIND "${${variable}}" "${from}" last REVERSE)
    if (first EQUAL -1 OR NOT first EQUAL last)
        message(FATAL_ERROR "mullama: ggml's attention is not the one that masked_cells.cmake changes. It lacks, "
            "or has more than once:\n${from}")
    endif()
    string(REPLACE "${from}" "${to}" changed "${${variable}}")
    set(${variable} "${changed}" PARENT_SCOPE)
endfunction()

function(mullama_pass_over_masked_cells)
    set(folder "${CMAKE_SOURCE_DIR}/ggml/src")
    set(original "${folder}/ggml-cpu/ops.cpp")
    set(copy "${CMAKE_BINARY_DIR}/mullama/ops.cpp")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${original}" "${MULLAMA_MASKED_CELLS}")

    file(READ "${original}" text)
    mullama_replace_once(text
        "if (mv == -INFINITY) {\n                continue;"
        "if (mv == -INFINITY) { ic = mullama::last_masked(mp, ic, ic_end);\n                continue;")
    mullama_replace_once(text
        "neq1 >= Q_TILE_SZ);"
        "neq1 >= Q_TILE_SZ && !mullama::see_different(dst->src[3], neq1, nek1));")
    file(READ "${MULLAMA_MASKED_CELLS}" functions)
    file(WRITE "${copy}.new" "${functions}\n#line 1 \"${original}\"\n${text}")
    # A copy that is the same is not compiled again.
    configure_file("${copy}.new" "${copy}" COPYONLY)
    file(REMOVE "${copy}.new")

    # One, or one for each variant.
    get_property(targets DIRECTORY "${folder}" PROPERTY BUILDSYSTEM_TARGETS)
    foreach (target IN LISTS targets)
        get_target_property(sources ${target} SOURCES)
        list(TRANSFORM sources REPLACE "^(.*/)?ggml-cpu/ops\\.cpp$" "${copy}" OUTPUT_VARIABLE changed)
        if (NOT "${changed}" STREQUAL "${sources}")
            set_property(TARGET ${target} PROPERTY SOURCES "${changed}")
        endif()
    endforeach()
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_pass_over_masked_cells)

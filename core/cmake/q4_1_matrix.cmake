# Weights of the type Q4_1 are multiplied with many rows at a time on x86.
#
# As it comes, ggml has kernels for Q4_0, Q8_0 and the K types that take some
# rows and some columns together. Q4_1 has none: each pair of a row and a column
# unpacks its weights and converts its scales again. Here a copy of ggml's matrix
# kernels has one more. It rounds as ggml does for one column, so a result is the
# same bit for bit, however many columns are computed together.
#
# `q4_1_matrix.h` has the kernel; the place that calls it is inserted below.
# Compilers without GCC's vectors, and x86 without AVX2, have ggml's own way.

set(MULLAMA_Q4_1_MATRIX "${CMAKE_CURRENT_LIST_DIR}/q4_1_matrix.h")

function(mullama_multiply_q4_1)
    set(file "ggml-cpu/llamafile/sgemm.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${MULLAMA_Q4_1_MATRIX}")
    file(READ "${MULLAMA_Q4_1_MATRIX}" functions)
    file(READ "${original}" text)
    mullama_replace_once(text "the list of ggml's matrix kernels"
        "#include \"sgemm.h\""
        "#include \"llamafile/sgemm.h\"")
    # Threads take chunks of rows in turn, as in ggml's own kernels. The second
    # barrier is for a further call, which would begin to count anew.
    mullama_replace_once(text "the list of ggml's matrix kernels"
        "    switch (Atype) {\n"
        "    switch (Atype) {
#ifdef MULLAMA_Q4_1_MATRIX
    case GGML_TYPE_Q4_1: {
        if (Btype != GGML_TYPE_Q8_1 || k > mullama::MOST_BLOCKS) {
            return false;
        }
        static_assert(sizeof(mullama::Weights) == sizeof(block_q4_1) && sizeof(mullama::Values) == sizeof(block_q8_1));
        static_assert(offsetof(mullama::Weights, nibbles) == offsetof(block_q4_1, qs));
        static_assert(offsetof(mullama::Values, bytes) == offsetof(block_q8_1, qs));
        const mullama::Matrix matrix{ (const mullama::Weights *)A, lda, k };
        const int64_t rows = mullama::rows_of_chunk(m, params->nth);
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        for (int64_t row = params->ith * rows; row < m;
             row = ggml_threadpool_chunk_add(params->threadpool, 1) * rows) {
            mullama::multiply(matrix, row, std::min(row + rows, m), (const mullama::Values *)B, ldb, n,
                              (float *)C, ldc);
        }
        ggml_barrier(params->threadpool);
        return true;
    }
#endif
")
    mullama_compile_copy("${file}" "${functions}\n#line 1 \"${original}\"\n${text}")
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_multiply_q4_1)

# Weights of the types Q4_1, Q5_0, Q5_1 and Q8_0 are multiplied in tiles on x86.
#
# As it comes, ggml multiplies them pair by pair of a row and a column: it unpacks the
# weights and converts the scales for each pair again, adds up what the lanes of a
# vector have for each, and waits for memory at each row. Here a copy of ggml's matrix
# kernels has others: a lane is for a row, so that nothing is added up between lanes,
# and a block of the rows is unpacked once for all columns. A column's sums are the
# same bit for bit, however many columns are computed together.
#
# `matrix_kernels.h` has them, `matrix_formats.h` and `matrix_vectors.h` what they are
# made of; the place that calls them is inserted below. They need AVX2, FMA, F16C and
# a compiler with GCC's vectors, and as many rows as a vector has lanes. Products with
# fewer rows, and all where there is AVX without AVX2, are left to what ggml does for
# single columns, pair by pair: what it has there for more columns sums up in another
# order.

set(MULLAMA_MATRIX_KERNELS "${CMAKE_CURRENT_LIST_DIR}/matrix_kernels.h")
set(MULLAMA_MATRIX_FORMATS "${CMAKE_CURRENT_LIST_DIR}/matrix_formats.h")
set(MULLAMA_MATRIX_VECTORS "${CMAKE_CURRENT_LIST_DIR}/matrix_vectors.h")

function(mullama_add_matrix_kernels)
    set(file "ggml-cpu/llamafile/sgemm.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
        "${MULLAMA_MATRIX_KERNELS}" "${MULLAMA_MATRIX_FORMATS}" "${MULLAMA_MATRIX_VECTORS}")
    file(READ "${MULLAMA_MATRIX_VECTORS}" vectors)
    file(READ "${MULLAMA_MATRIX_FORMATS}" formats)
    file(READ "${MULLAMA_MATRIX_KERNELS}" functions)
    mullama_replace_once(formats "the formats of the matrix kernels" "#include \"matrix_vectors.h\"\n" "${vectors}")
    mullama_replace_once(functions "the header of the matrix kernels" "#include \"matrix_formats.h\"\n" "${formats}")
    file(READ "${original}" text)
    mullama_replace_once(text "the list of ggml's matrix kernels"
        "#include \"sgemm.h\""
        "#include \"llamafile/sgemm.h\"")
    # Threads take parts in turn, as in ggml's own kernels. The second barrier is
    # for a further call, which would begin to count anew.
    mullama_replace_once(text "the list of ggml's matrix kernels"
        "    // only enable sgemm for prompt processing\n"
        "#ifdef MULLAMA_MATRIX_KERNELS
    static_assert(sizeof(mullama::Q4_1::Weights) == sizeof(block_q4_1));
    static_assert(offsetof(mullama::Q4_1::Weights, least) == offsetof(block_q4_1, m));
    static_assert(offsetof(mullama::Q4_1::Weights, nibbles) == offsetof(block_q4_1, qs));
    static_assert(sizeof(mullama::Q4_1::Values) == sizeof(block_q8_1));
    static_assert(offsetof(mullama::Q4_1::Values, sum) == offsetof(block_q8_1, s));
    static_assert(offsetof(mullama::Q4_1::Values, bytes) == offsetof(block_q8_1, qs));
    static_assert(sizeof(mullama::Q8_0::Weights) == sizeof(block_q8_0));
    static_assert(offsetof(mullama::Q8_0::Weights, bytes) == offsetof(block_q8_0, qs));
    static_assert(sizeof(mullama::Q5_0::Weights) == sizeof(block_q5_0));
    static_assert(offsetof(mullama::Q5_0::Weights, bits) == offsetof(block_q5_0, qh));
    static_assert(offsetof(mullama::Q5_0::Weights, nibbles) == offsetof(block_q5_0, qs));
    static_assert(sizeof(mullama::Q5_1::Weights) == sizeof(block_q5_1));
    static_assert(offsetof(mullama::Q5_1::Weights, least) == offsetof(block_q5_1, m));
    static_assert(offsetof(mullama::Q5_1::Weights, bits) == offsetof(block_q5_1, qh));
    static_assert(offsetof(mullama::Q5_1::Weights, nibbles) == offsetof(block_q5_1, qs));
    const auto multiply = [&](auto format) {
        using Format = decltype(format);
        if (m < mullama::LANES) {
            return false;
        }
        const mullama::Matrix<Format> matrix{ (const typename Format::Weights *)A, lda, k };
        const auto * columns = (const typename Format::Values *)B;
        if (mullama::is_short(m, n, k, params->nth)) {
            const int64_t from = mullama::first_row_of(params->ith, params->nth, m);
            const int64_t to = mullama::first_row_of(params->ith + 1, params->nth, m);
            matrix.multiply(from, to, columns, ldb, n, (float *)C, ldc);
            return true;
        }
        const mullama::Parts parts(m, n, params->nth);
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        for (int64_t part = params->ith; part < parts.n; part = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            mullama::multiply_part(matrix, m, columns, ldb, n, (float *)C, ldc, parts, part);
        }
        ggml_barrier(params->threadpool);
        return true;
    };
    if (n > 0 && k > 0 && Ctype == GGML_TYPE_F32) {
        if (Atype == GGML_TYPE_Q4_1 && Btype == GGML_TYPE_Q8_1) {
            return multiply(mullama::Q4_1{});
        }
        if (Atype == GGML_TYPE_Q5_1 && Btype == GGML_TYPE_Q8_1) {
            return multiply(mullama::Q5_1{});
        }
        if (Atype == GGML_TYPE_Q5_0 && Btype == GGML_TYPE_Q8_0) {
            return multiply(mullama::Q5_0{});
        }
        if (Atype == GGML_TYPE_Q8_0 && Btype == GGML_TYPE_Q8_0) {
            return multiply(mullama::Q8_0{});
        }
    }
#elif defined(__AVX__) && !defined(__AVX2__)
    // Here ggml sums what it multiplies in another order than for one column.
    if (Atype != GGML_TYPE_F32 && Atype != GGML_TYPE_F16 && Atype != GGML_TYPE_BF16) {
        return false;
    }
#endif

    // only enable sgemm for prompt processing
")
    mullama_compile_copy("ggml/src" "${file}" "${functions}\n#line 1 \"${original}\"\n${text}")
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_add_matrix_kernels)

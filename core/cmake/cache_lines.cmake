# What is computed on the CPU begins at the beginning of a cache line.
#
# As it comes, ggml lays tensors out at multiples of 32 bytes. What a graph
# computes lies behind its inputs, so the number of its rows, outputs and
# sequences decides whether it begins in the middle of a line. Then all that AMX
# and AVX-512 write, 64 bytes at a time, lies on two lines.

function(mullama_align_to_cache_lines)
    set(file "ggml-backend.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    file(READ "${original}" text)
    mullama_replace_once(text "ggml's buffer on the CPU"
        "ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {\n    return TENSOR_ALIGNMENT;"
        "ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {\n    return 64;")
    mullama_compile_copy("${file}" "#line 1 \"${original}\"\n${text}")
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_align_to_cache_lines)

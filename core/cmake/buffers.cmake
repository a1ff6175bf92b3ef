# Where the CPU's tensors lie in memory.
#
# What is computed begins at the beginning of a cache line. As it comes, ggml lays
# tensors out at multiples of 32 bytes. What a graph computes lies behind its
# inputs, so the number of its rows, outputs and sequences decides whether it
# begins in the middle of a line. Then all that AMX and AVX-512 write, 64 bytes at
# a time, lies on two lines.
#
# Large ones that are written as a whole are on huge pages, where Linux has them:
# those that are cleared, and weights that are not mapped from their file, such as
# all that AMX has its own layout for. llama.cpp clears the whole KV cache when it
# makes a context: with pages of 4 KiB that is a fault for each. Smaller ones may lie
# in the heap: glibc maps what is larger than 32 MiB at the most by itself.

function(mullama_change_buffers)
    set(file "ggml-backend.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    file(READ "${original}" text)
    mullama_replace_once(text "ggml's buffer on the CPU"
        "ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {\n    return TENSOR_ALIGNMENT;"
        "ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {\n    return 64;")
    mullama_replace_once(text "ggml's buffer on the CPU"
        "    memset(buffer->context, value, buffer->size);\n"
        "    mullama_ask_for_huge_pages(buffer);\n    memset(buffer->context, value, buffer->size);\n")
    # llama.cpp says so before it reads them.
    mullama_replace_once(text "ggml's buffer of weights"
        "    buffer->usage = usage;\n\n    // FIXME"
        "    buffer->usage = usage;\n    if (usage == GGML_BACKEND_BUFFER_USAGE_WEIGHTS) {
        mullama_ask_for_huge_pages(buffer);
    }\n\n    // FIXME")
    mullama_replace_once(text "ggml's buffer on the CPU"
        "// backend buffer\n"
        "static void ggml_backend_cpu_buffer_free_buffer(ggml_backend_buffer_t buffer);

// Only advice: where the kernel refuses it, all is as it was. Only of memory that
// the buffer has allocated.
static void mullama_ask_for_huge_pages(ggml_backend_buffer_t buffer) {
#if defined(__linux__)
    const bool is_allocated = buffer->iface.free_buffer == ggml_backend_cpu_buffer_free_buffer ||
        (strcmp(ggml_backend_buffer_name(buffer), \"AMX\") == 0 && !ggml_backend_buffer_is_multi_buffer(buffer));
    const uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t) buffer->context + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t) buffer->context + buffer->size) / page * page;
    if (is_allocated && end > first && end - first > 32 << 20) {
        madvise((void *) first, end - first, MADV_HUGEPAGE);
    }
#else
    GGML_UNUSED(buffer);
#endif
}

// backend buffer
")
    mullama_compile_copy("${file}" "#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif
#line 1 \"${original}\"\n${text}")
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_change_buffers)

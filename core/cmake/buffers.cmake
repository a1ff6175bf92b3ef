# Where the CPU's tensors lie in memory.
#
# What is computed begins at the beginning of a cache line. As it comes, ggml lays
# tensors out at multiples of 32 bytes. What a graph computes lies behind its
# inputs, so the number of its rows, outputs and sequences decides whether it
# begins in the middle of a line. Then all that AMX and AVX-512 write, 64 bytes at
# a time, lies on two lines.
#
# Large ones that are cleared are on huge pages, where Linux has them. llama.cpp
# clears the whole KV cache when it makes a context: with pages of 4 KiB that is a
# fault for each. Smaller ones may lie in the heap: glibc maps what is larger than
# 32 MiB at the most by itself.

function(mullama_change_buffers)
    set(file "ggml-backend.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    file(READ "${original}" text)
    mullama_replace_once(text "ggml's buffer on the CPU"
        "ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {\n    return TENSOR_ALIGNMENT;"
        "ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {\n    return 64;")
    # Only advice: where the kernel refuses it, all is as it was. Only of memory that
    # the buffer has allocated.
    mullama_replace_once(text "ggml's buffer on the CPU"
        "    memset(buffer->context, value, buffer->size);\n"
        "#if defined(__linux__)
    const uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t) buffer->context + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t) buffer->context + buffer->size) / page * page;
    if (buffer->iface.free_buffer == ggml_backend_cpu_buffer_free_buffer && end > first && end - first > 32 << 20) {
        madvise((void *) first, end - first, MADV_HUGEPAGE);
    }
#endif
    memset(buffer->context, value, buffer->size);
")
    mullama_compile_copy("${file}" "#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif
#line 1 \"${original}\"\n${text}")
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_change_buffers)

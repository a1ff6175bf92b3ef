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
# makes a context: with pages of 4 KiB that is a fault for each. Several threads do it,
# because a system may give memory slowly that has not been used before. Smaller ones may lie
# in the heap: glibc maps what is larger than 32 MiB at the most by itself.
#
# A context that lives for a few seconds, and whose memory was counted, need not wait
# until all of it is cleared: `mullama_promise_cleared_memory` tells that of the calling
# thread. Then the kernel is asked to give zeros where it is used.

function(mullama_change_buffers)
    set(file "ggml-backend.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    file(READ "${original}" text)
    mullama_replace_once(text "ggml's buffer on the CPU"
        "ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {\n    return TENSOR_ALIGNMENT;"
        "ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {\n    return 64;")
    mullama_replace_once(text "ggml's buffer on the CPU"
        "    memset(buffer->context, value, buffer->size);\n"
        "    mullama_ask_for_huge_pages(buffer);
    if (value != 0 || !mullama_promise_zeros(buffer)) {
        mullama_fill((char *) buffer->context, buffer->size, value);
    }
")
    # llama.cpp says so before it reads them.
    mullama_replace_once(text "ggml's buffer of weights"
        "    buffer->usage = usage;\n\n    // FIXME"
        "    buffer->usage = usage;\n    if (usage == GGML_BACKEND_BUFFER_USAGE_WEIGHTS) {
        mullama_ask_for_huge_pages(buffer);
    }\n\n    // FIXME")
    mullama_replace_once(text "ggml's buffer on the CPU"
        "// backend buffer\n"
        "static void ggml_backend_cpu_buffer_free_buffer(ggml_backend_buffer_t buffer);

#if defined(__linux__)
// The whole pages of a buffer; none where somebody else has allocated it.
struct mullama_pages {
    char * first;
    char * end;
};

static mullama_pages mullama_pages_of(ggml_backend_buffer_t buffer) {
    const bool is_allocated = buffer->iface.free_buffer == ggml_backend_cpu_buffer_free_buffer ||
        (strcmp(ggml_backend_buffer_name(buffer), \"AMX\") == 0 && !ggml_backend_buffer_is_multi_buffer(buffer));
    const uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t) buffer->context + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t) buffer->context + buffer->size) / page * page;
    if (!is_allocated || end <= first) {
        return { nullptr, nullptr };
    }
    return { (char *) first, (char *) end };
}

static thread_local bool mullama_promises_cleared_memory = false;

extern \"C\" void mullama_promise_cleared_memory(bool promises) {
    mullama_promises_cleared_memory = promises;
}
#endif

// Only advice: where the kernel refuses it, all is as it was.
static void mullama_ask_for_huge_pages(ggml_backend_buffer_t buffer) {
#if defined(__linux__)
    const mullama_pages pages = mullama_pages_of(buffer);
    if (pages.end - pages.first > 32 << 20) {
        madvise(pages.first, pages.end - pages.first, MADV_HUGEPAGE);
    }
#else
    GGML_UNUSED(buffer);
#endif
}

// On several threads where it is much: what takes time is to get pages.
static void mullama_fill(char * first, size_t size, uint8_t value) {
    const size_t part = std::max<size_t>(32 << 20, size / std::max(1u, std::thread::hardware_concurrency()) + 1);
    std::vector<std::thread> threads;
    size_t from = 0;
    try {
        for (; from + part < size; from += part) {
            threads.emplace_back([=] { memset(first + from, value, part); });
        }
    } catch (const std::exception &) {
        // No more threads, or no memory for them.
    }
    memset(first + from, value, size - from);
    for (std::thread & thread : threads) {
        thread.join();
    }
}

// Whether all of the buffer reads as zero now, with pages that are there when used.
static bool mullama_promise_zeros(ggml_backend_buffer_t buffer) {
#if defined(__linux__)
    const mullama_pages pages = mullama_pages_of(buffer);
    // What is private and of no file reads as zero after this.
    if (!mullama_promises_cleared_memory || pages.first == nullptr ||
        madvise(pages.first, pages.end - pages.first, MADV_DONTNEED) != 0) {
        return false;
    }
    char * const first = (char *) buffer->context;
    memset(first, 0, pages.first - first);
    memset(pages.end, 0, first + buffer->size - pages.end);
    return true;
#else
    GGML_UNUSED(buffer);
    return false;
#endif
}

// backend buffer
")
    mullama_compile_copy("${file}" "#include <thread>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif
#line 1 \"${original}\"\n${text}")

    # By name, since ggml-cpu may be a module.
    set(file "ggml-cpu/ggml-cpu.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    file(READ "${original}" text)
    mullama_replace_once(text "the list of ggml's functions"
        "    if (strcmp(name, \"ggml_threadpool_new\") == 0) {"
        "#if defined(__linux__)
    if (strcmp(name, \"mullama_promise_cleared_memory\") == 0) {
        return (void *)mullama_promise_cleared_memory;
    }
#endif
    if (strcmp(name, \"ggml_threadpool_new\") == 0) {")
    mullama_compile_copy("${file}" "extern \"C\" void mullama_promise_cleared_memory(bool promises);
#line 1 \"${original}\"\n${text}")
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_change_buffers)

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
# makes a context. Several threads do it. Where huge pages turn out to be slow to get,
# small ones are taken, and the kernel makes huge ones of them later.
#
# A context that is there for one prompt, and whose memory was counted, need not wait
# until all of it is cleared: `mullama_promise_cleared_memory` tells that of the calling
# thread. Then the kernel is asked to give zeros where it is used.
#
# And what a context will need can be cleared while its model is loaded:
# `mullama_prepare_memory` begins with it, `mullama_offer_prepared_memory` has the buffers
# that the calling thread makes take it, if the size is right, and
# `mullama_free_prepared_memory` ends it.
#
# All that and the buffers are those of ggml-cpu's library, which is told by the
# functions' names.
#
# `cleared_memory.h` has the functions.

set(MULLAMA_CLEARED_MEMORY "${CMAKE_CURRENT_LIST_DIR}/cleared_memory.h")

function(mullama_change_buffers)
    set(file "ggml-backend.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${MULLAMA_CLEARED_MEMORY}")
    file(READ "${MULLAMA_CLEARED_MEMORY}" memory)
    file(READ "${original}" text)
    mullama_replace_once(text "ggml's buffer on the CPU"
        "ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {\n    return TENSOR_ALIGNMENT;"
        "ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {\n    return 64;")
    mullama_replace_once(text "ggml's buffer on the CPU"
        "(ggml_backend_buffer_type_t buft, size_t size) {\n    void * data = ggml_aligned_malloc(size);\n"
        "(ggml_backend_buffer_type_t buft, size_t size) {\n    void * data = mullama::take_offered(size);
    if (data == NULL) {
        data = ggml_aligned_malloc(size);
    }
")
    mullama_replace_once(text "ggml's buffer on the CPU"
        "    memset(buffer->context, value, buffer->size);\n"
        "    char * const first = (char *) buffer->context;
    if (mullama::was_prepared(first) && value == 0) {
        return;
    }
    if (!mullama_is_allocated(buffer)) {
        memset(first, value, buffer->size);
    } else if (value != 0 || !mullama::promise_zeros(first, buffer->size)) {
        mullama::fill(first, buffer->size, value);
    }
")
    # llama.cpp says so before it reads them.
    mullama_replace_once(text "ggml's buffer of weights"
        "    buffer->usage = usage;\n\n    // FIXME"
        "    buffer->usage = usage;\n    if (usage == GGML_BACKEND_BUFFER_USAGE_WEIGHTS) {
        mullama_use_huge_pages(buffer);
    }\n\n    // FIXME")
    mullama_replace_once(text "ggml's buffer on the CPU"
        "// backend buffer\n"
        "static void ggml_backend_cpu_buffer_free_buffer(ggml_backend_buffer_t buffer);

// Not of somebody else's memory, nor of a mapped file's.
static bool mullama_is_allocated(ggml_backend_buffer_t buffer) {
    return buffer->iface.free_buffer == ggml_backend_cpu_buffer_free_buffer ||
        (strcmp(ggml_backend_buffer_name(buffer), \"AMX\") == 0 && !ggml_backend_buffer_is_multi_buffer(buffer));
}

static void mullama_use_huge_pages(ggml_backend_buffer_t buffer) {
    if (buffer->size > mullama::LARGE && mullama_is_allocated(buffer)) {
        mullama::ask_for_huge_pages((char *) buffer->context, buffer->size);
    }
}

// backend buffer
")
    mullama_compile_copy("ggml/src" "${file}" "${memory}\n#line 1 \"${original}\"\n${text}")

    set(file "ggml-cpu/ggml-cpu.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    file(READ "${original}" text)
    mullama_replace_once(text "the list of ggml's functions"
        "    if (strcmp(name, \"ggml_threadpool_new\") == 0) {"
        "#if defined(__linux__)
    if (strcmp(name, \"mullama_promise_cleared_memory\") == 0) {
        return (void *)mullama_promise_cleared_memory;
    }
    if (strcmp(name, \"mullama_prepare_memory\") == 0) {
        return (void *)mullama_prepare_memory;
    }
    if (strcmp(name, \"mullama_offer_prepared_memory\") == 0) {
        return (void *)mullama_offer_prepared_memory;
    }
    if (strcmp(name, \"mullama_free_prepared_memory\") == 0) {
        return (void *)mullama_free_prepared_memory;
    }
#endif
    if (strcmp(name, \"ggml_threadpool_new\") == 0) {")
    mullama_compile_copy("ggml/src" "${file}" "#include <cstddef>
namespace mullama {
class Prepared;
}
extern \"C\" {
void mullama_promise_cleared_memory(bool promises);
mullama::Prepared * mullama_prepare_memory(std::size_t size, std::size_t n_threads);
void mullama_offer_prepared_memory(mullama::Prepared * prepared);
bool mullama_free_prepared_memory(mullama::Prepared * prepared);
}
#line 1 \"${original}\"\n${text}")
endfunction()

# When that folder's targets are there.
cmake_language(DEFER CALL mullama_change_buffers)

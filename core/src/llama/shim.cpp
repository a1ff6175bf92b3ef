#include "shim.h"

#include <ggml-cpu.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <type_traits>

#if defined(MULLAMA_OPENCL)
// This library comes before llama.cpp's on the linker's command line, and
// OpenCL's between the two, where a linker that goes by the order drops it
// unless something before it needs it.
extern "C" int32_t clGetPlatformIDs(uint32_t, void **, uint32_t *);
extern "C" decltype(&clGetPlatformIDs) mullama_needs_opencl = &clGetPlatformIDs;
#endif

namespace {

// Runs before ggml's own static initializers in this library. Without the
// variable they install a terminate handler for the whole process that forks a
// debugger, which a library inside somebody's process must not do.
__attribute__((constructor(101))) void quiet_backtraces() {
#if !defined(_WIN32)
    setenv("GGML_NO_BACKTRACE", "1", 0);
#endif
}

void put(char * error, size_t error_size, const char * text) {
    if (error != nullptr && error_size > 0) {
        std::snprintf(error, error_size, "%s", text);
    }
}

// Runs `call` and turns whatever it throws into a status.
template <typename Call> int32_t guarded(char * error, size_t error_size, Call && call) noexcept {
    try {
        return call();
    } catch (const std::bad_alloc &) {
        put(error, error_size, "an allocation failed");
        return MULLAMA_BAD_ALLOC;
    } catch (const std::exception & exception) {
        put(error, error_size, exception.what());
        return MULLAMA_EXCEPTION;
    } catch (...) {
        put(error, error_size, "an exception that is no std::exception");
        return MULLAMA_EXCEPTION;
    }
}

// A function of ggml-cpu, which may be a module that is loaded at run time.
template <typename Function> Function * cpu_proc(const char * name) {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name("CPU");
    return reg == nullptr ? nullptr : reinterpret_cast<Function *>(ggml_backend_reg_get_proc_address(reg, name));
}

// Tells a function of ggml-cpu something that holds while this lives, and the value of
// nothing after it: see `core/cmake/buffers.cmake`. A build without that has none.
template <typename Value> class Told {
  public:
    Told(const char * name, Value value) : tell(value != Value{} ? cpu_proc<void(Value)>(name) : nullptr) {
        if (tell != nullptr) {
            tell(value);
        }
    }
    Told(const Told &) = delete;
    ~Told() {
        if (tell != nullptr) {
            tell(Value{});
        }
    }

  private:
    void (*tell)(Value);
};

} // namespace

// A graph of one operation, which is to call `work` on each thread.
struct mullama_team {
    ggml_backend_t backend     = nullptr;
    ggml_context * tensors     = nullptr;
    ggml_cgraph * graph        = nullptr;
    ggml_backend_set_n_threads_t set_n_threads = nullptr;
    void (*work)(void *)       = nullptr;
    void * data                = nullptr;

    ~mullama_team() {
        ggml_free(tensors);
        ggml_backend_free(backend);
    }
};

static void on_thread(ggml_tensor *, int, int, void * userdata) {
    const auto * team = static_cast<const mullama_team *>(userdata);
    team->work(team->data);
}

extern "C" {

int32_t mullama_start(char * error, size_t error_size) {
    return guarded(error, error_size, []() -> int32_t {
        llama_backend_init();
        ggml_backend_reg_count();
        return MULLAMA_OK;
    });
}

int32_t mullama_backend_load(const char * path, char * error, size_t error_size) {
    return guarded(error, error_size,
                   [&]() -> int32_t { return ggml_backend_load(path) != nullptr ? MULLAMA_OK : MULLAMA_NULL; });
}

int32_t mullama_backend_at(size_t index, mullama_backend * backend, char * error, size_t error_size) {
    return guarded(error, error_size, [&]() -> int32_t {
        if (index >= ggml_backend_reg_count()) {
            return MULLAMA_NULL;
        }
        ggml_backend_reg_t reg = ggml_backend_reg_get(index);
        *backend               = { ggml_backend_reg_name(reg), ggml_backend_reg_dev_count(reg) };
        return MULLAMA_OK;
    });
}

int32_t mullama_device_at(size_t index, mullama_device * device, char * error, size_t error_size) {
    return guarded(error, error_size, [&]() -> int32_t {
        if (index >= ggml_backend_dev_count()) {
            return MULLAMA_NULL;
        }
        ggml_backend_dev_t dev = ggml_backend_dev_get(index);
        size_t free            = 0;
        size_t total           = 0;
        ggml_backend_dev_memory(dev, &free, &total);
        *device = { ggml_backend_dev_name(dev),
                    ggml_backend_dev_description(dev),
                    ggml_backend_reg_name(ggml_backend_dev_backend_reg(dev)),
                    free,
                    total,
                    ggml_backend_dev_type(dev) };
        return MULLAMA_OK;
    });
}

int32_t mullama_model_load(const char * path, const llama_model_params * params, llama_model ** model, char * error,
                           size_t error_size) {
    *model = nullptr;
    return guarded(error, error_size, [&]() -> int32_t {
        *model = llama_model_load_from_file(path, *params);
        return *model != nullptr ? MULLAMA_OK : MULLAMA_NULL;
    });
}

mullama_prepared * mullama_prepare(size_t size, size_t n_threads) {
    mullama_prepared * prepared = nullptr;
    guarded(nullptr, 0, [&]() -> int32_t {
        auto * prepare = cpu_proc<mullama_prepared *(size_t, size_t)>("mullama_prepare_memory");
        prepared       = prepare == nullptr ? nullptr : prepare(size, n_threads);
        return MULLAMA_OK;
    });
    return prepared;
}

bool mullama_prepared_free(mullama_prepared * prepared) {
    return guarded(nullptr, 0, [&]() -> int32_t {
               auto * free_prepared = cpu_proc<bool(mullama_prepared *)>("mullama_free_prepared_memory");
               return free_prepared(prepared) ? MULLAMA_OK : MULLAMA_NULL;
           }) == MULLAMA_OK;
}

int32_t mullama_context_new(llama_model * model, const llama_context_params * params, bool promised,
                            mullama_prepared * prepared, llama_context ** context, char * error, size_t error_size) {
    *context = nullptr;
    return guarded(error, error_size, [&]() -> int32_t {
        // Memory that this thread has cleared is zero, but its pages are there only when used.
        const Told<bool> promise("mullama_promise_cleared_memory", promised);
        // Large memory that this thread asks for is what was prepared, if the size is right.
        const Told<mullama_prepared *> offer("mullama_offer_prepared_memory", prepared);
        *context = llama_init_from_model(model, *params);
        return *context != nullptr ? MULLAMA_OK : MULLAMA_NULL;
    });
}

int32_t mullama_decode(llama_context * context, const llama_batch * batch, char * error, size_t error_size) {
    return guarded(error, error_size, [&]() -> int32_t { return llama_decode(context, *batch); });
}

bool mullama_seq_rm(llama_context * context, llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    return guarded(nullptr, 0, [&]() -> int32_t {
               return llama_memory_seq_rm(llama_get_memory(context), seq_id, p0, p1) ? MULLAMA_OK : MULLAMA_NULL;
           }) == MULLAMA_OK;
}

void mullama_seq_cp(llama_context * context, llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1) {
    guarded(nullptr, 0, [&]() -> int32_t {
        llama_memory_seq_cp(llama_get_memory(context), from, to, p0, p1);
        return MULLAMA_OK;
    });
}

void mullama_memory_clear(llama_context * context, bool data) {
    guarded(nullptr, 0, [&]() -> int32_t {
        llama_memory_clear(llama_get_memory(context), data);
        return MULLAMA_OK;
    });
}

uint32_t mullama_state_version(void) {
    return LLAMA_SESSION_VERSION;
}

size_t mullama_state_size(llama_context * context, llama_seq_id seq_id, char * error, size_t error_size) {
    size_t size = 0;
    guarded(error, error_size, [&]() -> int32_t {
        size = seq_id < 0 ? llama_state_get_size(context) : llama_state_seq_get_size(context, seq_id);
        return MULLAMA_OK;
    });
    return size;
}

size_t mullama_state_get(llama_context * context, llama_seq_id seq_id, uint8_t * data, size_t size, char * error,
                         size_t error_size) {
    size_t written = 0;
    guarded(error, error_size, [&]() -> int32_t {
        written = seq_id < 0 ? llama_state_get_data(context, data, size)
                             : llama_state_seq_get_data(context, data, size, seq_id);
        return MULLAMA_OK;
    });
    return written;
}

size_t mullama_state_set(llama_context * context, llama_seq_id seq_id, const uint8_t * data, size_t size, char * error,
                         size_t error_size) {
    size_t taken = 0;
    guarded(error, error_size, [&]() -> int32_t {
        taken = seq_id < 0 ? llama_state_set_data(context, data, size)
                           : llama_state_seq_set_data(context, data, size, seq_id);
        return MULLAMA_OK;
    });
    return taken;
}

int32_t mullama_tokenize(const llama_vocab * vocab, const char * text, int32_t text_size, llama_token * tokens,
                         int32_t n_tokens_max, bool add_special, bool parse_special, int32_t * status, char * error,
                         size_t error_size) {
    int32_t n_tokens = 0;
    *status = guarded(error, error_size, [&]() -> int32_t {
        n_tokens = llama_tokenize(vocab, text, text_size, tokens, n_tokens_max, add_special, parse_special);
        return MULLAMA_OK;
    });
    return n_tokens;
}

int32_t mullama_token_to_piece(const llama_vocab * vocab, llama_token token, char * piece, int32_t piece_size,
                               bool special, int32_t * status) {
    int32_t size = 0;
    *status = guarded(nullptr, 0, [&]() -> int32_t {
        size = llama_token_to_piece(vocab, token, piece, piece_size, 0, special);
        return MULLAMA_OK;
    });
    return size;
}

int32_t mullama_team_new(ggml_threadpool * pool, mullama_team ** team, char * error, size_t error_size) {
    return guarded(error, error_size, [&]() -> int32_t {
        using set_threadpool_t    = void(ggml_backend_t, ggml_threadpool_t);
        auto * set_threadpool     = cpu_proc<set_threadpool_t>("ggml_backend_cpu_set_threadpool");
        auto made                 = std::make_unique<mullama_team>();
        made->set_n_threads       = cpu_proc<std::remove_pointer_t<ggml_backend_set_n_threads_t>>("ggml_backend_set_n_threads");
        made->backend             = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
        const size_t graph_size   = 1;
        const size_t tensors_size = ggml_tensor_overhead() + ggml_graph_overhead_custom(graph_size, false);
        made->tensors             = ggml_init({ tensors_size, nullptr, /* no_alloc */ true });
        if (set_threadpool == nullptr || made->set_n_threads == nullptr || made->backend == nullptr ||
            made->tensors == nullptr) {
            return MULLAMA_NULL;
        }
        set_threadpool(made->backend, pool);
        ggml_tensor * operation = ggml_custom_4d(made->tensors, GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, on_thread,
                                                 GGML_N_TASKS_MAX, made.get());
        made->graph             = ggml_new_graph_custom(made->tensors, graph_size, false);
        ggml_build_forward_expand(made->graph, operation);
        *team = made.release();
        return MULLAMA_OK;
    });
}

int32_t mullama_team_run(mullama_team * team, int32_t n_threads, void (*work)(void *), void * data, char * error,
                         size_t error_size) {
    return guarded(error, error_size, [&]() -> int32_t {
        team->work = work;
        team->data = data;
        team->set_n_threads(team->backend, n_threads);
        return ggml_backend_graph_compute(team->backend, team->graph);
    });
}

void mullama_team_free(mullama_team * team) {
    delete team;
}

} // extern "C"

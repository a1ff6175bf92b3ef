// The calls into llama.cpp that can throw, each behind a catch-all. Nothing
// that is declared here lets an exception out.
#pragma once

#include <ggml-backend.h>
#include <llama.h>

#include <cstddef>
#include <cstdint>

extern "C" {

// What a call reports besides llama.cpp's own codes.
enum : int32_t {
    MULLAMA_OK        = 0,
    MULLAMA_EXCEPTION = -1001, // a C++ exception; its text is in `error`
    MULLAMA_BAD_ALLOC = -1002, // std::bad_alloc
    MULLAMA_NULL      = -1003, // llama.cpp returned a null pointer
};

// `error` receives at most `error_size` bytes, always ended by a zero byte.

// Starts llama.cpp and makes ggml's registry, which asks the drivers of the
// backends for their devices.
int32_t mullama_start(char * error, size_t error_size);

// Loads a backend's module into ggml's registry. MULLAMA_NULL where ggml does
// not take it.
int32_t mullama_backend_load(const char * path, char * error, size_t error_size);

// A backend of ggml's registry. The name is never freed.
struct mullama_backend {
    const char * name;
    size_t n_devices;
};
// A device of ggml's registry. The strings are never freed.
struct mullama_device {
    const char * name;
    const char * description;
    const char * backend;
    uint64_t memory_free;
    uint64_t memory_total;
    int32_t type; // a ggml_backend_dev_type
};
// MULLAMA_NULL for an index past the last one.
int32_t mullama_backend_at(size_t index, mullama_backend * backend, char * error, size_t error_size);
int32_t mullama_device_at(size_t index, mullama_device * device, char * error, size_t error_size);

int32_t mullama_model_load(const char * path, const llama_model_params * params, llama_model ** model, char * error,
                           size_t error_size);

// Memory of the CPU that other threads clear: see `core/cmake/buffers.cmake`.
struct mullama_prepared;
// On so many threads, but no more than 7. Null where there is too little memory, and in a
// build without that.
mullama_prepared * mullama_prepare(size_t size, size_t n_threads);
// Not for a null pointer. Frees what no context has taken; whether one has.
bool mullama_prepared_free(mullama_prepared * prepared);

// `promised`: cleared memory on the CPU may be there only when it is used. `prepared` may
// be null; the memory of sequences takes it if it is the size that it needs.
int32_t mullama_context_new(llama_model * model, const llama_context_params * params, bool promised,
                            mullama_prepared * prepared, llama_context ** context, char * error, size_t error_size);
// llama_decode's code, or one of the codes above.
int32_t mullama_decode(llama_context * context, const llama_batch * batch, char * error, size_t error_size);
// Returns true when the whole range was removed.
bool mullama_seq_rm(llama_context * context, llama_seq_id seq_id, llama_pos p0, llama_pos p1);
// Shares the cells of the positions from `p0` on and below `p1`; -1 is no bound.
void mullama_seq_cp(llama_context * context, llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1);
// `data`: zeros are written, too.
void mullama_memory_clear(llama_context * context, bool data);

// The version of llama.cpp's state format that this build reads and writes.
uint32_t mullama_state_version(void);
// Bytes of the state of `seq_id`, or of the whole memory for -1; 0 on failure.
size_t mullama_state_size(llama_context * context, llama_seq_id seq_id, char * error, size_t error_size);
// Bytes written to `data`, at most `size`; 0 on failure.
size_t mullama_state_get(llama_context * context, llama_seq_id seq_id, uint8_t * data, size_t size, char * error,
                         size_t error_size);
// Bytes read from `data`; 0 on failure, which leaves the sequence, or for -1
// the whole memory, in pieces: clear it then.
size_t mullama_state_set(llama_context * context, llama_seq_id seq_id, const uint8_t * data, size_t size, char * error,
                         size_t error_size);
// llama_tokenize's result, or one of the codes above by `status`.
int32_t mullama_tokenize(const llama_vocab * vocab, const char * text, int32_t text_size, llama_token * tokens,
                         int32_t n_tokens_max, bool add_special, bool parse_special, int32_t * status, char * error,
                         size_t error_size);
// llama_token_to_piece's result, or one of the codes above by `status`.
int32_t mullama_token_to_piece(const llama_vocab * vocab, llama_token token, char * piece, int32_t piece_size,
                               bool special, int32_t * status);

// Threads of a pool, for work that is not llama.cpp's.
struct mullama_team;
// MULLAMA_NULL where the CPU backend offers none. The pool must outlive the team.
int32_t mullama_team_new(ggml_threadpool * pool, mullama_team ** team, char * error, size_t error_size);
// Calls `work` with `data` once on each of `n_threads` threads at the same time,
// the calling one among them, and waits for all. `work` must not throw.
int32_t mullama_team_run(mullama_team * team, int32_t n_threads, void (*work)(void *), void * data, char * error,
                         size_t error_size);
void mullama_team_free(mullama_team * team);

} // extern "C"

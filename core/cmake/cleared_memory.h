// Stands before a copy of ggml's buffers: see `buffers.cmake`. Pure, and without a name
// of ggml's, so that a test can compile it alone.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>

static thread_local bool mullama_promises_cleared_memory = false;

extern "C" void mullama_promise_cleared_memory(bool promises) {
    mullama_promises_cleared_memory = promises;
}
#endif

namespace mullama {

#if defined(__linux__)
// The whole pages of some memory.
struct Pages {
    char * first;
    char * end;
};

inline Pages pages_of(char * first, std::size_t size) {
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto from = reinterpret_cast<std::uintptr_t>(first), to = from + size;
    const std::uintptr_t begin = (from + page - 1) / page * page;
    return {first + (begin - from), first + (std::max(begin, to / page * page) - from)};
}
#endif

// Only advice: where the kernel refuses it, all is as it was.
inline void ask_for_huge_pages(char * first, std::size_t size) {
#if defined(__linux__)
    const Pages pages = pages_of(first, size);
    if (pages.end - pages.first > 32 << 20) {
        madvise(pages.first, pages.end - pages.first, MADV_HUGEPAGE);
    }
#else
    (void) first, (void) size;
#endif
}

// On several threads where it is much: what takes time is to get pages.
inline void fill(char * first, std::size_t size, std::uint8_t value) {
    const std::size_t most = std::clamp(std::thread::hardware_concurrency(), 1u, 8u);
    const std::size_t part = std::max<std::size_t>(32 << 20, size / most + 1);
    std::vector<std::thread> threads;
    std::size_t from = 0;
    try {
        for (; from + part < size; from += part) {
            threads.emplace_back([=] { std::memset(first + from, value, part); });
        }
    } catch (const std::exception &) {
        // No more threads, or no memory for them.
    }
    std::memset(first + from, value, size - from);
    for (std::thread & thread : threads) {
        thread.join();
    }
}

// Whether all of it reads as zero now, with pages that are there when used: if the thread
// promises memory. For memory that somebody has allocated for himself.
inline bool promise_zeros(char * first, std::size_t size) {
#if defined(__linux__)
    const Pages pages = pages_of(first, size);
    if (!mullama_promises_cleared_memory || pages.first == pages.end) {
        return false;
    }
    // What is private and of no file reads as zero after this. Memory of other kinds may
    // stay as it is, and emulators do nothing.
    char & begin = *pages.first;
    char & last = pages.end[-1];
    begin = last = 1;
    if (madvise(pages.first, pages.end - pages.first, MADV_DONTNEED) != 0 || begin != 0 || last != 0) {
        return false;
    }
    std::memset(first, 0, pages.first - first);
    std::memset(pages.end, 0, first + size - pages.end);
    return true;
#else
    (void) first, (void) size;
    return false;
#endif
}

}  // namespace mullama

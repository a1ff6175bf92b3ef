// Stands before a copy of ggml's buffers: see `buffers.cmake`. Pure, and without a name
// of ggml's, so that a test can compile it alone.

#include <algorithm>
#include <atomic>
#include <chrono>
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

// What is smaller may lie in the heap: glibc maps what is larger by itself.
constexpr std::size_t LARGE = 32 << 20;

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
inline void ask_for_huge_pages(char * first, std::size_t size, bool yes = true) {
#if defined(__linux__)
    const Pages pages = pages_of(first, size);
    madvise(pages.first, pages.end - pages.first, yes ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#else
    (void) first, (void) size, (void) yes;
#endif
}

// Whether the system took long to give huge pages. A virtual machine may give those back
// that it does not use, and get them again part by part, while it has small ones.
inline std::atomic<bool> huge_pages_are_slow{false};

// On huge pages as long as they come quickly.
inline void fill_part(char * first, std::size_t size, std::uint8_t value) {
    constexpr std::size_t SLICE = 4 << 20;
    constexpr std::chrono::microseconds SLOW{1700};  // 2.5 GB a second
    for (std::size_t from = 0; from < size; from += SLICE) {
        const std::size_t n = std::min(SLICE, size - from);
        const bool are_huge = !huge_pages_are_slow;
        ask_for_huge_pages(first + from, n, are_huge);
        const auto start = std::chrono::steady_clock::now();
        std::memset(first + from, value, n);
        if (are_huge && std::chrono::steady_clock::now() - start > SLOW) {
            huge_pages_are_slow = true;
        }
    }
}

// Fills memory that somebody has allocated for himself. What is large gets huge pages,
// if they are slow from the kernel's own thread, in its time; and several threads fill
// it, since what takes time is to get pages.
inline void fill(char * first, std::size_t size, std::uint8_t value) {
    if (size <= LARGE) {
        std::memset(first, value, size);
        return;
    }
    huge_pages_are_slow = false;
    const std::size_t most = std::clamp(std::thread::hardware_concurrency(), 1u, 8u);
    const std::size_t part = std::max(LARGE / 4, size / most + 1);
    std::vector<std::thread> threads;
    std::size_t from = 0;
    try {
        for (; from + part < size; from += part) {
            threads.emplace_back([=] { fill_part(first + from, part, value); });
        }
    } catch (const std::exception &) {
        // No more threads, or no memory for them.
    }
    fill_part(first + from, size - from, value);
    for (std::thread & thread : threads) {
        thread.join();
    }
    ask_for_huge_pages(first, size);
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
    if (size > LARGE && !huge_pages_are_slow) {
        ask_for_huge_pages(first, size);
    }
    return true;
#else
    (void) first, (void) size;
    return false;
#endif
}

}  // namespace mullama

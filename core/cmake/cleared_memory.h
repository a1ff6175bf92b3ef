// Stands before a copy of ggml's buffers: see `buffers.cmake`. Pure, and without a name
// of ggml's, so that a test can compile it alone.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <time.h>
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

#if defined(__linux__)
// What a thread has computed, in the kernel's name too. Not what it waited for a processor.
inline std::chrono::nanoseconds thread_time() {
    timespec time = {};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}
#else
inline std::chrono::nanoseconds thread_time() {
    return {};
}
#endif

// Whether the system took long to give huge pages. A virtual machine may give those back
// that it does not use, and get them again part by part, while it has small ones.
inline std::atomic<bool> huge_pages_are_slow{false};

// What a thread fills at a time.
constexpr std::size_t SLICE = 4 << 20;

// On huge pages as long as they come quickly.
inline void fill_slice(char * first, std::size_t size, std::uint8_t value) {
    constexpr std::chrono::microseconds SLOW{1700};  // 2.5 GB a second
    const bool are_huge = !huge_pages_are_slow;
    ask_for_huge_pages(first, size, are_huge);
    const std::chrono::nanoseconds start = thread_time();
    std::memset(first, value, size);
    if (are_huge && thread_time() - start > SLOW) {
        huge_pages_are_slow = true;
    }
}

// Fills memory that somebody has allocated for himself, on some threads and on that
// which waits for it, since what takes time is to get pages. Gets huge pages, if they are
// slow from the kernel's own thread, in its time. Dropping it stops the threads.
class Filling {
  public:
    Filling(char * first, std::size_t size, std::uint8_t value, std::size_t n_threads)
        : first(first), size(size), value(value) {
        huge_pages_are_slow = false;
        try {
            for (std::size_t i = 0; i < n_threads; ++i) {
                threads.emplace_back([this] { work(); });
            }
        } catch (const std::exception &) {
            // No more threads, or no memory for them.
        }
    }
    Filling(const Filling &) = delete;
    ~Filling() {
        next = size;
        join();
    }

    void finish() {
        work();
        join();
        ask_for_huge_pages(first, size);
    }

  private:
    void work() {
        for (std::size_t from; (from = next.fetch_add(SLICE)) < size;) {
            fill_slice(first + from, std::min(SLICE, size - from), value);
        }
    }
    void join() {
        for (std::thread & thread : threads) {
            thread.join();
        }
        threads.clear();
    }

    char * const first;
    const std::size_t size;
    const std::uint8_t value;
    std::atomic<std::size_t> next{0};
    std::vector<std::thread> threads;
};

// Most threads that fill one block.
constexpr std::size_t MOST_THREADS = 8;

inline void fill(char * first, std::size_t size, std::uint8_t value) {
    if (size <= LARGE) {
        std::memset(first, value, size);
    } else {
        const std::size_t processors = std::thread::hardware_concurrency();
        Filling(first, size, value, std::clamp<std::size_t>(processors, 1, MOST_THREADS) - 1).finish();
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
    if (size > LARGE && !huge_pages_are_slow) {
        ask_for_huge_pages(first, size);
    }
    return true;
#else
    (void) first, (void) size;
    return false;
#endif
}

#if defined(__linux__)
// Memory that is cleared while its user has something else to do.
class Prepared {
  public:
    Prepared(std::size_t size, std::size_t n_threads) : size(size) {
        void * allocated = nullptr;
        if (posix_memalign(&allocated, 64, size) != 0) {
            throw std::bad_alloc();
        }
        memory.reset(static_cast<char *>(allocated));
        filling = std::make_unique<Filling>(memory.get(), size, 0, std::clamp<std::size_t>(n_threads, 1, MOST_THREADS - 1));
    }

    // The memory, cleared, for one who wants so much of it and frees it; null if that is
    // more or much less, or if it is gone. It is freed for one who wants another large
    // size, since he is who it was meant for.
    void * take(std::size_t wanted) {
        if (memory == nullptr || wanted <= size / 4) {
            return nullptr;
        }
        if (wanted > size || size - wanted > size / 16) {
            filling.reset();
            memory.reset();
            return nullptr;
        }
        filling->finish();
        filling.reset();
        was_taken = true;
        return memory.release();
    }

    bool is_taken() const { return was_taken; }

  private:
    struct Free {
        void operator()(char * allocated) const { free(allocated); }
    };

    const std::size_t size;
    bool was_taken = false;
    std::unique_ptr<char, Free> memory;
    std::unique_ptr<Filling> filling;  // stops before the memory is freed
};

// What this thread's next buffers may take, and the last that took some, until it is
// cleared for the first time.
inline thread_local Prepared * offered = nullptr;
inline thread_local const void * taken = nullptr;

inline void * take_offered(std::size_t size) {
    void * const memory = offered == nullptr ? nullptr : offered->take(size);
    if (memory != nullptr) {
        taken = memory;
    }
    return memory;
}

// Whether it is cleared because it was prepared.
inline bool was_prepared(const void * memory) {
    return memory == std::exchange(taken, nullptr);
}
#else
inline void * take_offered(std::size_t) {
    return nullptr;
}

inline bool was_prepared(const void *) {
    return false;
}
#endif

}  // namespace mullama

#if defined(__linux__)
// On so many threads. May throw.
extern "C" mullama::Prepared * mullama_prepare_memory(std::size_t size, std::size_t n_threads) {
    return new mullama::Prepared(size, n_threads);
}

// Until it is called with null.
extern "C" void mullama_offer_prepared_memory(mullama::Prepared * prepared) {
    mullama::offered = prepared;
    mullama::taken   = nullptr;
}

// Whether somebody has taken it.
extern "C" bool mullama_free_prepared_memory(mullama::Prepared * prepared) {
    const bool is_taken = prepared->is_taken();
    delete prepared;
    return is_taken;
}
#endif

// Memory is filled to its ends and no further, whether at once or as it is used.

#include "cleared_memory.h"

#include <cstdio>

constexpr std::size_t BESIDE = 100;

bool is_filled(std::size_t offset, std::size_t size, std::uint8_t value, bool promises) {
    std::vector<char> memory(BESIDE + offset + size + BESIDE, 7);
    char * const first = memory.data() + BESIDE + offset;
#if defined(__linux__)
    mullama_promise_cleared_memory(promises);
    const bool is_promised = mullama::promise_zeros(first, size);
    mullama_promise_cleared_memory(false);
    // Of less than two pages there may be no whole one.
    if (is_promised != promises && size >= 2 * 4096) return std::printf("promised: %d\n", is_promised), false;
    if (!is_promised) mullama::fill(first, size, value);
#else
    mullama::fill(first, size, value);
#endif
    for (std::size_t i = 0; i < memory.size(); ++i) {
        const char * const at = memory.data() + i;
        const char wanted = at >= first && at < first + size ? char(value) : char(7);
        if (*at != wanted) return std::printf("byte %td of %zu: %d\n", at - first, size, *at), false;
    }
    return true;
}

#if defined(__linux__)
// What was prepared goes to the next who wants about so much, is zero, and is his.
bool is_given(std::size_t size) {
    mullama::Prepared * const prepared = mullama_prepare_memory(size, 2);
    if (mullama::take_offered(size) != nullptr) return std::printf("was given unasked\n"), false;
    mullama_offer_prepared_memory(prepared);
    if (mullama::take_offered(size / 4) != nullptr) return std::printf("a part was given\n"), false;
    const std::size_t wanted = size - size / 100;
    char * const first = static_cast<char *>(mullama::take_offered(wanted));
    if (first == nullptr || reinterpret_cast<std::uintptr_t>(first) % 64 != 0) return std::printf("not given\n"), false;
    if (mullama::take_offered(wanted) != nullptr) return std::printf("given twice\n"), false;
    if (!mullama::was_prepared(first) || mullama::was_prepared(first)) return std::printf("cleared not once\n"), false;
    mullama_offer_prepared_memory(nullptr);
    if (!mullama_free_prepared_memory(prepared)) return std::printf("not told of\n"), false;
    bool is_zero = true;
    for (std::size_t i = 0; i < size; ++i) is_zero &= first[i] == 0;
    std::memset(first, 9, size);
    std::free(first);
    return is_zero ? true : (std::printf("not cleared\n"), false);
}

// Who wants another large size gets none of it, nor does who asks after him.
bool is_freed(std::size_t size, std::size_t wanted) {
    mullama::Prepared * const prepared = mullama_prepare_memory(size, 2);
    mullama_offer_prepared_memory(prepared);
    const bool is_given = mullama::take_offered(wanted) != nullptr || mullama::take_offered(size) != nullptr;
    mullama_offer_prepared_memory(nullptr);
    return !mullama_free_prepared_memory(prepared) && !is_given;
}

// Another thread is not offered it.
bool is_dropped(std::size_t size) {
    mullama::Prepared * const prepared = mullama_prepare_memory(size, 2);
    mullama_offer_prepared_memory(prepared);
    bool is_offered = false;
    std::thread([&] { is_offered = mullama::take_offered(size) != nullptr; }).join();
    mullama_offer_prepared_memory(nullptr);
    const bool is_taken = mullama_free_prepared_memory(prepared);
    return !is_offered && !is_taken && !mullama::was_prepared(&is_offered);
}

bool is_refused() {
    try {
        mullama_prepare_memory(std::size_t(1) << 62, 1);
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}
#endif

int main() {
#if defined(__linux__)
    for (const std::size_t size : {1000ul, 5ul << 20, (64ul << 20) + 5}) {
        // From the second time on small ones are where others have been.
        for (int i = 0; i < 3; ++i) {
            if (!is_given(size) || !is_dropped(size)) return std::printf("%zu bytes prepared\n", size);
        }
        for (const std::size_t wanted : {size + 1, size / 2, 2 * size}) {
            if (!is_freed(size, wanted)) return std::printf("%zu of %zu bytes prepared\n", wanted, size);
        }
    }
    if (!is_refused()) return std::printf("too much was prepared\n");
#endif
    for (const std::size_t size : {1ul, 4096ul, 10000ul, 33ul << 20, (100ul << 20) + 3, (256ul << 20) + 4097}) {
        for (const std::size_t offset : {0ul, 1ul, 4000ul}) {
            if (!is_filled(offset, size, 0, false) || !is_filled(offset, size, 0, true) ||
                !is_filled(offset, size, 5, false)) {
                return std::printf("%zu bytes at %zu\n", size, offset);
            }
        }
    }
}

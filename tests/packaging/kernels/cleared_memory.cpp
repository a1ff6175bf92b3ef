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

int main() {
    for (const std::size_t size : {1ul, 4096ul, 10000ul, 33ul << 20, (100ul << 20) + 3, (256ul << 20) + 4097}) {
        for (const std::size_t offset : {0ul, 1ul, 4000ul}) {
            if (!is_filled(offset, size, 0, false) || !is_filled(offset, size, 0, true) ||
                !is_filled(offset, size, 5, false)) {
                return std::printf("%zu bytes at %zu\n", size, offset);
            }
        }
    }
}

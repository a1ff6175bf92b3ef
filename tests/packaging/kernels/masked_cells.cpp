#include "masked_cells.h"
#include <cstdio>
#include <random>
#include <vector>

struct Tensor { void * data; std::size_t nb[2]; };

int main() {
    std::mt19937 random(1);
    std::vector<std::uint16_t> mask(1000);
    for (int round = 0; round < 20000; ++round) {
        // Runs of hidden and of seen cells, some with a bias.
        const std::uint16_t seen[] = {0x0000, 0x8000, 0xFBFF, 0x7C00};
        for (std::size_t i = 0; i < mask.size();) {
            const bool hidden = random() % 2;
            for (std::size_t n = 1 + random() % (random() % 4 ? 5 : 300); n > 0 && i < mask.size(); --n) {
                mask[i++] = hidden ? mullama::MASKED : seen[random() % 4];
            }
        }
        const std::int64_t end = 1 + random() % mask.size();
        const std::int64_t first = random() % end;
        mask[first] = mullama::MASKED;
        std::int64_t last = first;
        while (last + 1 < end && mask[last + 1] == mullama::MASKED) ++last;
        const std::int64_t found = mullama::last_masked(mask.data(), first, end);
        if (found != last) {
            return std::printf("%ld from %ld, not %ld\n", long(found), long(first), long(last));
        }
    }
    // Rows of 200 cells and 8 more that only pad them: `of_each` rows of each sequence.
    for (const std::int64_t of_each : {1, 8, 64, 128}) {
        const std::int64_t n_rows = 128, n_cells = 200, stride = n_cells + 8;
        std::vector<std::uint16_t> rows(n_rows * stride, mullama::MASKED);
        for (std::int64_t row = 0; row < n_rows; ++row) {
            for (std::int64_t i = 0; i < n_cells; ++i) {
                if (i % (n_rows / of_each) == row / of_each) rows[row * stride + i] = 0;
            }
        }
        const Tensor tensor = {rows.data(), {2, stride * 2}};
        const bool differ = mullama::see_different(&tensor, n_rows, n_cells);
        if (differ != (of_each <= 8)) return std::printf("%ld rows a sequence: %d\n", (long) of_each, differ);
        if (mullama::see_different(&tensor, 63, n_cells)) return std::printf("fewer rows than a tile has\n");
    }
    if (mullama::see_different((const Tensor *) nullptr, 128, 200)) return std::printf("without a mask\n");
}

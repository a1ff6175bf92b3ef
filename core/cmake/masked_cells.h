// Stands before a copy of ggml's operators: see `attention.cmake`. Pure, and
// without a name of ggml's but the tensor's, so that a test can compile it alone.

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace mullama {

// Minus infinity in 16 bits: the cell is hidden from the row.
constexpr std::uint16_t MASKED = 0xFC00;

// Cells that are looked at together: two cache lines.
constexpr std::int64_t BLOCK = 64;

inline bool is_masked(const std::uint16_t * cells, std::int64_t n) {
    std::uint16_t other = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        other |= static_cast<std::uint16_t>(cells[i] ^ MASKED);
    }
    return other == 0;
}

// The last of the hidden cells that follow the hidden `cell` without a gap,
// before `end`.
inline std::int64_t last_masked(const std::uint16_t * mask, std::int64_t cell, std::int64_t end) {
    std::int64_t next = cell + 1;
    while (next + BLOCK <= end && is_masked(mask + next, BLOCK)) {
        next += BLOCK;
    }
    while (next < end && mask[next] == MASKED) {
        ++next;
    }
    return next - 1;
}

// Whether rows that stand together see different cells, as those of different
// sequences do: then tiles are nearly empty. By the looks of every eighth row of
// the first tile and of the last one. A cell takes a tile about a sixth of the
// time that it takes a row alone, so a tile pays where a cell is seen by more
// than a few of its rows.
template <typename Tensor> bool see_different(const Tensor * mask, std::int64_t n_rows, std::int64_t n_cells) {
    constexpr std::int64_t TILE = 64;
    constexpr std::int64_t LOOKS = 8;
    if (mask == nullptr || n_rows < TILE) {
        return false;
    }
    std::int64_t seen = 0;
    std::int64_t seen_by_any = 0;
    for (const std::int64_t first : {std::int64_t{0}, n_rows - TILE}) {
        const std::uint16_t * rows[LOOKS];
        for (std::int64_t look = 0; look < LOOKS; ++look) {
            const auto row = static_cast<std::size_t>(first + look * (TILE / LOOKS));
            rows[look] = reinterpret_cast<const std::uint16_t *>(static_cast<const char *>(mask->data) + row * mask->nb[1]);
        }
        for (std::int64_t i = 0; i < n_cells; ++i) {
            int by = 0;
            for (const std::uint16_t * cells : rows) {
                by += cells[i] != MASKED;
            }
            seen += by;
            seen_by_any += by > 0;
        }
    }
    return seen < 2 * seen_by_any;
}

}  // namespace mullama

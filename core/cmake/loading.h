// Stands before a copy of llama.cpp's vocabulary: see `loading.cmake`. Pure, and without
// a name of llama.cpp's, so that a test can compile it alone.

#include <array>
#include <cstddef>
#include <cstdint>
#include <future>
#include <string>
#include <string_view>
#include <utility>

namespace mullama {

// Does `work` on another thread; where there is none, when it is waited for. Waiting
// passes on what it throws, and dropping the future waits until the thread has ended.
template <typename Work> std::future<void> beside(Work work) {
    return std::async(std::launch::async | std::launch::deferred, std::move(work));
}

// Calls `work` with each number below `n`, on two threads.
template <typename Work> void in_halves(std::size_t n, const Work & work) {
    const std::size_t half = n / 2;
    const auto some = [&work](std::size_t from, std::size_t to) {
        for (; from < to; ++from) {
            work(from);
        }
    };
    std::future<void> second = beside([&] { some(half, n); });
    some(0, half);
    second.get();
}

// The ranks of `n` merges, of which `merge` gives the text: the two parts with a space
// between, the first of which may begin with one. Of equal ones the first counts.
template <typename Ranks, typename Merge> void rank_merges(Ranks & ranks, int n, const Merge & merge) {
    ranks.reserve(n);
    for (int i = 0; i < n; i++) {
        const char * const merged = merge(i);
        const std::string_view text = merged;
        const std::size_t space = text.find(' ', 1);
        std::pair<std::string, std::string> parts;
        if (space != std::string_view::npos) {
            parts.first = text.substr(0, space);
            parts.second = text.substr(space + 1);
        }
        ranks.emplace(std::move(parts), i);
    }
}

// Which byte a code point stands for where bytes were made code points that can be shown.
class BytesOfText {
  public:
    template <typename TextOfByte, typename FirstPoint>
    BytesOfText(const TextOfByte & text_of_byte, const FirstPoint & first_point) {
        bytes.fill(-1);
        for (int byte = 0; byte < 256; ++byte) {
            std::size_t offset = 0;
            const std::uint32_t point = first_point(text_of_byte(static_cast<std::uint8_t>(byte)), offset);
            if (point < bytes.size()) {
                bytes[point] = static_cast<std::int16_t>(byte);
            }
        }
    }

    // -1 for one that stands for none.
    int of(std::uint32_t point) const { return point < bytes.size() ? bytes[point] : -1; }

  private:
    std::array<std::int16_t, 512> bytes;
};

}  // namespace mullama

// What a load does on two threads is what it would do on one.

#include "loading.h"

#include <cstdio>
#include <map>
#include <stdexcept>
#include <vector>

// So that reserving can be asked of it.
struct Ranks : std::map<std::pair<std::string, std::string>, int> {
    void reserve(std::size_t n) { reserved = n; }
    std::size_t reserved = 0;
};

bool are_ranked() {
    const std::vector<const char *> merges = {"a b", " c d", "a b c", "alone", "", "a b", " ", "  x", "e "};
    const std::vector<std::pair<std::string, std::string>> parts = {
        {"a", "b"}, {" c", "d"}, {"a", "b c"}, {"", ""}, {"", ""}, {"a", "b"}, {"", ""}, {" ", "x"}, {"e", ""}};
    Ranks ranks;
    mullama::rank_merges(ranks, int(merges.size()), [&](int i) { return merges[i]; });
    if (ranks.reserved != merges.size()) return std::printf("reserved %zu\n", ranks.reserved), false;
    Ranks wanted;
    for (std::size_t i = 0; i < parts.size(); ++i) wanted.emplace(parts[i], int(i));
    return ranks == wanted;
}

bool are_done_once(std::size_t n) {
    std::vector<int> done(n, 0);
    mullama::in_halves(n, [&](std::size_t i) { ++done[i]; });
    return done == std::vector<int>(n, 1);
}

// What is thrown arrives, and by then the other half has ended.
bool is_passed_on(std::size_t n, std::size_t thrower) {
    std::vector<int> done(n, 0);
    try {
        mullama::in_halves(n, [&](std::size_t i) {
            if (i == thrower) throw std::runtime_error("thrown");
            ++done[i];
        });
    } catch (const std::runtime_error &) {
        const std::size_t half = n / 2, from = thrower < half ? half : 0, to = thrower < half ? n : half;
        for (std::size_t i = from; i < to; ++i) {
            if (done[i] != 1) return false;
        }
        return true;
    }
    return false;
}

int main() {
    if (!are_ranked()) return std::printf("ranks of merges\n");
    for (const std::size_t n : {0, 1, 2, 7, 100000}) {
        if (!are_done_once(n)) return std::printf("%zu numbers\n", n);
    }
    for (const std::size_t thrower : {0, 499, 500, 999}) {
        if (!is_passed_on(1000, thrower)) return std::printf("thrown at %zu\n", thrower);
    }
    // Each byte is that many places further on, and the last ones are far away.
    const auto text = [](std::uint8_t byte) { return std::string(byte < 250 ? 1 : 2, char(byte)); };
    const auto point = [](const std::string & text, std::size_t & offset) {
        offset = text.size();
        return std::uint32_t(std::uint8_t(text[0]) + (text.size() == 1 ? 100 : 1000));
    };
    const mullama::BytesOfText bytes(text, point);
    for (std::uint32_t i = 0; i < 2000; ++i) {
        const int wanted = i >= 100 && i < 350 ? int(i) - 100 : -1;
        if (bytes.of(i) != wanted) return std::printf("point %u: %d\n", i, bytes.of(i));
    }
    if (bytes.of(0xFFFFFFFF) != -1) return std::printf("the largest point\n");
}

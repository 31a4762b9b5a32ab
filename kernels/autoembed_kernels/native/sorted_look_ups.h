// Look-ups sorted by the row that they read, those of one row in the batch's order: a stable radix sort of
// pairs (row, place), and where each distinct row begins.

#pragma once

#include <vector>

#include "vectors.h"

namespace {

// Of several parts one has the rows of some blocks of 16, whose state fills a line of the cache, by a hash: each
// thread finds, sorts and updates its own rows, and waits for no other.
INLINE bool is_of_part(uint32_t row, uint64_t part, uint64_t parts) {
    return ((row >> 4) * 0x9e3779b1u * parts) >> 32 == part;
}

// The first place whose row is out of range, or count
INLINE int64_t first_outside(const int64_t* rows, int64_t count, int64_t bound) {
    uint64_t outside = 0;
    for (int64_t n = 0; n < count; ++n)
        outside |= static_cast<uint64_t>(static_cast<uint64_t>(rows[n]) >= static_cast<uint64_t>(bound));
    if (!outside) return count;
    int64_t n = 0;
    while (static_cast<uint64_t>(rows[n]) < static_cast<uint64_t>(bound)) ++n;
    return n;
}

// The distinct rows (distinct,), ascending, of `lookups` look-ups. Those of row u are at place(k) for start(u) <= k <
// start(u + 1).
class SortedLookUps {
  public:
    int64_t distinct = 0, lookups = 0;

    int64_t row(int64_t u) const { return rows_[u]; }
    int64_t start(int64_t u) const { return starts_[u]; }
    int64_t place(int64_t k) const { return static_cast<int64_t>(pairs_[k] & 0xffffffffu); }

    // rows (count,) in [0, bound), bound and count below 2^32; those of one part
    void sort(const int64_t* rows, int64_t count, int64_t bound, int64_t part, int64_t parts) {
        fit(count);
        int bits = 1;
        while (bits < 32 && (int64_t{1} << bits) < bound) ++bits;
        const int passes = (bits + DIGIT_BITS - 1) / DIGIT_BITS;
        const int digit = (bits + passes - 1) / passes;
        uint64_t *from = first_.data(), *to = second_.data();
        const auto pair = [&](int64_t n) INLINE_LAMBDA {
            return static_cast<uint64_t>(rows[n]) << 32 | static_cast<uint64_t>(n);
        };
        if (parts == 1) {
            lookups = count;
            scatter(0, digit, to, pair);
        } else {
            lookups = 0;
            for (int64_t n = 0; n < count; ++n) {
                // written always, kept where it is ours: a branch would be mispredicted
                from[lookups] = pair(n);
                lookups += is_of_part(static_cast<uint32_t>(rows[n]), static_cast<uint64_t>(part),
                                      static_cast<uint64_t>(parts));
            }
            scatter(0, digit, to, [&](int64_t n) INLINE_LAMBDA { return from[n]; });
        }
        for (int pass = 1; pass < passes; ++pass) {
            std::swap(from, to);
            scatter(pass, digit, to, [&](int64_t n) INLINE_LAMBDA { return from[n]; });
        }
        pairs_ = to;
        find_starts();
    }

  private:
    static constexpr int DIGIT_BITS = 12;  // 2 passes for the rows of most data; the counters stay in the first cache

    void fit(int64_t count) {
        // kept for the next batch: fresh memory of this size costs more than sorting it
        if (static_cast<int64_t>(starts_.size()) > count + 1) return;
        first_.resize(count + 1);
        second_.resize(count + 1);
        rows_.resize(count + 1);
        starts_.resize(count + 2);
    }

    // Pairs by their digit of this pass into `to`, in order
    template <typename Pair>
    INLINE void scatter(int pass, int digit, uint64_t* to, const Pair& pair) {
        const uint32_t mask = (1u << digit) - 1;
        const int shift = 32 + pass * digit;
        places_.assign(size_t{1} << digit, 0);
        uint32_t* places = places_.data();
        for (int64_t n = 0; n < lookups; ++n) {
            ++places[pair(n) >> shift & mask];
            // what is written next at random comes into the cache in order: 2.4 ns a pair in place of 6.3
            if (n % 8 == 0) __builtin_prefetch(to + n, 1, 3);
        }
        uint32_t total = 0;
        for (uint32_t d = 0; d <= mask; ++d) {
            const uint32_t held = places[d];
            places[d] = total;
            total += held;
        }
        for (int64_t n = 0; n < lookups; ++n) {
            const uint64_t moved = pair(n);
            to[places[moved >> shift & mask]++] = moved;
        }
    }

    void find_starts() {
        int64_t u = -1;
        uint64_t last = ~uint64_t{0};
        for (int64_t n = 0; n < lookups; ++n) {
            // written always, the last one stays: a branch here is mispredicted at every other row
            const uint64_t key = pairs_[n] >> 32;
            u += key != last;
            last = key;
            rows_[u] = static_cast<uint32_t>(key);
            starts_[u + 1] = static_cast<uint32_t>(n + 1);
        }
        starts_[0] = 0;
        distinct = u + 1;
    }

    std::vector<uint64_t> first_, second_;
    std::vector<uint32_t> rows_, starts_, places_;
    const uint64_t* pairs_ = nullptr;
};

}  // namespace

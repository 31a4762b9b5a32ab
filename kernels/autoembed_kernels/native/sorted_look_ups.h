// Look-ups sorted by the row that they read, those of one row in the batch's order: a stable radix sort of
// pairs (row, place), and where each distinct row begins.

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

// The distinct rows (distinct,), ascending. The look-ups of row u are places[starts[u]] .. places[starts[u + 1] - 1],
// and starts has distinct + 1 entries.
class SortedLookUps {
  public:
    int64_t distinct = 0;

    int64_t row(int64_t u) const { return rows_[u]; }
    int64_t start(int64_t u) const { return starts_[u]; }
    int64_t place(int64_t k) const { return static_cast<int64_t>(pairs_[k] & 0xffffffffu); }

    // rows (count,) in [0, bound), bound and count below 2^32. Returns 0, or -1 - place where a row is out of range.
    int64_t sort(const int64_t* rows, int64_t count, int64_t bound, int64_t threads) {
        fit(count);
        const int64_t bad = first_outside(rows, count, bound);
        if (bad < count) return -1 - bad;
        int bits = 1;
        while (bits < 32 && (int64_t{1} << bits) < bound) ++bits;
        passes_ = (bits + DIGIT_BITS - 1) / DIGIT_BITS;
        digit_ = (bits + passes_ - 1) / passes_;
        parts_ = std::min({threads, 1 + count / LEAST_PART, MOST_PARTS});
        counts_.assign(static_cast<size_t>(parts_ * passes_) << digit_, 0);
        uint64_t *from = second_.data(), *to = first_.data();
        for (int pass = 0; pass < passes_; ++pass) {
            if (pass == 0)
                scatter(pass, count, to, [&](int64_t n) INLINE_LAMBDA {
                    return static_cast<uint64_t>(rows[n]) << 32 | static_cast<uint64_t>(n);
                });
            else
                scatter(pass, count, to, [&](int64_t n) INLINE_LAMBDA { return from[n]; });
            pairs_ = to;
            std::swap(from, to);
        }
        find_starts(count);
        return 0;
    }

    // Calls work(first, stop) for ranges of distinct rows of about the same cost, one for each thread.
    template <typename Work>
    INLINE void for_rows_in_ranges(int64_t threads, const Work& work) const {
        for_ranges(threads, threads, [&](int64_t first, int64_t stop) INLINE_LAMBDA {
            for (int64_t part = first; part < stop; ++part) work(bound_of(part, threads), bound_of(part + 1, threads));
        });
    }

  private:
    static constexpr int DIGIT_BITS = 12;  // 2 passes for the rows of most data; the counters stay in the first cache
    static constexpr int64_t LEAST_PART = 8192;  // look-ups that are worth a thread
    static constexpr int64_t MOST_PARTS = 64;
    static constexpr int64_t ROW_COST = 3;  // of updating a row, in look-ups

    void fit(int64_t count) {
        // kept for the next batch: fresh memory of this size costs more than sorting it
        if (static_cast<int64_t>(starts_.size()) > count) return;
        first_.resize(count);
        second_.resize(count);
        rows_.resize(count + 1);
        starts_.resize(count + 1);
    }

    static int64_t first_outside(const int64_t* rows, int64_t count, int64_t bound) {
        uint64_t outside = 0;
        for (int64_t n = 0; n < count; ++n)
            outside |= static_cast<uint64_t>(static_cast<uint64_t>(rows[n]) >= static_cast<uint64_t>(bound));
        if (!outside) return count;
        int64_t n = 0;
        while (static_cast<uint64_t>(rows[n]) < static_cast<uint64_t>(bound)) ++n;
        return n;
    }

    template <typename Work>
    INLINE void for_parts(int64_t count, const Work& work) {
        for_ranges(parts_, parts_, [&](int64_t first, int64_t stop) INLINE_LAMBDA {
            for (int64_t part = first; part < stop; ++part)
                work(part, count * part / parts_, count * (part + 1) / parts_);
        });
    }

    // Pairs by their digit of this pass into `to`, in order: every part of the batch counts its digits, then
    // knows where its own pairs of each digit belong
    template <typename Pair>
    INLINE void scatter(int pass, int64_t count, uint64_t* to, const Pair& pair) {
        const uint32_t mask = (1u << digit_) - 1;
        const int shift = 32 + pass * digit_;
        uint32_t* counts = counts_.data() + (static_cast<size_t>(pass * parts_) << digit_);
        for_parts(count, [&](int64_t part, int64_t start, int64_t stop) INLINE_LAMBDA {
            uint32_t* own = counts + (static_cast<size_t>(part) << digit_);
            for (int64_t n = start; n < stop; ++n) {
                ++own[pair(n) >> shift & mask];
                // what is written next at random comes into the cache in order, half as long a pass
                if (n % 8 == 0) __builtin_prefetch(to + n, 1, 3);
            }
        });
        uint32_t total = 0;
        for (uint32_t d = 0; d <= mask; ++d)
            for (int64_t part = 0; part < parts_; ++part) {
                uint32_t& held = counts[(static_cast<size_t>(part) << digit_) + d];
                const uint32_t found = held;
                held = total;
                total += found;
            }
        for_parts(count, [&](int64_t part, int64_t start, int64_t stop) INLINE_LAMBDA {
            uint32_t* own = counts + (static_cast<size_t>(part) << digit_);
            for (int64_t n = start; n < stop; ++n) {
                const uint64_t moved = pair(n);
                to[own[moved >> shift & mask]++] = moved;
            }
        });
    }

    // The first look-up from n on that begins a row
    int64_t next_start(int64_t n, int64_t count) const {
        while (n > 0 && n < count && pairs_[n] >> 32 == pairs_[n - 1] >> 32) ++n;
        return n;
    }

    void find_starts(int64_t count) {
        int64_t before[MOST_PARTS + 1] = {};  // distinct rows of the parts before
        if (parts_ > 1)
            for_parts(count, [&](int64_t part, int64_t start, int64_t stop) INLINE_LAMBDA {
                int64_t found = 0;
                for (int64_t n = start; n < stop; ++n) found += n == 0 || pairs_[n] >> 32 != pairs_[n - 1] >> 32;
                before[part + 1] = found;
            });
        for (int64_t part = 0; part < parts_; ++part) before[part + 1] += before[part];
        int64_t ends[MOST_PARTS];
        for_parts(count, [&](int64_t part, int64_t start, int64_t stop) INLINE_LAMBDA {
            // a row that begins here is this part's, to its last look-up
            start = next_start(start, count);
            stop = next_start(stop, count);
            int64_t u = before[part] - 1;
            uint64_t last = ~uint64_t{0};
            for (int64_t n = start; n < stop; ++n) {
                // written always, the last one stays: a branch here is mispredicted at every other row
                const uint64_t key = pairs_[n] >> 32;
                u += key != last;
                last = key;
                rows_[u] = static_cast<uint32_t>(key);
                starts_[u + 1] = static_cast<uint32_t>(n + 1);
            }
            ends[part] = u + 1;
        });
        starts_[0] = 0;
        distinct = ends[parts_ - 1];
    }

    // Where part `part` of `parts` begins
    int64_t bound_of(int64_t part, int64_t parts) const {
        const int64_t wanted = (starts_[distinct] + ROW_COST * distinct) * part / parts;
        int64_t low = 0, high = distinct;
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (starts_[middle] + ROW_COST * middle < wanted) low = middle + 1;
            else high = middle;
        }
        return low;
    }

    std::vector<uint64_t> first_, second_;
    std::vector<uint32_t> rows_, starts_, counts_;
    const uint64_t* pairs_ = nullptr;
    int passes_ = 1, digit_ = 1;
    int64_t parts_ = 1;
};

}  // namespace

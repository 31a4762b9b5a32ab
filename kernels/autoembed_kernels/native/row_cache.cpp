// A set-associative cache of rows: which slots hold them, and which slots the others take. See row_cache.py.

#include <algorithm>
#include <vector>

#include "chunks.h"
#include "shared_rows.h"

using autoembed::Divisor;
using autoembed::hashed;

namespace {

constexpr int64_t AHEAD = 16;  // rows whose tags are fetched ahead
constexpr int32_t EMPTY = -1;

INLINE int64_t set_of(int64_t row, const Divisor& sets) { return hashed(static_cast<uint64_t>(row), 0, sets); }

// The slot of a row among those of its set, or -1
INLINE int64_t slot_of(const int32_t* tags, int64_t row, int64_t set, int64_t ways) {
    const auto tag = static_cast<int32_t>(row);
    const int32_t* of_set = tags + set * ways;
    int64_t way = 0;
    // eight at once, without a branch for each
    for (; way + 8 <= ways; way += 8) {
        const i32x8 equal = load<i32x8>(of_set + way) == i32x8{tag, tag, tag, tag, tag, tag, tag, tag};
        uint64_t halves[4];
        std::memcpy(halves, &equal, sizeof(halves));
        if (halves[0] | halves[1] | halves[2] | halves[3]) break;
    }
    for (; way < ways; ++way)
        if (of_set[way] == tag) return set * ways + way;
    return -1;
}

INLINE void fetch_set(const int32_t* tags, int64_t set, int64_t ways) {
    for (int64_t way = 0; way < ways; way += 16) prefetch(tags + set * ways + way);
}

// Calls work(n, set) for rows [start, stop), the tags of later ones on their way
template <typename Work>
INLINE void for_sets(const int32_t* tags, const Divisor& sets, int64_t ways, const Numbers& rows, int64_t start,
                     int64_t stop, const Work& work) {
    int64_t ring[AHEAD];
    for (int64_t n = start; n < stop + AHEAD; ++n) {
        const int64_t before = n - AHEAD;
        if (before >= start) work(before, ring[before % AHEAD]);
        if (n >= stop) continue;
        ring[n % AHEAD] = set_of(rows[n], sets);
        fetch_set(tags, ring[n % AHEAD], ways);
    }
}

}  // namespace

// tags (sets, ways); rows (count,) in [0, bound), int32 or int64 by row_size -> their slots (count,), -1 where they
// have none. Returns 0, or -1 - place where a row is out of range.
EXPORT int64_t autoembed_cache_probe(const int32_t* tags, int64_t sets, int64_t ways, const void* rows,
                                     int64_t row_size, int64_t count, int64_t bound, int64_t* slots, int64_t threads) {
    const Numbers row{rows, row_size};
    const int64_t bad = first_outside(row, count, bound);
    if (bad < count) return -1 - bad;
    const Divisor divisor(sets);
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        for_sets(tags, divisor, ways, row, start, stop, [&](int64_t n, int64_t set) INLINE_LAMBDA {
            slots[n] = slot_of(tags, row[n], set, ways);
        });
    });
    return 0;
}

// A step's distinct rows (count,) in [0, bound), used `uses` (count,) times in it -> slots and was_there (count,). Rows
// that had none take slots that this step does not use, by the least worth: the last step of use of a slot, or where
// is_lfu the uses of its row; stamps holds these, (sets * ways,) or (bound,). Of slots that change hands, evicted and
// freed (count,) get the rows and the slots, in the order of the sets. Returns their number, or -1 - place where a row
// is out of range; then nothing is changed.
EXPORT int64_t autoembed_cache_place(int32_t* tags, int64_t sets, int64_t ways, int32_t* stamps, int64_t is_lfu,
                                     int64_t step, int64_t bound, const int64_t* rows, const int64_t* uses,
                                     int64_t count, int64_t* slots, uint8_t* was_there, int64_t* evicted,
                                     int64_t* freed) {
    const Numbers row{rows, 8};
    const int64_t bad = first_outside(row, count, bound);
    if (bad < count) return -1 - bad;
    const auto now = static_cast<int32_t>(step);
    std::vector<int64_t> missing, set_of_missing;
    std::vector<uint8_t> is_busy(sets * ways, 0);
    for_sets(tags, Divisor(sets), ways, row, 0, count, [&](int64_t n, int64_t set) INLINE_LAMBDA {
        const int64_t slot = slot_of(tags, rows[n], set, ways);
        slots[n] = slot;
        was_there[n] = slot >= 0;
        if (is_lfu) stamps[rows[n]] = static_cast<int32_t>(std::min<int64_t>(stamps[rows[n]] + uses[n], INT32_MAX));
        if (slot >= 0) {
            is_busy[slot] = 1;
            if (!is_lfu) stamps[slot] = now;
        } else {
            missing.push_back(n);
            set_of_missing.push_back(set);
        }
    });

    // the missing rows by their set, those of one set in the step's order
    const auto absent = static_cast<int64_t>(missing.size());
    std::vector<int32_t> starts(sets + 1, 0);
    for (const int64_t set : set_of_missing) ++starts[set + 1];
    for (int64_t set = 0; set < sets; ++set) starts[set + 1] += starts[set];
    std::vector<int64_t> order(absent);
    {
        std::vector<int32_t> next(starts.begin(), starts.end() - 1);
        for (int64_t m = 0; m < absent; ++m) order[next[set_of_missing[m]]++] = missing[m];
    }

    int64_t changed = 0;
    std::vector<uint64_t> ranked(ways);
    for (int64_t first = 0; first < absent;) {
        const int64_t set = set_of(rows[order[first]], Divisor(sets));
        const int64_t stop = starts[set + 1];
        // the most used first, so that none blocks a better one
        if (is_lfu)
            std::stable_sort(order.begin() + first, order.begin() + stop,
                             [&](int64_t a, int64_t b) { return stamps[rows[a]] > stamps[rows[b]]; });
        int64_t slots_left = 0;
        for (int64_t way = 0; way < ways; ++way) {
            const int64_t slot = set * ways + way;
            if (is_busy[slot]) continue;
            const int64_t worth = tags[slot] == EMPTY ? EMPTY : stamps[is_lfu ? tags[slot] : slot];
            ranked[slots_left++] = static_cast<uint64_t>(worth + 1) << 32 | static_cast<uint64_t>(way);
        }
        const int64_t taken = std::min(stop - first, slots_left);
        std::partial_sort(ranked.begin(), ranked.begin() + taken, ranked.begin() + slots_left);
        for (int64_t k = 0; k < taken; ++k) {
            const int64_t n = order[first + k], slot = set * ways + static_cast<int64_t>(ranked[k] & 0xffffffffu);
            if (is_lfu && stamps[rows[n]] < static_cast<int64_t>(ranked[k] >> 32) - 1) continue;
            if (tags[slot] != EMPTY) {
                evicted[changed] = tags[slot];
                freed[changed++] = slot;
            }
            tags[slot] = static_cast<int32_t>(rows[n]);
            if (!is_lfu) stamps[slot] = now;
            slots[n] = slot;
        }
        first = stop;
    }
    return changed;
}

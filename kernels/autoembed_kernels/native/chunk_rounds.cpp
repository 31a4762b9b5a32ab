// Who takes the free places of the pool, and who is to lose and to gain one in a round. See chunk_rounds.py.

#include <algorithm>

#include "chunks.h"

namespace {

constexpr int64_t PART = 1 << 16;  // chunks that are counted together; chunk_rounds.py has the same number

template <typename Work>
INLINE void for_parts(int64_t count, int64_t threads, const Work& work) {
    for_rows((count + PART - 1) / PART, threads, [&](int64_t part) INLINE_LAMBDA {
        work(part, part * PART, std::min(count, (part + 1) * PART));
    });
}

}  // namespace

// Chunks without a place of the entries `numbers` (count,), int32 or int64 by number_size, take places off the stack
// free (free_count,), in order: the first of those that are taken to the first. pointers (entries, chunks). Returns
// the number of places that are left, or -1 - place where a number is out of range; then nothing is written.
EXPORT int64_t autoembed_admit_chunks(int32_t* pointers, int64_t entries, int64_t chunks, const void* numbers,
                                      int64_t number_size, int64_t count, const int32_t* free, int64_t free_count) {
    const Numbers number{numbers, number_size};
    const int64_t bad = first_outside(number, count, entries);
    if (bad < count) return -1 - bad;
    const auto for_absent = [&](const auto& work) INLINE_LAMBDA {
        for (int64_t n = 0; n < count; ++n) {
            if (n + 16 < count) prefetch(pointers + number[n + 16] * chunks);
            int32_t* held = pointers + number[n] * chunks;
            for (int64_t c = 0; c < chunks; ++c)
                if (held[c] < 0 && !work(held[c])) return;
        }
    };
    if (free_count == 0) return 0;
    int64_t taken = 0;
    for_absent([&](int32_t&) INLINE_LAMBDA { return ++taken < free_count; });
    if (taken == 0) return free_count;
    const int32_t *next = free + free_count - taken, *end = free + free_count;
    for_absent([&](int32_t& pointer) INLINE_LAMBDA {
        pointer = *next++;
        return next < end;
    });
    return free_count - taken;
}

// utility (count,) times decay, and of every part of PART chunks how many lie in the pool below `low`, how many outside
// above `high` and 0: leaving, coming (parts,)
EXPORT int64_t autoembed_count_moves(const int32_t* pointers, float* utility, int64_t count, float decay, float low,
                                     float high, int64_t* leaving, int64_t* coming, int64_t threads) {
    for_parts(count, threads, [&](int64_t part, int64_t start, int64_t stop) INLINE_LAMBDA {
        int32_t leave = 0, come = 0;
        for (int64_t n = start; n < stop; ++n) {
            const float u = utility[n] * decay;
            utility[n] = u;
            const bool is_held = pointers[n] >= 0;
            leave += is_held & (u < low);
            come += !is_held & (u > high) & (u > 0.0f);
        }
        leaving[part] = leave;
        coming[part] = come;
    });
    return 0;
}

// The numbers of these chunks, ascending. Those of a part begin at leave_at and come_at (parts + 1,) of leave and come.
EXPORT int64_t autoembed_list_moves(const int32_t* pointers, const float* utility, int64_t count, float low, float high,
                                    const int64_t* leave_at, const int64_t* come_at, int64_t* leave, int64_t* come,
                                    int64_t threads) {
    for_parts(count, threads, [&](int64_t part, int64_t start, int64_t stop) INLINE_LAMBDA {
        int64_t *left = leave + leave_at[part], *came = come + come_at[part];
        const int64_t *left_end = leave + leave_at[part + 1], *came_end = come + come_at[part + 1];
        for (int64_t n = start; n < stop && (left < left_end || came < came_end); ++n) {
            const float u = utility[n];
            if (pointers[n] >= 0 && u < low) *left++ = n;
            if (pointers[n] < 0 && u > high && u > 0.0f) *came++ = n;
        }
    });
    return 0;
}

// Vectors looked up chunk by chunk through a table of pointers. See chunk_look_up.py.

#include <algorithm>
#include <vector>

#include "chunks.h"

namespace {

constexpr int64_t AHEAD = 12;  // look-ups whose chunks are fetched ahead; their pointers are fetched twice as early

}  // namespace

// pool (places, dim), pointers (entries, chunks); entry (ids,) where ids are virtual, else null and ids = entries.
// rows (count,) in [0, ids), int32 or int64 by row_size -> out (count, chunks * dim). Returns 0, or -1 - place where a
// row is out of range; then out is not written.
EXPORT int64_t autoembed_chunk_look_up(const float* pool, int64_t places, int64_t dim, const int32_t* pointers,
                                       int64_t entries, int64_t chunks, const int32_t* entry, int64_t ids,
                                       const void* rows, int64_t row_size, int64_t count, float* out,
                                       int64_t threads) {
    const Numbers row{rows, row_size};
    const int64_t bad = first_outside(row, count, ids);
    if (bad < count) return -1 - bad;
    const std::vector<float> zeros(dim, 0.0f);
    const auto entry_of = [&](int64_t n) INLINE_LAMBDA { return entry ? int64_t{entry[row[n]]} : row[n]; };
    const auto is_entry = [&](int64_t e) INLINE_LAMBDA {
        return static_cast<uint64_t>(e) < static_cast<uint64_t>(entries);
    };
    with_chunk_dim(dim, [&](auto width) INLINE_LAMBDA {
        for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            for (int64_t n = start; n < stop; ++n) {
                if (entry && n + 3 * AHEAD < stop) prefetch(entry + row[n + 3 * AHEAD]);
                if (n + 2 * AHEAD < stop) {
                    const int64_t e = entry_of(n + 2 * AHEAD);
                    if (is_entry(e)) prefetch(pointers + e * chunks);
                }
                if (n + AHEAD < stop) {
                    const int64_t e = entry_of(n + AHEAD);
                    for (int64_t c = 0; is_entry(e) && c < chunks; ++c) {
                        const int64_t place = pointers[e * chunks + c];
                        prefetch(pool + std::max<int64_t>(place, 0) * width);
                    }
                }
                const int64_t e = entry_of(n);
                float* vector = out + n * chunks * width;
                if (!is_entry(e)) {
                    std::memset(vector, 0, chunks * width * sizeof(float));
                    continue;
                }
                for (int64_t c = 0; c < chunks; ++c) {
                    const int32_t place = pointers[e * chunks + c];
                    // which chunks are held is chance to the processor: choose an address, not a branch
                    const float* from = is_place(place, places) ? pool + place * width : zeros.data();
                    std::memcpy(vector + c * width, from, width * sizeof(float));
                }
            }
        });
    });
    return 0;
}

// Chunks trained where they lie in the pool, and the utility of all; numbers for ids met for the first time. See
// chunk_step.py and chunk_store.py.

#include <algorithm>
#include <vector>

#include "chunks.h"
#include "row_step.h"

namespace {

// Sum of squares, in eight lanes where there are as many
template <typename Dim>
INLINE float square_sum(const float* values, Dim dim) {
    f32x8 sums{};
    int64_t j = 0;
    for (; j + 8 <= dim; j += 8) {
        const f32x8 v = load<f32x8>(values + j);
        sums += v * v;
    }
    float sum = ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
    for (; j < dim; ++j) sum += values[j] * values[j];
    return sum;
}

// The gradients of distinct rows: as they are, or summed over the look-ups of each in the batch's order
struct Gradients {
    const float* all;
    const int64_t *order, *starts;
    int64_t lookups, count, width;

    const float* of(int64_t u, float* room) const {
        if (!order) return all + u * width;
        const int64_t stop = u + 1 < count ? starts[u + 1] : lookups;
        // as sum_repeats adds: from zero on, whose sum with -0 is 0
        std::fill_n(room, width, 0.0f);
        for (int64_t k = starts[u]; k < stop; ++k) {
            if (k + AHEAD < lookups) {
                const float* next = all + order[k + AHEAD] * width;
                for (int64_t j = 0; j < width; j += 16) prefetch(next + j);
            }
            const float* row = all + order[k] * width;
            for (int64_t j = 0; j < width; ++j) room[j] += row[j];
        }
        return room;
    }
};

}  // namespace

// pool (places, dim) with its state as row_step.h says, utility and pointers (entries, chunks); numbers (count,) of
// distinct entries, int32 or int64 by number_size, and their gradients (count, chunks * dim), or with order (lookups,)
// and starts (count,) of autoembed_dedupe those of all look-ups (lookups, chunks * dim). Returns 0, or -1 - place where
// a number is out of range; then nothing is written.
EXPORT int64_t autoembed_chunk_step(int64_t optimizer, float* pool, int64_t places, int64_t dim, float* moment,
                                    float* square, int32_t* steps, float* utility, const int32_t* pointers,
                                    int64_t entries, int64_t chunks, const void* numbers, int64_t number_size,
                                    int64_t count, const float* gradient, const int64_t* order,
                                    const int64_t* starts, int64_t lookups, float rate, float eps, float l2,
                                    double beta1, double beta2, int64_t threads) {
    const Numbers number{numbers, number_size};
    const int64_t bad = first_outside(number, count, entries);
    if (bad < count) return -1 - bad;
    const auto chosen = static_cast<Optimizer>(optimizer);
    const State state{moment, square, steps};
    const Settings settings{rate, eps, l2, beta1, beta2};
    const Gradients gradients{gradient, order, starts, lookups, count, chunks * dim};
    with_chunk_dim(dim, [&](auto width) INLINE_LAMBDA {
        for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            std::vector<float> room(chunks * dim);
            Corrections corrections(settings);
            for (int64_t u = start; u < stop; ++u) {
                if (u + 2 * AHEAD < stop) {
                    const int64_t at = number[u + 2 * AHEAD] * chunks;
                    prefetch(pointers + at);
                    __builtin_prefetch(utility + at, 1, 3);
                }
                if (u + AHEAD < stop) {
                    const int32_t* held = pointers + number[u + AHEAD] * chunks;
                    for (int64_t c = 0; c < chunks; ++c) {
                        if (!is_place(held[c], places)) continue;
                        fetch_row(pool + held[c] * width, width);
                        fetch_state(chosen, state, held[c], width);
                    }
                }
                const float* g = gradients.of(u, room.data());
                const int64_t at = number[u] * chunks;
                for (int64_t c = 0; c < chunks; ++c, g += width) {
                    utility[at + c] += std::sqrt(square_sum(g, width));
                    const int32_t place = pointers[at + c];
                    if (is_place(place, places))
                        step_row(chosen, pool + place * width, g, state, place, corrections, settings, width);
                }
            }
        });
    });
    return 0;
}

// Entries of rows (count,) in [0, ids) to out (count,); those that have none get the numbers from `next` on, in order.
// Returns the number after the last one, or -1 - place where a row is out of range; then nothing is written.
EXPORT int64_t autoembed_new_entries(int32_t* entry, int64_t ids, const int64_t* rows, int64_t count, int64_t next,
                                     int32_t* out) {
    const int64_t bad = first_outside(Numbers{rows, 8}, count, ids);
    if (bad < count) return -1 - bad;
    for (int64_t n = 0; n < count; ++n) {
        if (n + 2 * AHEAD < count) __builtin_prefetch(entry + rows[n + 2 * AHEAD], 1, 3);
        int32_t& held = entry[rows[n]];
        if (held < 0) held = static_cast<int32_t>(next++);
        out[n] = held;
    }
    return next;
}

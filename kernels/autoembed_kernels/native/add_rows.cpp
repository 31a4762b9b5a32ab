// Rows of values added to the rows of a table that they belong to. add_rows.py has the formula.

#include "vectors.h"

namespace {

constexpr int64_t AHEAD = 16;  // rows fetched ahead of their use

}  // namespace

// table[rows[n]] += values[n] for n < count, in this order; table (height, dim), values (count, dim). Returns 0, or
// -1 - place where a row is out of range; then the table is as it was.
EXPORT int64_t autoembed_add_rows(float* table, int64_t height, int64_t dim, const int64_t* rows, int64_t count,
                                  const float* values, int64_t threads) {
    for (int64_t n = 0; n < count; ++n)
        if (static_cast<uint64_t>(rows[n]) >= static_cast<uint64_t>(height)) return -1 - n;
    // each thread has rows of the table that are its own, and goes through all values
    for_ranges(height, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        with_dim(dim, [&](auto dim) INLINE_LAMBDA {
            for (int64_t n = 0; n < count; ++n) {
                if (n + AHEAD < count) prefetch(table + rows[n + AHEAD] * dim);
                if (rows[n] < start || rows[n] >= stop) continue;
                float* const row = table + rows[n] * dim;
                const float* const value = values + n * dim;
                int64_t d = 0;
                for (; d + 8 <= dim; d += 8) store(row + d, load<f32x8>(row + d) + load<f32x8>(value + d));
                for (; d < dim; ++d) row[d] += value[d];
            }
        });
    });
    return 0;
}

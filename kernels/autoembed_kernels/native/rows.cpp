// Rows copied by look-up, and the gradients of repeated look-ups summed.

#include "vectors.h"

namespace {

constexpr int64_t AHEAD = 16;  // rows fetched ahead of their use; 8 to 32 measure alike

INLINE void fetch_row(const float* row, int64_t dim) {
    for (int64_t j = 0; j < dim; j += 16) prefetch(row + j);
}

// The width of a row where it is a constant, else 1
template <typename Dim>
constexpr int64_t kept_width() {
    if constexpr (std::is_same_v<Dim, int64_t>) return 1;
    else return Dim::value;
}

}  // namespace

// out[n] = table[rows[n]] for n < count; table (height, dim). Returns 0, or -1 - place where a row is out of
// range; then out is not written.
EXPORT int64_t autoembed_take_rows(const float* table, const int64_t* rows, int64_t count, int64_t height,
                                   int64_t dim, float* out, int64_t threads) {
    for (int64_t n = 0; n < count; ++n)
        if (static_cast<uint64_t>(rows[n]) >= static_cast<uint64_t>(height)) return -1 - n;
    if (dim == 0) return 0;
    with_dim(dim, [&](auto width) INLINE_LAMBDA {
        for_rows(count, threads, [&](int64_t n) INLINE_LAMBDA {
            if (n + AHEAD < count) fetch_row(table + rows[n + AHEAD] * width, width);
            std::memcpy(out + n * width, table + rows[n] * width, width * sizeof(float));
        });
    });
    return 0;
}

// out[u] = sum of gradient[order[k]] over starts[u] <= k < starts[u + 1], in this order; the last row's
// look-ups end at `lookups`. out (distinct, dim), gradient (lookups, dim). `order` is of autoembed_dedupe.
EXPORT int64_t autoembed_sum_repeats(const float* gradient, const int64_t* order, const int64_t* starts,
                                     int64_t lookups, int64_t distinct, int64_t dim, float* out,
                                     int64_t threads) {
    with_dim(dim, [&](auto width) INLINE_LAMBDA {
        for_rows(distinct, threads, [&](int64_t u) INLINE_LAMBDA {
            const int64_t stop = u + 1 < distinct ? starts[u + 1] : lookups;
            // sums stay in registers where the compiler knows the width
            float sum[kept_width<decltype(width)>()] = {};
            float* held = kept_width<decltype(width)>() > 1 ? sum : out + u * width;
            for (int64_t j = 0; j < width; ++j) held[j] = 0.0f;
            for (int64_t k = starts[u]; k < stop; ++k) {
                if (k + AHEAD < lookups) fetch_row(gradient + order[k + AHEAD] * width, width);
                const float* row = gradient + order[k] * width;
                for (int64_t j = 0; j < width; ++j) held[j] += row[j];
            }
            if (held == sum) std::memcpy(out + u * width, sum, sizeof(sum));
        });
    });
    return 0;
}

// The codes of points under one codebook. nearest.h has how they are found.

#include "nearest.h"

namespace {

constexpr int64_t PART = 256;  // points that are laid out at once: they stay in the cache

}  // namespace

// points (count, dim), centres (centre_count, dim) -> codes (count,)
EXPORT int64_t autoembed_nearest_row(const float* points, int64_t count, int64_t dim, const float* centres,
                                     int64_t centre_count, int64_t* codes, int64_t threads) {
    const std::vector<float> middle = middle_of(centres, centre_count, dim);
    Centres laid;
    laid.lay(centres, centre_count, dim, middle.data());
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        std::vector<float> lanes;
        with_dim(dim, [&](auto dim) INLINE_LAMBDA {
            for (int64_t from = start; from < stop; from += PART) {
                const int64_t part = std::min(PART, stop - from);
                lay_points(points, from, from + part, dim, middle.data(), lanes);
                find_all(lanes.data(), part, dim, laid, codes + from);
            }
        });
    });
    return 0;
}

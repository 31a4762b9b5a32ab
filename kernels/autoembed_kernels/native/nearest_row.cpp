// The codes of points under one codebook. nearest.h has how they are found.

#include "nearest.h"

// points (count, dim), centres (centre_count, dim) -> codes and far (count,), far as sums of squared differences
EXPORT int64_t autoembed_nearest_row(const float* points, int64_t count, int64_t dim, const float* centres,
                                     int64_t centre_count, int64_t* codes, float* far, int64_t threads) {
    find_nearest(points, count, dim, centres, centre_count, codes, far, threads);
    return 0;
}

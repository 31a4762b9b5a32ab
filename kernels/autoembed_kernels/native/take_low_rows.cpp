// Rows stored in 16 or 8 bits read by look-up, as float32.

#include "low_rows.h"

namespace {

constexpr int64_t AHEAD = 16;  // rows fetched ahead of their use

}  // namespace

// out[n] (dim,) = row rows[n] of weight (height, dim), of format float16, bfloat16 or int8 with steps (height,), for
// n < count. Returns 0, or -1 - place where a row is out of range; then out is not written.
EXPORT int64_t autoembed_take_low_rows(int64_t format, uint8_t* weight, uint16_t* row_steps, const int64_t* rows,
                                       int64_t count, int64_t height, int64_t dim, float* out, int64_t threads) {
    for (int64_t n = 0; n < count; ++n)
        if (static_cast<uint64_t>(rows[n]) >= static_cast<uint64_t>(height)) return -1 - n;
    const Stored stored{weight, row_steps};
    with_format(static_cast<Format>(format), [&](auto kind) INLINE_LAMBDA {
        const int64_t row_bytes = dim * (kind == INT8 ? 1 : 2);
        with_dim(dim, [&](auto width) INLINE_LAMBDA {
            for_rows(count, threads, [&](int64_t n) INLINE_LAMBDA {
                if (n + AHEAD < count) {
                    const int64_t later = rows[n + AHEAD];
                    for (int64_t byte = 0; byte < row_bytes; byte += 64) prefetch(weight + later * row_bytes + byte);
                    if (kind == INT8) prefetch(row_steps + later);
                }
                decode<kind.value, false>(stored, rows[n], out + n * width, width);
            });
        });
    });
    return 0;
}

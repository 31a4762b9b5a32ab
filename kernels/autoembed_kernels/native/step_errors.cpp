// What rows of groups lose by rounding, for many steps at once. step_errors.py has the formula.

#include <algorithm>

#include "vectors.h"

namespace {

// Sums of one column over `rows` rows, for LANES steps: few columns fill no vector, the steps of a search do
INLINE f32s errors(const float* values, const float* weights, int64_t rows, int64_t dim, f32s steps,
                     float lowest, float highest, float shift) {
    const f32s low = f32s{} + lowest, high = f32s{} + highest, inverse = 1.0f / steps;
    f32s sum{};
    for (int64_t row = 0; row < rows; ++row) {
        const float value = values[row * dim];
        const f32s units = inverse * value - shift;
        // the ends of the range are whole numbers: what is left is small enough to be rounded by a sum
        f32s inside = units < low ? low : units;
        inside = inside > high ? high : inside;
        const f32s code = (inside + 0x1.8p23f) - 0x1.8p23f;
        const f32s change = (code + shift) * steps - value;
        sum = sum + change * change * weights[row * dim];
    }
    return sum;
}

}  // namespace

// values, weights (starts[groups], dim), group g's rows [starts[g], starts[g + 1]); steps (groups, points) above zero
// -> out (groups, points, dim)
EXPORT int64_t autoembed_step_errors(const float* values, const float* weights, const int64_t* starts, int64_t groups,
                                     int64_t dim, const float* steps, int64_t points, float lowest, float highest,
                                     float shift, float* out, int64_t threads) {
    for_rows(groups, threads, [&](int64_t group) INLINE_LAMBDA {
        const int64_t first = starts[group] * dim, rows = starts[group + 1] - starts[group];
        for (int64_t point = group * points; point < (group + 1) * points; point += LANES) {
            const int64_t count = std::min(LANES, (group + 1) * points - point);
            f32s some = f32s{} + 1.0f;
            std::memcpy(&some, steps + point, count * sizeof(float));
            for (int64_t column = 0; column < dim; ++column) {
                const f32s sum = errors(values + first + column, weights + first + column, rows, dim, some, lowest,
                                          highest, shift);
                for (int64_t lane = 0; lane < count; ++lane) out[(point + lane) * dim + column] = sum[lane];
            }
        }
    });
    return 0;
}

// What rows of groups lose by rounding, for many steps at once. step_errors.py has the formula.

#include "eights.h"

namespace {

// Sums over the rows [from, to) of one group, of up to 8 columns, for one step
INLINE f32x8 errors(const float* values, const float* weights, int64_t from, int64_t to, int64_t dim, int64_t columns,
                    float step, float lowest, float highest, float shift) {
    const f32x8 low = f32x8{} + lowest, high = f32x8{} + highest;
    f32x8 sum{};
    for (int64_t row = from; row < to; ++row) {
        const f32x8 value = some<f32x8>(values + row * dim, columns), weight = some<f32x8>(weights + row * dim, columns);
        const f32x8 units = value / step - shift;
        // the ends of the range are whole numbers: what is left is small enough to be rounded by a sum
        f32x8 inside = units < low ? low : units;
        inside = inside > high ? high : inside;
        const f32x8 code = (inside + 0x1.8p23f) - 0x1.8p23f;
        const f32x8 change = (code + shift) * step - value;
        sum = sum + change * change * weight;
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
        for (int64_t column = 0; column < dim; column += STEP) {
            const int64_t columns = std::min(STEP, dim - column);
            for (int64_t p = group * points; p < (group + 1) * points; ++p) {
                const f32x8 sum = errors(values + column, weights + column, starts[group], starts[group + 1], dim,
                                         columns, steps[p], lowest, highest, shift);
                put(out + p * dim + column, sum, columns);
            }
        }
    });
    return 0;
}

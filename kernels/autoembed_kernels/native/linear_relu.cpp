// What a layer does beside its products of matrices: bias and ReLU in one pass, and their gradient in another.
// linear_relu.py has the formulas.

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t ROWS = 64;  // whose gradients are summed apart: sums of thousands in turn lose digits

}  // namespace

// x (rows, columns) = max(x + bias, 0), in place; NaN stays
EXPORT int64_t autoembed_bias_relu(float* x, const float* bias, int64_t rows, int64_t columns, int64_t threads) {
    for_rows(rows, threads, [&](int64_t row) INLINE_LAMBDA {
        float* held = x + row * columns;
        for (int64_t j = 0; j < columns; ++j) {
            const float value = held[j] + bias[j];
            held[j] = value < 0.0f ? 0.0f : value;
        }
    });
    return 0;
}

// masked (rows, columns) = gradient where out is above 0, else 0; it may be the gradient itself. summed (columns,)
// = its sum over rows. Each thread has some of the columns.
EXPORT int64_t autoembed_bias_relu_gradient(const float* gradient, const float* out, int64_t rows, int64_t columns,
                                            float* masked, float* summed, int64_t threads) {
    const int64_t blocks = (columns + LANES - 1) / LANES;
    for_ranges(blocks, std::min(threads, blocks), [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        const int64_t first = start * LANES, last = std::min(stop * LANES, columns), held = last - first;
        std::vector<float> room(static_cast<size_t>(held));
        float* some = room.data();
        for (int64_t j = 0; j < held; ++j) summed[first + j] = 0.0f;
        for (int64_t row = 0; row < rows; row += ROWS) {
            for (int64_t j = 0; j < held; ++j) some[j] = 0.0f;
            const int64_t end = std::min(row + ROWS, rows);
            for (int64_t r = row; r < end; ++r) {
                const int64_t at = r * columns + first;
                int64_t j = 0;
                // GCC makes a jump of each comparison unless it sees vectors
                for (; j + LANES <= held; j += LANES) {
                    const f32s zeros{}, given = load<f32s>(gradient + at + j);
                    const f32s kept = load<f32s>(out + at + j) <= zeros ? zeros : given;
                    store(masked + at + j, kept);
                    store(some + j, load<f32s>(some + j) + kept);
                }
                for (; j < held; ++j) {
                    const float kept = out[at + j] <= 0.0f ? 0.0f : gradient[at + j];
                    masked[at + j] = kept;
                    some[j] += kept;
                }
            }
            for (int64_t j = 0; j < held; ++j) summed[first + j] += some[j];
        }
    });
    return 0;
}

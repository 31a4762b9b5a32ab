// One optimizer step on some rows and their state, in one pass over each row.

#include <algorithm>

#include "repeats.h"
#include "row_step.h"

namespace {

constexpr int64_t TOGETHER = 4;  // rows whose gradients are summed before the steps of all: no step waits for another

template <typename Dim>
__attribute__((noinline)) void update_range(Optimizer optimizer, float* weight, const State& state,
                                            const Settings& settings, const Source& source, int64_t start,
                                            int64_t stop, Dim dim) {
    const int64_t count = source.distinct();
    RowRoom<Dim, TOGETHER> sums(dim);
    Corrections corrections(settings);
    const float* gradients[TOGETHER];
    for (int64_t first = start; first < stop; first += TOGETHER) {
        const int64_t held = std::min(TOGETHER, stop - first);
        for (int64_t i = 0; i < held; ++i) {
            const int64_t ahead = first + i + AHEAD;
            if (ahead < count) {
                fetch_row(weight + source.row(ahead) * dim, dim);
                fetch_state(optimizer, state, source.row(ahead), dim);
            }
            gradients[i] = source.of(first + i, sums.row(i), dim);
        }
        for (int64_t i = 0; i < held; ++i) {
            const int64_t row = source.row(first + i);
            step_row(optimizer, weight + row * dim, gradients[i], state, row, corrections, settings, dim);
        }
    }
}

int64_t update_all(Optimizer optimizer, float* weight, const State& state, const Settings& settings,
                   const int64_t* rows, const float* gradient, int64_t count, int64_t height, int64_t dim,
                   bool repeated, int64_t threads) {
    int64_t result = 0;
    with_dim(dim, [&](auto width) INLINE_LAMBDA {
        const auto range = [&](const Source& source, int64_t start, int64_t stop) INLINE_LAMBDA {
            update_range(optimizer, weight, state, settings, source, start, stop, width);
        };
        result = for_sources(rows, gradient, count, height, repeated, threads, range);
    });
    return result;
}

}  // namespace

// weight (height, dim) and state at the distinct rows (count,) from gradient (count, dim), in place; state as
// `State` says. Returns 0, or -1 - place where a row is out of range; then nothing is written.
EXPORT int64_t autoembed_row_update(int64_t optimizer, float* weight, const int64_t* rows,
                                    const float* gradient, float* moment, float* square, int32_t* steps,
                                    int64_t count, int64_t height, int64_t dim, float rate, float eps, float l2,
                                    double beta1, double beta2, int64_t threads) {
    return update_all(static_cast<Optimizer>(optimizer), weight, {moment, square, steps},
                      {rate, eps, l2, beta1, beta2}, rows, gradient, count, height, dim, false, threads);
}

// The same at the rows of look-ups (count,), which may repeat: their gradients (count, dim) are summed on the
// way. count and height are below 2^32.
EXPORT int64_t autoembed_repeated_row_update(int64_t optimizer, float* weight, const int64_t* rows,
                                             const float* gradient, float* moment, float* square,
                                             int32_t* steps, int64_t count, int64_t height, int64_t dim,
                                             float rate, float eps, float l2, double beta1, double beta2,
                                             int64_t threads) {
    return update_all(static_cast<Optimizer>(optimizer), weight, {moment, square, steps},
                      {rate, eps, l2, beta1, beta2}, rows, gradient, count, height, dim, true, threads);
}

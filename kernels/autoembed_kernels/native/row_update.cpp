// One optimizer step on some rows and their state, in one pass over each row.

#include "repeats.h"
#include "row_step.h"

// weight (height, dim) and state at the distinct rows (count,) from gradient (count, dim), in place; state as
// `State` says. Returns 0, or -1 - place where a row is out of range; then nothing is written.
EXPORT int64_t autoembed_row_update(int64_t optimizer, float* weight, const int64_t* rows,
                                    const float* gradient, float* moment, float* square, int32_t* steps,
                                    int64_t count, int64_t height, int64_t dim, float rate, float eps, float l2,
                                    double beta1, double beta2, int64_t threads) {
    for (int64_t u = 0; u < count; ++u)
        if (static_cast<uint64_t>(rows[u]) >= static_cast<uint64_t>(height)) return -1 - u;
    const Settings s{rate, eps, l2, beta1, beta2};
    const State state{moment, square, steps};
    const auto chosen = static_cast<Optimizer>(optimizer);
    with_dim(dim, [&](auto width) INLINE_LAMBDA {
        for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            Corrections corrections(s);
            for (int64_t u = start; u < stop; ++u) {
                if (u + AHEAD < count) {
                    fetch_row(weight + rows[u + AHEAD] * width, width);
                    fetch_state(chosen, state, rows[u + AHEAD], width);
                }
                step_row(chosen, weight + rows[u] * width, gradient + u * width, state, rows[u], corrections, s,
                         width);
            }
        });
    });
    return 0;
}

// The same at the rows of look-ups (count,), which may repeat: their gradients (count, dim) are summed on the
// way. count and height are below 2^32.
EXPORT int64_t autoembed_repeated_row_update(int64_t optimizer, float* weight, const int64_t* rows,
                                             const float* gradient, float* moment, float* square,
                                             int32_t* steps, int64_t count, int64_t height, int64_t dim,
                                             float rate, float eps, float l2, double beta1, double beta2,
                                             int64_t threads) {
    thread_local SortedLookUps kept;
    SortedLookUps& sorted = kept;  // this thread's, in all threads of the loop
    const int64_t bad = sorted.sort(rows, count, height, threads);
    if (bad < 0) return bad;
    const Settings s{rate, eps, l2, beta1, beta2};
    const State state{moment, square, steps};
    const auto chosen = static_cast<Optimizer>(optimizer);
    with_dim(dim, [&](auto width) INLINE_LAMBDA {
        sorted.for_rows_in_ranges(threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            Corrections corrections(s);
            RowRoom<decltype(width)> room(width);
            float* sum = room.data();
            for (int64_t u = start; u < stop; ++u) {
                if (u + AHEAD < sorted.distinct) {
                    const int64_t later = sorted.row(u + AHEAD);
                    fetch_row(weight + later * width, width);
                    fetch_state(chosen, state, later, width);
                }
                sum_of_row(sorted, u, gradient, count, sum, width);
                const int64_t row = sorted.row(u);
                step_row(chosen, weight + row * width, sum, state, row, corrections, s, width);
            }
        });
    });
    return 0;
}

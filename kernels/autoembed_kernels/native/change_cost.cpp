// What changes of rows cost in a quadratic model, by group. change_cost.py has the formula.

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t COLUMNS = 16;  // side by side whatever a register holds: sums are the same bits then
constexpr int64_t TOGETHER = 4;  // rows that share what is read of the metric
constexpr int64_t ROWS = 256;    // summed in float32 before they are in float64

// Where TOGETHER changes and one metric lie, the columns filled up with zeros to whole vectors
struct Work {
    int64_t wide;
    std::vector<float> changes, metric;

    explicit Work(int64_t dim)
        : wide((dim + COLUMNS - 1) / COLUMNS * COLUMNS), changes(TOGETHER * wide), metric(dim * wide) {}

    void read_metric(const float* from, int64_t dim) {
        for (int64_t row = 0; row < dim; ++row) std::copy_n(from + row * dim, dim, metric.data() + row * wide);
    }
};

// How one group's rows are rounded, column by column: codes + shift times the step, codes in [lowest, highest]
struct Grid {
    const float *steps, *lowest, *highest, *shift;
    std::vector<float> inverse;

    Grid(const float* steps, const float* lowest, const float* highest, const float* shift, int64_t dim)
        : steps(steps), lowest(lowest), highest(highest), shift(shift), inverse(dim) {
        for (int64_t d = 0; d < dim; ++d) inverse[d] = 1.0f / steps[d];
    }

    INLINE float operator()(float value, int64_t d) const {
        const float units = value * inverse[d] - shift[d];
        // the ends of the range are whole numbers: what is left is small enough to be rounded by a sum
        float inside = units < lowest[d] ? lowest[d] : units;
        inside = inside > highest[d] ? highest[d] : inside;
        return ((inside + 0x1.8p23f) - 0x1.8p23f + shift[d]) * steps[d];
    }
};

struct AsItIs {
    INLINE float operator()(float value, int64_t) const { return value; }
};

// Costs of `rows` rows, which read `stored(read)`, with the metric of `work`
template <typename Dim, typename Stored>
INLINE double cost(const float* read, const float* values, const float* root, int64_t rows, Dim dim,
                   const Stored& stored, Work& work) {
    float* const changes = work.changes.data();
    const float* const metric = work.metric.data();
    const int64_t wide = (dim + COLUMNS - 1) / COLUMNS * COLUMNS;
    f32x16 sums{};
    for (int64_t from = 0; from < rows; from += TOGETHER) {
        for (int64_t p = 0; p < TOGETHER; ++p) {
            const int64_t row = std::min(from + p, rows - 1) * dim;
            const float counts = from + p < rows ? 1.0f : 0.0f;
            for (int64_t d = 0; d < dim; ++d)
                changes[p * wide + d] = counts * root[row + d] * (stored(read[row + d], d) - values[row + d]);
        }
        for (int64_t block = 0; block < wide; block += COLUMNS) {
            f32x16 turned[TOGETHER] = {};
            for (int64_t d = 0; d < dim; ++d) {
                const auto weights = load<f32x16>(metric + d * wide + block);
                for (int64_t p = 0; p < TOGETHER; ++p) turned[p] = turned[p] + weights * changes[p * wide + d];
            }
            for (int64_t p = 0; p < TOGETHER; ++p)
                sums = sums + turned[p] * load<f32x16>(changes + p * wide + block);
        }
    }
    double total = 0;
    for (int64_t lane = 0; lane < COLUMNS; ++lane) total += sums[lane];
    return total;
}

}  // namespace

// read, values, root (starts[groups], dim), group g's rows [starts[g], starts[g + 1]); metrics (fields, dim, dim);
// fields (groups,) in range; steps (groups, dim), lowest, highest, shift (dim,), or null where rows are not rounded
// -> out (groups,)
EXPORT int64_t autoembed_change_cost(const float* read, const float* values, const float* root, const float* metrics,
                                     const int64_t* starts, const int64_t* fields, int64_t groups, int64_t dim,
                                     const float* steps, const float* lowest, const float* highest,
                                     const float* shift, double* out, int64_t threads) {
    for_ranges(groups, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        Work work(dim);
        with_dim(dim, [&](auto dim) INLINE_LAMBDA {
            const auto all = [&](int64_t group, const auto& stored) INLINE_LAMBDA {
                double total = 0;
                for (int64_t row = starts[group]; row < starts[group + 1]; row += ROWS)
                    total += cost(read + row * dim, values + row * dim, root + row * dim,
                                  std::min(ROWS, starts[group + 1] - row), dim, stored, work);
                out[group] = total;
            };
            for (int64_t group = start; group < stop; ++group) {
                if (group == start || fields[group] != fields[group - 1])
                    work.read_metric(metrics + fields[group] * dim * dim, dim);
                if (steps) {
                    all(group, Grid(steps + group * dim, lowest, highest, shift, dim));
                } else {
                    all(group, AsItIs{});
                }
            }
        });
    });
    return 0;
}

// What changes of rows cost in a quadratic model, by group. change_cost.py has the formula.

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t LANES = 16;
constexpr int64_t TOGETHER = 4;  // rows that share what is read of the metric
constexpr int64_t ROWS = 256;    // summed in float32 before they are in float64

// Where TOGETHER changes and one metric lie, the columns filled up with zeros to whole vectors
struct Work {
    int64_t wide;
    std::vector<float> changes, metric;

    explicit Work(int64_t dim)
        : wide((dim + LANES - 1) / LANES * LANES), changes(TOGETHER * wide), metric(dim * wide) {}

    void read_metric(const float* from, int64_t dim) {
        for (int64_t row = 0; row < dim; ++row) std::copy_n(from + row * dim, dim, metric.data() + row * wide);
    }
};

// Costs of `rows` rows with the metric of `work`
template <typename Dim>
INLINE double cost(const float* read, const float* values, const float* root, int64_t rows, Dim dim, Work& work) {
    float* const changes = work.changes.data();
    const float* const metric = work.metric.data();
    const int64_t wide = (dim + LANES - 1) / LANES * LANES;
    f32x16 sums{};
    for (int64_t from = 0; from < rows; from += TOGETHER) {
        for (int64_t p = 0; p < TOGETHER; ++p) {
            const int64_t row = std::min(from + p, rows - 1) * dim;
            const float counts = from + p < rows ? 1.0f : 0.0f;
            for (int64_t d = 0; d < dim; ++d)
                changes[p * wide + d] = counts * root[row + d] * (read[row + d] - values[row + d]);
        }
        for (int64_t block = 0; block < wide; block += LANES) {
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
    for (int64_t lane = 0; lane < LANES; ++lane) total += sums[lane];
    return total;
}

}  // namespace

// read, values, root (starts[groups], dim), group g's rows [starts[g], starts[g + 1]); metrics (fields, dim, dim);
// fields (groups,) in range -> out (groups,)
EXPORT int64_t autoembed_change_cost(const float* read, const float* values, const float* root, const float* metrics,
                                     const int64_t* starts, const int64_t* fields, int64_t groups, int64_t dim,
                                     double* out, int64_t threads) {
    for_ranges(groups, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        Work work(dim);
        with_dim(dim, [&](auto dim) INLINE_LAMBDA {
            for (int64_t group = start; group < stop; ++group) {
                if (group == start || fields[group] != fields[group - 1])
                    work.read_metric(metrics + fields[group] * dim * dim, dim);
                out[group] = 0;
                for (int64_t row = starts[group]; row < starts[group + 1]; row += ROWS)
                    out[group] += cost(read + row * dim, values + row * dim, root + row * dim,
                                       std::min(ROWS, starts[group + 1] - row), dim, work);
            }
        });
    });
    return 0;
}

// Which of a few centres lies nearest to each point. nearest_row.py has the formula.
//
// |p - c|^2 / 2 = |p|^2 / 2 - (<p, c> - |c|^2 / 2): the greatest of what stands in brackets is sought, which takes one
// multiply-add a number; all are taken from a middle first, so that little cancels. Points lie side by side in the
// lanes of vectors, so that no sum runs across lanes.

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t BLOCKS = 2;    // of LANES points that share what is read of the centres
constexpr int64_t TOGETHER = 4;  // centres that share what is read of the points

// Mean of `count` rows, 0 where there are none
INLINE std::vector<float> middle_of(const float* rows, int64_t count, int64_t dim) {
    std::vector<float> middle(dim);
    for (int64_t row = 0; row < count; ++row)
        for (int64_t d = 0; d < dim; ++d) middle[d] += rows[row * dim + d];
    for (float& number : middle) number /= static_cast<float>(std::max<int64_t>(count, 1));
    return middle;
}

// Points [start, stop) of (count, dim) less the middle, in blocks (dim, LANES); what is left of the last block and
// blocks behind it, up to a multiple of BLOCKS, is 0
INLINE void lay_points(const float* points, int64_t start, int64_t stop, int64_t dim, const float* middle,
                       std::vector<float>& lanes) {
    const int64_t blocks = (stop - start + BLOCKS * LANES - 1) / (BLOCKS * LANES) * BLOCKS;
    lanes.assign(blocks * dim * LANES, 0.0f);
    for (int64_t at = start; at < stop; ++at) {
        float* const lane = lanes.data() + (at - start) / LANES * dim * LANES + (at - start) % LANES;
        for (int64_t d = 0; d < dim; ++d) lane[d * LANES] = points[at * dim + d] - middle[d];
    }
}

// Centres less the middle and -|c|^2 / 2 of each, filled up to a multiple of TOGETHER with some that are never nearest
struct Centres {
    std::vector<float> rows, least;
    int64_t count = 0;

    void lay(const float* centres, int64_t centre_count, int64_t dim, const float* middle) {
        count = (centre_count + TOGETHER - 1) / TOGETHER * TOGETHER;
        rows.assign(count * dim, 0.0f);
        least.assign(count, -__builtin_inff());
        for (int64_t k = 0; k < centre_count; ++k) {
            least[k] = 0.0f;
            for (int64_t d = 0; d < dim; ++d) {
                const float number = centres[k * dim + d] - middle[d];
                rows[k * dim + d] = number;
                least[k] -= 0.5f * number * number;
            }
        }
    }
};

// Of BLOCKS blocks of points the first of the nearest centres, 0 where a point holds NaN
template <typename Dim>
INLINE void find(const float* lanes, Dim dim, const Centres& centres, i32s* codes) {
    f32s best[BLOCKS];
    for (int64_t b = 0; b < BLOCKS; ++b) {
        best[b] = f32s{} - __builtin_inff();
        codes[b] = i32s{};
    }
    for (int64_t from = 0; from < centres.count; from += TOGETHER) {
        const float* const rows = centres.rows.data() + from * dim;
        f32s near[TOGETHER][BLOCKS];
        for (int64_t k = 0; k < TOGETHER; ++k)
            for (int64_t b = 0; b < BLOCKS; ++b) near[k][b] = f32s{} + centres.least[from + k];
        for (int64_t d = 0; d < dim; ++d)
            for (int64_t b = 0; b < BLOCKS; ++b) {
                const auto point = load<f32s>(lanes + (b * dim + d) * LANES);
                for (int64_t k = 0; k < TOGETHER; ++k) near[k][b] = near[k][b] + point * rows[k * dim + d];
            }
        for (int64_t k = 0; k < TOGETHER; ++k)
            for (int64_t b = 0; b < BLOCKS; ++b) {
                const i32s nearer = near[k][b] > best[b];
                best[b] = nearer ? near[k][b] : best[b];
                codes[b] = nearer ? i32s{} + static_cast<int32_t>(from + k) : codes[b];
            }
    }
}

// Codes (count,) of as many laid points
template <typename Dim>
INLINE void find_all(const float* lanes, int64_t count, Dim dim, const Centres& centres, int64_t* codes) {
    for (int64_t from = 0; from < count; from += BLOCKS * LANES) {
        i32s found[BLOCKS];
        find(lanes + from * dim, dim, centres, found);
        for (int64_t at = 0; at < BLOCKS * LANES && from + at < count; ++at)
            codes[from + at] = found[at / LANES][at % LANES];
    }
}

}  // namespace

// Which of a few centres lies nearest to each point. nearest_row.py has the formula.
//
// |p - c|^2 / 2 = |p|^2 / 2 - (<p, c> - |c|^2 / 2): the greatest of what stands in brackets is sought, which takes one
// multiply-add a number; all are taken from the centres' middle first, so that little cancels.

#pragma once

#include <vector>

#include "vectors.h"

namespace {

using i32x16 = int32_t __attribute__((vector_size(64)));
constexpr int64_t LANES = 16;
constexpr int64_t TOGETHER = 8;  // points that share what is read of the centres

struct Best {
    f32x16 near;
    i32x16 block;
};

// Of TOGETHER points (dim,) the nearest centres, lane by lane; centres (1 + dim, blocks * LANES), the first row of
// them -|c|^2 / 2
template <typename Dim>
INLINE void find(const float* points, Dim dim, const float* centres, int64_t blocks, Best* best) {
    for (int64_t p = 0; p < TOGETHER; ++p) best[p] = {f32x16{} - __builtin_inff(), i32x16{}};
    for (int64_t block = 0; block < blocks; ++block) {
        f32x16 near[TOGETHER];
        for (int64_t p = 0; p < TOGETHER; ++p) near[p] = load<f32x16>(centres + block * LANES);
        for (int64_t d = 0; d < dim; ++d) {
            const auto centre = load<f32x16>(centres + ((1 + d) * blocks + block) * LANES);
            for (int64_t p = 0; p < TOGETHER; ++p) near[p] = near[p] + centre * points[p * dim + d];
        }
        const i32x16 here = i32x16{} + static_cast<int32_t>(block);
        for (int64_t p = 0; p < TOGETHER; ++p) {
            const i32x16 nearer = near[p] > best[p].near;
            best[p] = {nearer ? near[p] : best[p].near, nearer ? here : best[p].block};
        }
    }
}

template <typename Vector>
INLINE Vector turned(Vector v, int64_t by) {
    switch (by) {
        case 8: return SHUFFLED(i32x16, v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
        case 4: return SHUFFLED(i32x16, v, v, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3);
        case 2: return SHUFFLED(i32x16, v, v, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1);
        default: return SHUFFLED(i32x16, v, v, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0);
    }
}

// The first of the nearest centres; 0 where a point holds NaN
INLINE int64_t first_nearest(const Best& best) {
    const i32x16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    f32x16 most = best.near;
    for (const int64_t by : {8, 4, 2, 1}) {
        const f32x16 other = turned(most, by);
        most = other > most ? other : most;
    }
    i32x16 code = best.near == most ? best.block * static_cast<int32_t>(LANES) + lanes : i32x16{} + INT32_MAX;
    for (const int64_t by : {8, 4, 2, 1}) {
        const i32x16 other = turned(code, by);
        code = other < code ? other : code;
    }
    return code[0] == INT32_MAX ? 0 : code[0];
}

// In lanes, which do not wait for each other as one sum would
template <typename Dim>
INLINE float distance(const float* first, const float* second, Dim dim) {
    f32x8 sums{};
    int64_t d = 0;
    for (; d + 8 <= dim; d += 8) {
        const f32x8 away = load<f32x8>(first + d) - load<f32x8>(second + d);
        sums = sums + away * away;
    }
    float sum = ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
    for (; d < dim; ++d) sum += (first[d] - second[d]) * (first[d] - second[d]);
    return sum;
}

// Centres less their middle, row by row, and lane by lane as `find` reads them
struct LaidOut {
    std::vector<float> middle, rows, lanes;
    int64_t blocks;

    LaidOut(const float* centres, int64_t count, int64_t dim)
        : middle(dim), rows(count * dim), blocks((count + LANES - 1) / LANES) {
        const int64_t wide = blocks * LANES;
        lanes.assign((1 + dim) * wide, 0.0f);
        for (int64_t at = 0; at < count * dim; ++at) middle[at % dim] += centres[at];
        for (int64_t d = 0; d < dim; ++d) middle[d] /= static_cast<float>(count);
        for (int64_t k = 0; k < wide; ++k) lanes[k] = k < count ? 0.0f : -__builtin_inff();
        for (int64_t k = 0; k < count; ++k) {
            for (int64_t d = 0; d < dim; ++d) {
                const float number = centres[k * dim + d] - middle[d];
                rows[k * dim + d] = lanes[(1 + d) * wide + k] = number;
                lanes[k] -= 0.5f * number * number;
            }
        }
    }
};

// points (count, dim), centres (centre_count, dim) -> codes and far (count,), far as sums of squared differences
INLINE void find_nearest(const float* points, int64_t count, int64_t dim, const float* centres, int64_t centre_count,
                         int64_t* codes, float* far, int64_t threads) {
    const LaidOut laid_out(centres, centre_count, dim);
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        std::vector<float> moved(TOGETHER * dim);
        with_dim(dim, [&](auto dim) INLINE_LAMBDA {
            for (int64_t from = start; from < stop; from += TOGETHER) {
                for (int64_t p = 0; p < TOGETHER; ++p) {
                    const float* point = points + (from + p < stop ? from + p : from) * dim;
                    for (int64_t d = 0; d < dim; ++d) moved[p * dim + d] = point[d] - laid_out.middle[d];
                }
                Best best[TOGETHER];
                find(moved.data(), dim, laid_out.lanes.data(), laid_out.blocks, best);
                for (int64_t p = 0; p < TOGETHER && from + p < stop; ++p) {
                    const int64_t code = first_nearest(best[p]);
                    codes[from + p] = code;
                    far[from + p] = distance(moved.data() + p * dim, laid_out.rows.data() + code * dim, dim);
                }
            }
        });
    });
}

}  // namespace

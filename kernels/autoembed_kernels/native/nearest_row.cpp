// Which of a few centres lies nearest to each point. nearest_row.py has the formula.

#include "vectors.h"

namespace {

using i32x16 = int32_t __attribute__((vector_size(64)));
constexpr int64_t LANES = 16;
constexpr int64_t TOGETHER = 4;  // points that share what is read of the centres

struct Best {
    f32x16 far;
    i32x16 block;
};

// Of TOGETHER points (dim,) the nearest centres, lane by lane; centres (dim, blocks * LANES)
INLINE void find(const float* const* points, int64_t dim, const float* centres, int64_t blocks, Best* best) {
    for (int64_t p = 0; p < TOGETHER; ++p) best[p] = {f32x16{} + __builtin_inff(), i32x16{}};
    for (int64_t block = 0; block < blocks; ++block) {
        f32x16 far[TOGETHER] = {};
        for (int64_t d = 0; d < dim; ++d) {
            const auto centre = load<f32x16>(centres + (d * blocks + block) * LANES);
            for (int64_t p = 0; p < TOGETHER; ++p) {
                const f32x16 away = centre - points[p][d];
                far[p] = far[p] + away * away;
            }
        }
        const i32x16 here = i32x16{} + static_cast<int32_t>(block);
        for (int64_t p = 0; p < TOGETHER; ++p) {
            const i32x16 nearer = far[p] < best[p].far;
            best[p] = {nearer ? far[p] : best[p].far, nearer ? here : best[p].block};
        }
    }
}

}  // namespace

// points (count, dim); centres (dim, blocks * 16), those that are none infinitely far -> codes and far (count,)
EXPORT int64_t autoembed_nearest_row(const float* points, int64_t count, int64_t dim, const float* centres,
                                     int64_t blocks, int64_t* codes, float* far, int64_t threads) {
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        for (int64_t from = start; from < stop; from += TOGETHER) {
            const float* some[TOGETHER];
            for (int64_t p = 0; p < TOGETHER; ++p) some[p] = points + (from + p < stop ? from + p : from) * dim;
            Best best[TOGETHER];
            find(some, dim, centres, blocks, best);
            for (int64_t p = 0; p < TOGETHER && from + p < stop; ++p) {
                float least = best[p].far[0];
                int64_t code = best[p].block[0] * LANES;
                for (int64_t lane = 1; lane < LANES; ++lane) {
                    const int64_t other = best[p].block[lane] * LANES + lane;
                    const bool nearer = best[p].far[lane] < least || (best[p].far[lane] == least && other < code);
                    least = nearer ? best[p].far[lane] : least;
                    code = nearer ? other : code;
                }
                codes[from + p] = code;
                far[from + p] = least;
            }
        }
    });
    return 0;
}

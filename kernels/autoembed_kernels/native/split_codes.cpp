// Codebooks of 2, 4, ... rows, each from the one before, by k-means. split_codes.py has the rule.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "nearest.h"

namespace {

struct Clusters {
    const float* points;  // (count, dim)
    const float* shares;  // (count,)
    int64_t count;
};

// Room for the weighted sums (size, dim) and weights (size,) of every code
struct Sums {
    std::vector<float> values;
    std::vector<double> weights;

    template <typename Dim, typename Value>
    INLINE void add(const Clusters& of, Dim dim, const int64_t* codes, int64_t size, const Value& value) {
        std::fill_n(values.begin(), size * dim, 0.0f);
        std::fill_n(weights.begin(), size, 0.0);
        for (int64_t p = 0; p < of.count; ++p) {
            const float share = of.shares[p];
            float* sum = values.data() + codes[p] * dim;
            weights[codes[p]] += share;
            for (int64_t d = 0; d < dim; ++d) sum[d] += share * value(p, d);
        }
    }
};

// Twice as many centres: each one less and plus its points' deviation along their widest column
template <typename Dim>
INLINE void split(const Clusters& of, Dim dim, const int64_t* codes, int64_t size, float* centres, Sums& sums) {
    sums.add(of, dim, codes, size, [&](int64_t p, int64_t d) INLINE_LAMBDA { return of.points[p * dim + d]; });
    for (int64_t k = 0; k < size; ++k) {
        const auto inverse = static_cast<float>(1.0 / std::max(sums.weights[k], 1e-30));
        for (int64_t d = 0; d < dim; ++d) centres[k * dim + d] = sums.values[k * dim + d] * inverse;
    }
    sums.add(of, dim, codes, size, [&](int64_t p, int64_t d) INLINE_LAMBDA {
        const float away = of.points[p * dim + d] - centres[codes[p] * dim + d];
        return away * away;
    });
    for (int64_t k = 0; k < size; ++k) {
        const float* spread = sums.values.data() + k * dim;
        const int64_t widest = std::max_element(spread, spread + dim) - spread;
        float* upper = centres + (size + k) * dim;
        std::copy_n(centres + k * dim, static_cast<int64_t>(dim), upper);
        const auto aside = static_cast<float>(std::sqrt(spread[widest] / std::max(sums.weights[k], 1e-30)));
        centres[k * dim + widest] -= aside;
        upper[widest] += aside;
    }
}

// What every point loses: its weight times its squared distance from its centre
template <typename Dim>
std::vector<float> losses(const Clusters& of, Dim dim, const int64_t* codes, const float* centres) {
    std::vector<float> lost(of.count);
    for (int64_t p = 0; p < of.count; ++p) {
        const float* const centre = centres + codes[p] * dim;
        float far = 0.0f;
        for (int64_t d = 0; d < dim; ++d) {
            const float away = of.points[p * dim + d] - centre[d];
            far += away * away;
        }
        lost[p] = of.shares[p] * far;
    }
    return lost;
}

// Centres to the means of what they serve, those that serve nothing to where the most is lost
template <typename Dim>
INLINE void move(const Clusters& of, Dim dim, const int64_t* codes, int64_t size, float* centres, Sums& sums) {
    sums.add(of, dim, codes, size, [&](int64_t p, int64_t d) INLINE_LAMBDA { return of.points[p * dim + d]; });
    std::vector<int64_t> empty;
    for (int64_t k = 0; k < size; ++k)
        if (sums.weights[k] == 0.0) empty.push_back(k);
    const std::vector<float> lost = empty.empty() ? std::vector<float>{} : losses(of, dim, codes, centres);
    for (int64_t k = 0; k < size; ++k) {
        if (sums.weights[k] == 0.0) continue;
        const auto inverse = static_cast<float>(1.0 / std::max(sums.weights[k], 1e-30));
        for (int64_t d = 0; d < dim; ++d) centres[k * dim + d] = sums.values[k * dim + d] * inverse;
    }
    if (empty.empty()) return;
    const int64_t moved = std::min<int64_t>(static_cast<int64_t>(empty.size()), of.count);
    std::vector<int64_t> places(of.count);
    std::iota(places.begin(), places.end(), 0);
    std::partial_sort(places.begin(), places.begin() + moved, places.end(), [&](int64_t a, int64_t b) {
        return lost[a] > lost[b] || (lost[a] == lost[b] && a < b);
    });
    for (int64_t m = 0; m < moved; ++m)
        std::copy_n(of.points + places[m] * dim, static_cast<int64_t>(dim), centres + empty[m] * dim);
}

}  // namespace

// points (count, dim), shares (count,) above zero; rounds (levels,) -> codes (levels, count), those of level l below
// 2^(l + 1)
EXPORT int64_t autoembed_split_codes(const float* points, const float* shares, int64_t count, int64_t dim,
                                     const int64_t* rounds, int64_t levels, int64_t* codes, int64_t threads) {
    const Clusters of{points, shares, count};
    const int64_t most = int64_t{1} << levels;
    std::vector<float> centres(most * dim), lanes;
    Sums sums{std::vector<float>(most * dim), std::vector<double>(most)};
    const std::vector<int64_t> none(count);
    const std::vector<float> middle = middle_of(points, count, dim);
    Centres laid;
    with_dim(dim, [&](auto dim) INLINE_LAMBDA {
        lay_points(points, 0, count, dim, middle.data(), lanes);
        const int64_t* before = none.data();
        for (int64_t level = 0; level < levels; ++level) {
            const int64_t size = int64_t{2} << level;
            int64_t* found = codes + level * count;
            split(of, dim, before, size / 2, centres.data(), sums);
            for (int64_t round = 0; round <= rounds[level]; ++round) {
                if (round) move(of, dim, found, size, centres.data(), sums);
                laid.lay(centres.data(), size, dim, middle.data());
                const int64_t blocks = (count + BLOCKS * LANES - 1) / (BLOCKS * LANES);
                for_ranges(blocks, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
                    start *= BLOCKS * LANES;
                    stop = std::min(stop * BLOCKS * LANES, count);
                    find_all(lanes.data() + start * dim, stop - start, dim, laid, found + start);
                });
            }
            before = found;
        }
    });
    return 0;
}

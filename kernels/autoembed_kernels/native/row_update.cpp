// One optimizer step on some rows and their state, in one pass over each row. row_update.py has the formulas;
// the operations here come in the same order as in its torch version.

#include <cmath>

#include "vectors.h"

namespace {

constexpr int64_t AHEAD = 8;  // rows fetched ahead of their use
enum Optimizer : int64_t { ADAM, ADAGRAD, ROWWISE_ADAGRAD, SGD };

struct Settings {
    float rate, eps, l2;
    double beta1, beta2;
};

// 1 - beta^t for both betas. Steps of a row are small numbers that come again and again.
class Corrections {
  public:
    explicit Corrections(const Settings& s) : log1_(std::log(s.beta1)), log2_(std::log(s.beta2)) {}

    struct Pair {
        int32_t steps = 0;
        float first = 0.0f, second = 0.0f;
    };

    const Pair& of(int32_t steps) {
        Pair& pair = kept_[steps & 255];
        if (pair.steps != steps)
            pair = {steps, static_cast<float>(-std::expm1(steps * log1_)),
                    static_cast<float>(-std::expm1(steps * log2_))};
        return pair;
    }

  private:
    double log1_, log2_;
    Pair kept_[256];
};

INLINE void fetch_row(const float* row, int64_t dim) {
    for (int64_t j = 0; j < dim; j += 16) __builtin_prefetch(row + j, 1, 3);
}

template <typename Dim>
INLINE float mean_square(const float* w, const float* gradient, float l2, Dim dim) {
    f32x8 sums{};
    int64_t j = 0;
    for (; j + 8 <= dim; j += 8) {
        const f32x8 g = load<f32x8>(gradient + j) + l2 * load<f32x8>(w + j);
        sums += g * g;
    }
    float sum = ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
    for (; j < dim; ++j) {
        const float g = gradient[j] + l2 * w[j];
        sum += g * g;
    }
    return sum / static_cast<float>(static_cast<int64_t>(dim));
}

template <typename Dim>
INLINE void adam_row(float* __restrict w, const float* __restrict gradient, float* __restrict moment,
                     float* __restrict square, const Corrections::Pair& one_less, const Settings& s, Dim dim) {
    const auto first = static_cast<float>(1 - s.beta1), second = static_cast<float>(1 - s.beta2);
    const auto beta2 = static_cast<float>(s.beta2);
    for (int64_t j = 0; j < dim; ++j) {
        const float g = gradient[j] + s.l2 * w[j];
        const float m = moment[j] + first * (g - moment[j]);
        const float v = square[j] * beta2 + second * g * g;
        moment[j] = m;
        square[j] = v;
        const float root = std::sqrt(v / one_less.second) + s.eps;
        w[j] -= s.rate * (m / root / one_less.first);
    }
}

template <typename Dim>
INLINE void adagrad_row(float* __restrict w, const float* __restrict gradient, float* __restrict sum,
                        const Settings& s, Dim dim) {
    for (int64_t j = 0; j < dim; ++j) {
        const float g = gradient[j] + s.l2 * w[j];
        sum[j] += g * g;
        w[j] -= s.rate * (g / (std::sqrt(sum[j]) + s.eps));
    }
}

// sgd and row-wise Adagrad: w -= rate * g / root, with one root for the row
template <typename Dim>
INLINE void scaled_row(float* __restrict w, const float* __restrict gradient, float root, const Settings& s,
                       Dim dim) {
    for (int64_t j = 0; j < dim; ++j) w[j] -= s.rate * ((gradient[j] + s.l2 * w[j]) / root);
}

}  // namespace

// weight (height, dim) and state at the distinct rows (count,) from gradient (count, dim), in place. moment
// and square are (height, dim) where the optimizer has them, square (height,) for row-wise Adagrad; steps
// (height,). Returns 0, or -1 - place where a row is out of range; then nothing is written.
EXPORT int64_t autoembed_row_update(int64_t optimizer, float* weight, const int64_t* rows,
                                    const float* gradient, float* moment, float* square, int32_t* steps,
                                    int64_t count, int64_t height, int64_t dim, float rate, float eps, float l2,
                                    double beta1, double beta2, int64_t threads) {
    for (int64_t u = 0; u < count; ++u)
        if (static_cast<uint64_t>(rows[u]) >= static_cast<uint64_t>(height)) return -1 - u;
    const Settings s{rate, eps, l2, beta1, beta2};
    with_dim(dim, [&](auto width) INLINE_LAMBDA {
        const auto fetch = [&](int64_t u) INLINE_LAMBDA {
            if (u + AHEAD >= count) return;
            const int64_t row = rows[u + AHEAD];
            fetch_row(weight + row * width, width);
            if (optimizer == ADAM) fetch_row(moment + row * width, width);
            if (optimizer == ADAM || optimizer == ADAGRAD) fetch_row(square + row * width, width);
            if (optimizer == ROWWISE_ADAGRAD) __builtin_prefetch(square + row, 1, 3);
            if (optimizer == ADAM) __builtin_prefetch(steps + row, 1, 3);
        };
        switch (optimizer) {
            case ADAM:
                return for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
                    Corrections corrections(s);
                    for (int64_t u = start; u < stop; ++u) {
                        fetch(u);
                        const int64_t at = rows[u] * width;
                        const Corrections::Pair& pair = corrections.of(++steps[rows[u]]);
                        adam_row(weight + at, gradient + u * width, moment + at, square + at, pair, s, width);
                    }
                });
            case ADAGRAD:
                return for_rows(count, threads, [&](int64_t u) INLINE_LAMBDA {
                    fetch(u);
                    const int64_t at = rows[u] * width;
                    adagrad_row(weight + at, gradient + u * width, square + at, s, width);
                });
            case ROWWISE_ADAGRAD:
                return for_rows(count, threads, [&](int64_t u) INLINE_LAMBDA {
                    fetch(u);
                    float* w = weight + rows[u] * width;
                    float& sum = square[rows[u]];
                    sum += mean_square(w, gradient + u * width, s.l2, width);
                    scaled_row(w, gradient + u * width, std::sqrt(sum) + s.eps, s, width);
                });
            default:
                return for_rows(count, threads, [&](int64_t u) INLINE_LAMBDA {
                    fetch(u);
                    scaled_row(weight + rows[u] * width, gradient + u * width, 1.0f, s, width);
                });
        }
    });
    return 0;
}

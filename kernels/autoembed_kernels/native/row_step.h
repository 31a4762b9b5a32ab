// One optimizer step on one row and its state. row_update.py has the formulas; the operations here come in the
// same order as in its torch version.

#pragma once

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
    f32x4 halves[2];
    std::memcpy(halves, &sums, sizeof(sums));
    const f32x4 both = halves[0] + halves[1];
    float sum = (both[0] + both[1]) + (both[2] + both[3]);
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
    int64_t j = 0;
    // as wide as low rows are written and read: what is stored in halves is not forwarded to a whole load
    for (; j + 8 <= dim; j += 8) {
        const f32x8 held = load<f32x8>(w + j);
        store(w + j, held - s.rate * ((load<f32x8>(gradient + j) + s.l2 * held) / root));
    }
    for (; j < dim; ++j) w[j] -= s.rate * ((gradient[j] + s.l2 * w[j]) / root);
}

// All rows' state: moment and square (height, dim) where the optimizer has them, square (height,) for row-wise
// Adagrad, steps (height,).
struct State {
    float* moment;
    float* square;
    int32_t* steps;
};

template <typename Dim>
INLINE void fetch_state(Optimizer optimizer, const State& state, int64_t row, Dim dim) {
    if (optimizer == ADAM) fetch_row(state.moment + row * dim, dim);
    if (optimizer == ADAM || optimizer == ADAGRAD) fetch_row(state.square + row * dim, dim);
    if (optimizer == ROWWISE_ADAGRAD) __builtin_prefetch(state.square + row, 1, 3);
    if (optimizer == ADAM) __builtin_prefetch(state.steps + row, 1, 3);
}

// w (dim,), the values of `row`, from its gradient (dim,)
template <typename Dim>
INLINE void step_row(Optimizer optimizer, float* w, const float* gradient, const State& state, int64_t row,
                     Corrections& corrections, const Settings& s, Dim dim) {
    const int64_t at = row * dim;
    if (optimizer == ADAM) {
        const Corrections::Pair& pair = corrections.of(++state.steps[row]);
        adam_row(w, gradient, state.moment + at, state.square + at, pair, s, dim);
    } else if (optimizer == ADAGRAD) {
        adagrad_row(w, gradient, state.square + at, s, dim);
    } else if (optimizer == ROWWISE_ADAGRAD) {
        float& sum = state.square[row];
        sum += mean_square(w, gradient, s.l2, dim);
        scaled_row(w, gradient, std::sqrt(sum) + s.eps, s, dim);
    } else {
        scaled_row(w, gradient, 1.0f, s, dim);
    }
}

}  // namespace

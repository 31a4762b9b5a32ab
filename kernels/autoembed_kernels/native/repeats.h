// The gradients of a row's look-ups, summed where they are used: in registers where the compiler knows the width.

#pragma once

#include <vector>

#include "sorted_look_ups.h"

namespace {

constexpr int64_t GRADIENTS_AHEAD = 16;  // look-ups whose gradients are fetched ahead; 8 to 32 measure alike

// Room for a row of a width that the compiler knows, or does not
template <typename Dim>
class RowRoom {
  public:
    explicit RowRoom(Dim) {}
    float* data() { return held_; }

  private:
    float held_[Dim::value];
};

template <>
class RowRoom<int64_t> {
  public:
    explicit RowRoom(int64_t dim) : held_(static_cast<size_t>(dim)) {}
    float* data() { return held_.data(); }

  private:
    std::vector<float> held_;
};

// sum (dim,) = the gradients (lookups, dim) of distinct row u's look-ups, in the batch's order
template <typename Dim>
INLINE void sum_of_row(const SortedLookUps& sorted, int64_t u, const float* gradient, int64_t lookups, float* sum,
                       Dim dim) {
    for (int64_t j = 0; j < dim; ++j) sum[j] = 0.0f;
    for (int64_t k = sorted.start(u); k < sorted.start(u + 1); ++k) {
        if (k + GRADIENTS_AHEAD < lookups) {
            const float* later = gradient + sorted.place(k + GRADIENTS_AHEAD) * dim;
            for (int64_t j = 0; j < dim; j += 16) prefetch(later + j);
        }
        const float* row = gradient + sorted.place(k) * dim;
        for (int64_t j = 0; j < dim; ++j) sum[j] += row[j];
    }
}

}  // namespace

// The gradients of a row's look-ups, summed where they are used: in registers where the compiler knows the width.

#pragma once

#include <algorithm>
#include <vector>

#include "sorted_look_ups.h"

namespace {

constexpr int64_t GRADIENTS_AHEAD = 16;  // look-ups whose gradients are fetched ahead; 8 to 32 measure alike
constexpr int64_t LEAST_PART = 8192;     // look-ups that are worth a thread

// Room for some rows of a width that the compiler knows, or does not; each in whole vectors of 8
template <typename Dim, int64_t ROWS = 1>
class RowRoom {
  public:
    explicit RowRoom(Dim) {}
    float* row(int64_t i) { return held_ + i * WIDTH; }

  private:
    static constexpr int64_t WIDTH = (Dim::value + 7) / 8 * 8;
    float held_[ROWS * WIDTH];
};

template <int64_t ROWS>
class RowRoom<int64_t, ROWS> {
  public:
    explicit RowRoom(int64_t dim) : width_((dim + 7) / 8 * 8), held_(static_cast<size_t>(ROWS * width_)) {}
    float* row(int64_t i) { return held_.data() + i * width_; }

  private:
    int64_t width_;
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

// Distinct rows with their gradients, or look-ups whose gradients are to be summed
struct Source {
    const int64_t* rows;
    const float* gradient;
    int64_t lookups;              // gradients
    const SortedLookUps* sorted;  // of look-ups, else none

    int64_t distinct() const { return sorted ? sorted->distinct : lookups; }
    INLINE int64_t row(int64_t u) const { return sorted ? sorted->row(u) : rows[u]; }

    // The gradient (dim,) of distinct row u, in `room` where it is a sum
    template <typename Dim>
    INLINE const float* of(int64_t u, float* room, Dim dim) const {
        if (!sorted) return gradient + u * dim;
        sum_of_row(*sorted, u, gradient, lookups, room, dim);
        return room;
    }
};

// Calls work(source, start, stop), for each thread with distinct rows of its own: of distinct rows (count,) with
// their gradients, or repeated of look-ups (count,). Returns 0, or -1 - place where a row is out of range.
template <typename Work>
INLINE int64_t for_sources(const int64_t* rows, const float* gradient, int64_t count, int64_t height, bool repeated,
                           int64_t threads, const Work& work) {
    const int64_t bad = first_outside(rows, count, height);
    if (bad < count) return -1 - bad;
    const Source all{rows, gradient, count, nullptr};
    const int64_t parts = std::min(threads, 1 + count / LEAST_PART);
    for_ranges(repeated ? parts : count, repeated ? parts : threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        if (!repeated) return work(all, start, stop);
        for (int64_t part = start; part < stop; ++part) {
            thread_local SortedLookUps sorted;
            sorted.sort(rows, count, height, part, parts);
            work(Source{rows, gradient, sorted.lookups, &sorted}, int64_t{0}, sorted.distinct);
        }
    });
    return 0;
}

}  // namespace

// Rows of any width in vectors of eight numbers: the last one is filled up with zeros, and written in part.

#pragma once

#include <algorithm>

#include "vectors.h"

namespace {

constexpr int64_t STEP = 8;  // numbers at a time

// `from`'s first `count` numbers, at most STEP, and zeros
template <typename Vector, typename T>
INLINE Vector some(const T* from, int64_t count) {
    if (count >= STEP) return load<Vector>(from);
    Vector values{};
    std::memcpy(&values, from, count * sizeof(T));
    return values;
}

template <typename Vector, typename T>
INLINE void put(T* to, Vector values, int64_t count) {
    std::memcpy(to, &values, std::min(count, STEP) * sizeof(T));
}

}  // namespace

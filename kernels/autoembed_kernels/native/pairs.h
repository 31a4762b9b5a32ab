// What products of pairs and their gradient share. Pair (i, j), i < j, of V vectors stands at first_pair(i, V) + j - i
// - 1.

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

INLINE int64_t first_pair(int64_t i, int64_t vectors) { return i * (2 * vectors - i - 1) / 2; }

// Memory of this thread for `count` floats, kept for the next call
float* scratch(int64_t count) {
    thread_local std::vector<float> kept;
    if (static_cast<int64_t>(kept.size()) < count) kept.resize(count);
    return kept.data();
}

INLINE void fetch_lines(const float* from, const float* end) {
    for (; from < end; from += 16) prefetch(from);
}

// Example b of `size` floats, if it is below stop: the processor's own look-ahead ends with every page
INLINE void fetch(const float* examples, int64_t b, int64_t stop, int64_t size) {
    if (b < stop) fetch_lines(examples + b * size, examples + (b + 1) * size);
}

}  // namespace

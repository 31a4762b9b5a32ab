// What the kernels of the chunk store share: constants for the common chunks, and entries of either width.

#pragma once

#include "vectors.h"

namespace {

// Calls work(dim) with the common dimensions of a chunk as constants, for which the compiler unrolls its loops.
template <typename Work>
INLINE void with_chunk_dim(int64_t dim, const Work& work) {
    switch (dim) {
        case 1: return work(std::integral_constant<int64_t, 1>{});
        case 2: return work(std::integral_constant<int64_t, 2>{});
        case 4: return work(std::integral_constant<int64_t, 4>{});
        default: return with_dim(dim, work);
    }
}

// Numbers of 4 or 8 bytes each
struct Numbers {
    const void* at;
    int64_t size;

    INLINE int64_t operator[](int64_t n) const {
        return size == 4 ? static_cast<const int32_t*>(at)[n] : static_cast<const int64_t*>(at)[n];
    }
};

// The first place whose number is not in [0, bound), or count
INLINE int64_t first_outside(const Numbers& numbers, int64_t count, int64_t bound) {
    const auto any = [&](auto* known) INLINE_LAMBDA {
        uint64_t outside = 0;
        for (int64_t n = 0; n < count; ++n)
            outside |= static_cast<uint64_t>(static_cast<uint64_t>(int64_t{known[n]}) >= static_cast<uint64_t>(bound));
        return outside;
    };
    const uint64_t found = numbers.size == 4 ? any(static_cast<const int32_t*>(numbers.at))
                                             : any(static_cast<const int64_t*>(numbers.at));
    if (!found) return count;
    int64_t n = 0;
    while (static_cast<uint64_t>(numbers[n]) < static_cast<uint64_t>(bound)) ++n;
    return n;
}

// A chunk is in the pool where its pointer names one of the places
INLINE bool is_place(int32_t pointer, int64_t places) {
    return static_cast<uint64_t>(int64_t{pointer}) < static_cast<uint64_t>(places);
}

}  // namespace

// Random words by counter, of several counters at a time: Philox4x32-10, as philox.py has it.

#pragma once

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "vectors.h"

namespace {

#ifdef __AVX512F__
constexpr int64_t COUNTERS = 8;  // at a time
#else
constexpr int64_t COUNTERS = 4;
#endif
using u64s = uint64_t __attribute__((vector_size(8 * COUNTERS)));

constexpr uint32_t M0 = 0xD2511F53u, M1 = 0xCD9E8D57u, W0 = 0x9E3779B9u, W1 = 0xBB67AE85u;

// The product of the lower 32 bits
INLINE u64s low_product(u64s words, uint32_t multiplier) {
#if defined(__AVX512F__)
    return reinterpret_cast<u64s>(
        _mm512_mul_epu32(reinterpret_cast<__m512i>(words), _mm512_set1_epi64(multiplier)));
#elif defined(__AVX2__)
    return reinterpret_cast<u64s>(
        _mm256_mul_epu32(reinterpret_cast<__m256i>(words), _mm256_set1_epi64x(multiplier)));
#else
    return (words & 0xffffffffu) * multiplier;
#endif
}

// Words of every column of `count` rows into out (count, 4 blocks), which has room for 4 COUNTERS more.
// counters has room for 3 (count blocks + COUNTERS) numbers.
INLINE void row_words(uint64_t seed, uint64_t step, const int64_t* rows, int64_t count, int64_t blocks,
                      uint64_t* counters, uint32_t* out) {
    const int64_t total = count * blocks, room = total + COUNTERS;
    uint64_t* low = counters + room;
    uint64_t* high = low + room;
    for (int64_t u = 0, at = 0; u < count; ++u)
        for (int64_t block = 0; block < blocks; ++block, ++at) {
            counters[at] = static_cast<uint64_t>(block);
            low[at] = static_cast<uint64_t>(rows[u]);
            high[at] = static_cast<uint64_t>(rows[u]) >> 32;
        }
    for (int64_t at = 0; at < total; at += COUNTERS) {
        // upper halves are left as they come: products and the end take the lower ones
        u64s c0 = load<u64s>(counters + at), c1 = load<u64s>(low + at), c2 = load<u64s>(high + at);
        u64s c3 = u64s{} + step;
        auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
        for (int round = 0; round < 10; ++round, k0 += W0, k1 += W1) {
            const u64s product0 = low_product(c0, M0), product1 = low_product(c2, M1);
            c0 = (product1 >> 32) ^ c1 ^ k0;
            c1 = product1;
            c2 = (product0 >> 32) ^ c3 ^ k1;
            c3 = product0;
        }
        const u64s first = (c0 & 0xffffffffu) | c1 << 32, second = (c2 & 0xffffffffu) | c3 << 32;
        for (int64_t lane = 0; lane < COUNTERS; ++lane) {
            store(out + 4 * (at + lane), static_cast<uint64_t>(first[lane]));
            store(out + 4 * (at + lane) + 2, static_cast<uint64_t>(second[lane]));
        }
    }
}

}  // namespace

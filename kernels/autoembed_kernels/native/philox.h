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

// first[0], second[0], first[1], ...
INLINE void store_pairs(uint32_t* out, u64s first, u64s second) {
#if defined(__AVX512F__)
    const auto a = reinterpret_cast<__m512i>(first), b = reinterpret_cast<__m512i>(second);
    const __m512i lower = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    const __m512i upper = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    store(out, _mm512_permutex2var_epi64(a, lower, b));
    store(out + 2 * COUNTERS, _mm512_permutex2var_epi64(a, upper, b));
#else
    uint64_t pairs[2 * COUNTERS];
    for (int64_t lane = 0; lane < COUNTERS; ++lane) {
        pairs[2 * lane] = first[lane];
        pairs[2 * lane + 1] = second[lane];
    }
    std::memcpy(out, pairs, sizeof(pairs));
#endif
}

// Words of every column of `count` rows into out (count, 4 blocks), which has room for 8 COUNTERS more.
// counters has room for 3 (count blocks + 2 COUNTERS) numbers.
INLINE void row_words(uint64_t seed, uint64_t step, const int64_t* rows, int64_t count, int64_t blocks,
                      uint64_t* counters, uint32_t* out) {
    const int64_t total = count * blocks, room = total + 2 * COUNTERS;
    uint64_t* low = counters + room;
    uint64_t* high = low + room;
    for (int64_t u = 0, at = 0; u < count; ++u)
        for (int64_t block = 0; block < blocks; ++block, ++at) {
            counters[at] = static_cast<uint64_t>(block);
            low[at] = static_cast<uint64_t>(rows[u]);
            high[at] = static_cast<uint64_t>(rows[u]) >> 32;
        }
    u64s keys[10][2];
    auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (auto& key : keys) {
        key[0] = u64s{} + k0;
        key[1] = u64s{} + k1;
        k0 += W0;
        k1 += W1;
    }
    // two at a time, for a round waits for the products of the last
    for (int64_t at = 0; at < total; at += 2 * COUNTERS) {
        // upper halves are left as they come: products and the end take the lower ones
        u64s c0[2], c1[2], c2[2], c3[2];
        for (int64_t one = 0; one < 2; ++one) {
            c0[one] = load<u64s>(counters + at + one * COUNTERS);
            c1[one] = load<u64s>(low + at + one * COUNTERS);
            c2[one] = load<u64s>(high + at + one * COUNTERS);
            c3[one] = u64s{} + step;
        }
        for (const auto& key : keys)
            for (int64_t one = 0; one < 2; ++one) {
                const u64s product0 = low_product(c0[one], M0), product1 = low_product(c2[one], M1);
                c0[one] = (product1 >> 32) ^ c1[one] ^ key[0];
                c1[one] = product1;
                c2[one] = (product0 >> 32) ^ c3[one] ^ key[1];
                c3[one] = product0;
            }
        for (int64_t one = 0; one < 2; ++one)
            store_pairs(out + 4 * (at + one * COUNTERS), (c0[one] & 0xffffffffu) | c1[one] << 32,
                        (c2[one] & 0xffffffffu) | c3[one] << 32);
    }
}

}  // namespace

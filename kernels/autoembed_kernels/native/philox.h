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

// The four words of COUNTERS counters to out, those of one counter after another; words below in their lower halves
INLINE void store_words(uint32_t* out, u64s c0, u64s c1, u64s c2, u64s c3) {
#if defined(__AVX512F__)
    const auto pair = [](u64s low, u64s high) INLINE_LAMBDA {
        return _mm512_mask_shuffle_epi32(reinterpret_cast<__m512i>(low), 0xaaaa, reinterpret_cast<__m512i>(high),
                                         _MM_PERM_CCAA);
    };
    const __m512i a = pair(c0, c1), b = pair(c2, c3);
    const __m512i lower = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    const __m512i upper = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    store(out, _mm512_permutex2var_epi64(a, lower, b));
    store(out + 2 * COUNTERS, _mm512_permutex2var_epi64(a, upper, b));
#elif defined(__AVX2__)
    const auto pair = [](u64s low, u64s high) INLINE_LAMBDA {
        return _mm256_blend_epi32(reinterpret_cast<__m256i>(low),
                                  _mm256_slli_epi64(reinterpret_cast<__m256i>(high), 32), 0xaa);
    };
    const __m256i a = pair(c0, c1), b = pair(c2, c3);
    const __m256i even = _mm256_unpacklo_epi64(a, b), odd = _mm256_unpackhi_epi64(a, b);
    store(out, _mm256_permute2x128_si256(even, odd, 0x20));
    store(out + 2 * COUNTERS, _mm256_permute2x128_si256(even, odd, 0x31));
#else
    for (int64_t lane = 0; lane < COUNTERS; ++lane, out += 4) {
        out[0] = static_cast<uint32_t>(c0[lane]);
        out[1] = static_cast<uint32_t>(c1[lane]);
        out[2] = static_cast<uint32_t>(c2[lane]);
        out[3] = static_cast<uint32_t>(c3[lane]);
    }
#endif
}

// Words of `count` rows into out (count, 4 blocks), which has room for 8 COUNTERS more.
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
            store_words(out + 4 * (at + one * COUNTERS), c0[one], c1[one], c2[one], c3[one]);
    }
}

// The same for rows below 2^32 and a number of blocks that the compiler knows, which divides COUNTERS or is a
// multiple of it. In the first three rounds most of a counter is then the same for all rows, or for all blocks.
template <int64_t BLOCKS>
class SmallRowWords {
  public:
    SmallRowWords(uint64_t seed, uint64_t step) {
        auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
        for (auto& key : keys_) {
            key[0] = k0;
            key[1] = k1;
            k0 += W0;
            k1 += W1;
        }
        for (int64_t i = 0; i < LENGTH; ++i) {
            // (block, row, 0, step) becomes (row ^ k0, 0, second, third), then (fourth, fifth, ...)
            const uint64_t product = static_cast<uint64_t>(M0) * static_cast<uint64_t>(i % BLOCKS);
            const auto second = static_cast<uint32_t>(product >> 32) ^ static_cast<uint32_t>(step) ^ keys_[0][1];
            const uint64_t next = static_cast<uint64_t>(M1) * second;
            const auto fourth = static_cast<uint32_t>(next >> 32) ^ keys_[1][0];
            const uint64_t last = static_cast<uint64_t>(M0) * fourth;
            c2_[i] = static_cast<uint32_t>(product) ^ keys_[1][1];
            c0_[i] = static_cast<uint32_t>(next) ^ keys_[2][0];
            late_c2_[i] = (last >> 32) ^ keys_[2][1];
            c3_[i] = static_cast<uint32_t>(last);
        }
    }

    // rows (count,) -> out (count, 4 BLOCKS), which has room for 8 COUNTERS more; rows has room for ROWS more
    INLINE void make(const int64_t* rows, int64_t count, uint32_t* out) const {
        for (int64_t u = 0; u < count; u += 2 * ROWS) {
            for (int64_t i = 0; i < LENGTH; i += COUNTERS) {
                u64s c0[2], c1[2], c2[2], c3[2];
                for (int64_t one = 0; one < 2; ++one) {
                    const u64s product = low_product(of_rows(rows + u + one * ROWS) ^ keys_[0][0], M0);
                    const u64s next = low_product((product >> 32) ^ load<u64s>(c2_ + i), M1);
                    c0[one] = (next >> 32) ^ load<u64s>(c0_ + i);
                    c1[one] = next;
                    c2[one] = product ^ load<u64s>(late_c2_ + i);
                    c3[one] = load<u64s>(c3_ + i);
                }
                for (int64_t round = 3; round < 10; ++round)
                    for (int64_t one = 0; one < 2; ++one) {
                        const u64s product0 = low_product(c0[one], M0), product1 = low_product(c2[one], M1);
                        c0[one] = (product1 >> 32) ^ c1[one] ^ keys_[round][0];
                        c1[one] = product1;
                        c2[one] = (product0 >> 32) ^ c3[one] ^ keys_[round][1];
                        c3[one] = product0;
                    }
                for (int64_t one = 0; one < 2; ++one)
                    store_words(out + 4 * (BLOCKS * (u + one * ROWS) + i), c0[one], c1[one], c2[one], c3[one]);
            }
        }
    }

    static constexpr int64_t ROWS = BLOCKS < COUNTERS ? COUNTERS / BLOCKS : 1;  // that fill COUNTERS

  private:
    static constexpr int64_t LENGTH = BLOCKS < COUNTERS ? COUNTERS : BLOCKS;

    static INLINE u64s of_rows(const int64_t* rows) {
        if constexpr (ROWS == 1) return u64s{} + static_cast<uint64_t>(*rows);
        u64s held;
        for (int64_t lane = 0; lane < COUNTERS; ++lane) held[lane] = static_cast<uint64_t>(rows[lane / BLOCKS]);
        return held;
    }

    uint64_t keys_[10][2];
    uint64_t c0_[LENGTH], c2_[LENGTH], late_c2_[LENGTH], c3_[LENGTH];
};

}  // namespace

// Gradient of products of pairs, one example at a time: numbers of vectors side by side in registers, gradients of
// pairs spread over them as they are read, each from where it stands.

#pragma once

#include "pairs.h"

#ifdef __AVX__
#include <immintrin.h>
#endif

namespace {

constexpr int64_t PASS = 2 * LANES;  // columns at a time; with 6 vectors 12 sums of 16 registers

// So many bytes of gradients, and more, are written past the cache where a pass writes whole lines: they would not stay
// there, and lines written whole need not be read first
constexpr int64_t PAST_CACHE = 8 << 20;
constexpr int64_t LINE_BYTES = 64;
#if defined(__AVX__) && !defined(__AVX512F__)
constexpr bool CAN_STREAM = true;
#else
constexpr bool CAN_STREAM = false;
#endif

INLINE bool past_cache(int64_t examples, int64_t vectors, int64_t dim, const float* out) {
    return CAN_STREAM && examples * vectors * dim * static_cast<int64_t>(sizeof(float)) >= PAST_CACHE &&
           dim % PASS == 0 && reinterpret_cast<uintptr_t>(out) % LINE_BYTES == 0;
}

template <bool STREAMS>
INLINE void put_columns(float* to, f32s values) {
#if defined(__AVX__) && !defined(__AVX512F__)
    if constexpr (STREAMS) return _mm256_stream_ps(to, reinterpret_cast<__m256>(values));
#endif
    store(to, values);
}

// Behind the last columns that were written past the cache, before others read them
INLINE void end_streams() {
#ifdef __AVX__
    _mm_sfence();
#endif
}

// Calls work(i, constant count) for tiles of vectors
template <typename Work>
INLINE void for_gradient_tiles(int64_t vectors, const Work& work) {
    int64_t i = 0;
    for (; i + 6 <= vectors; i += 6) work(i, std::integral_constant<int64_t, 6>{});
    for (; i + 3 <= vectors; i += 3) work(i, std::integral_constant<int64_t, 3>{});
    for (; i < vectors; ++i) work(i, std::integral_constant<int64_t, 1>{});
}

// g (pairs,), x (vectors, stride), to be read for WIDE registers -> the first `columns` of out (vectors, dim):
// out[i] = sum over j != i of g[pair of i and j] x[j]
template <int64_t WIDE, bool STREAMS>
INLINE void columns_gradient(const float* g, const float* x, int64_t vectors, int64_t stride, int64_t columns,
                             int64_t dim, float* out) {
    for_gradient_tiles(vectors, [&](int64_t i, auto count) INLINE_LAMBDA {
        f32s sums[count][WIDE] = {};
        const auto add = [&](int64_t j, int64_t left_out, const auto& weight) INLINE_LAMBDA {
            f32s others[WIDE];
            for (int64_t w = 0; w < WIDE; ++w) others[w] = load<f32s>(x + j * stride + w * LANES);
            for (int64_t t = 0; t < count; ++t)
                for (int64_t w = 0; w < WIDE; ++w)
                    if (t != left_out) sums[t][w] += weight(t) * others[w];
        };
        const float* rows[count];  // that of i + t at its number j: the pair's gradient
        for (int64_t t = 0; t < count; ++t) rows[t] = g + first_pair(i + t, vectors) - (i + t) - 1;
        const float* above = g + i - 1;  // row j at number i
        for (int64_t j = 0; j < i; ++j) {
            add(j, -1, [&](int64_t t) INLINE_LAMBDA { return above[t]; });
            above += vectors - j - 2;
        }
        for (int64_t s = 0; s < count; ++s)
            add(i + s, s, [&](int64_t t) INLINE_LAMBDA { return s < t ? rows[s][i + t] : rows[t][i + s]; });
        for (int64_t j = i + count; j < vectors; ++j) add(j, -1, [&](int64_t t) INLINE_LAMBDA { return rows[t][j]; });
        for (int64_t t = 0; t < count; ++t)
            for (int64_t w = 0; w < WIDE; ++w) {
                float* to = out + (i + t) * dim + w * LANES;
                const int64_t left = columns - w * LANES;
                const f32s values = sums[t][w];  // of no address: sums stay in registers
                if (STREAMS || left >= LANES) put_columns<STREAMS>(to, values);
                else std::memcpy(to, &values, left * sizeof(float));
            }
    });
}

// Examples from start to stop, with vectors * stride floats at `wide`; stride is dim up to a multiple of LANES
template <bool STREAMS>
INLINE void examples_gradient(const float* gradient, const float* x, int64_t start, int64_t stop, int64_t vectors,
                              int64_t dim, int64_t stride, float* wide, float* out) {
    const int64_t pairs = first_pair(vectors, vectors), size = vectors * dim;
    const int64_t passes = (dim + PASS - 1) / PASS;
    const int64_t pairs_share = (pairs + passes - 1) / passes, share = (size + passes - 1) / passes;
    for (int64_t b = start; b < stop; ++b) {
        const float* example = x + b * size;
        if (stride != dim) {
            for (int64_t v = 0; v < vectors; ++v)
                std::memcpy(wide + v * stride, example + v * dim, dim * sizeof(float));
            example = wide;
        }
        // what comes next a share at a time: the processor waits for few lines at once
        const int64_t later = std::min(b + 2, stop - 1);
        const float *next = x + later * size, *next_pairs = gradient + later * pairs;
        for (int64_t d = 0; d < dim; d += PASS, next += share, next_pairs += pairs_share) {
            fetch_lines(next, next + share);
            fetch_lines(next_pairs, next_pairs + pairs_share);
            const int64_t columns = std::min(PASS, dim - d);
            float* to = out + b * size + d;
            if (columns > LANES)
                columns_gradient<2, STREAMS>(gradient + b * pairs, example + d, vectors, stride, columns, dim, to);
            else
                columns_gradient<1, STREAMS>(gradient + b * pairs, example + d, vectors, stride, columns, dim, to);
        }
    }
    if (STREAMS) end_streams();
}

}  // namespace

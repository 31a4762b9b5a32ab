// Products of pairs of eight examples at a time, one in each number of a register: no factor is spread over a
// register, nothing is summed across one, and no pair is computed twice. For processors with AVX; with AVX-512,
// whose factors are spread as they are read, the products of one example are taken.

#pragma once

#include "pairs.h"

#if defined(__AVX__) && !defined(__AVX512F__)
#include <immintrin.h>

namespace {

constexpr int64_t EIGHT = 8;   // examples
constexpr int64_t CHUNK = 16;  // numbers of each vector at a time: they and the sums of 27 vectors fit the first cache
constexpr int64_t SIDE = 3;    // vectors by as many others: with their own pairs 12 sums of the 16 registers

INLINE int64_t eights_scratch(int64_t vectors) { return (vectors * CHUNK + first_pair(vectors, vectors)) * EIGHT; }

// Rows and columns of two blocks of 4 by 4, left and right half, changed for one another
INLINE void turn_halves(f32x8 (&rows)[4]) {
    const f32x8 low = SHUFFLED(i32x8, rows[0], rows[1], 0, 8, 1, 9, 4, 12, 5, 13);
    const f32x8 high = SHUFFLED(i32x8, rows[0], rows[1], 2, 10, 3, 11, 6, 14, 7, 15);
    const f32x8 next_low = SHUFFLED(i32x8, rows[2], rows[3], 0, 8, 1, 9, 4, 12, 5, 13);
    const f32x8 next_high = SHUFFLED(i32x8, rows[2], rows[3], 2, 10, 3, 11, 6, 14, 7, 15);
    rows[0] = SHUFFLED(i32x8, low, next_low, 0, 1, 8, 9, 4, 5, 12, 13);
    rows[1] = SHUFFLED(i32x8, low, next_low, 2, 3, 10, 11, 6, 7, 14, 15);
    rows[2] = SHUFFLED(i32x8, high, next_high, 0, 1, 8, 9, 4, 5, 12, 13);
    rows[3] = SHUFFLED(i32x8, high, next_high, 2, 3, 10, 11, 6, 7, 14, 15);
}

// `count` numbers of each vector of eight examples (vectors, dim) -> chunk (vectors, CHUNK, EIGHT)
INLINE void gather_chunk(const float* x, int64_t vectors, int64_t dim, int64_t count, float* chunk) {
    const int64_t size = vectors * dim;
    for (int64_t v = 0; v < vectors; ++v, x += dim, chunk += CHUNK * EIGHT) {
        int64_t d = 0;
        for (; d + 4 <= count; d += 4) {
            f32x8 rows[4];
            for (int64_t t = 0; t < 4; ++t)
                rows[t] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(x + t * size + d)),
                                               _mm_loadu_ps(x + (t + 4) * size + d), 1);
            turn_halves(rows);
            for (int64_t t = 0; t < 4; ++t) store(chunk + (d + t) * EIGHT, rows[t]);
        }
        for (; d < count; ++d)
            for (int64_t e = 0; e < EIGHT; ++e) chunk[d * EIGHT + e] = x[e * size + d];
    }
}

// Adds to sums (pairs, EIGHT), or starts them with, the products of ROWS vectors from i on with COLUMNS from j on, and
// with one another where OWN
template <int64_t ROWS, int64_t COLUMNS, bool OWN, typename Count>
INLINE void add_tile(const float* chunk, Count count, int64_t vectors, int64_t i, int64_t j, bool starts, float* sums) {
    f32x8 own[ROWS][ROWS], held[ROWS][COLUMNS + 1];
    float* row_sums[ROWS];
    for (int64_t r = 0; r < ROWS; ++r) row_sums[r] = sums + (first_pair(i + r, vectors) - (i + r) - 1) * EIGHT;
    const auto for_sums = [&](const auto& work) INLINE_LAMBDA {
        for (int64_t r = 0; r < ROWS; ++r) {
            for (int64_t c = OWN ? r + 1 : ROWS; c < ROWS; ++c) work(own[r][c], row_sums[r] + (i + c) * EIGHT);
            for (int64_t c = 0; c < COLUMNS; ++c) work(held[r][c], row_sums[r] + (j + c) * EIGHT);
        }
    };
    if (starts) for_sums([](f32x8& sum, const float*) INLINE_LAMBDA { sum = f32x8{}; });
    else for_sums([](f32x8& sum, const float* at) INLINE_LAMBDA { sum = load<f32x8>(at); });
    const float* rows = chunk + i * CHUNK * EIGHT;
    const float* columns = chunk + j * CHUNK * EIGHT;
    for (int64_t d = 0; d < count; ++d) {
        f32x8 row[ROWS];
        for (int64_t r = 0; r < ROWS; ++r) row[r] = load<f32x8>(rows + (r * CHUNK + d) * EIGHT);
        for (int64_t r = 0; OWN && r < ROWS; ++r)
            for (int64_t c = r + 1; c < ROWS; ++c) own[r][c] += row[r] * row[c];
        for (int64_t c = 0; c < COLUMNS; ++c) {
            const f32x8 column = load<f32x8>(columns + (c * CHUNK + d) * EIGHT);
            for (int64_t r = 0; r < ROWS; ++r) held[r][c] += row[r] * column;
        }
    }
    for_sums([](f32x8 sum, float* at) INLINE_LAMBDA { store(at, sum); });
}

// Of a chunk of `count` numbers. Fetches the numbers that come next, at `ahead`, on the way.
template <typename Count>
INLINE void add_chunk(const float* chunk, Count count, int64_t vectors, bool starts, float* sums, const float* ahead,
                      int64_t dim) {
    int64_t i = 0;
    for (; i + SIDE <= vectors; i += SIDE) {
        for (int64_t e = 0; e < EIGHT; ++e)
            for (int64_t r = 0; r < SIDE; ++r) prefetch(ahead + (e * vectors + i + r) * dim);
        int64_t j = i + SIDE;
        if (j + SIDE <= vectors) {
            add_tile<SIDE, SIDE, true>(chunk, count, vectors, i, j, starts, sums);
            for (j += SIDE; j + SIDE <= vectors; j += SIDE)
                add_tile<SIDE, SIDE, false>(chunk, count, vectors, i, j, starts, sums);
        } else {
            add_tile<SIDE, 0, true>(chunk, count, vectors, i, j, starts, sums);
        }
        if (j + 2 <= vectors) add_tile<SIDE, 2, false>(chunk, count, vectors, i, j, starts, sums);
        else if (j < vectors) add_tile<SIDE, 1, false>(chunk, count, vectors, i, j, starts, sums);
    }
    if (i + 2 <= vectors) add_tile<2, 0, true>(chunk, count, vectors, i, i, starts, sums);
}

// sums (pairs, EIGHT) -> out (EIGHT, pairs)
INLINE void put_sums(const float* sums, int64_t pairs, float* out) {
    int64_t p = 0;
    for (; p + 4 <= pairs; p += 4) {
        f32x8 rows[4];
        for (int64_t t = 0; t < 4; ++t) rows[t] = load<f32x8>(sums + (p + t) * EIGHT);
        turn_halves(rows);
        for (int64_t t = 0; t < 4; ++t) {
            _mm_storeu_ps(out + t * pairs + p, _mm256_castps256_ps128(rows[t]));
            _mm_storeu_ps(out + (t + 4) * pairs + p, _mm256_extractf128_ps(rows[t], 1));
        }
    }
    for (; p < pairs; ++p)
        for (int64_t e = 0; e < EIGHT; ++e) out[e * pairs + p] = sums[p * EIGHT + e];
}

// x (EIGHT, vectors, dim) -> out (EIGHT, pairs), with eights_scratch floats at `chunk`; `next`, at x's end or any
// other place, is where the next examples stand
void eight_products(const float* x, const float* next, int64_t vectors, int64_t dim, float* chunk, float* out) {
    float* sums = chunk + vectors * CHUNK * EIGHT;
    const int64_t whole = dim / CHUNK * CHUNK;
    for (int64_t d = 0; d < whole; d += CHUNK) {
        const float* ahead = d + CHUNK < dim ? x + d + CHUNK : next;
        gather_chunk(x + d, vectors, dim, CHUNK, chunk);
        add_chunk(chunk, std::integral_constant<int64_t, CHUNK>{}, vectors, d == 0, sums, ahead, dim);
    }
    if (whole < dim) {
        gather_chunk(x + whole, vectors, dim, dim - whole, chunk);
        add_chunk(chunk, dim - whole, vectors, whole == 0, sums, next, dim);
    }
    put_sums(sums, first_pair(vectors, vectors), out);
}

}  // namespace

#endif

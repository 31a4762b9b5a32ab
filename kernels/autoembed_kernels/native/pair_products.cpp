// Dot products of all pairs i < j of V vectors of D numbers, and their gradient: examples and their pairs stay in the
// first cache, and no V x V products are written. Here one example at a time, for what pair_eights.h and
// pair_gradient.h leave: the last examples, and processors of wider or narrower registers.

#include "pair_eights.h"
#include "pair_gradient.h"

namespace {

// vectors whose sums are held in registers at a time, three times 9 of 27: enough to start a product every half
// cycle, few enough for 16 registers
constexpr int64_t TILE = 9;

constexpr int64_t BLOCK = 8;  // of rows and columns that turn_block writes, at columns beyond the last, too
constexpr int64_t WHOLE = LANES > BLOCK ? LANES : BLOCK;

INLINE int64_t padded(int64_t n) { return (n + WHOLE - 1) / WHOLE * WHOLE; }

// Calls work(i, constant count) for tiles of TILE vectors and smaller ones at the end
template <typename Work>
INLINE void for_tiles(int64_t vectors, const Work& work) {
    int64_t i = 0;
    for (; i + TILE <= vectors; i += TILE) work(i, std::integral_constant<int64_t, TILE>{});
    for (; i + 4 <= vectors; i += 4) work(i, std::integral_constant<int64_t, 4>{});
    for (; i + 2 <= vectors; i += 2) work(i, std::integral_constant<int64_t, 2>{});
    for (; i < vectors; ++i) work(i, std::integral_constant<int64_t, 1>{});
}

// Rows and columns of a block of 8 by 8 changed for one another
INLINE void turn_block(f32x8 (&rows)[8]) {
    f32x8 pairs[8], fours[8];
    for (int64_t v = 0; v < 8; v += 2) {
        pairs[v] = SHUFFLED(i32x8, rows[v], rows[v + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        pairs[v + 1] = SHUFFLED(i32x8, rows[v], rows[v + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int64_t v = 0; v < 8; v += 4)
        for (int64_t half = 0; half < 2; ++half) {
            const f32x8 first = pairs[v + half], second = pairs[v + half + 2];
            fours[v + 2 * half] = SHUFFLED(i32x8, first, second, 0, 1, 8, 9, 4, 5, 12, 13);
            fours[v + 2 * half + 1] = SHUFFLED(i32x8, first, second, 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int64_t c = 0; c < 4; ++c) {
        rows[c] = SHUFFLED(i32x8, fours[c], fours[c + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        rows[c + 4] = SHUFFLED(i32x8, fours[c], fours[c + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

// x (vectors, dim) -> turned (dim, width); what stands behind the last vector is not read
template <typename Dim>
INLINE void turn(const float* x, int64_t vectors, Dim dim, float* turned, int64_t width) {
    if (dim % 8 == 0) {
        for (int64_t v = 0; v < vectors; v += 8) {
            const float* held[8];
            for (int64_t t = 0; t < 8; ++t) held[t] = x + std::min(v + t, vectors - 1) * dim;
            for (int64_t d = 0; d < dim; d += 8) {
                f32x8 rows[8];
                for (int64_t t = 0; t < 8; ++t) rows[t] = load<f32x8>(held[t] + d);
                turn_block(rows);
                for (int64_t t = 0; t < 8; ++t) store(turned + (d + t) * width + v, rows[t]);
            }
        }
        return;
    }
    for (int64_t v = 0; v < vectors; ++v)
        for (int64_t d = 0; d < dim; ++d) turned[d * width + v] = x[v * dim + d];
}

// x (vectors, dim) -> out (pairs,). turned holds dim rows of `width` floats, products one for each vector of as
// many and LANES floats more. Before end, more than the pairs may be overwritten.
template <typename Dim>
INLINE void example_products(const float* x, int64_t vectors, Dim dim, float* turned, float* products,
                             float* out, const float* end) {
    const int64_t width = padded(vectors);
    turn(x, vectors, dim, turned, width);
    for_tiles(vectors, [&](int64_t i, auto count) INLINE_LAMBDA {
        for (int64_t block = i / LANES * LANES; block < width; block += LANES) {
            f32s sums[count] = {};
            for (int64_t d = 0; d < dim; ++d) {
                const f32s others = load<f32s>(turned + d * width + block);
                for (int64_t t = 0; t < count; ++t) sums[t] += x[(i + t) * dim + d] * others;
            }
            for (int64_t t = 0; t < count; ++t) store(products + (i + t) * width + block, sums[t]);
        }
    });
    // at the end, for what was just stored at other places is slow to load
    for (int64_t i = 0; i < vectors; ++i) {
        const float* from = products + i * width + i + 1;
        // whole vectors: what stands behind the row is overwritten by the next rows and examples
        for (int64_t left = vectors - i - 1; left > 0; left -= LANES, out += LANES, from += LANES) {
            if (out + LANES <= end) store(out, load<f32s>(from));
            else std::memcpy(out, from, std::min(left, LANES) * sizeof(float));
            if (left < LANES) out += left - LANES;
        }
    }
}

// g (pairs,) -> full, of whole blocks of 8 rows and as many columns: the gradient of pair (i, j) at [i][j], zeros
// at [i][i], anything below. Behind full there is room for LANES floats; before end, g may be read past its pairs.
INLINE void put_above(const float* g, const float* end, int64_t vectors, int64_t width, float* full) {
    for (int64_t i = 0; i < vectors; ++i) {
        float* row = full + i * width + i + 1;
        int64_t left = vectors - i - 1;
        // whole vectors: what stands behind the row is overwritten by the next row, or left of its diagonal
        for (; left > 0 && g + LANES <= end; left -= LANES, g += LANES, row += LANES) store(row, load<f32s>(g));
        if (left > 0) std::memcpy(row, g, left * sizeof(float));
        g += left;
        full[i * width + i] = 0.0f;
    }
}

// ... and at [j][i], too
INLINE void put_below(int64_t vectors, int64_t width, float* full) {
    const i32x8 columns = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int64_t i = 0; i < vectors; i += 8)
        for (int64_t j = i; j < vectors; j += 8) {
            f32x8 rows[8];
            for (int64_t t = 0; t < 8; ++t) rows[t] = load<f32x8>(full + (i + t) * width + j);
            turn_block(rows);
            for (int32_t t = 0; t < 8; ++t) {
                float* to = full + (j + t) * width + i;
                if (i == j) rows[t] = columns < t ? rows[t] : load<f32x8>(to);
                store(to, rows[t]);
            }
        }
}

// full of both, x (vectors, stride), whose columns from dim on are zero -> out (vectors, dim):
// out[i] = sum over j of full[j][i] x[j]
INLINE void example_gradient(const float* full, const float* x, int64_t vectors, int64_t width, int64_t stride,
                             int64_t dim, float* out) {
    for_tiles(vectors, [&](int64_t i, auto count) INLINE_LAMBDA {
        for (int64_t column = 0; column < dim; column += LANES) {
            f32s sums[count] = {};
            for (int64_t j = 0; j < vectors; ++j) {
                const f32s other = load<f32s>(x + j * stride + column);
                for (int64_t t = 0; t < count; ++t) sums[t] += full[j * width + i + t] * other;
            }
            const int64_t columns = std::min(LANES, dim - column);
            for (int64_t t = 0; t < count; ++t) {
                float* to = out + (i + t) * dim + column;
                if (columns == LANES) store(to, sums[t]);
                else std::memcpy(to, &sums[t], columns * sizeof(float));
            }
        }
    });
}

// The gradient by way of full, for AVX-512, whose products spread a number from memory over a register at no cost
INLINE void mirrored_gradient(const float* gradient, const float* x, int64_t examples, int64_t vectors, int64_t dim,
                              float* out, int64_t threads) {
    const int64_t stride = padded(dim), pairs = first_pair(vectors, vectors);
    const int64_t width = (vectors + 7) / 8 * 8;
    for_ranges(examples, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        const int64_t held = width * width + LANES;
        const float* end = gradient + examples * pairs;
        float* full = scratch(2 * held + vectors * stride);
        float* wide = full + 2 * held;
        std::fill_n(full, 2 * held + vectors * stride, 0.0f);
        if (start < stop) put_above(gradient + start * pairs, end, vectors, width, full + start % 2 * held);
        for (int64_t b = start; b < stop; ++b) {
            fetch(x, b + 2, stop, vectors * dim);
            fetch(gradient, b + 2, stop, pairs);
            const float* example = x + b * vectors * dim;
            if (stride != dim) {
                for (int64_t v = 0; v < vectors; ++v)
                    std::memcpy(wide + v * stride, example + v * dim, dim * sizeof(float));
                example = wide;
            }
            float* mirrored = full + b % 2 * held;
            put_below(vectors, width, mirrored);
            // an example ahead, for what was just stored at other places is slow to load
            if (b + 1 < stop) put_above(gradient + (b + 1) * pairs, end, vectors, width, full + (b + 1) % 2 * held);
            example_gradient(mirrored, example, vectors, width, stride, dim, out + b * vectors * dim);
        }
    });
}

}  // namespace

// x (examples, vectors, dim) -> out (examples, pairs)
EXPORT int64_t autoembed_pair_products(const float* x, int64_t examples, int64_t vectors, int64_t dim,
                                       float* out, int64_t threads) {
    const int64_t width = padded(vectors), pairs = first_pair(vectors, vectors);
    with_dim(dim, [&](auto known_dim) INLINE_LAMBDA {
        for_ranges(examples, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            int64_t b = start;
#if defined(__AVX__) && !defined(__AVX512F__)
            for (; dim > 0 && b + EIGHT <= stop; b += EIGHT)
                eight_products(x + b * vectors * dim, x + std::min(b + EIGHT, stop - EIGHT) * vectors * dim, vectors,
                               dim, scratch(eights_scratch(vectors)), out + b * pairs);
            if (b == stop) return;
#endif
            float* turned = scratch(width * dim + vectors * width + LANES);
            std::fill_n(turned, width * dim, 0.0f);
            float* products = turned + width * dim;
            for (; b < stop; ++b) {
                fetch(x, b + 2, stop, vectors * dim);
                example_products(x + b * vectors * dim, vectors, known_dim, turned, products, out + b * pairs,
                                 out + stop * pairs);
            }
        });
    });
    return 0;
}

// gradient (examples, pairs), x (examples, vectors, dim) -> out (examples, vectors, dim)
EXPORT int64_t autoembed_pair_products_gradient(const float* gradient, const float* x, int64_t examples,
                                                int64_t vectors, int64_t dim, float* out, int64_t threads) {
    if constexpr (LANES > 8) {
        mirrored_gradient(gradient, x, examples, vectors, dim, out, threads);
        return 0;
    }
    const int64_t stride = (dim + LANES - 1) / LANES * LANES;
    const bool streams = past_cache(examples, vectors, dim, out);
    for_ranges(examples, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        float* wide = scratch(vectors * stride);
        std::fill_n(wide, stride == dim ? 0 : vectors * stride, 0.0f);
        if (streams) examples_gradient<true>(gradient, x, start, stop, vectors, dim, stride, wide, out);
        else examples_gradient<false>(gradient, x, start, stop, vectors, dim, stride, wide, out);
    });
    return 0;
}

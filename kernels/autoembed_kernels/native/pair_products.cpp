// Dot products of all pairs i < j of V vectors of D numbers, and their gradient, one example at a time: an
// example and its pairs stay in the first cache, and no V x V products are written. Pair (i, j) stands at
// first_pair(i) + j - i - 1.

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t LANES = 16;
constexpr int64_t TILE = 8;  // vectors whose sums are held in registers at a time

INLINE int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }
INLINE int64_t first_pair(int64_t i, int64_t vectors) { return i * (2 * vectors - i - 1) / 2; }

// Memory of this thread for `count` floats, kept for the next call
float* scratch(int64_t count) {
    thread_local std::vector<float> kept;
    if (static_cast<int64_t>(kept.size()) < count) kept.resize(count);
    return kept.data();
}

// Calls work(i, constant count) for tiles of TILE vectors and smaller ones at the end
template <typename Work>
INLINE void for_tiles(int64_t vectors, const Work& work) {
    int64_t i = 0;
    for (; i + TILE <= vectors; i += TILE) work(i, std::integral_constant<int64_t, TILE>{});
    for (; i + 3 <= vectors; i += 3) work(i, std::integral_constant<int64_t, 3>{});
    for (; i < vectors; ++i) work(i, std::integral_constant<int64_t, 1>{});
}

// x (vectors, dim) -> out (pairs,). turned holds dim rows of `width` floats, products TILE rows of as many
// and LANES floats more.
template <typename Dim>
INLINE void example_products(const float* x, int64_t vectors, Dim dim, float* turned, float* products,
                             float* out) {
    const int64_t width = padded(vectors);
    for (int64_t v = 0; v < vectors; ++v)
        for (int64_t d = 0; d < dim; ++d) turned[d * width + v] = x[v * dim + d];
    const float* end = out + first_pair(vectors, vectors);
    for_tiles(vectors, [&](int64_t i, auto count) INLINE_LAMBDA {
        for (int64_t block = i / LANES * LANES; block < width; block += LANES) {
            f32x16 sums[count] = {};
            for (int64_t d = 0; d < dim; ++d) {
                const f32x16 others = load<f32x16>(turned + d * width + block);
                for (int64_t t = 0; t < count; ++t) sums[t] += x[(i + t) * dim + d] * others;
            }
            for (int64_t t = 0; t < count; ++t) store(products + t * width + block, sums[t]);
        }
        for (int64_t t = 0; t < count; ++t) {
            float* row = out + first_pair(i + t, vectors);
            const float* from = products + t * width + i + t + 1;
            // whole vectors: what stands behind the row is overwritten by the next rows of this example
            for (int64_t left = vectors - i - t - 1; left > 0; left -= LANES, row += LANES, from += LANES) {
                if (row + LANES <= end) store(row, load<f32x16>(from));
                else std::memcpy(row, from, std::min(left, LANES) * sizeof(float));
            }
        }
    });
}

// g (pairs,) -> full (vectors, width): the gradient of pair (i, j) at [i][j] and [j][i]; the diagonal is zero
// and stays so
INLINE void mirror(const float* g, int64_t vectors, int64_t width, float* full) {
    for (int64_t i = 0; i < vectors; ++i)
        for (int64_t j = i + 1; j < vectors; ++j) {
            full[i * width + j] = *g;
            full[j * width + i] = *g++;
        }
}

// full of `mirror`, x (vectors, stride), whose columns from dim on are zero -> out (vectors, dim):
// out[i] = sum over j of full[j][i] x[j]
INLINE void example_gradient(const float* full, const float* x, int64_t vectors, int64_t stride, int64_t dim,
                             float* out) {
    const int64_t width = padded(vectors);
    for_tiles(vectors, [&](int64_t i, auto count) INLINE_LAMBDA {
        for (int64_t column = 0; column < dim; column += LANES) {
            f32x16 sums[count] = {};
            for (int64_t j = 0; j < vectors; ++j) {
                const f32x16 other = load<f32x16>(x + j * stride + column);
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

}  // namespace

// x (examples, vectors, dim) -> out (examples, pairs)
EXPORT int64_t autoembed_pair_products(const float* x, int64_t examples, int64_t vectors, int64_t dim,
                                       float* out, int64_t threads) {
    const int64_t width = padded(vectors), pairs = first_pair(vectors, vectors);
    with_dim(dim, [&](auto known_dim) INLINE_LAMBDA {
        for_ranges(examples, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            float* turned = scratch(width * dim + TILE * width + LANES);
            std::fill_n(turned, width * dim, 0.0f);
            float* products = turned + width * dim;
            for (int64_t b = start; b < stop; ++b)
                example_products(x + b * vectors * dim, vectors, known_dim, turned, products, out + b * pairs);
        });
    });
    return 0;
}

// gradient (examples, pairs), x (examples, vectors, dim) -> out (examples, vectors, dim)
EXPORT int64_t autoembed_pair_products_gradient(const float* gradient, const float* x, int64_t examples,
                                                int64_t vectors, int64_t dim, float* out, int64_t threads) {
    const int64_t stride = padded(dim), width = padded(vectors), pairs = first_pair(vectors, vectors);
    for_ranges(examples, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        float* full = scratch(vectors * (width + stride));
        float* wide = full + vectors * width;
        std::fill_n(full, vectors * (width + stride), 0.0f);
        for (int64_t b = start; b < stop; ++b) {
            const float* example = x + b * vectors * dim;
            if (stride != dim) {
                for (int64_t v = 0; v < vectors; ++v)
                    std::memcpy(wide + v * stride, example + v * dim, dim * sizeof(float));
                example = wide;
            }
            mirror(gradient + b * pairs, vectors, width, full);
            example_gradient(full, example, vectors, stride, dim, out + b * vectors * dim);
        }
    });
    return 0;
}

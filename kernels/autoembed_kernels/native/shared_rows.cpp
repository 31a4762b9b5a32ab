// Addresses of rows that share what is stored, and pairs of rows put together while training. See pool_slots.py,
// signature_pool.py and pair_rows.py.

#include "shared_rows.h"

#include <algorithm>
#include <vector>

using namespace autoembed;

// rows (count,) of fields (count,), or of one field where field_stride is 0 -> out (count, blocks), where their blocks
// begin: numbers below `buckets`
EXPORT int64_t autoembed_pool_slots(const int64_t* rows, const int64_t* fields, int64_t field_stride, int64_t count,
                                    int64_t blocks, int64_t buckets, int64_t* out, int64_t threads) {
    const Divisor divisor(buckets);
    for_rows(count, threads, [&](int64_t n) INLINE_LAMBDA {
        for (int64_t z = 0; z < blocks; ++z)
            out[n * blocks + z] = pool_slot(rows[n], fields[n * field_stride], z, divisor);
    });
    return 0;
}

// The same for signatures (count,) with masks (count, blocks), or one row of masks where mask_stride is 0
EXPORT int64_t autoembed_signature_slots(const int64_t* signatures, const int64_t* masks, int64_t mask_stride,
                                         int64_t count, int64_t blocks, int64_t buckets, int64_t* out,
                                         int64_t threads) {
    const Divisor divisor(buckets);
    for_rows(count, threads, [&](int64_t n) INLINE_LAMBDA {
        for (int64_t z = 0; z < blocks; ++z)
            out[n * blocks + z] = signature_slot(signatures[n], masks[n * mask_stride + z], z, divisor);
    });
    return 0;
}

// rows (count,) below `bound` of segments that start at `start` (segments,), ascending from 0 on, and whose stored rows
// begin at `first`; how and the numbers of pairs as in SharedRows -> stored (2 count,): of each row the first row that
// it reads, behind them the second rows of the pairs; paired and where (count,): the look-up and the segment of each
// pair. Returns the number of pairs, or -1 - place where a row is out of range.
EXPORT int64_t autoembed_pair_places(const int64_t* start, const int64_t* first, const int64_t* how,
                                     const int64_t* ids, const int64_t* multiplier, const int64_t* remainders,
                                     const int64_t* quotients, int64_t segments, int64_t bound, const int64_t* rows,
                                     int64_t count, int64_t* stored, int64_t* paired, int64_t* where) {
    std::vector<Divisor> by_ids, by_remainders;
    for (int64_t s = 0; s < segments; ++s) {
        by_ids.emplace_back(ids[s]);
        by_remainders.emplace_back(remainders[s]);
    }
    int64_t pairs = 0;
    for (int64_t n = 0; n < count; ++n) {
        const int64_t row = rows[n];
        if (static_cast<uint64_t>(row) >= static_cast<uint64_t>(bound)) return -1 - n;
        int64_t s = 0;
        for (int64_t left = segments; left > 1;) {
            const int64_t middle = left / 2;
            s += start[s + middle] <= row ? middle : 0;
            left -= middle;
        }
        const int64_t place = row - start[s];
        if (how[s] < ADD || how[s] > CONCATENATE) {
            stored[n] = first[s] + place;
            continue;
        }
        const uint64_t permuted = by_ids[s].remainder(static_cast<uint64_t>(place * multiplier[s]));
        const uint64_t quotient = by_remainders[s].quotient(permuted);
        const uint64_t remainder = permuted - quotient * static_cast<uint64_t>(remainders[s]);
        stored[n] = first[s] + static_cast<int64_t>(quotient);
        stored[count + pairs] = first[s] + quotients[s] + static_cast<int64_t>(remainder);
        paired[pairs] = n;
        where[pairs++] = s;
    }
    return pairs;
}

namespace {

// Numbers of a second row that stand behind those of the first, in a vector of so many
INLINE int64_t joined(int64_t dim, int64_t width) {
    return std::max<int64_t>(0, std::min<int64_t>(dim, width - dim));
}

}  // namespace

// values (count + pairs, width): first rows of look-ups and second rows of pairs -> out (count, width). how and dim
// (pairs,) say how each pair is put together; paired (pairs,) ascending are their look-ups.
EXPORT int64_t autoembed_join_pairs(const float* values, const int64_t* paired, const int64_t* how, const int64_t* dim,
                                    int64_t count, int64_t pairs, int64_t width, float* out, int64_t threads) {
    if (count * width) std::memcpy(out, values, count * width * sizeof(float));
    with_dim(width, [&](auto known) INLINE_LAMBDA {
        for_rows(pairs, threads, [&](int64_t p) INLINE_LAMBDA {
            float* __restrict vector = out + paired[p] * known;
            const float* __restrict second = values + (count + p) * known;
            if (how[p] == ADD) {
                for (int64_t j = 0; j < known; ++j) vector[j] += second[j];
            } else if (how[p] == MULTIPLY) {
                for (int64_t j = 0; j < known; ++j) vector[j] *= second[j];
            } else {
                std::memcpy(vector + dim[p], second, joined(dim[p], known) * sizeof(float));
            }
        });
    });
    return 0;
}

// gradient (count, width) of what was joined -> out (count + pairs, width), that of `values`
EXPORT int64_t autoembed_join_pairs_gradient(const float* values, const int64_t* paired, const int64_t* how,
                                             const int64_t* dim, const float* gradient, int64_t count, int64_t pairs,
                                             int64_t width, float* out, int64_t threads) {
    if (count * width) std::memcpy(out, gradient, count * width * sizeof(float));
    with_dim(width, [&](auto known) INLINE_LAMBDA {
        for_rows(pairs, threads, [&](int64_t p) INLINE_LAMBDA {
            const float* g = gradient + paired[p] * known;
            float* __restrict to_first = out + paired[p] * known;
            float* __restrict to_second = out + (count + p) * known;
            if (how[p] == ADD) {
                std::memcpy(to_second, g, known * sizeof(float));
            } else if (how[p] == MULTIPLY) {
                const float* first = values + paired[p] * known;
                const float* second = values + (count + p) * known;
                for (int64_t j = 0; j < known; ++j) {
                    to_first[j] = g[j] * second[j];
                    to_second[j] = g[j] * first[j];
                }
            } else {
                const int64_t behind = joined(dim[p], known);
                std::memcpy(to_second, g + dim[p], behind * sizeof(float));
                std::fill(to_second + behind, to_second + known, 0.0f);
                std::fill(to_first + dim[p], to_first + dim[p] + behind, 0.0f);
            }
        });
    });
    return 0;
}

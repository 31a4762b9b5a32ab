// Where rows that share what is stored lie: pairs of quotient_remainder.py, blocks of pool_slots.py and
// signature_pool.py. The hash is that of row_hash.py.

#pragma once

#include <cstdint>

#include "vectors.h"

// What SharedRows of look_up_shared.py holds, per segment: how its rows are addressed, and the masks of its blocks
// (segments, blocks)
struct SharedRows {
    const int64_t *how, *ids, *multiplier, *remainders, *quotients, *index_at, *masks;
    const uint8_t* index;
    int64_t index_bytes, block, blocks, slots, dim;
};

namespace autoembed {

enum How : int64_t { SINGLE = -1, ADD, MULTIPLY, CONCATENATE, POOLED, SIGNED };

// Divides by a number that stays: a multiplication in place of up to 40 cycles. Exact for all of 64 bits.
class Divisor {
  public:
    // segments that divide by nothing have 0 there
    explicit Divisor(int64_t by = 1) : by_(static_cast<uint64_t>(by > 0 ? by : 1)), inverse_(~uint64_t{0} / by_) {}

    INLINE uint64_t quotient(uint64_t number) const {
        // floor((2^64 - 1) / d) gives the quotient or one less
        const auto found = static_cast<uint64_t>(static_cast<unsigned __int128>(number) * inverse_ >> 64);
        return found + (number - found * by_ >= by_);
    }

    INLINE uint64_t remainder(uint64_t number) const { return number - quotient(number) * by_; }

  private:
    uint64_t by_, inverse_;
};

// row_hash(row, salt, buckets)
INLINE int64_t hashed(uint64_t row, uint64_t salt, const Divisor& buckets) {
    uint64_t mixed = row + (salt + 1) * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBu;
    mixed ^= mixed >> 31;
    return static_cast<int64_t>(buckets.remainder(mixed >> 1));
}

// pool_slots: where block z of row `row` of a field begins; buckets = slots - block + 1
INLINE int64_t pool_slot(int64_t row, int64_t field, int64_t z, const Divisor& buckets) {
    return hashed(static_cast<uint64_t>(row), static_cast<uint64_t>(field) * (1u << 16) + static_cast<uint64_t>(z),
                  buckets);
}

// signature_slots
INLINE int64_t signature_slot(int64_t signature, int64_t mask, int64_t z, const Divisor& buckets) {
    return hashed(static_cast<uint64_t>(signature & mask), (uint64_t{1} << 40) + static_cast<uint64_t>(z), buckets);
}

}  // namespace autoembed

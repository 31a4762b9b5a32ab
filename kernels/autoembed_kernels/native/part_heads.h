// Rows in parts: from where the first part of a row lies to where the others do.

#pragma once

#include "decode_block.h"

namespace autoembed {

// What a segment's rows go on in
struct Head {
    uintptr_t begin;
    double rows_of_byte;  // 1 / bytes of a row: their product with a row's place is a whole number but for rounding
    uint8_t behind;
};

class Heads {
  public:
    Heads(const uint8_t* payload, int64_t bytes, const Segments& segments, const int64_t* tails)
        : payload_(reinterpret_cast<uintptr_t>(payload)), bytes_(bytes), segments_(segments),
          heads_(segments.all.size()), column_(segments.all.size()) {
        for (size_t s = 0; s < heads_.size(); ++s) {
            const Segment& one = segments.all[s];
            const double row = one.row_bytes ? 1.0 / static_cast<double>(one.row_bytes) : 0.0;
            heads_[s] = {payload_ + static_cast<uintptr_t>(one.base), row, static_cast<uint8_t>(tails[s])};
            const int64_t behind = std::min(tails[s], static_cast<int64_t>(heads_.size() - 1 - s));
            for (int64_t t = 1, column = one.dim; t <= behind; ++t) {
                column_[s + static_cast<size_t>(t)] = column;
                column += segments.all[s + static_cast<size_t>(t)].dim;
            }
            most_ = std::max(most_, tails[s]);
        }
    }

    int64_t most() const { return most_; }

    const Head& of(const Segment* head) const { return heads_[static_cast<size_t>(head - segments_.all.data())]; }

    int64_t column(const Segment* tail) const { return column_[static_cast<size_t>(tail - segments_.all.data())]; }

    // The stored row of a look-up from where it lies: of another segment's, where it reads the first row of that
    static int64_t row(const Head& head, uintptr_t at) {
        return static_cast<int64_t>(static_cast<double>(static_cast<int64_t>(at - head.begin)) * head.rows_of_byte +
                                    0.5);
    }

    // Where a row of a tail lies; 0 where that is not in the payload
    uintptr_t place(const Segment& tail, int64_t row) const {
        const int64_t at = tail.base + row * tail.row_bytes;
        return at >= 0 && at <= bytes_ - tail.read_bytes ? payload_ + static_cast<uintptr_t>(at) : 0;
    }

  private:
    uintptr_t payload_;
    int64_t bytes_, most_ = 0;
    const Segments& segments_;
    std::vector<Head> heads_;
    std::vector<int64_t> column_;  // of a tail: where its values begin
};

}  // namespace autoembed

// Rows of a block of look-ups to numbers, while the rows of the next block are fetched.

#pragma once

#include "decode.h"
#include "find_rows.h"

namespace autoembed {

// Calls work(way, same) with constants: the way of all segments, and whether they have the same bits
template <typename Work>
INLINE void with_alike(const Segments& segments, const Work& work) {
    with_way(segments.all[0].way, [&](auto way) INLINE_LAMBDA {
        constexpr Way known = decltype(way)::value;
        if constexpr (known == CODES || known == CODES_AND_MORE)
            if (!segments.same) return work(way, std::false_type{});
        work(way, std::true_type{});
    });
}

// Decodes the first `count` rows of a block to rows of `out` and fetches those of the next
using DecodeBlock = void (*)(const Segments&, const Block&, int64_t count, const Block& next, float* out);

// The decoder with the width as a constant where it is common and all segments have it
DecodeBlock decoder_of(const Segments& segments);

}  // namespace autoembed

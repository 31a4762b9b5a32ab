// Rows of a block of look-ups to numbers, while the rows of the next block are fetched.

#pragma once

#include "decode.h"
#include "find_rows.h"

namespace autoembed {

// Calls work(way, widths) with constants: the way of all segments, and what is known of their bits
template <typename Work>
INLINE void with_alike(const Segments& segments, const Work& work) {
    with_way(segments.all[0].way, [&](auto way) INLINE_LAMBDA {
        constexpr Way known = decltype(way)::value;
        if constexpr (known == CODES || known == CODES_AND_MORE) {
            if (!segments.same) return work(way, std::integral_constant<Widths, Widths::DIFFER>{});
            if (segments.all[0].bits == 8) return work(way, std::integral_constant<Widths, Widths::EIGHT>{});
        }
        work(way, std::integral_constant<Widths, Widths::SAME>{});
    });
}

// Decodes the first `count` rows of a block to rows of `out` and fetches those of the next
using DecodeBlock = void (*)(const Segments&, const Block&, int64_t count, const Block& next, float* out);

// The decoder with the width as a constant where it is common and all segments have it. One that `streams` writes past
// the cache, where rows of `out` are whole lines, and is followed by `streamed`.
DecodeBlock decoder_of(const Segments& segments, bool streams = false);

// Behind the last row that was written past the cache, before others read it
INLINE void streamed() {
#ifdef __SSE2__
    _mm_sfence();
#endif
}

}  // namespace autoembed

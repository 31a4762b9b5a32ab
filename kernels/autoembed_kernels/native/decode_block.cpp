// Blocks of look-ups decoded. Where rows are stored in more ways than one, those of one way are decoded after the
// other, so that no branch depends on a row.

#include "decode_block.h"

namespace autoembed {

constexpr int64_t OUT_AHEAD = 64 * LINE / 4;  // values

// Which of the first `count` of `ways` are `way`, as bits
INLINE uint64_t those_of(Way way, const uint8_t* ways, int64_t count) {
    uint64_t found = 0;
#if defined(__AVX512BW__)
    found = _mm512_cmpeq_epi8_mask(_mm512_load_si512(ways), _mm512_set1_epi8(way));
#elif defined(__SSE2__)
    for (int64_t at = 0; at < BLOCK; at += 16) {
        const __m128i equal =
            _mm_cmpeq_epi8(_mm_load_si128(reinterpret_cast<const __m128i*>(ways + at)), _mm_set1_epi8(way));
        found |= static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(equal))) << at;
    }
#else
    for (int64_t n = 0; n < count; ++n) found |= static_cast<uint64_t>(ways[n] == way) << n;
#endif
    return count < BLOCK ? found & ((uint64_t{1} << count) - 1) : found;
}

// Fetches the lines of a row that is written later
template <typename Dim>
INLINE void fetch_written(const float* out, Dim dim) {
    if constexpr (!std::is_same_v<Dim, int64_t>)
        for (int64_t j = 0; j < dim; j += LINE / 4) __builtin_prefetch(out + j, 1, 3);
}

// Decodes rows that are decoded alike. A function of its own, so that all of the loop stays in registers.
template <Way way, Widths widths, bool STREAMS, typename Dim>
__attribute__((noinline)) void decode_alike(const uintptr_t* rows, const Segment* const* segments,
                                            const uintptr_t* next, const Segment* const* next_segments,
                                            int64_t count, int64_t same_bits, int64_t same_bytes, Dim dim,
                                            int64_t width, float* out) {
    const Coder<way, widths> coder(same_bits);
    for (int64_t n = 0; n < count; ++n, out += width) {
        if constexpr (!STREAMS) fetch_written(out + OUT_AHEAD, dim);
        fetch_row(next[n], widths == Widths::DIFFER ? next_segments[n]->fetch_bytes : same_bytes);
        const Segment& s = *segments[n];
        const auto* row = reinterpret_cast<const uint8_t*>(rows[n]);
        write_decoded<way, STREAMS>(row, s, coder(s), dim, width, out);
    }
}

// Decodes the first `count` rows to rows of `out`
template <bool STREAMS, typename Dim>
void decode_block(const Segments& segments, const Block& block, int64_t count, const Block& next, Dim dim,
                  float* out) {
    const int64_t width = segments.width;
    if (segments.alike)
        return with_alike(segments, [&](auto way, auto widths) INLINE_LAMBDA {
            decode_alike<decltype(way)::value, decltype(widths)::value, STREAMS>(
                block.rows, block.segments, next.rows, next.segments, count, segments.all[0].bits,
                segments.all[0].fetch_bytes, dim, width, out);
        });
    alignas(64) uint8_t ways[BLOCK];
    for (int64_t n = 0; n < BLOCK; ++n) ways[n] = block.segments[n]->way;
    int64_t done = 0;
    for (int64_t way = 0; way < WAYS; ++way) {
        if (!segments.has[way]) continue;
        with_way(static_cast<Way>(way), [&](auto known) INLINE_LAMBDA {
            constexpr Way way = decltype(known)::value;
            const Coder<way, Widths::DIFFER> coder(0);
            for (uint64_t those = those_of(way, ways, count); those; those &= those - 1, ++done) {
                fetch_row(next.rows[done], next.segments[done]->fetch_bytes);
                if constexpr (!STREAMS) fetch_written(out + (BLOCK + done) * width, dim);
                const int64_t n = __builtin_ctzll(those);
                const Segment& s = *block.segments[n];
                write_decoded<way, STREAMS>(block.row(n), s, coder(s), dim, width, out + n * width);
            }
        });
    }
}

DecodeBlock decoder_of(const Segments& segments, bool streams) {
    DecodeBlock found = nullptr;
    with_dim(segments.full ? segments.width : 0, [&](auto dim) {
        using Dim = decltype(dim);
        found = [](const Segments& of, const Block& block, int64_t count, const Block& next, float* out) {
            decode_block<false>(of, block, count, next, Dim{}, out);
        };
        if constexpr (can_stream<Dim>())
            if (streams)
                found = [](const Segments& of, const Block& block, int64_t count, const Block& next, float* out) {
                    decode_block<true>(of, block, count, next, Dim{}, out);
                };
    });
    return found;
}

}  // namespace autoembed

// Look-ups in packed tables of mixed segments. The layout is that of gather_packed.py and look_up_packed.py; the
// numbers equal those of the torch versions.

#include "decode_block.h"

using namespace autoembed;

namespace {

// So many bytes, and more, are written past the cache: they would not stay there until the layer behind reads them,
// and lines that are written whole need not be read first. Look-up and layer together take .80 to .98 of the time for
// 3 MB and more, 1.0 to 1.15 for less than 2 MB.
constexpr int64_t STREAMED = 5 << 19;

// Decodes all look-ups, in threads
template <typename MakeFind>
INLINE int64_t gather_all(const uint8_t* payload, const Segments& segments, int64_t count, float* out,
                          int64_t threads, const MakeFind& make_find) {
    const bool streams = count * segments.width * static_cast<int64_t>(sizeof(float)) >= STREAMED &&
                         reinterpret_cast<uintptr_t>(out) % LINE == 0;
    const DecodeBlock decode = decoder_of(segments, streams);
    int64_t first_bad = count;
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        const int64_t bad = for_blocks(
            start, stop, payload, segments, make_find(),
            [&](const Block& block, int64_t from, int64_t block_count, const Block& next) INLINE_LAMBDA {
                decode(segments, block, block_count, next, out + from * segments.width);
            });
        if (streams) streamed();
        if (bad >= 0) {
#pragma omp critical
            first_bad = std::min(first_bad, bad);
        }
    });
    return first_bad < count ? -1 - first_bad : 0;
}

}  // namespace

// payload of `bytes` bytes, segment (count,), row (count,) -> out (count, width). Returns 0, or -1 - place
// where the place's segment or row is out of range; out is then undefined.
EXPORT int64_t autoembed_gather_packed(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                       const int64_t* segment, const int64_t* row, int64_t count, float* out,
                                       int64_t threads) {
    const Segments segments = read_segments(payload, *packed);
    return gather_all(payload, segments, count, out, threads, [&]() INLINE_LAMBDA {
        return [&](int64_t from, int64_t block_count, Block& block) INLINE_LAMBDA {
            for (int64_t n = 0; n < block_count; ++n) {
                const int64_t s = segment[from + n];
                if (static_cast<uint64_t>(s) >= static_cast<uint64_t>(packed->count) ||
                    !locate(payload, bytes, segments.all[s], row[from + n], block.rows[n]))
                    return from + n;
                block.own[n] = &segments.all[s];
            }
            return int64_t{-1};
        };
    });
}

// The same for rows (count,) of all fields behind one another, int32 or int64 by row_size
EXPORT int64_t autoembed_look_up_packed(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                        const PackedRows* addresses, const void* rows, int64_t row_size,
                                        int64_t count, int64_t columns, float* out, int64_t threads) {
    const Segments segments = read_segments(payload, *packed);
    columns = std::max<int64_t>(1, std::min(columns, count));
    return with_rows(rows, row_size, [&](auto known_rows) INLINE_LAMBDA {
        return gather_all(payload, segments, count, out, threads, [&]() INLINE_LAMBDA {
            using Row = std::remove_const_t<std::remove_pointer_t<decltype(known_rows)>>;
            return Finder<Row>(payload, bytes, segments, *addresses, known_rows, columns);
        });
    });
}

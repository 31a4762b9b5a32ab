// What the kernels of packed tables are told, as gather_packed.py and look_up_packed.py lay it out, and the
// segments in the form in which look-ups use them.

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

// What PackedSegments holds, per segment (count,), and its offsets (rows, width)
struct PackedSegments {
    const int64_t *base, *row_bytes, *dim, *bits;
    const uint8_t* kind;
    const int64_t* front;
    const float *shift, *scale;
    const int64_t* offset;
    const float* offsets;
    int64_t count, width, any_offset;
};

// What PackedRows holds, per segment: how a row of all fields becomes a stored row
struct PackedRows {
    const int64_t *start, *field_start, *field_segment, *field, *buckets, *code_bits, *code_at;
    const uint8_t *reads_row_0, *hashed, *codes;
    int64_t rows;

    // code_stream.py: the row of its codebook that row `place` of segment s reads
    int64_t code(int64_t s, int64_t place) const {
        const int64_t bit = place * code_bits[s];
        const uint8_t* at = codes + code_at[s] + (bit >> 3);
        return (at[0] | at[1] << 8) >> (bit & 7) & ((1 << code_bits[s]) - 1);
    }
};

namespace autoembed {

enum Kind : uint8_t { INTEGER, FP16, BF16, FP32 };
// Ways to decode: integer codes with and without an offset or numbers at the row's front, floats, nothing stored
enum Way : uint8_t { CODES, CODES_AND_MORE, HALVES, BFLOATS, FLOATS, NOTHING, WAYS };
constexpr int64_t OVERREAD = 16;       // bytes behind a row of codes that decoding may read
constexpr int64_t LINE = 64;           // bytes
constexpr int64_t MOST_FETCHED = 512;  // bytes of a row that are fetched ahead

// One segment as decoding reads it: a cache line
struct alignas(64) Segment {
    int64_t base, row_bytes, read_bytes;  // rows may overlap: read_bytes may be more than row_bytes
    const float* offset;
    int32_t dim, bits, front, fetch_bytes;
    float shift, scale;
    Way way;
};

struct Segments {
    std::vector<Segment> all;
    int64_t width;
    bool full = true;    // segments that store anything have `width` columns
    bool alike = true;   // all are decoded the same way
    bool same = true;    // and have the same bits and bytes of a row
    bool has[WAYS] = {};
};

// Whether every row lies within one cache line, with all that decoding reads of it
inline bool in_one_line(const uint8_t* first, int64_t row_bytes, int64_t read_bytes) {
    const bool divides_line = row_bytes > 0 && LINE % row_bytes == 0;
    return divides_line && read_bytes <= row_bytes && reinterpret_cast<uintptr_t>(first) % row_bytes == 0;
}

inline Segments read_segments(const uint8_t* payload, const PackedSegments& p) {
    Segments segments{std::vector<Segment>(p.count), p.width};
    for (int64_t s = 0; s < p.count; ++s) {
        Segment& one = segments.all[s];
        one.dim = static_cast<int32_t>(p.dim[s]);
        one.way = NOTHING;
        if (p.dim[s] > 0) {
            const bool codes = p.kind[s] == INTEGER;
            const bool has_offset = p.any_offset && codes && p.front[s] != 4;
            const int64_t body = codes ? (p.dim[s] * p.bits[s] + 7) / 8 : p.dim[s] * (p.kind[s] == FP32 ? 4 : 2);
            one = {p.base[s],
                   p.row_bytes[s],
                   codes ? p.front[s] + body + OVERREAD : body,
                   has_offset ? p.offsets + p.offset[s] * p.width : nullptr,
                   static_cast<int32_t>(p.dim[s]),
                   static_cast<int32_t>(p.bits[s]),
                   static_cast<int32_t>(codes ? p.front[s] : 0),
                   static_cast<int32_t>(std::min(codes ? p.front[s] + body + 8 - p.bits[s] : body, MOST_FETCHED)),
                   p.shift[s],
                   p.scale[s],
                   !codes                       ? (p.kind[s] == FP16 ? HALVES : p.kind[s] == BF16 ? BFLOATS : FLOATS)
                   : has_offset || p.front[s]   ? CODES_AND_MORE
                                                : CODES};
            if (in_one_line(payload + one.base, one.row_bytes, one.fetch_bytes)) one.fetch_bytes = 1;
            segments.full = segments.full && p.dim[s] == p.width;
        }
        const Segment& first = segments.all[0];
        segments.has[one.way] = true;
        segments.alike = segments.alike && one.way == first.way;
        segments.same = segments.same && segments.alike && one.bits == first.bits &&
                        one.fetch_bytes == first.fetch_bytes;
    }
    return segments;
}

}  // namespace autoembed

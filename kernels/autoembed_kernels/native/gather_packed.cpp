// Look-ups in packed tables of mixed segments: from row to address to values, in one pass. The layout is that
// of gather_packed.py, the hash that of row_hash.py; the numbers equal those of the torch versions.

#include <algorithm>
#include <cmath>
#include <vector>

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "vectors.h"

namespace {

using u8x8 = uint8_t __attribute__((vector_size(8)));
using u16x8 = uint16_t __attribute__((vector_size(16)));

enum Kind : uint8_t { INTEGER, FP16, BF16, FP32 };
constexpr int64_t BLOCK = 32;         // look-ups whose rows are fetched while the block before is decoded
constexpr int64_t OVERREAD = 8;       // bytes behind a row of codes that decoding may read
constexpr int64_t LINE = 64;          // bytes
constexpr int64_t MOST_FETCHED = 512; // bytes of a row that are fetched ahead

}  // namespace

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
    const int64_t *start, *field_start, *field_segment, *field, *buckets;
    const uint8_t *reads_row_0, *hashed;
    int64_t rows;
};

namespace {

// One segment as decoding reads it: a cache line
struct alignas(64) Segment {
    int64_t base, row_bytes, read_bytes;  // rows may overlap: read_bytes may be more than row_bytes
    const float* offset;
    int32_t dim, bits, front;
    float shift, scale;
    uint8_t kind;
};

struct Place {
    const uint8_t* row;
    const Segment* segment;
};

std::vector<Segment> read_segments(const PackedSegments& p) {
    std::vector<Segment> segments(p.count);
    for (int64_t s = 0; s < p.count; ++s) {
        const bool has_offset = p.any_offset && p.kind[s] == INTEGER && p.front[s] != 4;
        const int64_t value_bytes = p.kind[s] == FP32 ? 4 : 2;
        segments[s] = {p.base[s],
                       p.row_bytes[s],
                       p.kind[s] == INTEGER ? p.front[s] + (p.dim[s] * p.bits[s] + 7) / 8 + OVERREAD
                                            : p.dim[s] * value_bytes,
                       has_offset ? p.offsets + p.offset[s] * p.width : nullptr,
                       static_cast<int32_t>(p.dim[s]),
                       static_cast<int32_t>(p.bits[s]),
                       static_cast<int32_t>(p.front[s]),
                       p.shift[s],
                       p.scale[s],
                       p.kind[s]};
    }
    return segments;
}

INLINE f32x8 halves(u16x8 bits) {
#ifdef __F16C__
    return reinterpret_cast<f32x8>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(bits)));
#else
    const u32x8 wide = __builtin_convertvector(bits, u32x8);
    const u32x8 magnitude = (wide & 0x7fffu) << 13;
    // the exponent's bias goes from 15 to 127, exactly, for numbers below the smallest normal one too
    f32x8 value = reinterpret_cast<f32x8>(magnitude) * 0x1p112f;
    const u32x8 special = reinterpret_cast<u32x8>(magnitude >= (0x7c00u << 13));
    const u32x8 finite = reinterpret_cast<u32x8>(value) & ~special;
    return reinterpret_cast<f32x8>(finite | (special & (magnitude | 0x7f800000u)) | (wide & 0x8000u) << 16);
#endif
}

INLINE float half(const uint8_t* at) {
    u16x8 bits{};
    bits[0] = load<uint16_t>(at);
    return halves(bits)[0];
}

// Eight values from column j on of a row of T, which ends at column dim
template <typename Vector, typename T>
INLINE Vector eight(const uint8_t* row, int64_t j, int64_t dim) {
    const uint8_t* at = row + j * static_cast<int64_t>(sizeof(T));
    if (j + 8 <= dim) return load<Vector>(at);
    Vector values{};
    std::memcpy(&values, at, (dim - j) * sizeof(T));
    return values;
}

// Writes dim columns of eight(j), then zeros up to width
template <typename Eight>
INLINE void write_row(float* out, int64_t dim, int64_t width, const Eight& eight_values) {
    int64_t j = 0;
    for (; j + 8 <= dim; j += 8) store(out + j, eight_values(j));
    if (j < dim) {
        const f32x8 last = eight_values(j);
        std::memcpy(out + j, &last, (dim - j) * sizeof(float));
    }
    for (j = dim; j < width; ++j) out[j] = 0.0f;
}

INLINE void decode(const Place& place, int64_t width, float* out) {
    const Segment& s = *place.segment;
    const uint8_t* row = place.row;
    const int64_t dim = s.dim;
    switch (s.kind) {
        case INTEGER: {
            const float scale = dim && s.front >= 2 ? half(row) : s.scale;
            const float bias = dim && s.front == 4 ? half(row + 2) : 0.0f;
            const uint8_t* codes = row + s.front;
            const auto bits = static_cast<uint32_t>(s.bits);
            const uint32_t mask = (1u << bits) - 1;
            const u32x8 shifts = bits * u32x8{0, 1, 2, 3, 0, 1, 2, 3};
            const auto values = [&](int64_t j) INLINE_LAMBDA {
                // eight codes take `bits` bytes, so that one word holds them, and 32 bits hold four
                const auto word = load<uint64_t>(codes + j / 8 * bits);
                const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 4 * bits);
                const u32x8 words = {low, low, low, low, high, high, high, high};
                const auto eight_codes = reinterpret_cast<i32x8>((words >> shifts) & mask);
                return (__builtin_convertvector(eight_codes, f32x8) + s.shift) * scale;
            };
            if (s.offset)
                return write_row(out, dim, width, [&](int64_t j) INLINE_LAMBDA {
                    const auto* offset = reinterpret_cast<const uint8_t*>(s.offset);
                    return values(j) + eight<f32x8, float>(offset, j, dim);
                });
            return write_row(out, dim, width, [&](int64_t j) INLINE_LAMBDA { return values(j) + bias; });
        }
        case FP16:
            return write_row(out, dim, width, [&](int64_t j) INLINE_LAMBDA {
                return halves(eight<u16x8, uint16_t>(row, j, dim));
            });
        case BF16:
            return write_row(out, dim, width, [&](int64_t j) INLINE_LAMBDA {
                const u16x8 bits = eight<u16x8, uint16_t>(row, j, dim);
                return reinterpret_cast<f32x8>(__builtin_convertvector(bits, u32x8) << 16);
            });
        default:
            return write_row(out, dim, width,
                             [&](int64_t j) INLINE_LAMBDA { return eight<f32x8, float>(row, j, dim); });
    }
}

INLINE void fetch(const Place& place) {
    const int64_t bytes = std::min(place.segment->read_bytes, MOST_FETCHED);
    for (int64_t at = 0; at < bytes; at += LINE) prefetch(place.row + at);
    if (bytes) prefetch(place.row + bytes - 1);
}

// Decodes the look-ups of [start, stop): place_of(n, place) finds one or tells that it is out of range.
// Returns the first look-up that is, or -1.
template <typename PlaceOf>
INLINE int64_t gather(int64_t start, int64_t stop, int64_t width, float* out, PlaceOf&& place_of) {
    Place places[2][BLOCK];
    const auto find = [&](int64_t from, Place* found) INLINE_LAMBDA {
        for (int64_t n = from; n < std::min(from + BLOCK, stop); ++n) {
            if (!place_of(n, found[n - from])) return n;
            fetch(found[n - from]);
        }
        return int64_t{-1};
    };
    int64_t bad = find(start, places[0]);
    for (int64_t from = start, turn = 0; from < stop && bad < 0; from += BLOCK, turn ^= 1) {
        bad = find(from + BLOCK, places[turn ^ 1]);
        for (int64_t n = from; n < std::min(from + BLOCK, stop); ++n)
            decode(places[turn][n - from], width, out + n * width);
    }
    return bad;
}

// `gather` in threads
template <typename MakePlaceOf>
INLINE int64_t gather_all(int64_t count, int64_t width, float* out, int64_t threads,
                          const MakePlaceOf& make_place_of) {
    int64_t first_bad = count;
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        const int64_t bad = gather(start, stop, width, out, make_place_of());
        if (bad >= 0) {
#pragma omp critical
            first_bad = std::min(first_bad, bad);
        }
    });
    return first_bad < count ? -1 - first_bad : 0;
}

INLINE bool locate(const uint8_t* payload, int64_t bytes, const Segment& s, int64_t row, Place& place) {
    int64_t at = 0;
    if (s.dim) {
        const bool overflows =
            __builtin_mul_overflow(row, s.row_bytes, &at) || __builtin_add_overflow(at, s.base, &at);
        if (overflows || at < 0 || at > bytes - s.read_bytes) return false;
    }
    place = {payload + at, &s};
    return true;
}

INLINE int64_t bucket(int64_t row, int64_t salt, int64_t buckets) {
    auto mixed = static_cast<uint64_t>(row) + static_cast<uint64_t>(salt + 1) * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBu;
    mixed ^= mixed >> 31;
    return static_cast<int64_t>((mixed >> 1) % static_cast<uint64_t>(buckets));
}

// The rows of one field and its segments
struct FieldRange {
    int64_t start = 0, stop = 0, first = 0, count = 0;
};

// Finds segments. A batch's rows come field by field in turn, so the field of the look-up one turn before is
// tried first; `columns` is the length of a turn.
class Finder {
  public:
    Finder(const PackedRows& rows, int64_t segments, int64_t columns)
        : rows_(rows), segments_(segments), hints_(columns) {}

    INLINE int64_t operator()(int64_t row) const {
        FieldRange& field = hints_[column_];
        if (++column_ == hints_.size()) column_ = 0;
        if (row < field.start || row >= field.stop) field = range_of(row);
        return last_at_or_before(row, field.first, field.count);
    }

  private:
    INLINE int64_t last_at_or_before(int64_t row, int64_t first, int64_t count) const {
        while (count > 1) {
            const int64_t middle = count / 2;
            first += rows_.start[first + middle] <= row ? middle : 0;
            count -= middle;
        }
        return first;
    }

    __attribute__((noinline)) FieldRange range_of(int64_t row) const {
        const int64_t segment = last_at_or_before(row, 0, segments_);
        const int64_t first = rows_.field_segment[segment];
        int64_t stop = segment;
        while (stop < segments_ && rows_.field_segment[stop] == first) ++stop;
        return {rows_.field_start[segment], stop < segments_ ? rows_.start[stop] : rows_.rows, first,
                stop - first};
    }

    const PackedRows& rows_;
    int64_t segments_;
    // kept by a const operator: a mutable lambda with attributes is written differently for GCC and Clang
    mutable std::vector<FieldRange> hints_;
    mutable size_t column_ = 0;
};

}  // namespace

// payload of `bytes` bytes, segment (count,), row (count,) -> out (count, width). Returns 0, or -1 - place
// where the place's segment or row is out of range; out is then undefined.
EXPORT int64_t autoembed_gather_packed(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                       const int64_t* segment, const int64_t* row, int64_t count, float* out,
                                       int64_t threads) {
    const std::vector<Segment> segments = read_segments(*packed);
    return gather_all(count, packed->width, out, threads, [&]() INLINE_LAMBDA {
        return [&](int64_t n, Place& place) INLINE_LAMBDA {
            return static_cast<uint64_t>(segment[n]) < static_cast<uint64_t>(packed->count) &&
                   locate(payload, bytes, segments[segment[n]], row[n], place);
        };
    });
}

// The same for rows (count,) of all fields behind one another
EXPORT int64_t autoembed_look_up_packed(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                        const PackedRows* addresses, const int64_t* rows, int64_t count,
                                        int64_t columns, float* out, int64_t threads) {
    const std::vector<Segment> segments = read_segments(*packed);
    const PackedRows& a = *addresses;
    return gather_all(count, packed->width, out, threads, [&]() INLINE_LAMBDA {
        return [&, find = Finder(a, packed->count, columns)](int64_t n, Place& place) INLINE_LAMBDA {
            int64_t row = rows[n];
            if (static_cast<uint64_t>(row) >= static_cast<uint64_t>(a.rows)) return false;
            int64_t s = find(row);
            if (a.reads_row_0[s]) {
                row = a.field_start[s];
                s = a.field_segment[s];
            }
            const int64_t stored =
                a.hashed[s] ? bucket(row - a.field_start[s], a.field[s], a.buckets[s]) : row - a.start[s];
            return locate(payload, bytes, segments[s], stored, place);
        };
    });
}

// Look-ups in packed tables of mixed segments: from row to address to values, alone or summed over bags. The
// layout is that of gather_packed.py, the hash that of row_hash.py; the numbers equal those of the torch versions.
//
// Blocks of look-ups go through three steps: find the addresses of the next block and fetch its rows; sort this
// block by the way its rows are decoded, so that no branch depends on a row; decode each group in its own loop.

#include <algorithm>
#include <cmath>
#include <vector>

#if defined(__F16C__) || defined(__AVX2__) || defined(__AVX512BW__)
#include <immintrin.h>
#endif

#include "vectors.h"

namespace {

using u8x8 = uint8_t __attribute__((vector_size(8)));
using u16x8 = uint16_t __attribute__((vector_size(16)));

#ifdef __AVX512BW__
constexpr int64_t STEP = 16;  // values decoded at once
using Values = f32x16;
#else
constexpr int64_t STEP = 8;
using Values = f32x8;
#endif

enum Kind : uint8_t { INTEGER, FP16, BF16, FP32 };
// Ways to decode: integer codes with and without an offset or numbers at the row's front, floats, nothing stored
enum Way : uint8_t { CODES, CODES_AND_MORE, HALVES, BFLOATS, FLOATS, NOTHING, WAYS };
constexpr int64_t BLOCK = 64;         // look-ups whose rows are fetched while the block before is decoded
constexpr int64_t OVERREAD = 16;      // bytes behind a row of codes that decoding may read
constexpr int64_t LINE = 64;          // bytes
constexpr int64_t MOST_FETCHED = 512; // bytes of a row that are fetched ahead
constexpr int64_t FEW = 8;            // segments of a field that are searched at once

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
    int32_t dim, bits, front, fetch_bytes;
    float shift, scale;
    Way way;
};

struct Place {
    const uint8_t* row;
    const Segment* segment;
};

struct Segments {
    std::vector<Segment> all;
    int64_t width;
    bool full = true;  // segments that store anything have `width` columns
    bool alike = true;
    Way way = NOTHING;  // of all segments, if they are alike
};

Segments read_segments(const PackedSegments& p) {
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
            segments.full = segments.full && p.dim[s] == p.width;
        }
        if (s == 0) segments.way = one.way;
        segments.alike = segments.alike && one.way == segments.way;
    }
    return segments;
}

// Where the codes of each width lie among the bytes of one word of eight codes, for shuffles in 128-bit lanes:
// per code four bytes, of which at most two hold a part of it, and the bits to shift that part down. The second
// eight codes lie in the second word.
struct Unpacking {
    alignas(64) uint8_t bytes[64];
    alignas(64) uint32_t shifts[16];
};

struct Unpackings {
    Unpacking of[9];
};

constexpr Unpackings make_unpackings() {
    Unpackings made{};
    for (int bits = 1; bits <= 8; ++bits)
        for (int code = 0; code < 16; ++code) {
            const int at = code % 8 * bits, first = code / 8 * 8 + at / 8;
            Unpacking& one = made.of[bits];
            one.bytes[4 * code] = static_cast<uint8_t>(first);
            one.bytes[4 * code + 1] = static_cast<uint8_t>(at % 8 + bits > 8 ? first + 1 : 0x80);
            one.bytes[4 * code + 2] = one.bytes[4 * code + 3] = 0x80;
            one.shifts[code] = static_cast<uint32_t>(at % 8);
        }
    return made;
}

constexpr Unpackings UNPACKINGS = make_unpackings();

// STEP codes from column j on, as numbers
INLINE Values codes_at(const uint8_t* codes, int64_t j, int64_t bits) {
    const uint8_t* at = codes + j / 8 * bits;
    const uint32_t mask = (1u << bits) - 1;
#if defined(__AVX512BW__)
    const Unpacking& u = UNPACKINGS.of[bits];
    const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
    const __m128d both = _mm_loadh_pd(_mm_castsi128_pd(low), reinterpret_cast<const double*>(at + bits));
    const __m512i words = _mm512_broadcast_i32x4(_mm_castpd_si128(both));
    const __m512i spread = _mm512_shuffle_epi8(words, _mm512_load_si512(u.bytes));
    const __m512i down = _mm512_srlv_epi32(spread, _mm512_load_si512(u.shifts));
    const __m512i kept = _mm512_and_si512(down, _mm512_set1_epi32(static_cast<int>(mask)));
    return reinterpret_cast<Values>(_mm512_cvtepi32_ps(kept));
#elif defined(__AVX2__)
    const Unpacking& u = UNPACKINGS.of[bits];
    const __m256i words = _mm256_set1_epi64x(load<int64_t>(at));
    const __m256i spread =
        _mm256_shuffle_epi8(words, _mm256_load_si256(reinterpret_cast<const __m256i*>(u.bytes)));
    const __m256i down =
        _mm256_srlv_epi32(spread, _mm256_load_si256(reinterpret_cast<const __m256i*>(u.shifts)));
    const __m256i kept = _mm256_and_si256(down, _mm256_set1_epi32(static_cast<int>(mask)));
    return reinterpret_cast<Values>(_mm256_cvtepi32_ps(kept));
#else
    // eight codes take `bits` bytes, so that one word holds them, and 32 bits hold four
    const auto word = load<uint64_t>(at);
    const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 4 * bits);
    const u32x8 words = {low, low, low, low, high, high, high, high};
    const u32x8 shifts = static_cast<uint32_t>(bits) * u32x8{0, 1, 2, 3, 0, 1, 2, 3};
    return __builtin_convertvector(reinterpret_cast<i32x8>((words >> shifts) & mask), f32x8);
#endif
}

INLINE f32x8 eight_halves(u16x8 bits) {
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
    return eight_halves(bits)[0];
}

// STEP numbers of two bytes
using Shorts = uint16_t __attribute__((vector_size(2 * STEP)));
using Words = uint32_t __attribute__((vector_size(4 * STEP)));

INLINE Values halves(Shorts bits) {
#ifdef __AVX512BW__
    return reinterpret_cast<Values>(_mm512_cvtph_ps(reinterpret_cast<__m256i>(bits)));
#else
    return eight_halves(bits);
#endif
}

INLINE Values bfloats(Shorts bits) { return reinterpret_cast<Values>(__builtin_convertvector(bits, Words) << 16); }

// STEP values from column j on of a row of T, which ends at column dim; zeros behind it
template <typename Vector, typename T, typename Dim>
INLINE Vector some(const uint8_t* row, int64_t j, Dim dim) {
    const uint8_t* at = row + j * static_cast<int64_t>(sizeof(T));
    if (j + STEP <= dim) return load<Vector>(at);
#ifdef __AVX512BW__
    const auto kept = static_cast<__mmask16>((1u << (dim - j)) - 1);
    if constexpr (sizeof(T) == 4) return reinterpret_cast<Vector>(_mm512_maskz_loadu_epi32(kept, at));
    else return reinterpret_cast<Vector>(_mm256_maskz_loadu_epi16(kept, at));
#else
    Vector values{};
    std::memcpy(&values, at, (dim - j) * sizeof(T));
    return values;
#endif
}

// Writes dim columns of values_at(j), then zeros up to width
template <typename Dim, typename ValuesAt>
INLINE void write_row(float* out, Dim dim, int64_t width, const ValuesAt& values_at) {
    int64_t j = 0;
    for (; j + STEP <= dim; j += STEP) store(out + j, values_at(j));
    if (j < dim) {
        const Values last = values_at(j);
#ifdef __AVX512BW__
        const auto kept = static_cast<__mmask16>((1u << (dim - j)) - 1);
        _mm512_mask_storeu_ps(out + j, kept, reinterpret_cast<__m512>(last));
#else
        std::memcpy(out + j, &last, (dim - j) * sizeof(float));
#endif
    }
    if constexpr (std::is_same_v<Dim, int64_t>)
        for (j = dim; j < width; ++j) out[j] = 0.0f;
}

// One row, by the way that its segment says. `dim` is the width where it is a constant.
template <Way way, typename Dim>
INLINE void decode(const Place& place, Dim known_dim, int64_t width, float* out) {
    const Segment& s = *place.segment;
    const uint8_t* row = place.row;
    const auto dim = [&]() INLINE_LAMBDA {
        if constexpr (std::is_same_v<Dim, int64_t>) return static_cast<int64_t>(s.dim);
        else return known_dim;
    }();
    (void)known_dim;
    if constexpr (way == NOTHING) {
        for (int64_t j = 0; j < width; ++j) out[j] = 0.0f;
    } else if constexpr (way == CODES) {
        const int64_t bits = s.bits;
        write_row(out, dim, width, [&](int64_t j) INLINE_LAMBDA {
            return (codes_at(row, j, bits) + s.shift) * s.scale;
        });
    } else if constexpr (way == CODES_AND_MORE) {
        const float scale = s.front >= 2 ? half(row) : s.scale;
        const float bias = s.front == 4 ? half(row + 2) : 0.0f;
        const uint8_t* codes = row + s.front;
        const auto* offset = reinterpret_cast<const uint8_t*>(s.offset);
        const int64_t bits = s.bits;
        if (offset)
            write_row(out, dim, width, [&](int64_t j) INLINE_LAMBDA {
                return (codes_at(codes, j, bits) + s.shift) * scale + some<Values, float>(offset, j, dim);
            });
        else
            write_row(out, dim, width, [&](int64_t j) INLINE_LAMBDA {
                return (codes_at(codes, j, bits) + s.shift) * scale + bias;
            });
    } else if constexpr (way == HALVES) {
        write_row(out, dim, width,
                  [&](int64_t j) INLINE_LAMBDA { return halves(some<Shorts, uint16_t>(row, j, dim)); });
    } else if constexpr (way == BFLOATS) {
        write_row(out, dim, width,
                  [&](int64_t j) INLINE_LAMBDA { return bfloats(some<Shorts, uint16_t>(row, j, dim)); });
    } else {
        write_row(out, dim, width,
                  [&](int64_t j) INLINE_LAMBDA { return some<Values, float>(row, j, dim); });
    }
}

template <typename Work>
INLINE void with_way(Way way, const Work& work) {
    switch (way) {
        case CODES: return work(std::integral_constant<Way, CODES>{});
        case CODES_AND_MORE: return work(std::integral_constant<Way, CODES_AND_MORE>{});
        case HALVES: return work(std::integral_constant<Way, HALVES>{});
        case BFLOATS: return work(std::integral_constant<Way, BFLOATS>{});
        case FLOATS: return work(std::integral_constant<Way, FLOATS>{});
        default: return work(std::integral_constant<Way, NOTHING>{});
    }
}

// Decodes a block of places to rows of `out`
template <typename Dim>
void decode_block(const Segments& segments, const Place* places, int64_t count, Dim dim, float* out) {
    const int64_t width = segments.width;
    if (segments.alike)
        return with_way(segments.way, [&](auto way) INLINE_LAMBDA {
            for (int64_t n = 0; n < count; ++n) decode<decltype(way)::value>(places[n], dim, width, out + n * width);
        });
    uint8_t members[WAYS][BLOCK];
    int64_t sizes[WAYS] = {};
    for (int64_t n = 0; n < count; ++n) {
        const Way way = places[n].segment->way;
        members[way][sizes[way]++] = static_cast<uint8_t>(n);
    }
    for (int64_t way = 0; way < WAYS; ++way)
        with_way(static_cast<Way>(way), [&](auto known_way) INLINE_LAMBDA {
            for (int64_t k = 0; k < sizes[way]; ++k) {
                const int64_t n = members[way][k];
                decode<decltype(known_way)::value>(places[n], dim, width, out + n * width);
            }
        });
}

INLINE void fetch_row(const uint8_t* row, int64_t bytes) {
    prefetch(row);
    for (int64_t at = LINE; at < bytes; at += LINE) prefetch(row + at);
    prefetch(row + bytes - 1);
}

INLINE void fetch(const Place& place) { fetch_row(place.row, place.segment->fetch_bytes); }

// Finds the places of [start, stop) block by block and calls work(places, from, count) for each block, while the
// rows of the next one are fetched. find(from, count, places) finds those of a block, or returns the first
// look-up that is out of range, else -1; so does this.
template <typename Find, typename Work>
INLINE int64_t for_blocks(int64_t start, int64_t stop, Find&& find, const Work& work) {
    Place places[2][BLOCK];
    int64_t bad = find(start, std::min(BLOCK, stop - start), places[0]);
    for (int64_t from = start, turn = 0; from < stop && bad < 0; from += BLOCK, turn ^= 1) {
        const int64_t next = from + BLOCK;
        if (next < stop) bad = find(next, std::min(BLOCK, stop - next), places[turn ^ 1]);
        work(places[turn], from, std::min(BLOCK, stop - from));
    }
    return bad;
}

// The same one by one: place_of(n, place) finds one or tells that it is out of range
template <typename PlaceOf>
INLINE int64_t find_each(int64_t from, int64_t count, Place* places, const PlaceOf& place_of) {
    for (int64_t n = from; n < from + count; ++n) {
        if (!place_of(n, places[n - from])) return n;
        fetch(places[n - from]);
    }
    return -1;
}

using DecodeBlock = void (*)(const Segments&, const Place*, int64_t, float*);

// `decode_block` with the width as a constant where it is common and all segments have it
DecodeBlock decoder_of(const Segments& segments) {
    DecodeBlock found = nullptr;
    with_dim(segments.full ? segments.width : 0, [&](auto dim) {
        found = [](const Segments& of, const Place* places, int64_t count, float* out) {
            decode_block(of, places, count, decltype(dim){}, out);
        };
    });
    return found;
}

// Decodes all look-ups, in threads
template <typename MakeFind>
INLINE int64_t gather_all(const Segments& segments, int64_t count, float* out, int64_t threads,
                          const MakeFind& make_find) {
    const DecodeBlock decode_places = decoder_of(segments);
    int64_t first_bad = count;
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        const int64_t bad =
            for_blocks(start, stop, make_find(), [&](const Place* places, int64_t from, int64_t block) {
                decode_places(segments, places, block, out + from * segments.width);
            });
        if (bad >= 0) {
#pragma omp critical
            first_bad = std::min(first_bad, bad);
        }
    });
    return first_bad < count ? -1 - first_bad : 0;
}

// Segments that store nothing have no bytes: all their rows lie at the payload's start
INLINE bool locate(const uint8_t* payload, int64_t bytes, const Segment& s, int64_t row, Place& place) {
    int64_t at = 0;
    const bool overflows = __builtin_mul_overflow(row, s.row_bytes, &at) || __builtin_add_overflow(at, s.base, &at);
    if (overflows || at < 0 || at > bytes - s.read_bytes) return false;
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

// The rows of one field and its segments; the starts of the first FEW of them, then numbers above any row
struct alignas(64) FieldRange {
    int64_t starts[FEW];
    int64_t start = 0, rows = 0, first = 0, count = FEW + 1;
};

INLINE int64_t starts_below(const FieldRange& field, int64_t row) {
#ifdef __AVX512BW__
    return __builtin_popcount(_mm512_cmple_epi64_mask(_mm512_load_si512(field.starts), _mm512_set1_epi64(row)));
#else
    int64_t below = 0;
    for (int64_t i = 0; i < FEW; ++i) below += field.starts[i] <= row;
    return below;
#endif
}

// Where the rows of a segment lie: those of the whole table count from `origin`
struct Origin {
    int64_t origin, row_bytes, fetch_bytes;
};

// Finds the places of rows of all fields. A batch's rows come field by field in turn, so the field of the look-up
// one turn before is expected; `columns` is the length of a turn. Where a block holds what is expected, no branch
// depends on a row, else the block is done again row by row, and what it holds is expected from then on.
template <typename Row>
class Finder {
  public:
    Finder(const uint8_t* payload, int64_t bytes, const Segments& segments, const PackedRows& rows, const Row* given,
           int64_t columns)
        : payload_(payload), bytes_(bytes), segments_(segments), rows_(rows), given_(given), expected_(columns) {
        for (FieldRange& field : expected_) std::fill_n(field.starts, FEW, INT64_MAX);
        const auto count = static_cast<int64_t>(segments.all.size());
        origins_.resize(count + 1);  // a place for "before the first", which rows of another field may find
        for (int64_t s = 0; s < count; ++s) {
            const Segment& one = segments.all[s];
            const int64_t first = rows.start[s], stop = s + 1 < count ? rows.start[s + 1] : rows.rows;
            Origin& origin = origins_[s + 1];
            origin = {0, one.row_bytes, one.fetch_bytes};
            const bool away = rows.reads_row_0[s] || rows.hashed[s];
            int64_t last = 0;
            const bool overflows = __builtin_mul_overflow(stop, one.row_bytes, &last) || one.base < 0 ||
                                   __builtin_add_overflow(last, one.base, &last);
            direct_ = direct_ && !away && !overflows;
            if (!direct_) break;
            last = one.base + std::max<int64_t>(0, stop - first - 1) * one.row_bytes;
            direct_ = one.read_bytes <= bytes && last <= bytes - one.read_bytes;
            origin.origin = one.base - first * one.row_bytes;
            single_ = single_ && rows.field_segment[s] == s;
        }
    }

    INLINE int64_t operator()(int64_t from, int64_t count, Place* places) {
        if (direct_ && (single_ ? find_expected<true>(from, count, places) : find_expected<false>(from, count, places)))
            return -1;
        auto column = static_cast<size_t>(from) % expected_.size();
        return find_each(from, count, places, [&](int64_t n, Place& place) INLINE_LAMBDA {
            FieldRange& field = expected_[column];
            column = column + 1 == expected_.size() ? 0 : column + 1;
            return find_one(given_[n], field, place);
        });
    }

  private:
    template <bool single>
    INLINE bool find_expected(int64_t from, int64_t count, Place* places) const {
        const FieldRange* fields = expected_.data();
        const Segment* segments = segments_.all.data() - 1;
        const Origin* origins = origins_.data();
        const Row* given = given_ + from;
        const uint8_t* payload = payload_;
        const auto columns = static_cast<int64_t>(expected_.size());
        int64_t column = from % columns;
        bool other = false;
        for (int64_t n = 0; n < count; ++n) {
            const int64_t row = given[n];
            const FieldRange& field = fields[column];
            column = column + 1 == columns ? 0 : column + 1;
            other |= static_cast<uint64_t>(row - field.start) >= static_cast<uint64_t>(field.rows);
            const int64_t s = field.first + (single ? 1 : starts_below(field, row));
            const Origin& origin = origins[s];
            const auto at = static_cast<int64_t>(static_cast<uint64_t>(origin.origin) +
                                                 static_cast<uint64_t>(row) * static_cast<uint64_t>(origin.row_bytes));
            const auto* place = reinterpret_cast<const uint8_t*>(reinterpret_cast<uintptr_t>(payload) + at);
            places[n] = {place, segments + s};
            fetch_row(place, origin.fetch_bytes);
        }
        return !other;
    }

    INLINE bool find_one(int64_t row, FieldRange& field, Place& place) {
        if (static_cast<uint64_t>(row) >= static_cast<uint64_t>(rows_.rows)) return false;
        if (static_cast<uint64_t>(row - field.start) >= static_cast<uint64_t>(field.rows)) field = range_of(row);
        int64_t s = field.count > FEW ? last_at_or_before(row, field.first, field.count)
                                      : field.first - 1 + starts_below(field, row);
        if (rows_.reads_row_0[s]) {
            row = rows_.field_start[s];
            s = rows_.field_segment[s];
        }
        const int64_t stored = rows_.hashed[s]
                                   ? bucket(row - rows_.field_start[s], rows_.field[s], rows_.buckets[s])
                                   : row - rows_.start[s];
        return locate(payload_, bytes_, segments_.all[s], stored, place);
    }

    INLINE int64_t last_at_or_before(int64_t row, int64_t first, int64_t count) const {
        while (count > 1) {
            const int64_t middle = count / 2;
            first += rows_.start[first + middle] <= row ? middle : 0;
            count -= middle;
        }
        return first;
    }

    __attribute__((noinline)) FieldRange range_of(int64_t row) {
        const auto segments = static_cast<int64_t>(segments_.all.size());
        const int64_t segment = last_at_or_before(row, 0, segments);
        FieldRange range;
        range.first = rows_.field_segment[segment];
        int64_t stop = segment;
        while (stop < segments && rows_.field_segment[stop] == range.first) ++stop;
        range.start = rows_.field_start[segment];
        range.rows = (stop < segments ? rows_.start[stop] : rows_.rows) - range.start;
        range.count = stop - range.first;
        direct_ = direct_ && range.count <= FEW;
        for (int64_t i = 0; i < FEW; ++i)
            range.starts[i] = i < range.count ? rows_.start[range.first + i] : INT64_MAX;
        return range;
    }

    const uint8_t* payload_;
    int64_t bytes_;
    const Segments& segments_;
    const PackedRows& rows_;
    const Row* given_;
    std::vector<FieldRange> expected_;
    std::vector<Origin> origins_;
    bool direct_ = true;  // every row is stored where it is, in the payload, and few segments in a field
    bool single_ = true;  // one segment in a field
};

// Calls work(rows) with the rows as what they are, of 4 or 8 bytes
template <typename Work>
INLINE int64_t with_rows(const void* rows, int64_t row_size, const Work& work) {
    if (row_size == 4) return work(static_cast<const int32_t*>(rows));
    return work(static_cast<const int64_t*>(rows));
}

}  // namespace

// payload of `bytes` bytes, segment (count,), row (count,) -> out (count, width). Returns 0, or -1 - place
// where the place's segment or row is out of range; out is then undefined.
EXPORT int64_t autoembed_gather_packed(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                       const int64_t* segment, const int64_t* row, int64_t count, float* out,
                                       int64_t threads) {
    const Segments segments = read_segments(*packed);
    return gather_all(segments, count, out, threads, [&]() INLINE_LAMBDA {
        return [&](int64_t from, int64_t block, Place* places) INLINE_LAMBDA {
            return find_each(from, block, places, [&](int64_t n, Place& place) INLINE_LAMBDA {
                return static_cast<uint64_t>(segment[n]) < static_cast<uint64_t>(packed->count) &&
                       locate(payload, bytes, segments.all[segment[n]], row[n], place);
            });
        };
    });
}

// The same for rows (count,) of all fields behind one another, int32 or int64 by row_size
EXPORT int64_t autoembed_look_up_packed(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                        const PackedRows* addresses, const void* rows, int64_t row_size,
                                        int64_t count, int64_t columns, float* out, int64_t threads) {
    const Segments segments = read_segments(*packed);
    return with_rows(rows, row_size, [&](auto known_rows) INLINE_LAMBDA {
        return gather_all(segments, count, out, threads, [&]() INLINE_LAMBDA {
            using Row = std::remove_const_t<std::remove_pointer_t<decltype(known_rows)>>;
            return Finder<Row>(payload, bytes, segments, *addresses, known_rows, columns);
        });
    });
}

namespace {

// Bags of look-ups: bag k holds those of [offsets[k], offsets[k + 1]), of field k / examples and of example
// k % examples, and is written to row (example, field) of out (examples, fields, width).
struct Bags {
    const int64_t* offsets;
    int64_t examples, fields;
    const float* weights;  // of each look-up, or none
    const uint8_t* means;  // whether a field's bags are averaged
    float* out;
};

// Adds up bags of one range. `bag` is the one being summed, of `field` and `example`, `sums` what it has so far.
struct Summing {
    int64_t bag, stop, field, example;
    std::vector<float> sums, decoded;
};

INLINE int64_t padded(int64_t width) { return (width + STEP - 1) / STEP * STEP; }

template <typename Width>
INLINE void finish_bag(const Bags& bags, Width width, Summing& now) {
    float* __restrict out = bags.out + (now.example * bags.fields + now.field) * width;
    float* __restrict sums = now.sums.data();
    const int64_t length = bags.offsets[now.bag + 1] - bags.offsets[now.bag];
    if (bags.means[now.field] && length > 1) {
        const auto divisor = static_cast<float>(length);
        for (int64_t j = 0; j < width; ++j) out[j] = sums[j] / divisor;
    } else {
        for (int64_t j = 0; j < width; ++j) out[j] = sums[j];
    }
    for (int64_t j = 0; j < width; ++j) sums[j] = 0.0f;
    ++now.bag;
    if (++now.example == bags.examples) {
        now.example = 0;
        ++now.field;
    }
}

template <typename Dim>
void add_block(const Segments& segments, const Place* places, int64_t from, int64_t count, Dim dim, const Bags& bags,
               Summing& now) {
    const auto width = [&]() INLINE_LAMBDA {
        if constexpr (std::is_same_v<Dim, int64_t>) return segments.width;
        else return dim;
    }();
    // rows of floats are summed where they lie
    const bool as_they_lie = segments.alike && segments.way == FLOATS && segments.full && width % STEP == 0;
    if (!as_they_lie) decode_block(segments, places, count, dim, now.decoded.data());
    const int64_t end = from + count;
    for (int64_t n = from; now.bag < now.stop;) {
        const int64_t bag_end = bags.offsets[now.bag + 1], upto = std::min(bag_end, end);
        const auto add = [&](const auto& row_of) INLINE_LAMBDA {
            for (int64_t j = 0; j < width; j += STEP) {
                auto sum = load<Values>(now.sums.data() + j);
                if (bags.weights)
                    for (int64_t k = n; k < upto; ++k) sum += bags.weights[k] * load<Values>(row_of(k - from) + j);
                else
                    for (int64_t k = n; k < upto; ++k) sum += load<Values>(row_of(k - from) + j);
                store(now.sums.data() + j, sum);
            }
        };
        if (as_they_lie)
            add([&](int64_t k) INLINE_LAMBDA { return reinterpret_cast<const float*>(places[k].row); });
        else
            add([&, decoded = now.decoded.data()](int64_t k) INLINE_LAMBDA { return decoded + k * width; });
        n = std::max(n, upto);
        if (bag_end > end) break;
        finish_bag(bags, width, now);
    }
}

using AddBlock = void (*)(const Segments&, const Place*, int64_t, int64_t, const Bags&, Summing&);

AddBlock adder_of(const Segments& segments) {
    AddBlock found = nullptr;
    with_dim(segments.full ? segments.width : 0, [&](auto dim) {
        found = [](const Segments& of, const Place* places, int64_t from, int64_t count, const Bags& bags,
                   Summing& now) { add_block(of, places, from, count, decltype(dim){}, bags, now); };
    });
    return found;
}

}  // namespace

// Rows (count,) as above, in bags, field by field -> out (examples, fields, width): their sums, of each row times
// its weight where there are weights, divided by the bag's length where means[field]. Empty bags give zeros.
// offsets (fields * examples + 1,), ascending from 0 to count. Returns 0, -1 - place where a row is out of range,
// or -1 - count - bag where a bag's offsets are; out is then undefined.
EXPORT int64_t autoembed_pool_packed(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                     const PackedRows* addresses, const void* rows, int64_t row_size, int64_t count,
                                     const int64_t* offsets, int64_t examples, int64_t fields, const float* weights,
                                     const uint8_t* means, float* out, int64_t threads) {
    const Segments segments = read_segments(*packed);
    const int64_t width = segments.width, all = examples * fields;
    for (int64_t k = 0; k < all; ++k)
        if (offsets[k] > offsets[k + 1] || (k == 0 && offsets[0] != 0)) return -1 - count - k;
    if (offsets[all] != (all ? count : 0)) return -1 - count - std::max<int64_t>(0, all - 1);
    const Bags bags{offsets, examples, fields, weights, means, out};
    const AddBlock add_places = adder_of(segments);
    return with_rows(rows, row_size, [&](auto known_rows) INLINE_LAMBDA {
        using Row = std::remove_const_t<std::remove_pointer_t<decltype(known_rows)>>;
        int64_t first_bad = count;
        for_ranges(all, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            Summing now{start,
                        stop,
                        start / examples,
                        start % examples,
                        std::vector<float>(padded(width)),
                        std::vector<float>(BLOCK * width + STEP)};
            const int64_t bad = for_blocks(
                offsets[start], offsets[stop], Finder<Row>(payload, bytes, segments, *addresses, known_rows, 1),
                [&](const Place* places, int64_t from, int64_t block) {
                    add_places(segments, places, from, block, bags, now);
                });
            if (bad >= 0) {
#pragma omp critical
                first_bad = std::min(first_bad, bad);
            } else {
                while (now.bag < stop) finish_bag(bags, width, now);
            }
        });
        return first_bad < count ? -1 - first_bad : int64_t{0};
    });
}

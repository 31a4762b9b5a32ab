// Stored rows to numbers: STEP values at once from any column on, for every way that rows are stored.

#pragma once

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "packed.h"

namespace autoembed {

using u16x8 = uint16_t __attribute__((vector_size(16)));

#ifdef __AVX512BW__
constexpr int64_t STEP = 16;  // values decoded at once
using Values = f32x16;
#else
constexpr int64_t STEP = 8;
using Values = f32x8;
#endif

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

inline constexpr Unpackings UNPACKINGS = make_unpackings();

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
#ifdef __AVX512BW__
    // rows of any dimension up to STEP without a branch that depends on it
    if constexpr (std::is_same_v<Dim, int64_t>)
        if (width <= STEP) {
            const auto kept = static_cast<__mmask16>((1u << dim) - 1);
            const __m512 row = _mm512_maskz_mov_ps(kept, reinterpret_cast<__m512>(values_at(0)));
            _mm512_mask_storeu_ps(out, static_cast<__mmask16>((1u << width) - 1), row);
            return;
        }
#endif
    for (; j + STEP <= dim; j += STEP) store(out + j, values_at(j));
#ifdef __AVX512BW__
    // the zeros behind the last values are written with them
    if (j < dim) {
        const auto kept = static_cast<__mmask16>((1u << (dim - j)) - 1);
        const __m512 last = _mm512_maskz_mov_ps(kept, reinterpret_cast<__m512>(values_at(j)));
        const int64_t written = std::is_same_v<Dim, int64_t> ? std::min(STEP, width - j) : dim - j;
        _mm512_mask_storeu_ps(out + j, static_cast<__mmask16>((1u << written) - 1), last);
        j += STEP;
    }
    if constexpr (std::is_same_v<Dim, int64_t>)
        for (; j < width; j += STEP) {
            const auto left = static_cast<__mmask16>((1u << std::min(STEP, width - j)) - 1);
            _mm512_mask_storeu_ps(out + j, left, _mm512_setzero_ps());
        }
#else
    if (j < dim) {
        const Values last = values_at(j);
        std::memcpy(out + j, &last, (dim - j) * sizeof(float));
    }
    if constexpr (std::is_same_v<Dim, int64_t>)
        for (j = dim; j < width; ++j) out[j] = 0.0f;
#endif
}

// Calls use(values_at) with the values of a row: values_at(j) gives STEP of them from column j on. Those behind
// column dim are zero in rows of floats and anything in rows of codes. `bits` are the segment's.
template <Way way, typename Dim, typename Use>
INLINE void with_values(const uint8_t* row, const Segment& s, int64_t bits, Dim dim, const Use& use) {
    (void)bits;
    if constexpr (way == CODES) {
        use([&](int64_t j) INLINE_LAMBDA { return (codes_at(row, j, bits) + s.shift) * s.scale; });
    } else if constexpr (way == CODES_AND_MORE) {
        const float scale = s.front >= 2 ? half(row) : s.scale;
        const float bias = s.front == 4 ? half(row + 2) : 0.0f;
        const uint8_t* codes = row + s.front;
        const auto* offset = reinterpret_cast<const uint8_t*>(s.offset);
        if (offset)
            use([&](int64_t j) INLINE_LAMBDA {
                return (codes_at(codes, j, bits) + s.shift) * scale + some<Values, float>(offset, j, dim);
            });
        else
            use([&](int64_t j) INLINE_LAMBDA { return (codes_at(codes, j, bits) + s.shift) * scale + bias; });
    } else if constexpr (way == HALVES) {
        use([&](int64_t j) INLINE_LAMBDA { return halves(some<Shorts, uint16_t>(row, j, dim)); });
    } else if constexpr (way == BFLOATS) {
        use([&](int64_t j) INLINE_LAMBDA { return bfloats(some<Shorts, uint16_t>(row, j, dim)); });
    } else if constexpr (way == FLOATS) {
        use([&](int64_t j) INLINE_LAMBDA { return some<Values, float>(row, j, dim); });
    } else {
        use([&](int64_t) INLINE_LAMBDA { return Values{}; });
    }
}

// Writes a row of `width` columns. `known_dim` is the width where it is a constant, which all segments have then.
template <Way way, typename Dim>
INLINE void write_decoded(const uint8_t* row, const Segment& s, int64_t bits, Dim known_dim, int64_t width,
                          float* out) {
    const auto dim = [&]() INLINE_LAMBDA {
        if constexpr (std::is_same_v<Dim, int64_t>) return static_cast<int64_t>(s.dim);
        else return known_dim;
    }();
    (void)known_dim;
    if constexpr (way == NOTHING)
        for (int64_t j = 0; j < width; ++j) out[j] = 0.0f;
    else
        with_values<way>(row, s, bits, dim,
                         [&](const auto& values_at) INLINE_LAMBDA { write_row(out, dim, width, values_at); });
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

}  // namespace autoembed

// Stored rows to numbers: STEP values at once from any column on, for every way that rows are stored.

#pragma once

#include "codes.h"
#include "packed.h"

namespace autoembed {

using u16x8 = uint16_t __attribute__((vector_size(16)));

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

// Whether rows of dim columns may be written past the cache: whole registers, and at least a line together
template <typename Dim>
constexpr bool can_stream() {
    if constexpr (std::is_same_v<Dim, int64_t>) return false;
    else return Dim::value % 16 == 0;
}

// Writes to an address that is a multiple of what is written where it STREAMS past the cache, else to any
template <bool STREAMS>
INLINE void put(float* out, Values values) {
#if defined(__AVX512BW__)
    if constexpr (STREAMS) _mm512_stream_ps(out, reinterpret_cast<__m512>(values));
    else store(out, values);
#elif defined(__AVX__)
    if constexpr (STREAMS) _mm256_stream_ps(out, reinterpret_cast<__m256>(values));
    else store(out, values);
#elif defined(__SSE2__)
    if constexpr (STREAMS) {
        __m128 halves[2];
        std::memcpy(halves, &values, sizeof(values));
        _mm_stream_ps(out, halves[0]);
        _mm_stream_ps(out + 4, halves[1]);
    } else {
        store(out, values);
    }
#else
    store(out, values);
#endif
}

#ifndef __AVX512BW__

// The first `count` of STEP values, and zeros
INLINE Values front_of(Values values, int64_t count) {
    alignas(64) static const int32_t KEPT[2 * STEP] = {-1, -1, -1, -1, -1, -1, -1, -1};
    const auto kept = load<i32x8>(KEPT + STEP - std::min(STEP, count));
    return reinterpret_cast<Values>(reinterpret_cast<i32x8>(values) & kept);
}

// Writes the first `count` values, fewer than STEP, without a call
INLINE void put_first(float* out, Values values, int64_t count) {
    f32x4 held[2];
    std::memcpy(held, &values, sizeof(values));
    if (count & 4) {
        store(out, held[0]);
        held[0] = held[1];
        out += 4;
    }
    float left[4];
    store(left, held[0]);
    if (count & 2) {
        std::memcpy(out, left, 8);
        left[0] = left[2];
        out += 2;
    }
    if (count & 1) *out = left[0];
}

#endif

// Writes dim columns of values_at(j), then zeros up to width
template <bool STREAMS, typename Dim, typename ValuesAt>
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
#else
    // the zeros behind the last values are written with them
    if constexpr (std::is_same_v<Dim, int64_t>) {
        for (; j + STEP <= width; j += STEP)
            store(out + j, j < dim ? front_of(values_at(j), dim - j) : Values{});
        if (j < width) put_first(out + j, j < dim ? front_of(values_at(j), dim - j) : Values{}, width - j);
        return;
    }
#endif
    for (; j + STEP <= dim; j += STEP) put<STREAMS>(out + j, values_at(j));
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
    if (j < dim) put_first(out + j, values_at(j), dim - j);
#endif
}

// Whether the codes of all segments are known to have 8 bits, or the same number of them
enum class Widths { EIGHT, SAME, DIFFER };

// What unpacks the codes of a segment's rows, which are stored this way; `bits` where all segments have the same
template <Way way, Widths widths>
class Coder {
    static constexpr bool MANY = way == CODES || way == CODES_AND_MORE;
    using Coding = std::conditional_t<MANY && widths == Widths::SAME, Codes, Bytes>;

  public:
    INLINE explicit Coder(int64_t bits) : coding_([&]() INLINE_LAMBDA {
            if constexpr (std::is_same_v<Coding, Codes>) return Codes(bits);
            else return Bytes();
        }()) {
        (void)bits;
    }

    INLINE auto operator()(const Segment& s) const {
        (void)s;
        if constexpr (MANY && widths == Widths::DIFFER) return Codes(s.bits);
        else return coding_;
    }

  private:
    Coding coding_;
};

// Calls use(values_at) with the values of a row: values_at(j) gives STEP of them from column j on. Those behind
// column dim are zero in rows of floats and anything in rows of codes. `codes` unpack the segment's.
template <Way way, typename Coding, typename Dim, typename Use>
INLINE void with_values(const uint8_t* row, const Segment& s, const Coding& codes, Dim dim, const Use& use) {
    (void)codes;
    // copies, because what is written in between could be these, for all that a compiler knows
    const float shift = s.shift, scale = s.scale;
    if constexpr (way == CODES) {
        use([&](int64_t j) INLINE_LAMBDA { return (codes.from(row, j) + shift) * scale; });
    } else if constexpr (way == CODES_AND_MORE) {
        const float own_scale = s.front >= 2 ? half(row) : scale;
        const float bias = s.front == 4 ? half(row + 2) : 0.0f;
        const uint8_t* behind = row + s.front;
        const auto* offset = reinterpret_cast<const uint8_t*>(s.offset);
        if (offset)
            use([&](int64_t j) INLINE_LAMBDA {
                return (codes.from(behind, j) + shift) * own_scale + some<Values, float>(offset, j, dim);
            });
        else
            use([&](int64_t j) INLINE_LAMBDA { return (codes.from(behind, j) + shift) * own_scale + bias; });
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
template <Way way, bool STREAMS = false, typename Coding, typename Dim>
INLINE void write_decoded(const uint8_t* row, const Segment& s, const Coding& codes, Dim known_dim, int64_t width,
                          float* out) {
    const auto dim = [&]() INLINE_LAMBDA {
        if constexpr (std::is_same_v<Dim, int64_t>) return static_cast<int64_t>(s.dim);
        else return known_dim;
    }();
    (void)known_dim;
    if constexpr (way == NOTHING)
        for (int64_t j = 0; j < width; ++j) out[j] = 0.0f;
    else
        with_values<way>(row, s, codes, dim,
                         [&](const auto& values_at) INLINE_LAMBDA { write_row<STREAMS>(out, dim, width, values_at); });
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

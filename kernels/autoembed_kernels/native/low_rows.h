// Rows stored in 16 or 8 bits: read as float32 and cast back, to the nearest or by chance. low_row_update.py and
// stochastic_round.py have the formulas.

#pragma once

#include <algorithm>

#include "eights.h"
#include "halves.h"

namespace {

using f64x8 = double __attribute__((vector_size(64)));
using i8x8 = int8_t __attribute__((vector_size(8)));

constexpr float LARGEST_CODE = 127.0f;
enum Format : int64_t { FLOAT16, BFLOAT16, INT8 };

struct Stored {
    uint8_t* weight;  // (height, dim) of 2 bytes, or of 1
    uint16_t* steps;  // (height,) float16 of int8 rows
};

INLINE int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

INLINE u32x8 chosen(u32x8 mask, u32x8 yes, u32x8 no) { return (yes & mask) | (no & ~mask); }

// Chances of 16 bits as numbers even in (0, 1). Through signed numbers, which every processor converts.
INLINE f64x8 fractions(u32x8 chances) {
    return (__builtin_convertvector(reinterpret_cast<i32x8>(chances), f64x8) + 0.5) * 0x1p-16;
}

// floor of numbers between -2^31 and 2^31
INLINE i32x8 floors(f64x8 values) {
    const i32x8 cut = __builtin_convertvector(values, i32x8);
    return cut + __builtin_convertvector(__builtin_convertvector(cut, f64x8) > values, i32x8);
}

// Whether any lane of a mask is set
INLINE bool any(u32x8 mask) {
#ifdef __AVX__
    const auto held = reinterpret_cast<__m256i>(mask);
    return !_mm256_testz_si256(held, held);
#else
    uint64_t lanes[4];
    std::memcpy(lanes, &mask, sizeof(mask));
    return (lanes[0] | lanes[1] | lanes[2] | lanes[3]) != 0;
#endif
}

// Eight chances of 16 bits
INLINE u32x8 as_words(u16x8 chances) {
#ifdef __AVX2__
    // GCC widens the two halves apart
    return reinterpret_cast<u32x8>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(chances)));
#else
    return __builtin_convertvector(chances, u32x8);
#endif
}

// Up or down by chance to a multiple of what `dropped` bits leave of the mantissa
INLINE u32x8 cut_by_chance(f32x8 values, u32x8 chances, uint32_t dropped) {
    const auto bits = reinterpret_cast<u32x8>(values);
    const auto finite = reinterpret_cast<u32x8>((bits & 0x7f800000u) != 0x7f800000u);
    return chosen(finite, (bits + (chances & dropped)) & ~dropped, bits);
}

INLINE u16x8 halves_by_chance(f32x8 values, u32x8 chances) {
    const auto bits = reinterpret_cast<u32x8>(values);
    const u32x8 size = bits & 0x7fffffffu;
#ifdef __F16C__
    // almost all numbers are zero, or from 2^-14 to below the largest, 65504; compared as signed ones, as processors do
    const auto plain = reinterpret_cast<u32x8>(reinterpret_cast<i32x8>(size + 0x47800000u) <
                                               static_cast<int32_t>(0x8effe000u));
    const auto zero = reinterpret_cast<u32x8>(size == 0u);
    if (__builtin_expect(!any(~(plain | zero)), 1)) {
        const auto sum = reinterpret_cast<__m256>(bits + (chances & 0x1fffu));
        return reinterpret_cast<u16x8>(_mm256_cvtps_ph(sum, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
    }
#endif
    // below 2^-14, but not zero: multiples of 2^-24
    const auto small = reinterpret_cast<u32x8>(size - 1u < 0x387fffffu);
    const auto endless = reinterpret_cast<u32x8>(size >= 0x7f800000u);
    // few rows have such numbers
    if (__builtin_expect(!any(small | endless), 1))
        return to_halves(reinterpret_cast<f32x8>((bits + (chances & 0x1fffu)) & ~0x1fffu));
    const u32x8 cut = cut_by_chance(values, chances, 0x1fffu);
    const auto kept = reinterpret_cast<f32x8>(bits & small);
    const i32x8 multiples = floors(__builtin_convertvector(kept, f64x8) * 0x1p24 + fractions(chances));
    const auto scaled = reinterpret_cast<u32x8>(__builtin_convertvector(multiples, f32x8) * 0x1p-24f);
    return to_halves(reinterpret_cast<f32x8>(chosen(small, scaled, cut)));
}

INLINE u16x8 bfloats_by_chance(f32x8 values, u32x8 chances) {
    return to_bfloats(reinterpret_cast<f32x8>(cut_by_chance(values, chances, 0xffffu)));
}

// The step of a row whose largest number has these bits without the sign; NaN, the largest, comes through.
// The product with 1 / 127 is the quotient: rounded to float32 they differ only near the middle of two numbers,
// and no quotient of 24 bits by 127 comes closer to one than 2^-32 of itself.
INLINE float row_step(uint32_t largest) {
    const auto exact = static_cast<float>(static_cast<double>(load<float>(&largest)) * (1.0 / LARGEST_CODE));
    const float at_least = exact < 0x1p-14f ? 0x1p-14f : exact;
    const uint32_t up = (load<uint32_t>(&at_least) + 0xffffu) & ~0xffffu;
    return load<float>(&up);
}

INLINE i32x8 exact_codes_by_chance(f32x8 values, double step, u32x8 chances) {
    const i32x8 codes = floors(__builtin_convertvector(values, f64x8) / step + fractions(chances));
    const i32x8 most = i32x8{} + 127, least = i32x8{} - 127;
    const i32x8 capped = codes > most ? most : codes;
    return capped < least ? least : capped;
}

// floor of numbers below 2^22
INLINE f32x8 floor_of(f32x8 values) {
#ifdef __AVX__
    return reinterpret_cast<f32x8>(_mm256_floor_ps(reinterpret_cast<__m256>(values)));
#else
    const f32x8 nearest = (values + 0x1.8p23f) - 0x1.8p23f;
    return nearest + __builtin_convertvector(nearest > values, f32x8);
#endif
}

// Whole numbers from -128 to 127
INLINE i8x8 as_codes(f32x8 values) {
    const i32x8 codes = __builtin_convertvector(values, i32x8);
#ifdef __AVX2__
    // GCC takes such a short vector apart
    i32x4 halves[2];
    std::memcpy(halves, &codes, sizeof(codes));
    const __m128i shorts = _mm_packs_epi32(reinterpret_cast<__m128i>(halves[0]), reinterpret_cast<__m128i>(halves[1]));
    const int64_t bytes = _mm_cvtsi128_si64(_mm_packs_epi16(shorts, shorts));
    return load<i8x8>(&bytes);
#else
    return __builtin_convertvector(codes, i8x8);
#endif
}

// floor(value / step + fraction of the chance). In float32 with the step's inverse the sum is off by at most 2^-15;
// only where it comes so near to a whole number, once in thousands, it takes the quotient in float64.
INLINE i8x8 codes_by_chance(f32x8 values, float step, float inverse, u32x8 chances) {
    // 1 + chance 2^-16, less 1 - 2^-17
    const f32x8 fraction = reinterpret_cast<f32x8>(0x3f800000u | chances << 7) - (1.0f - 0x1p-17f);
    const f32x8 sum = values * inverse + fraction;  // above -128 and below 129, or NaN
    const f32x8 down = floor_of(sum);
    const auto from_middle = reinterpret_cast<f32x8>(reinterpret_cast<u32x8>(sum - down - 0.5f) & 0x7fffffffu);
    const auto sure = reinterpret_cast<u32x8>(from_middle < 0.5f - 0x1p-13f);
    if (__builtin_expect(any(~sure), 0))
        return __builtin_convertvector(exact_codes_by_chance(values, step, chances), i8x8);
    return as_codes(down > 127.0f ? f32x8{} + 127.0f : down);
}

// The largest lane, of numbers below 2^31
INLINE uint32_t largest_lane(i32x8 sizes) {
    using i32x4 = int32_t __attribute__((vector_size(16)));
    i32x4 half[2];
    std::memcpy(half, &sizes, sizeof(sizes));
    i32x4 most = half[0] > half[1] ? half[0] : half[1];
    const i32x4 swapped = SHUFFLED(i32x4, most, most, 2, 3, 0, 1);
    most = most > swapped ? most : swapped;
    const i32x4 turned = SHUFFLED(i32x4, most, most, 1, 0, 3, 2);
    most = most > turned ? most : turned;
    return static_cast<uint32_t>(most[0]);
}

INLINE i8x8 nearest_codes(f32x8 values, float step) {
    // a sum with 1.5 * 2^23 is rounded to whole numbers, ties to even; no quotient exceeds 127
    const f32x8 rounded = (values / step + 0x1.8p23f) - 0x1.8p23f;
    return as_codes(rounded);
}

INLINE f32x8 as_floats(i8x8 codes) {
#ifdef __AVX2__
    // GCC takes such a short vector apart
    return reinterpret_cast<f32x8>(
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(load<int64_t>(&codes)))));
#else
    return __builtin_convertvector(codes, f32x8);
#endif
}

// Row `row` -> w, float32; with PADDED zeros from dim on to a multiple of STEP
template <Format FORMAT, bool PADDED, typename Dim>
INLINE void decode(const Stored& stored, int64_t row, float* w, Dim dim) {
    if constexpr (FORMAT == INT8) {
        const auto* codes = reinterpret_cast<const int8_t*>(stored.weight) + row * dim;
        u16x8 step{};
        step[0] = stored.steps[row];
        const float scale = from_halves(step)[0];
        for (int64_t j = 0; j < dim; j += STEP)
            put(w + j, as_floats(some<i8x8>(codes + j, dim - j)) * scale, PADDED ? STEP : dim - j);
    } else {
        const auto* held = reinterpret_cast<const uint16_t*>(stored.weight) + row * dim;
        for (int64_t j = 0; j < dim; j += STEP) {
            const auto bits = some<u16x8>(held + j, dim - j);
            put(w + j, FORMAT == FLOAT16 ? from_halves(bits) : from_bfloats(bits), PADDED ? STEP : dim - j);
        }
    }
}

// The step of w (dim,), and its inverse
struct Steps {
    float step, inverse;
};

template <typename Dim>
INLINE Steps steps_of(const float* w, Dim dim) {
    i32x8 largest{};
    for (int64_t j = 0; j < dim; j += STEP) {
        const i32x8 size = some<i32x8>(w + j, dim - j) & 0x7fffffff;
        largest = size > largest ? size : largest;
    }
    const float step = row_step(largest_lane(largest));
    return {step, 1.0f / step};
}

// w (dim,) -> row `row`, by chance with 16 random bits for each number, to the nearest without. steps: of w, for INT8.
template <Format FORMAT, typename Dim>
INLINE void encode(const Stored& stored, int64_t row, const float* w, const Steps& steps, const uint16_t* random,
                   Dim dim) {
    if constexpr (FORMAT == INT8) stored.steps[row] = to_halves(f32x8{} + steps.step)[0];
    for (int64_t j = 0; j < dim; j += STEP) {
        const auto values = load<f32x8>(w + j);
        const u32x8 chances = random ? as_words(load<u16x8>(random + j)) : u32x8{};
        if constexpr (FORMAT == INT8) {
            auto* codes = reinterpret_cast<int8_t*>(stored.weight) + row * dim;
            put(codes + j,
                random ? codes_by_chance(values, steps.step, steps.inverse, chances) : nearest_codes(values, steps.step),
                dim - j);
        } else {
            auto* held = reinterpret_cast<uint16_t*>(stored.weight) + row * dim;
            u16x8 bits;
            if constexpr (FORMAT == FLOAT16) bits = random ? halves_by_chance(values, chances) : to_halves(values);
            else bits = random ? bfloats_by_chance(values, chances) : to_bfloats(values);
            put(held + j, bits, dim - j);
        }
    }
}

// Calls work(constant format)
template <typename Work>
INLINE void with_format(Format format, const Work& work) {
    switch (format) {
        case FLOAT16: return work(std::integral_constant<Format, FLOAT16>{});
        case BFLOAT16: return work(std::integral_constant<Format, BFLOAT16>{});
        case INT8: return work(std::integral_constant<Format, INT8>{});
    }
}

}  // namespace

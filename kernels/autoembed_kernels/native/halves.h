// Eight numbers of two bytes to float32 and back, to the nearest. F16C has instructions for float16; without
// it one number at a time is taken apart.

#pragma once

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "vectors.h"

namespace {

using u16x8 = uint16_t __attribute__((vector_size(16)));

INLINE f32x8 from_bfloats(u16x8 bits) {
    return reinterpret_cast<f32x8>(__builtin_convertvector(bits, u32x8) << 16);
}

// A float32's bits -> those of the nearest bfloat16, ties to even; NaN stays one
INLINE u16x8 to_bfloats(f32x8 values) {
    const auto bits = reinterpret_cast<u32x8>(values);
    const auto nan = reinterpret_cast<u32x8>((bits & 0x7fffffffu) > 0x7f800000u);
    const u32x8 nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return __builtin_convertvector((nearest & ~nan) | (nan & 0x7fc0u), u16x8);
}

#ifdef __F16C__

INLINE f32x8 from_halves(u16x8 bits) {
    return reinterpret_cast<f32x8>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(bits)));
}

INLINE u16x8 to_halves(f32x8 values) {
    return reinterpret_cast<u16x8>(_mm256_cvtps_ph(reinterpret_cast<__m256>(values), _MM_FROUND_TO_NEAREST_INT));
}

#else

INLINE float from_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, rest = half & 0x7fffu;
    const uint32_t exponent = rest >> 10;
    if (exponent == 0) {
        const float small = static_cast<float>(rest) * 0x1p-24f;
        return sign ? -small : small;
    }
    const uint32_t bits = sign | ((rest << 13) + (exponent == 31 ? 0x70000000u : 0x38000000u));
    return load<float>(&bits);
}

INLINE uint16_t to_half(float value) {
    const auto bits = load<uint32_t>(&value);
    const uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (size >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (size < 0x38800000u) {
        // a sum with 1/2 is rounded to multiples of 2^-24, as numbers this small are
        const float shifted = load<float>(&size) + 0.5f;
        return static_cast<uint16_t>(sign | (load<uint32_t>(&shifted) - 0x3f000000u));
    }
    // a carry out of the mantissa goes to the exponent, and from the largest to infinity
    return static_cast<uint16_t>(sign | ((size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13));
}

INLINE f32x8 from_halves(u16x8 bits) {
    f32x8 values;
    for (int lane = 0; lane < 8; ++lane) values[lane] = from_half(bits[lane]);
    return values;
}

INLINE u16x8 to_halves(f32x8 values) {
    u16x8 bits;
    for (int lane = 0; lane < 8; ++lane) bits[lane] = to_half(values[lane]);
    return bits;
}

#endif

}  // namespace

// Codes of 1 to 8 bits, behind one another in a row, to numbers: STEP of them at once from any column on.

#pragma once

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "vectors.h"

namespace autoembed {

#ifdef __AVX512BW__
constexpr int64_t STEP = 16;  // values decoded at once
using Values = f32x16;
#else
constexpr int64_t STEP = 8;
using Values = f32x8;
#endif

// Where the codes of each width lie among the bytes of one word of eight codes, for shuffles in 128-bit lanes:
// per code four bytes, of which at most two hold a part of it, and the bits to shift that part down. A factor
// shifts it up instead, so that nothing but the code is left at the top of 16 bits: products and shifts by one
// number take less time than shifts that differ. The second eight codes lie in the second word.
struct Unpacking {
    alignas(64) uint8_t bytes[64];
    alignas(64) uint32_t shifts[16];
    alignas(64) uint32_t factors[16];
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
            one.factors[code] = 1u << (16 - bits - at % 8);
        }
    return made;
}

inline constexpr Unpackings UNPACKINGS = make_unpackings();

// Codes of `bits` bits each; what it takes to unpack them stays in registers while one object does
class Codes {
  public:
    INLINE explicit Codes(int64_t bits) : bits_(bits) {
#if defined(__AVX512BW__)
        const Unpacking& u = UNPACKINGS.of[bits];
        bytes_ = _mm512_load_si512(u.bytes);
        shifts_ = _mm512_load_si512(u.shifts);
        mask_ = _mm512_set1_epi32((1 << bits) - 1);
#elif defined(__AVX2__)
        const Unpacking& u = UNPACKINGS.of[bits];
        bytes_ = _mm256_load_si256(reinterpret_cast<const __m256i*>(u.bytes));
        factors_ = _mm256_load_si256(reinterpret_cast<const __m256i*>(u.factors));
        down_ = _mm_cvtsi32_si128(static_cast<int>(16 - bits));
#elif defined(__SSSE3__)
        const Unpacking& u = UNPACKINGS.of[bits];
        for (int i = 0; i < 2; ++i) {
            bytes_[i] = _mm_load_si128(reinterpret_cast<const __m128i*>(u.bytes) + i);
            factors_[i] = _mm_load_si128(reinterpret_cast<const __m128i*>(u.factors) + i);
        }
        down_ = _mm_cvtsi32_si128(static_cast<int>(16 - bits));
#endif
    }

    // Those from column j on, a multiple of STEP. May read OVERREAD bytes behind the row.
    INLINE Values from(const uint8_t* row, int64_t j) const {
        const uint8_t* at = row + j / 8 * bits_;
#if defined(__AVX512BW__)
        const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
        const __m128d both = _mm_loadh_pd(_mm_castsi128_pd(low), reinterpret_cast<const double*>(at + bits_));
        const __m512i words = _mm512_broadcast_i32x4(_mm_castpd_si128(both));
        const __m512i down = _mm512_srlv_epi32(_mm512_shuffle_epi8(words, bytes_), shifts_);
        return reinterpret_cast<Values>(_mm512_cvtepi32_ps(_mm512_and_si512(down, mask_)));
#elif defined(__AVX2__)
        const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi64x(load<int64_t>(at)), bytes_);
        const __m256i kept = _mm256_srl_epi16(_mm256_mullo_epi16(spread, factors_), down_);
        return reinterpret_cast<Values>(_mm256_cvtepi32_ps(kept));
#elif defined(__SSSE3__)
        const __m128i word = _mm_set1_epi64x(load<int64_t>(at));
        __m128 halves[2];
        for (int i = 0; i < 2; ++i) {
            const __m128i spread = _mm_shuffle_epi8(word, bytes_[i]);
            halves[i] = _mm_cvtepi32_ps(_mm_srl_epi16(_mm_mullo_epi16(spread, factors_[i]), down_));
        }
        return load<Values>(halves);
#else
        // eight codes take `bits` bytes, so that one word holds them, and 32 bits hold four
        const auto word = load<uint64_t>(at);
        const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 4 * bits_);
        const u32x8 words = {low, low, low, low, high, high, high, high};
        const u32x8 shifts = static_cast<uint32_t>(bits_) * u32x8{0, 1, 2, 3, 0, 1, 2, 3};
        const uint32_t mask = (1u << bits_) - 1;
        return __builtin_convertvector(reinterpret_cast<i32x8>((words >> shifts) & mask), f32x8);
#endif
    }

  private:
    int64_t bits_;
#if defined(__AVX512BW__)
    __m512i bytes_, shifts_, mask_;
#elif defined(__AVX2__)
    __m256i bytes_, factors_;
    __m128i down_;
#elif defined(__SSSE3__)
    __m128i bytes_[2], factors_[2];
    __m128i down_;
#endif
};

// Codes of 8 bits, which need no unpacking
class Bytes {
  public:
    INLINE Values from(const uint8_t* row, int64_t j) const {
#if defined(__AVX512BW__)
        const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + j));
        return reinterpret_cast<Values>(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)));
#elif defined(__AVX2__)
        const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + j));
        return reinterpret_cast<Values>(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)));
#else
        return Codes(8).from(row, j);
#endif
    }
};

}  // namespace autoembed

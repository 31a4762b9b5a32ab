// Rows of b-bit codes to bytes and back; bitpack.py has the layout. Eight codes are b bytes.

#include <algorithm>

#ifdef __AVX512BW__
#include <immintrin.h>
#endif

#include "vectors.h"

namespace {

// pdep and pext take 20 and more cycles where a processor has them in microcode, as AMD's before Zen 3; all with
// AVX-512 have them in hardware.
#ifdef __AVX512BW__

// The lowest `bits` bits of each of eight bytes
constexpr uint64_t lowest(int bits) { return 0x0101010101010101u * ((1u << bits) - 1); }

// Eight codes, a byte each -> their bits one after the other
template <int BITS>
INLINE uint64_t packed(uint64_t codes) {
    return _pext_u64(codes, lowest(BITS));
}

template <int BITS>
INLINE uint64_t unpacked(uint64_t word) {
    return _pdep_u64(word, lowest(BITS));
}

#else

// `bits` ones at the bottom of every `every` bits
constexpr uint64_t ones(int bits, int every) {
    uint64_t found = 0;
    for (int at = 0; at < 64; at += every) found |= (~uint64_t{0} >> (64 - bits)) << at;
    return found;
}

// Eight codes, a byte each -> their bits one after the other: pairs, pairs of pairs and halves move together
template <int BITS>
INLINE uint64_t packed(uint64_t codes) {
    constexpr uint64_t one = ones(BITS, 16), two = ones(2 * BITS, 32), four = ones(4 * BITS, 64);
    codes = (codes & one) | (codes >> (8 - BITS) & one << BITS);
    codes = (codes & two) | (codes >> (16 - 2 * BITS) & two << 2 * BITS);
    return (codes & four) | (codes >> (32 - 4 * BITS) & ~four);
}

template <int BITS>
INLINE uint64_t unpacked(uint64_t word) {
    constexpr uint64_t one = ones(BITS, 16), two = ones(2 * BITS, 32), four = ones(4 * BITS, 64);
    word = (word & four) | (word << (32 - 4 * BITS) & four << 32);
    word = (word & two) | (word << (16 - 2 * BITS) & two << 16);
    return (word & one) | (word << (8 - BITS) & one << 8);
}

#endif

// Calls work(constant bits)
template <typename Work>
INLINE void with_bits(int64_t bits, const Work& work) {
    switch (bits) {
        case 1: return work(std::integral_constant<int, 1>{});
        case 2: return work(std::integral_constant<int, 2>{});
        case 3: return work(std::integral_constant<int, 3>{});
        case 4: return work(std::integral_constant<int, 4>{});
        case 5: return work(std::integral_constant<int, 5>{});
        case 6: return work(std::integral_constant<int, 6>{});
        case 7: return work(std::integral_constant<int, 7>{});
        default: return work(std::integral_constant<int, 8>{});
    }
}

INLINE int64_t row_bytes(int64_t dim, int64_t bits) { return (dim * bits + 7) / 8; }

}  // namespace

// codes (rows, dim), a byte each -> out (rows, bytes of a row). Words are read as little-endian machines have them.
EXPORT int64_t autoembed_pack_bits(const uint8_t* codes, int64_t rows, int64_t dim, int64_t bits, uint8_t* out,
                                   int64_t threads) {
    const int64_t width = row_bytes(dim, bits);
    with_bits(bits, [&](auto known) INLINE_LAMBDA {
        for_rows(rows, threads, [&](int64_t row) INLINE_LAMBDA {
            const uint8_t* from = codes + row * dim;
            uint8_t* to = out + row * width;
            int64_t j = 0;
            for (; j + 8 <= dim; j += 8, to += known) {
                const uint64_t word = packed<known>(load<uint64_t>(from + j));
                std::memcpy(to, &word, known);
            }
            if (j < dim) {
                uint64_t last = 0;
                std::memcpy(&last, from + j, dim - j);
                const uint64_t word = packed<known>(last);
                std::memcpy(to, &word, row_bytes(dim - j, known));
            }
        });
    });
    return 0;
}

// packed (rows, bytes of a row) -> codes (rows, dim)
EXPORT int64_t autoembed_unpack_bits(const uint8_t* packed, int64_t rows, int64_t dim, int64_t bits, uint8_t* codes,
                                     int64_t threads) {
    const int64_t width = row_bytes(dim, bits);
    const uint8_t* end = packed + rows * width;
    with_bits(bits, [&](auto known) INLINE_LAMBDA {
        for_rows(rows, threads, [&](int64_t row) INLINE_LAMBDA {
            const uint8_t* from = packed + row * width;
            uint8_t* to = codes + row * dim;
            int64_t j = 0;
            for (; j + 8 <= dim; j += 8, from += known) {
                uint64_t word = 0;
                // more than its bytes where there are more: they fall away
                if (end - from >= 8) word = load<uint64_t>(from);
                else std::memcpy(&word, from, known);
                store(to + j, unpacked<known>(word));
            }
            if (j < dim) {
                uint64_t word = 0;
                std::memcpy(&word, from, row_bytes(dim - j, known));
                const uint64_t last = unpacked<known>(word);
                std::memcpy(to + j, &last, dim - j);
            }
        });
    });
    return 0;
}

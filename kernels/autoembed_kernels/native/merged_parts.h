// All parts of a row decoded in registers: with AVX-512 one after the other to its lanes, with AVX2 what each has in
// each of two registers.

#pragma once

#include "part_heads.h"

namespace autoembed {

#if defined(__AVX512BW__) || defined(__AVX2__)
#define MERGES_PARTS

constexpr int64_t MERGED = 16;  // columns of the widest rows whose parts are merged in registers

// The codes of one part of a row: where they lie, how they decode, and to which columns of the row
struct alignas(64) Piece {
    uintptr_t begin;
    uint64_t row_bytes, room;  // a row lies less than `room` behind `begin`
    float shift, scale;
    int32_t bits, fetch_bytes, column, dim;
};

#ifdef __AVX512BW__

// The parts of one row: decoded one after the other, each to its lanes
class Merging {
  public:
    INLINE void add(const Piece& part, uintptr_t at) {
        const auto* codes = reinterpret_cast<const uint8_t*>(at);
        const Values values = (Codes(part.bits).from(codes, 0) + part.shift) * part.scale;
        const auto lanes = static_cast<__mmask16>(((1u << part.dim) - 1) << part.column);
        row_ = _mm512_mask_expand_ps(row_, lanes, reinterpret_cast<__m512>(values));
    }

    INLINE void write(float* out, int64_t width) const {
        _mm512_mask_storeu_ps(out, static_cast<__mmask16>((1u << width) - 1), row_);
    }

  private:
    __m512 row_ = _mm512_setzero_ps();
};

#else

// What one part of a row has in one register of the row: how its codes are unpacked, to which lanes
struct alignas(64) Half {
    uint8_t bytes[32];
    uint32_t factors[8];
    int32_t kept[8];
    float shift, scale;
    int32_t down, part;  // of 16 bits, and the part that its codes belong to
    int64_t offset;      // of the codes' first byte in the part

    Half() : bytes{}, factors{}, kept{}, shift(0.0f), scale(0.0f), down(0), part(0), offset(0) {}

    // Those of `piece`, part `number` of its row, in the register that begins at column `from`
    Half(const Piece& piece, int32_t number, int32_t from) : Half() {
        const int32_t first = std::max(0, from - piece.column);
        shift = piece.shift;
        scale = piece.scale;
        down = 16 - piece.bits;
        part = number;
        offset = first * piece.bits / 8;
        std::fill_n(bytes, 32, uint8_t{0x80});
        for (int32_t lane = 0; lane < 8; ++lane) {
            const int32_t code = from + lane - piece.column;
            if (code < 0 || code >= piece.dim) continue;
            const auto at = static_cast<int32_t>(code * piece.bits - 8 * offset);
            bytes[4 * lane] = static_cast<uint8_t>(at / 8);
            if (at % 8 + piece.bits > 8) bytes[4 * lane + 1] = static_cast<uint8_t>(at / 8 + 1);
            factors[lane] = 1u << (down - at % 8);
            kept[lane] = -1;
        }
    }

    bool any() const {
        return std::any_of(kept, kept + 8, [](int32_t lane) { return lane != 0; });
    }

    INLINE __m256i from(uintptr_t at) const {
        const auto word = load<int64_t>(reinterpret_cast<const uint8_t*>(at) + offset);
        const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi64x(word), load<__m256i>(bytes));
        const __m256i codes =
            _mm256_srl_epi16(_mm256_mullo_epi16(spread, load<__m256i>(factors)), _mm_cvtsi32_si128(down));
        const Values values = (reinterpret_cast<Values>(_mm256_cvtepi32_ps(codes)) + shift) * scale;
        return _mm256_and_si256(reinterpret_cast<__m256i>(values), load<__m256i>(kept));
    }
};

#endif

// Rows of at most MERGED columns, all parts of a row decoded in registers: parts that a row has not are decoded to no
// lane, so that no branch depends on a row. Rows stored otherwise than as codes are written afterwards.
template <int64_t MOST>
class Merged {
  public:
    Merged(const uint8_t* payload, int64_t bytes, const Segments& segments, const Heads& heads)
        : segments_(segments), heads_(heads), pieces_(segments.all.size()), parts_(segments.all.size() * (1 + MOST)) {
        for (size_t s = 0; s < pieces_.size(); ++s) {
            const Segment& one = segments.all[s];
            if (one.way != CODES) {
                pieces_[s] = none();
                continue;
            }
            const int64_t room = bytes - one.read_bytes - one.base + 1;
            pieces_[s] = {reinterpret_cast<uintptr_t>(payload) + static_cast<uintptr_t>(one.base),
                          static_cast<uint64_t>(one.row_bytes),
                          static_cast<uint64_t>(std::max<int64_t>(room, 0)),
                          one.shift,
                          one.scale,
                          one.bits,
                          one.fetch_bytes,
                          static_cast<int32_t>(heads.column(&one)),
                          one.dim};
        }
        for (size_t s = 0; s < pieces_.size(); ++s)
            for (size_t t = 0; t <= MOST; ++t)
                parts_[s * (1 + MOST) + t] = t <= heads.of(&segments.all[s]).behind ? &pieces_[s + t] : &none_;
#ifndef __AVX512BW__
        lay_out_halves();
#endif
    }

    // All parts of rows in several are codes, and a row fits
    static bool serves(const Segments& segments, const int64_t* tails) {
        bool codes = segments.width <= MERGED;
        for (size_t s = 0; s < segments.all.size(); ++s)
            for (int64_t t = 0; t <= tails[s] && tails[s]; ++t)
                codes = codes && segments.all[s + static_cast<size_t>(t)].way == CODES;
        return codes;
    }

    struct Found {
        uintptr_t at[1 + MOST][BLOCK];
        size_t segment[BLOCK];
        uint64_t others, bad;  // stored otherwise; with a part that is not in the payload
    };

    INLINE void find(const Block& block, Found& found) const {
        found.others = found.bad = 0;
        for (int64_t n = 0; n < BLOCK; ++n) {
            const auto s = static_cast<size_t>(block.segments[n] - segments_.all.data());
            const Piece* const* parts = &parts_[s * (1 + MOST)];
            const auto row = static_cast<uint64_t>(Heads::row(heads_.of(block.segments[n]), block.rows[n]));
            const bool is_codes = block.segments[n]->way == CODES;
            found.segment[n] = s;
            found.others |= static_cast<uint64_t>(!is_codes) << n;
            found.at[0][n] = is_codes ? block.rows[n] : none_.begin;
            prefetch(block.row(n));  // a row takes one line, or two
            prefetch(block.row(n) + block.segments[n]->fetch_bytes - 1);
            for (int64_t t = 1; t <= MOST; ++t) {
                const Piece& part = *parts[t];
                const uint64_t behind = row * part.row_bytes;
                const bool inside = behind < part.room;
                found.bad |= static_cast<uint64_t>(!inside) << n;
                found.at[t][n] = inside ? part.begin + behind : none_.begin;
                prefetch(reinterpret_cast<const uint8_t*>(found.at[t][n]));
                prefetch(reinterpret_cast<const uint8_t*>(found.at[t][n]) + part.fetch_bytes - 1);
            }
        }
    }

    // Writes the first `count`. Returns one with a part that is not in the payload, else -1.
    INLINE int64_t write(const Block& block, const Found& found, int64_t count, float* out) const {
        const int64_t width = segments_.width;
        for (int64_t n = 0; n < count; ++n) {
            __builtin_prefetch(out + (BLOCK + n) * width, 1, 3);
            write_merged(found, n, out + n * width, width);
        }
        const uint64_t given = count < BLOCK ? (uint64_t{1} << count) - 1 : ~uint64_t{0};
        for (uint64_t those = found.others & given; those; those &= those - 1) {
            const int64_t n = __builtin_ctzll(those);
            const Segment& s = *block.segments[n];
            with_way(s.way, [&](auto way) INLINE_LAMBDA {
                const Coder<decltype(way)::value, Widths::DIFFER> coder(0);
                write_decoded<decltype(way)::value>(block.row(n), s, coder(s), int64_t{0}, width, out + n * width);
            });
        }
        const uint64_t bad = found.bad & given;
        return bad ? __builtin_ctzll(bad) : -1;
    }

  private:
    static Piece none() {
        return {reinterpret_cast<uintptr_t>(NO_CODES), 0, ~uint64_t{0}, 0.0f, 0.0f, 1, 1, 0, 0};
    }

#ifdef __AVX512BW__

    INLINE void write_merged(const Found& found, int64_t n, float* out, int64_t width) const {
        const Piece* const* parts = &parts_[found.segment[n] * (1 + MOST)];
        Merging row;
        for (int64_t t = 0; t <= MOST; ++t) row.add(*parts[t], found.at[t][n]);
        row.write(out, width);
    }

#else

    // Of every segment what its rows have in the first register, then in the second; as many of each for all segments
    void lay_out_halves() {
        std::vector<Half> held[2];
        std::vector<size_t> counts[2];
        for (size_t s = 0; s < pieces_.size(); ++s)
            for (int32_t which = 0; which < 2; ++which) {
                size_t count = 0;
                for (int32_t t = 0; t <= MOST; ++t) {
                    const Half half(*parts_[s * (1 + MOST) + static_cast<size_t>(t)], t, 8 * which);
                    if (!half.any()) continue;
                    held[which].push_back(half);
                    ++count;
                }
                counts[which].push_back(count);
                most_[which] = std::max(most_[which], count);
            }
        halves_.resize(pieces_.size() * (most_[0] + most_[1]));
        size_t next[2] = {};
        for (size_t s = 0; s < pieces_.size(); ++s)
            for (size_t which = 0, at = s * (most_[0] + most_[1]); which < 2; at += most_[which++])
                for (size_t k = 0; k < counts[which][s]; ++k) halves_[at + k] = held[which][next[which]++];
    }

    INLINE void write_merged(const Found& found, int64_t n, float* out, int64_t width) const {
        const Half* half = &halves_[found.segment[n] * (most_[0] + most_[1])];
        __m256i row[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (size_t k = 0; k < most_[0]; ++k, ++half)
            row[0] = _mm256_or_si256(row[0], half->from(found.at[half->part][n]));
        for (size_t k = 0; k < most_[1]; ++k, ++half)
            row[1] = _mm256_or_si256(row[1], half->from(found.at[half->part][n]));
        if (width == MERGED) {
            store(out, row[0]);
            store(out + STEP, row[1]);
            return;
        }
        if (width >= STEP) store(out, row[0]);
        else put_first(out, reinterpret_cast<Values>(row[0]), width);
        if (width > STEP) put_first(out + STEP, reinterpret_cast<Values>(row[1]), width - STEP);
    }

    std::vector<Half> halves_;
    size_t most_[2] = {};

#endif

    static inline const uint8_t NO_CODES[32] = {};

    const Segments& segments_;
    const Heads& heads_;
    std::vector<Piece> pieces_;
    std::vector<const Piece*> parts_;  // of every segment its own and its tails', or none
    const Piece none_ = none();
};

#endif

}  // namespace autoembed

// Look-ups of rows in parts: the columns behind those of a row's segment lie in the segments behind it. The layout
// is that of look_up_parts.py.

#include "decode_block.h"

using namespace autoembed;

namespace {

// Which of a block's `counts` are above `least`, as bits
INLINE uint64_t those_above(const uint8_t* counts, int64_t least) {
    uint64_t found = 0;
#if defined(__AVX512BW__)
    found = _mm512_cmpgt_epu8_mask(_mm512_load_si512(counts), _mm512_set1_epi8(static_cast<char>(least)));
#else
    for (int64_t n = 0; n < BLOCK; ++n) found |= static_cast<uint64_t>(counts[n] > least) << n;
#endif
    return found;
}

// What a segment's rows go on in
struct Head {
    uintptr_t begin;
    double rows_of_byte;  // 1 / bytes of a row: their product with a row's place is a whole number but for rounding
    uint8_t behind;
};

class Heads {
  public:
    Heads(const uint8_t* payload, int64_t bytes, const Segments& segments, const int64_t* tails)
        : payload_(reinterpret_cast<uintptr_t>(payload)), bytes_(bytes), segments_(segments),
          heads_(segments.all.size()), column_(segments.all.size()) {
        for (size_t s = 0; s < heads_.size(); ++s) {
            const Segment& one = segments.all[s];
            const double row = one.row_bytes ? 1.0 / static_cast<double>(one.row_bytes) : 0.0;
            heads_[s] = {payload_ + static_cast<uintptr_t>(one.base), row, static_cast<uint8_t>(tails[s])};
            const int64_t behind = std::min(tails[s], static_cast<int64_t>(heads_.size() - 1 - s));
            for (int64_t t = 1, column = one.dim; t <= behind; ++t) {
                column_[s + static_cast<size_t>(t)] = column;
                column += segments.all[s + static_cast<size_t>(t)].dim;
            }
            most_ = std::max(most_, tails[s]);
        }
    }

    int64_t most() const { return most_; }

    const Head& of(const Segment* head) const { return heads_[static_cast<size_t>(head - segments_.all.data())]; }

    int64_t column(const Segment* tail) const { return column_[static_cast<size_t>(tail - segments_.all.data())]; }

    // The stored row of a look-up from where it lies: of another segment's, where it reads the first row of that
    static int64_t row(const Head& head, uintptr_t at) {
        return static_cast<int64_t>(static_cast<double>(static_cast<int64_t>(at - head.begin)) * head.rows_of_byte +
                                    0.5);
    }

    // Where a row of a tail lies; 0 where that is not in the payload
    uintptr_t place(const Segment& tail, int64_t row) const {
        const int64_t at = tail.base + row * tail.row_bytes;
        return at >= 0 && at <= bytes_ - tail.read_bytes ? payload_ + static_cast<uintptr_t>(at) : 0;
    }

  private:
    uintptr_t payload_;
    int64_t bytes_, most_ = 0;
    const Segments& segments_;
    std::vector<Head> heads_;
    std::vector<int64_t> column_;  // of a tail: where its values begin
};

// Where the tails of a block's rows lie: all first ones, then all second ones, so that no branch depends on a row
class Tails {
  public:
    explicit Tails(const Heads& heads)
        : heads_(heads), which_(static_cast<size_t>(heads.most())), places_(which_.size() * BLOCK) {}

    // Finds and fetches those of a block, of which any rows may be none: these are never written
    INLINE void find(const Block& block) {
        alignas(64) uint8_t behind[BLOCK];
        int64_t row[BLOCK];
        for (int64_t n = 0; n < BLOCK; ++n) {
            const Head& head = heads_.of(block.segments[n]);
            behind[n] = head.behind;
            row[n] = Heads::row(head, block.rows[n]);
        }
        for (size_t t = 0; t < which_.size(); ++t) {
            which_[t] = those_above(behind, static_cast<int64_t>(t));
            for (uint64_t those = which_[t]; those; those &= those - 1) {
                const int64_t n = __builtin_ctzll(those);
                const Segment& tail = block.segments[n][t + 1];
                const uintptr_t at = heads_.place(tail, row[n]);
                places_[t * BLOCK + static_cast<size_t>(n)] = at;
                fetch_row(at, tail.fetch_bytes);
            }
        }
    }

    // Writes the first `count` of the block behind their heads. Returns one whose tail is not in the payload, else -1.
    INLINE int64_t write(const Block& block, int64_t count, int64_t width, float* out) const {
        int64_t bad = -1;
        const uint64_t given = count < BLOCK ? (uint64_t{1} << count) - 1 : ~uint64_t{0};
        for (size_t t = 0; t < which_.size(); ++t)
            for (uint64_t those = which_[t] & given; those; those &= those - 1) {
                const int64_t n = __builtin_ctzll(those);
                const Segment& tail = block.segments[n][t + 1];
                const auto* at = reinterpret_cast<const uint8_t*>(places_[t * BLOCK + static_cast<size_t>(n)]);
                if (!at) {
                    bad = bad < 0 ? n : std::min(bad, n);
                    continue;
                }
                // the zeros behind its values are written again, which takes less than to stop at them
                const int64_t column = heads_.column(&tail);
                float* to = out + n * width + column;
                with_way(tail.way, [&](auto way) INLINE_LAMBDA {
                    const Coder<decltype(way)::value, Widths::DIFFER> coder(0);
                    write_decoded<decltype(way)::value>(at, tail, coder(tail), int64_t{0}, width - column, to);
                });
            }
        return bad;
    }

  private:
    const Heads& heads_;
    std::vector<uint64_t> which_;  // those that have a first tail, a second, ...
    std::vector<uintptr_t> places_;
};

#ifdef __AVX512BW__

// The codes of one part of a row: where they lie, how they decode, and to which lanes of the row
struct alignas(64) Piece {
    uintptr_t begin;
    uint64_t row_bytes, room;  // a row lies less than `room` behind `begin`
    float shift, scale;
    int32_t bits, fetch_bytes;
    __mmask16 lanes;
};

// Rows of at most STEP columns, all parts of a row decoded in one register: parts that a row has not are decoded
// to no lane, so that no branch depends on a row. Rows stored otherwise than as codes are written afterwards.
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
                          static_cast<__mmask16>(((1u << one.dim) - 1) << heads.column(&one))};
        }
        for (size_t s = 0; s < pieces_.size(); ++s)
            for (size_t t = 0; t <= MOST; ++t)
                parts_[s * (1 + MOST) + t] = t <= heads.of(&segments.all[s]).behind ? &pieces_[s + t] : &none_;
    }

    // All parts of rows in several are codes, and a row fits a register
    static bool serves(const Segments& segments, const int64_t* tails) {
        bool codes = segments.width <= STEP;
        for (size_t s = 0; s < segments.all.size(); ++s)
            for (int64_t t = 0; t <= tails[s] && tails[s]; ++t)
                codes = codes && segments.all[s + static_cast<size_t>(t)].way == CODES;
        return codes;
    }

    struct Found {
        uintptr_t at[1 + MOST][BLOCK];
        const Piece* const* parts[BLOCK];
        uint64_t others, bad;  // stored otherwise; with a part that is not in the payload
    };

    INLINE void find(const Block& block, Found& found) const {
        found.others = found.bad = 0;
        for (int64_t n = 0; n < BLOCK; ++n) {
            const auto s = static_cast<size_t>(block.segments[n] - segments_.all.data());
            const Piece* const* parts = &parts_[s * (1 + MOST)];
            const auto row = static_cast<uint64_t>(Heads::row(heads_.of(block.segments[n]), block.rows[n]));
            const bool is_codes = block.segments[n]->way == CODES;
            found.parts[n] = parts;
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
        const auto all = static_cast<__mmask16>((1u << width) - 1);
        for (int64_t n = 0; n < count; ++n) {
            __builtin_prefetch(out + (BLOCK + n) * width, 1, 3);
            __m512 row = _mm512_setzero_ps();
            for (int64_t t = 0; t <= MOST; ++t) {
                const Piece& part = *found.parts[n][t];
                const auto* codes = reinterpret_cast<const uint8_t*>(found.at[t][n]);
                const Values values = (Codes(part.bits).from(codes, 0) + part.shift) * part.scale;
                row = _mm512_mask_expand_ps(row, part.lanes, reinterpret_cast<__m512>(values));
            }
            _mm512_mask_storeu_ps(out + n * width, all, row);
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
        return {reinterpret_cast<uintptr_t>(NO_CODES), 0, ~uint64_t{0}, 0.0f, 0.0f, 1, 1, 0};
    }

    static inline const uint8_t NO_CODES[32] = {};

    const Segments& segments_;
    const Heads& heads_;
    std::vector<Piece> pieces_;
    std::vector<const Piece*> parts_;  // of every segment its own and its tails', or none
    const Piece none_ = none();
};

#endif

// Calls work(start, stop) for ranges of look-ups; it returns one that is out of range, else -1, and so does this,
// as what the exported function returns.
template <typename Work>
INLINE int64_t first_bad_of(int64_t count, int64_t threads, const Work& work) {
    int64_t first_bad = count;
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        const int64_t bad = work(start, stop);
        if (bad >= 0) {
#pragma omp critical
            first_bad = std::min(first_bad, bad);
        }
    });
    return first_bad < count ? -1 - first_bad : 0;
}

// The first of two look-ups of which either may be none, -1
INLINE int64_t first_of(int64_t one, int64_t other) {
    return one < 0 ? other : other < 0 ? one : std::min(one, other);
}

template <typename Row>
INLINE int64_t look_up_parts(const uint8_t* payload, int64_t bytes, const Segments& segments,
                             const PackedRows& addresses, const int64_t* tails, const Row* rows, int64_t count,
                             int64_t columns, float* out, int64_t threads) {
    const Heads heads(payload, bytes, segments, tails);
#ifdef __AVX512BW__
    const auto merged = [&](auto most) INLINE_LAMBDA {
        using Rows = Merged<decltype(most)::value>;
        const Rows parts(payload, bytes, segments, heads);
        return first_bad_of(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            Finder<Row> find(payload, bytes, segments, addresses, rows, columns);
            typename Rows::Found turns[2];
            int64_t bad_part = -1, turn = 0;
            const int64_t bad = for_blocks(
                start, stop, payload, segments, find,
                [&](const Block& block, int64_t from, int64_t block_count, const Block& next) INLINE_LAMBDA {
                    if (from == start) parts.find(block, turns[turn]);
                    parts.find(next, turns[turn ^ 1]);
                    const int64_t outside =
                        parts.write(block, turns[turn], block_count, out + from * segments.width);
                    if (outside >= 0 && bad_part < 0) bad_part = from + outside;
                    turn ^= 1;
                });
            return first_of(bad, bad_part);
        });
    };
    if (Merged<2>::serves(segments, tails)) {
        if (heads.most() == 1) return merged(std::integral_constant<int64_t, 1>{});
        if (heads.most() == 2) return merged(std::integral_constant<int64_t, 2>{});
    }
#endif
    const DecodeBlock decode = decoder_of(segments);
    return first_bad_of(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        Finder<Row> find(payload, bytes, segments, addresses, rows, columns);
        Tails turns[2] = {Tails(heads), Tails(heads)};
        int64_t bad_part = -1, turn = 0;
        const int64_t bad = for_blocks(
            start, stop, payload, segments, find,
            [&](const Block& block, int64_t from, int64_t block_count, const Block& next) INLINE_LAMBDA {
                if (from == start) turns[turn].find(block);
                turns[turn ^ 1].find(next);
                float* to = out + from * segments.width;
                decode(segments, block, block_count, next, to);
                const int64_t outside = turns[turn].write(block, block_count, segments.width, to);
                if (outside >= 0 && bad_part < 0) bad_part = from + outside;
                turn ^= 1;
            });
        return first_of(bad, bad_part);
    });
}

}  // namespace

// As autoembed_look_up_packed; tails (segments,): how many segments behind each hold further columns of its rows
EXPORT int64_t autoembed_look_up_parts(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                       const PackedRows* addresses, const int64_t* tails, const void* rows,
                                       int64_t row_size, int64_t count, int64_t columns, float* out,
                                       int64_t threads) {
    const Segments segments = read_segments(payload, *packed);
    columns = std::max<int64_t>(1, std::min(columns, count));
    return with_rows(rows, row_size, [&](auto known_rows) INLINE_LAMBDA {
        return look_up_parts(payload, bytes, segments, *addresses, tails, known_rows, count, columns, out, threads);
    });
}

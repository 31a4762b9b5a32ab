// Look-ups of rows in parts: the columns behind those of a row's segment lie in the segments behind it. The layout
// is that of look_up_parts.py.

#include "merged_parts.h"

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
#ifdef MERGES_PARTS
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

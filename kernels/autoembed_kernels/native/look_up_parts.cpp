// Look-ups of rows in parts: the columns behind those of a row's segment lie in the segments behind it. The layout
// is that of look_up_parts.py.

#include "decode_block.h"

using namespace autoembed;

namespace {

// Where the parts of the rows of a block lie
class Parts {
  public:
    Parts(const uint8_t* payload, int64_t bytes, const Segments& segments, const PackedRows& rows,
          const int64_t* tails)
        : payload_(payload), bytes_(bytes), segments_(segments), rows_(rows), tails_(tails) {}

    int64_t of(const Segment* head) const { return tails_[head - segments_.all.data()]; }

    // The stored row of a look-up: its place in the segment, or in another one's first row where it reads that
    int64_t stored(const Segment* head, uintptr_t at, int64_t given) const {
        const int64_t row = given - rows_.start[head - segments_.all.data()];
        const auto begin = reinterpret_cast<uintptr_t>(payload_) + static_cast<uintptr_t>(head->base);
        if (begin + static_cast<uintptr_t>(row * head->row_bytes) == at) return row;
        return head->row_bytes ? static_cast<int64_t>((at - begin) / static_cast<uintptr_t>(head->row_bytes)) : 0;
    }

    bool place(const Segment& tail, int64_t row, uintptr_t& at) const {
        return locate(payload_, bytes_, tail, row, at);
    }

  private:
    const uint8_t* payload_;
    int64_t bytes_;
    const Segments& segments_;
    const PackedRows& rows_;
    const int64_t* tails_;
};

template <typename Row>
INLINE int64_t look_up_parts(const uint8_t* payload, int64_t bytes, const Segments& segments,
                             const PackedRows& addresses, const int64_t* tails, const Row* rows, int64_t count,
                             int64_t columns, float* out, int64_t threads) {
    const DecodeBlock decode = decoder_of(segments);
    const Parts parts(payload, bytes, segments, addresses, tails);
    int64_t first_bad = count;
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        Finder<Row> find(payload, bytes, segments, addresses, rows, columns);
        int64_t bad_part = -1;
        const int64_t bad = for_blocks(
            start, stop, payload, segments, find,
            [&](const Block& block, int64_t from, int64_t block_count, const Block& next) INLINE_LAMBDA {
                const int64_t next_count = std::min(BLOCK, stop - from - BLOCK);
                for (int64_t n = 0; n < next_count; ++n) {
                    const Segment* head = next.segments[n];
                    if (!parts.of(head)) continue;
                    const int64_t row = parts.stored(head, next.rows[n], rows[from + BLOCK + n]);
                    for (int64_t t = 1; t <= parts.of(head); ++t) {
                        uintptr_t at;
                        if (parts.place(head[t], row, at)) fetch_row(at, head[t].fetch_bytes);
                    }
                }
                decode(segments, block, block_count, next, out + from * segments.width);
                for (int64_t n = 0; n < block_count; ++n) {
                    const Segment* head = block.segments[n];
                    const int64_t behind = parts.of(head);
                    if (!behind) continue;
                    const int64_t row = parts.stored(head, block.rows[n], rows[from + n]);
                    float* to = out + (from + n) * segments.width;
                    int64_t column = head->dim;
                    for (int64_t t = 1; t <= behind; ++t) {
                        const Segment& tail = head[t];
                        uintptr_t at;
                        if (!parts.place(tail, row, at)) {
                            bad_part = bad_part < 0 ? from + n : bad_part;
                            break;
                        }
                        with_way(tail.way, [&](auto way) INLINE_LAMBDA {
                            // behind it the row of the head is zero already
                            write_decoded<decltype(way)::value>(reinterpret_cast<const uint8_t*>(at), tail,
                                                                tail.bits, int64_t{0}, int64_t{tail.dim},
                                                                to + column);
                        });
                        column += tail.dim;
                    }
                }
            });
        const int64_t worst = bad < 0 ? bad_part : bad_part < 0 ? bad : std::min(bad, bad_part);
        if (worst >= 0) {
#pragma omp critical
            first_bad = std::min(first_bad, worst);
        }
    });
    return first_bad < count ? -1 - first_bad : 0;
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

// From rows of all fields to the bytes that store them, block by block, so that a block's rows are fetched while
// the one before is decoded. The hash is that of row_hash.py.

#pragma once

#include "packed.h"

namespace autoembed {

constexpr int64_t BLOCK = 64;  // look-ups whose rows are fetched while the block before is decoded
constexpr int64_t FEW = 32;    // segments of a field that are searched one after the other

// Where the rows of a block of look-ups lie, and the segment of each
struct Block {
    alignas(64) uintptr_t rows[BLOCK];
    const Segment* own[BLOCK];
    const Segment* const* segments;  // own, or those that one of several blocks share

    const uint8_t* row(int64_t n) const { return reinterpret_cast<const uint8_t*>(rows[n]); }
};

INLINE void fetch_row(uintptr_t row, int64_t bytes) {
    const auto* at = reinterpret_cast<const uint8_t*>(row);
    prefetch(at);
    for (int64_t further = LINE; further < bytes; further += LINE) prefetch(at + further);
    if (bytes > 1) prefetch(at + bytes - 1);
}

INLINE void fetch_rows(const Block& block) {
    for (int64_t n = 0; n < BLOCK; ++n) fetch_row(block.rows[n], block.segments[n]->fetch_bytes);
}

// Finds the rows of [start, stop) block by block and calls work(block, from, count, next) for each, where `next` is
// to be fetched meanwhile: all BLOCK of its rows may be, whatever they are. find(from, count, block) finds those of
// a block, or returns the first look-up that is out of range, else -1; so does this.
template <typename Find, typename Work>
INLINE int64_t for_blocks(int64_t start, int64_t stop, const uint8_t* payload, const Segments& segments, Find&& find,
                          const Work& work) {
    Block blocks[2];
    for (Block& block : blocks) {
        std::fill_n(block.rows, BLOCK, reinterpret_cast<uintptr_t>(payload));
        std::fill_n(block.own, BLOCK, segments.all.data());
        block.segments = block.own;
    }
    if (start == stop) return -1;
    int64_t bad = find(start, std::min(BLOCK, stop - start), blocks[0]);
    if (bad < 0) fetch_rows(blocks[0]);
    for (int64_t from = start, turn = 0; from < stop && bad < 0; from += BLOCK, turn ^= 1) {
        const int64_t next = from + BLOCK;
        if (next < stop) bad = find(next, std::min(BLOCK, stop - next), blocks[turn ^ 1]);
        work(blocks[turn], from, std::min(BLOCK, stop - from), blocks[turn ^ 1]);
    }
    return bad;
}

// Segments that store nothing have no bytes: all their rows lie at the payload's start
INLINE bool locate(const uint8_t* payload, int64_t bytes, const Segment& s, int64_t row, uintptr_t& place) {
    int64_t at = 0;
    const bool overflows = __builtin_mul_overflow(row, s.row_bytes, &at) || __builtin_add_overflow(at, s.base, &at);
    if (overflows || at < 0 || at > bytes - s.read_bytes) return false;
    place = reinterpret_cast<uintptr_t>(payload + at);
    return true;
}

// Finds rows of all fields. A batch's rows come field by field in turn, so the field of the look-up one turn before
// is expected; `columns` is the length of a turn. What is expected lies column by column in tables, which begin
// again behind a turn and go on for a block: a block reads a run of each, in vectors, and no branch depends on a
// row. A block that does not hold what is expected is done row by row, and what it holds is expected from then on.
template <typename Row>
class Finder {
  public:
    Finder(const uint8_t* payload, int64_t bytes, const Segments& segments, const PackedRows& rows, const Row* given,
           int64_t columns);

    // Finds [from, from + count), at most a block. Returns the first that is out of range, else -1.
    int64_t operator()(int64_t from, int64_t count, Block& block);

  private:
    // Rows of a field and its segments
    struct FieldRange {
        int64_t start = 0, rows = 0, first = 0, count = 0;
    };

    // Where the rows of a segment lie, and the segment that decodes them: those of the whole table count from
    // `origin`; rows of a codebook, and row 0 where it stands for all, lie there whatever the row
    struct Origin {
        uintptr_t origin;
        int64_t row_bytes;
        const Segment* segment;
    };

    // The codes of a segment's rows, `row_bytes` the bytes of a codebook's row; without codes 0 bits, and 0 bytes
    struct Coded {
        const uint8_t* codes;
        int64_t start, bits, mask, row_bytes;
    };

    // The tables: first and last row of the field, then of a single segment its origin and bytes of a row, else the
    // field's first segment and where the others start
    enum Table { START, LAST, FIRST, LATER, ORIGIN = FIRST, ROW_BYTES = LATER };

    int64_t* table(int64_t which) { return expected_.data() + which * length_; }
    const int64_t* table(int64_t which) const { return expected_.data() + which * length_; }

    bool are_expected(const Row* given, int64_t count, int64_t column) const;

    bool find_single(int64_t from, int64_t count, int64_t column, Block& block) const;

    bool find_expected(int64_t from, int64_t count, int64_t column, Block& block) const;

    void add_codes(const Row* given, int64_t count, const int64_t* found, uintptr_t* rows) const;

    int64_t find_each(int64_t from, int64_t count, int64_t column, Block& block);

    bool locate_row(int64_t row, const FieldRange& field, uintptr_t& place, const Segment*& segment) const;

    int64_t last_at_or_before(int64_t row, int64_t first, int64_t count) const;

    FieldRange range_of(int64_t row);

    void expect();  // lays out what is expected

    INLINE int64_t columns() const { return static_cast<int64_t>(fields_.size()); }

    const uint8_t* payload_;
    int64_t bytes_;
    const Segments& segments_;
    const PackedRows& rows_;
    const Row* given_;
    std::vector<FieldRange> fields_;  // of each column
    std::vector<Origin> origins_;
    std::vector<Coded> coded_;  // of every segment; empty where none has codes
    std::vector<int64_t> expected_;        // tables of length_ each
    // single segments, in the same way, in two tables: a block may be decoded from the one that was in use when it
    // was found while the next block, if it holds other fields, lays out the other
    std::vector<const Segment*> shared_[2];
    int64_t in_use_ = 0;
    int64_t length_ = 0, most_ = 1;
    int64_t step_ = BLOCK % columns(), next_ = -1, next_column_ = 0;  // the block that is likely asked for next
    bool short_ = true;   // rows and bytes of a row are below 2^32
    bool direct_ = true;  // every row is stored where it is, in the payload, and few segments in a field
    bool single_ = true;  // one segment in a field
};

// Calls work(rows) with the rows as what they are, of 4 or 8 bytes
template <typename Work>
INLINE int64_t with_rows(const void* rows, int64_t row_size, const Work& work) {
    if (row_size == 4) return work(static_cast<const int32_t*>(rows));
    return work(static_cast<const int64_t*>(rows));
}

}  // namespace autoembed

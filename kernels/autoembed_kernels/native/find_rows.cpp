// How rows are found: see find_rows.h. The hash is that of row_hash.py.

#include "find_rows.h"

namespace autoembed {

namespace {

INLINE int64_t bucket(int64_t row, int64_t salt, int64_t buckets) {
    auto mixed = static_cast<uint64_t>(row) + static_cast<uint64_t>(salt + 1) * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBu;
    mixed ^= mixed >> 31;
    return static_cast<int64_t>((mixed >> 1) % static_cast<uint64_t>(buckets));
}

// As many rows as a register holds as int64
constexpr int64_t SIDE = sizeof(f32s) / sizeof(int64_t);
using i64s = int64_t __attribute__((vector_size(sizeof(f32s))));
using i32s_half = int32_t __attribute__((vector_size(sizeof(f32s) / 2)));
template <typename Row>
using RowsOf = std::conditional_t<sizeof(Row) == 8, i64s, i32s_half>;

INLINE i64s as_int64(i64s rows) { return rows; }
INLINE i64s as_int64(i32s_half rows) { return __builtin_convertvector(rows, i64s); }

}  // namespace

template <typename Row>
Finder<Row>::Finder(const uint8_t* payload, int64_t bytes, const Segments& segments, const PackedRows& rows,
                    const Row* given, int64_t columns)
    : payload_(payload), bytes_(bytes), segments_(segments), rows_(rows), given_(given), fields_(columns) {
    const auto count = static_cast<int64_t>(segments.all.size());
    origins_.resize(count);
    if (std::any_of(rows.code_bits, rows.code_bits + count, [](int64_t bits) { return bits > 0; })) {
        coded_.resize(count);
        single_ = false;
    }
    short_ = rows.rows <= int64_t{1} << 32;
    for (int64_t s = 0; s < count && direct_; ++s) {
        const Segment& one = segments.all[s];
        const int64_t first = rows.start[s], stop = s + 1 < count ? rows.start[s + 1] : rows.rows;
        if (!coded_.empty()) coded_[s] = {rows.codes, first, 0, 0, 0};
        single_ = single_ && rows.field_segment[s] == s;
        if (rows.reads_row_0[s]) {
            const int64_t head = rows.field_segment[s];
            const int64_t code = rows.code_bits[head] ? rows.code(head, 0) : 0;
            const Segment& read = segments.all[head];
            origins_[s] = {reinterpret_cast<uintptr_t>(payload) + read.base + code * read.row_bytes, 0, &read};
            continue;
        }
        int64_t last = 0;
        const bool overflows = __builtin_mul_overflow(stop, one.row_bytes, &last) || one.base < 0 ||
                               __builtin_add_overflow(last, one.base, &last);
        // whatever the codes are, what they name must lie in the payload
        const int64_t stored = rows.code_bits[s] ? int64_t{1} << rows.code_bits[s] : stop - first;
        last = one.base + (overflows ? 0 : std::max<int64_t>(0, stored - 1) * one.row_bytes);
        const bool inside = one.row_bytes >= 0 && one.read_bytes <= bytes && last <= bytes - one.read_bytes;
        direct_ = !rows.hashed[s] && !overflows && inside;
        short_ = short_ && one.row_bytes <= int64_t{1} << 31;
        const int64_t own_bytes = rows.code_bits[s] ? 0 : one.row_bytes;
        origins_[s] = {reinterpret_cast<uintptr_t>(payload) + one.base - first * own_bytes, own_bytes, &one};
        if (rows.code_bits[s])
            coded_[s] = {rows.codes + rows.code_at[s], first, rows.code_bits[s],
                         (int64_t{1} << rows.code_bits[s]) - 1, one.row_bytes};
    }
    length_ = direct_ ? columns + BLOCK : 0;
    expected_.resize(length_ * (single_ ? 4 : 2 + FEW));
    std::fill_n(table(LAST), length_, -1);  // no row is expected yet
    if (single_) {
        for (auto& table : shared_) table.resize(length_);
    }
}

template <typename Row>
int64_t Finder<Row>::operator()(int64_t from, int64_t count, Block& block) {
    const int64_t column = from == next_ ? next_column_ : from % columns();
    // a division for every block would take half a nanosecond a look-up
    next_ = from + BLOCK;
    next_column_ = column + step_ < columns() ? column + step_ : column + step_ - columns();
    if (direct_ && single_ && find_single(from, count, column, block)) return -1;
    if (direct_ && !single_ && find_expected(from, count, column, block)) return -1;
    return find_each(from, count, column, block);
}

template <typename Row>
bool Finder<Row>::are_expected(const Row* given, int64_t count, int64_t column) const {
    const int64_t* start = table(START) + column;
    const int64_t* last = table(LAST) + column;
    // negative where a row is before the first or behind the last: one of the two is, even where the other overflows
    uint64_t others = 0;
    for (int64_t n = 0; n < count; ++n) {
        const auto row = static_cast<uint64_t>(static_cast<int64_t>(given[n]));
        others |= row - static_cast<uint64_t>(start[n]) | static_cast<uint64_t>(last[n]) - row;
    }
    return static_cast<int64_t>(others) >= 0;
}

template <typename Row>
bool Finder<Row>::find_single(int64_t from, int64_t count, int64_t column, Block& block) const {
    const Row* __restrict given = given_ + from;
    if (!are_expected(given, count, column)) return false;
    const int64_t* origin = table(ORIGIN) + column;
    const int64_t* row_bytes = table(ROW_BYTES) + column;
    uintptr_t* __restrict rows = block.rows;
    constexpr uint64_t LOW = 0xffffffff;
    if (short_)  // a product of 32 bits by 32 is one operation for a vector, where one of 64 bits takes eight
        for (int64_t n = 0; n < count; ++n)
            rows[n] = static_cast<uintptr_t>(origin[n]) +
                      (static_cast<uint64_t>(given[n]) & LOW) * (static_cast<uint64_t>(row_bytes[n]) & LOW);
    else
        for (int64_t n = 0; n < count; ++n)
            rows[n] = static_cast<uintptr_t>(origin[n]) + static_cast<uintptr_t>(given[n] * row_bytes[n]);
    block.segments = shared_[in_use_].data() + column;
    return true;
}

template <typename Row>
bool Finder<Row>::find_expected(int64_t from, int64_t count, int64_t column, Block& block) const {
    const Row* __restrict given = given_ + from;
    if (!are_expected(given, count, column)) return false;
    int64_t found[BLOCK];
    const int64_t* first = table(FIRST) + column;
    const int64_t* later = table(LATER) + column;
    int64_t from_first = 0;
    // a register of rows at a time, so that their segments stay in one while all starts are compared
    for (; from_first + SIDE <= count; from_first += SIDE) {
        const i64s row = as_int64(load<RowsOf<Row>>(given + from_first));
        i64s segment = load<i64s>(first + from_first) + (most_ - 1);
        for (int64_t one = 0; one < most_ - 1; ++one)
            segment += load<i64s>(later + one * length_ + from_first) > row;  // -1 where it is
        store(found + from_first, segment);
    }
    for (int64_t n = from_first; n < count; ++n) {
        found[n] = first[n];
        for (int64_t one = 0; one < most_ - 1; ++one) found[n] += later[one * length_ + n] <= given[n];
    }
    const Origin* origins = origins_.data();
    for (int64_t n = 0; n < count; ++n) {
        const Origin& of = origins[found[n]];
        block.own[n] = of.segment;
        block.rows[n] = of.origin + static_cast<uintptr_t>(given[n] * of.row_bytes);
    }
    if (!coded_.empty()) add_codes(given, count, found, block.rows);
    block.segments = block.own;
    return true;
}

// No branch tells rows with codes from others, and all codes are asked for before the first is read
template <typename Row>
void Finder<Row>::add_codes(const Row* given, int64_t count, const int64_t* found, uintptr_t* rows) const {
    const uint8_t* at[BLOCK];
    int64_t shift[BLOCK];
    for (int64_t n = 0; n < count; ++n) {
        const Coded& of = coded_[found[n]];
        const int64_t bit = (given[n] - of.start) * of.bits;
        at[n] = of.codes + (bit >> 3);
        shift[n] = bit & 7;
        prefetch(at[n]);
    }
    for (int64_t n = 0; n < count; ++n) {
        const Coded& of = coded_[found[n]];
        const int64_t code = (at[n][0] | at[n][1] << 8) >> shift[n] & of.mask;
        rows[n] += static_cast<uintptr_t>(code * of.row_bytes);
    }
}

template <typename Row>
int64_t Finder<Row>::find_each(int64_t from, int64_t count, int64_t column, Block& block) {
    block.segments = block.own;
    bool others = false;
    for (int64_t n = 0; n < count; ++n) {
        const int64_t row = given_[from + n];
        FieldRange& field = fields_[column];
        column = column + 1 == columns() ? 0 : column + 1;
        if (static_cast<uint64_t>(row) >= static_cast<uint64_t>(rows_.rows)) return from + n;
        if (static_cast<uint64_t>(row - field.start) >= static_cast<uint64_t>(field.rows)) {
            field = range_of(row);
            others = true;
        }
        if (!locate_row(row, field, block.rows[n], block.own[n])) return from + n;
    }
    if (direct_ && others) expect();
    return -1;
}

template <typename Row>
bool Finder<Row>::locate_row(int64_t row, const FieldRange& field, uintptr_t& place,
                             const Segment*& segment) const {
    int64_t s = last_at_or_before(row, field.first, field.count);
    if (rows_.reads_row_0[s]) {
        row = rows_.field_start[s];
        s = rows_.field_segment[s];
    }
    const int64_t stored = rows_.hashed[s]      ? bucket(row - rows_.field_start[s], rows_.field[s], rows_.buckets[s])
                           : rows_.code_bits[s] ? rows_.code(s, row - rows_.start[s])
                                                : row - rows_.start[s];
    segment = &segments_.all[s];
    return locate(payload_, bytes_, *segment, stored, place);
}

template <typename Row>
int64_t Finder<Row>::last_at_or_before(int64_t row, int64_t first, int64_t count) const {
    while (count > 1) {
        const int64_t middle = count / 2;
        first += rows_.start[first + middle] <= row ? middle : 0;
        count -= middle;
    }
    return first;
}

template <typename Row>
typename Finder<Row>::FieldRange Finder<Row>::range_of(int64_t row) {
    const auto segments = static_cast<int64_t>(segments_.all.size());
    const int64_t segment = last_at_or_before(row, 0, segments);
    FieldRange range;
    range.first = rows_.field_segment[segment];
    int64_t stop = segment;
    while (stop < segments && rows_.field_segment[stop] == range.first) ++stop;
    range.start = rows_.field_start[segment];
    range.rows = (stop < segments ? rows_.start[stop] : rows_.rows) - range.start;
    range.count = stop - range.first;
    most_ = std::max(most_, range.count);
    direct_ = direct_ && range.count <= FEW;
    return range;
}

template <typename Row>
void Finder<Row>::expect() {
    in_use_ ^= 1;
    for (int64_t n = 0; n < length_; ++n) {
        const FieldRange& field = fields_[n % columns()];
        table(START)[n] = field.start;
        table(LAST)[n] = field.start + field.rows - 1;
        if (single_) {
            table(ORIGIN)[n] = static_cast<int64_t>(origins_[field.first].origin);
            table(ROW_BYTES)[n] = origins_[field.first].row_bytes;
            shared_[in_use_][n] = &segments_.all[field.first];
            continue;
        }
        table(FIRST)[n] = field.first;
        for (int64_t later = 0; later < FEW - 1; ++later)
            table(LATER + later)[n] =
                later + 1 < field.count ? rows_.start[field.first + later + 1] : INT64_MAX;
    }
}

template class Finder<int32_t>;
template class Finder<int64_t>;

}  // namespace autoembed

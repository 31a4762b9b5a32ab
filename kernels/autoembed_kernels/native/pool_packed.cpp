// Bags of look-ups in packed tables, summed as they are decoded: see pool_packed.py.

#include "byte_sums.h"
#include "decode_block.h"

using namespace autoembed;

namespace {

constexpr int64_t BAGS_AHEAD = 6;

// Bags of look-ups: bag k holds those of [offsets[k], offsets[k + 1]), of field k / examples and of example
// k % examples, and is written to row (example, field) of out (examples, fields, width).
struct Bags {
    const int64_t* offsets;
    int64_t examples, fields;
    const float* weights;  // of each look-up, or none
    const uint8_t* means;  // whether a field's bags are averaged
    bool single;           // whether every field has one segment
    float* out;
};

// Rows of one segment at the end of a block whose bag goes on, and their sums as whole numbers
struct Run {
    const Segment* segment;
    int64_t count;
    uint16_t sums[64];
};

// Adds up bags of one range. `bag` is the one being summed, of `field` and `example`, `sums` what it has so far,
// but for the rows of `run`.
struct Summing {
    int64_t bag, stop, field, example;
    DecodeBlock decode;
    std::vector<float> sums, decoded;
    Run run;
};

INLINE int64_t padded(int64_t width) { return (width + STEP - 1) / STEP * STEP; }

// Writes the sums, or the means of `length` look-ups, to the bag's row
template <typename Width>
INLINE void finish_bag(const Bags& bags, Width width, Summing& now, const float* sums, int64_t length) {
    float* __restrict out = bags.out + (now.example * bags.fields + now.field) * width;
    if (bags.means[now.field] && length > 1) {
        const auto divisor = static_cast<float>(length);
        for (int64_t j = 0; j < width; ++j) out[j] = sums[j] / divisor;
    } else {
        for (int64_t j = 0; j < width; ++j) out[j] = sums[j];
    }
    ++now.bag;
    if (++now.example == bags.examples) {
        now.example = 0;
        ++now.field;
    }
}

// Fetches the row of a bag further on: rows of one field lie far apart, and waiting for them costs 10 % of the time
template <typename Width>
INLINE void fetch_written(const Bags& bags, const Summing& now, Width width) {
    const int64_t ahead = now.example + BAGS_AHEAD < bags.examples ? BAGS_AHEAD : 0;
    const float* out = bags.out + ((now.example + ahead) * bags.fields + now.field) * width;
    for (int64_t j = 0; j < width; j += LINE / 4) __builtin_prefetch(out + j, 1, 3);
}

// Adds the block's look-ups to their bags. add(sums, first, last, fresh, whole) adds those of [first, last), counted in
// the block: the bag begins with them if `fresh`, and ends with them if `whole`.
template <typename Width, typename Add>
INLINE void for_bags(const Bags& bags, int64_t from, int64_t count, Width width, Summing& now, const Add& add) {
    const int64_t end = from + count;
    int64_t start = bags.offsets[now.bag];
    for (int64_t n = from; now.bag < now.stop;) {
        const int64_t bag_end = bags.offsets[now.bag + 1], upto = std::min(bag_end, end);
        float* sums = now.sums.data();
        if (start == n) fetch_written(bags, now, width);
        if (upto > n) add(sums, n - from, upto - from, start == n, bag_end <= end);
        else if (start == n) std::fill_n(sums, width, 0.0f);
        n = std::max(n, upto);
        if (bag_end > end) break;
        finish_bag(bags, width, now, sums, bag_end - start);
        start = bag_end;
    }
}

// sums[j..] of STEPS steps, from zero if fresh, and values_of(n)(j) times weights[n] of [first, last)
template <int64_t STEPS, typename Use>
INLINE void add_steps(float* sums, int64_t first, int64_t last, bool fresh, const float* weights, const Use& use) {
    Values held[STEPS];
    for (int64_t i = 0; i < STEPS; ++i) held[i] = fresh ? Values{} : load<Values>(sums + i * STEP);
    if (weights)
        for (int64_t n = first; n < last; ++n)
            use(n, [&](const auto& values_at) INLINE_LAMBDA {
                for (int64_t i = 0; i < STEPS; ++i) held[i] += weights[n] * values_at(i * STEP);
            });
    else
        for (int64_t n = first; n < last; ++n)
            use(n, [&](const auto& values_at) INLINE_LAMBDA {
                for (int64_t i = 0; i < STEPS; ++i) held[i] += values_at(i * STEP);
            });
    for (int64_t i = 0; i < STEPS; ++i) store(sums + i * STEP, held[i]);
}

// Adds rows of codes of a bag, by ByteSums or NibbleSums. What is summed as whole numbers does not depend on where blocks
// end.
template <typename Sums, int64_t DIM>
INLINE void add_codes(float* sums, const Block& block, int64_t first, int64_t last, bool fresh, bool whole,
                      const Block& next, int64_t bytes, Run& run) {
    Sums held;
    const Segment* segment = fresh ? block.segments[first] : run.segment;
    int64_t count = fresh ? 0 : run.count;
    if (fresh) {
        held.clear();
        std::fill_n(sums, DIM, 0.0f);
    } else {
        held.load_from(run.sums);
    }
    for (int64_t n = first; n < last; ++n, ++count) {
        fetch_row(next.rows[n], bytes);
        if (__builtin_expect(block.segments[n] != segment || count == Sums::MOST, 0)) {
            held.add_to(sums, *segment, count);
            held.clear();
            segment = block.segments[n];
            count = 0;
        }
        held.add(block.row(n));
    }
    if (whole) {
        held.add_to(sums, *segment, count);
    } else {
        run.segment = segment;
        run.count = count;
        held.store_to(run.sums);
    }
}

template <typename Dim>
void add_block(const Segments& segments, const Block& block, int64_t from, int64_t count, const Block& next, Dim dim,
               const Bags& bags, Summing& now) {
    const float* weights = bags.weights ? bags.weights + from : nullptr;
    // rows that are decoded alike are summed as they are decoded; weights would double the code for it
    if constexpr (!std::is_same_v<Dim, int64_t>) {
        if (segments.alike && !weights)
            return with_alike(segments, [&](auto way, auto widths) INLINE_LAMBDA {
                constexpr bool same = decltype(widths)::value != Widths::DIFFER;
                const int64_t bits = segments.all[0].bits, bytes = segments.all[0].fetch_bytes;
                const Coder<decltype(way)::value, decltype(widths)::value> coder(bits);
                if constexpr (decltype(way)::value == CODES && same && dim >= 16) {
                    const auto as_whole_numbers = [&](auto kind) INLINE_LAMBDA {
                        const auto add = [&](float* sums, int64_t first, int64_t last, bool fresh,
                                             bool whole) INLINE_LAMBDA {
                            add_codes<decltype(kind), dim>(sums, block, first, last, fresh, whole, next, bytes,
                                                           now.run);
                        };
                        for_bags(bags, from, count, dim, now, add);
                    };
                    if (bits == 8 && bags.single) return as_whole_numbers(ByteSums<dim>{});
                    if (bits == 4 && bags.single) return as_whole_numbers(NibbleSums<dim>{});
                }
                const auto with_row = [&](int64_t n, const auto& use) INLINE_LAMBDA {
                    fetch_row(next.rows[n], same ? bytes : next.segments[n]->fetch_bytes);
                    const Segment& s = *block.segments[n];
                    with_values<decltype(way)::value>(block.row(n), s, coder(s), dim, use);
                };
                const auto add = [&](float* sums, int64_t first, int64_t last, bool fresh, bool) INLINE_LAMBDA {
                    add_steps<(dim + STEP - 1) / STEP>(sums, first, last, fresh, nullptr, with_row);
                };
                for_bags(bags, from, count, dim, now, add);
            });
    }
    now.decode(segments, block, count, next, now.decoded.data());
    const int64_t width = segments.width;
    for_bags(bags, from, count, width, now, [&](float* sums, int64_t first, int64_t last, bool fresh, bool) INLINE_LAMBDA {
        for (int64_t j = 0; j < width; j += STEP)
            add_steps<1>(sums + j, first, last, fresh, weights, [&](int64_t n, const auto& use) INLINE_LAMBDA {
                const float* row = now.decoded.data() + n * width + j;
                use([&](int64_t) INLINE_LAMBDA { return load<Values>(row); });
            });
    });
}

using AddBlock = void (*)(const Segments&, const Block&, int64_t, int64_t, const Block&, const Bags&, Summing&);

AddBlock adder_of(const Segments& segments) {
    AddBlock found = nullptr;
    with_dim(segments.full ? segments.width : 0, [&](auto dim) {
        found = [](const Segments& of, const Block& block, int64_t from, int64_t count, const Block& next,
                   const Bags& bags,
                   Summing& now) { add_block(of, block, from, count, next, decltype(dim){}, bags, now); };
    });
    return found;
}

}  // namespace

// Rows (count,) as in autoembed_look_up_packed, in bags, field by field -> out (examples, fields, width): their
// sums, of each row times its weight where there are weights, divided by the bag's length where means[field]. Empty
// bags give zeros. offsets (fields * examples + 1,), ascending from 0 to count. Returns 0, -1 - place where a row is
// out of range, or -1 - count - bag where a bag's offsets are; out is then undefined.
EXPORT int64_t autoembed_pool_packed(const uint8_t* payload, int64_t bytes, const PackedSegments* packed,
                                     const PackedRows* addresses, const void* rows, int64_t row_size, int64_t count,
                                     const int64_t* offsets, int64_t examples, int64_t fields, const float* weights,
                                     const uint8_t* means, float* out, int64_t threads) {
    const Segments segments = read_segments(payload, *packed);
    const int64_t width = segments.width, all = examples * fields;
    for (int64_t k = 0; k < all; ++k)
        if (offsets[k] > offsets[k + 1] || (k == 0 && offsets[0] != 0)) return -1 - count - k;
    if (offsets[all] != (all ? count : 0)) return -1 - count - std::max<int64_t>(0, all - 1);
    if (!all) return 0;
    bool single = true;
    for (int64_t s = 0; s < packed->count; ++s) single = single && addresses->field_segment[s] == s;
    const Bags bags{offsets, examples, fields, weights, means, single, out};
    const AddBlock add = adder_of(segments);
    return with_rows(rows, row_size, [&](auto known_rows) INLINE_LAMBDA {
        using Row = std::remove_const_t<std::remove_pointer_t<decltype(known_rows)>>;
        int64_t first_bad = count;
        for_ranges(all, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            Summing now{start,
                        stop,
                        start / examples,
                        start % examples,
                        decoder_of(segments),
                        std::vector<float>(padded(width)),
                        std::vector<float>(BLOCK * width + STEP),
                        {}};
            const auto work = [&](const Block& block, int64_t from, int64_t block_count, const Block& next) {
                add(segments, block, from, block_count, next, bags, now);
            };
            Finder<Row> find(payload, bytes, segments, *addresses, known_rows, 1);
            const int64_t bad = for_blocks(offsets[start], offsets[stop], payload, segments, find, work);
            if (bad >= 0) {
#pragma omp critical
                first_bad = std::min(first_bad, bad);
            } else {
                std::fill_n(now.sums.data(), width, 0.0f);
                while (now.bag < stop) finish_bag(bags, width, now, now.sums.data(), 0);
            }
        });
        return first_bad < count ? -1 - first_bad : int64_t{0};
    });
}

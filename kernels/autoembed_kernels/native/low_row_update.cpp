// One optimizer step on rows stored in 16 or 8 bits: decoded, stepped in float32 and cast back, in one pass
// over each row. low_row_update.py and stochastic_round.py have the formulas.

#include <algorithm>
#include <vector>

#include "halves.h"
#include "philox.h"
#include "repeats.h"
#include "row_step.h"

namespace {

using f64x8 = double __attribute__((vector_size(64)));
using i8x8 = int8_t __attribute__((vector_size(8)));

constexpr int64_t STEP = 8;         // numbers at a time
constexpr int64_t ROWS_TOGETHER = 16;  // rows whose words are made together
constexpr float LARGEST_CODE = 127.0f;
enum Format : int64_t { FLOAT16, BFLOAT16, INT8 };

struct Stored {
    Format format;
    uint8_t* weight;  // (height, dim) of 2 bytes, or of 1
    uint16_t* steps;  // (height,) float16 of int8 rows
};

INLINE int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

INLINE u32x8 chosen(u32x8 mask, u32x8 yes, u32x8 no) { return (yes & mask) | (no & ~mask); }

// Words as numbers even in [0, 1). Through signed numbers, which every processor converts.
INLINE f64x8 fractions(u32x8 words) {
    const f64x8 centred = __builtin_convertvector(reinterpret_cast<i32x8>(words ^ 0x80000000u), f64x8);
    return (centred + 0x1p31) * 0x1p-32;
}

// floor of numbers between -2^31 and 2^31
INLINE i32x8 floors(f64x8 values) {
    const i32x8 cut = __builtin_convertvector(values, i32x8);
    return cut + __builtin_convertvector(__builtin_convertvector(cut, f64x8) > values, i32x8);
}

// Up or down by chance to a multiple of what `dropped` bits leave of the mantissa
INLINE u32x8 cut_by_chance(f32x8 values, u32x8 words, uint32_t dropped) {
    const auto bits = reinterpret_cast<u32x8>(values);
    const auto finite = reinterpret_cast<u32x8>((bits & 0x7f800000u) != 0x7f800000u);
    return chosen(finite, (bits + (words & dropped)) & ~dropped, bits);
}

INLINE u16x8 halves_by_chance(f32x8 values, u32x8 words) {
    const auto bits = reinterpret_cast<u32x8>(values);
    // below 2^-14, but not zero: multiples of 2^-24
    const auto small = reinterpret_cast<u32x8>((bits & 0x7fffffffu) - 1u < 0x387fffffu);
    const u32x8 cut = cut_by_chance(values, words, 0x1fffu);
    uint64_t some_small[4];
    std::memcpy(some_small, &small, sizeof(small));
    // few rows have such numbers
    if (__builtin_expect(!(some_small[0] | some_small[1] | some_small[2] | some_small[3]), 1))
        return to_halves(reinterpret_cast<f32x8>(cut));
    const auto kept = reinterpret_cast<f32x8>(bits & small);
    const i32x8 multiples = floors(__builtin_convertvector(kept, f64x8) * 0x1p24 + fractions(words));
    const auto scaled = reinterpret_cast<u32x8>(__builtin_convertvector(multiples, f32x8) * 0x1p-24f);
    return to_halves(reinterpret_cast<f32x8>(chosen(small, scaled, cut)));
}

INLINE u16x8 bfloats_by_chance(f32x8 values, u32x8 words) {
    return to_bfloats(reinterpret_cast<f32x8>(cut_by_chance(values, words, 0xffffu)));
}

// The step of a row whose largest number has these bits without the sign; NaN, the largest, comes through
INLINE float row_step(uint32_t largest) {
    const auto exact = static_cast<float>(static_cast<double>(load<float>(&largest)) / LARGEST_CODE);
    const float at_least = exact < 0x1p-14f ? 0x1p-14f : exact;
    const uint32_t up = (load<uint32_t>(&at_least) + 0xffffu) & ~0xffffu;
    return load<float>(&up);
}

INLINE i8x8 codes_by_chance(f32x8 values, double step, u32x8 words) {
    i32x8 codes = floors(__builtin_convertvector(values, f64x8) / step + fractions(words));
    const i32x8 most = i32x8{} + 127, least = i32x8{} - 127;
    codes = codes > most ? most : codes;
    codes = codes < least ? least : codes;
    return __builtin_convertvector(codes, i8x8);
}

INLINE i8x8 nearest_codes(f32x8 values, float step) {
    // a sum with 1.5 * 2^23 is rounded to whole numbers, ties to even; no quotient exceeds 127
    const f32x8 rounded = (values / step + 0x1.8p23f) - 0x1.8p23f;
    return __builtin_convertvector(__builtin_convertvector(rounded, i32x8), i8x8);
}

// `from`'s first `count` numbers, at most STEP, and zeros
template <typename Vector, typename T>
INLINE Vector some(const T* from, int64_t count) {
    if (count >= STEP) return load<Vector>(from);
    Vector values{};
    std::memcpy(&values, from, count * sizeof(T));
    return values;
}

template <typename Vector, typename T>
INLINE void put(T* to, Vector values, int64_t count) {
    std::memcpy(to, &values, std::min(count, STEP) * sizeof(T));
}

// Row `row` -> w, float32; zeros from dim on to a multiple of STEP
template <typename Dim>
INLINE void decode(const Stored& stored, int64_t row, float* w, Dim dim) {
    if (stored.format == INT8) {
        const auto* codes = reinterpret_cast<const int8_t*>(stored.weight) + row * dim;
        u16x8 step{};
        step[0] = stored.steps[row];
        const float scale = from_halves(step)[0];
        for (int64_t j = 0; j < dim; j += STEP)
            store(w + j, __builtin_convertvector(some<i8x8>(codes + j, dim - j), f32x8) * scale);
    } else {
        const auto* held = reinterpret_cast<const uint16_t*>(stored.weight) + row * dim;
        for (int64_t j = 0; j < dim; j += STEP) {
            const auto bits = some<u16x8>(held + j, dim - j);
            store(w + j, stored.format == FLOAT16 ? from_halves(bits) : from_bfloats(bits));
        }
    }
}

// w -> row `row`, by chance with a word for each number, to the nearest without words
template <typename Dim>
INLINE void encode(const Stored& stored, int64_t row, const float* w, const uint32_t* words, Dim dim) {
    if (stored.format == INT8) {
        auto* codes = reinterpret_cast<int8_t*>(stored.weight) + row * dim;
        u32x8 largest{};
        for (int64_t j = 0; j < dim; j += STEP) {
            const u32x8 size = some<u32x8>(w + j, dim - j) & 0x7fffffffu;
            largest = chosen(reinterpret_cast<u32x8>(size > largest), size, largest);
        }
        uint32_t most = 0;
        for (int64_t lane = 0; lane < STEP; ++lane) most = std::max<uint32_t>(most, largest[lane]);
        const float step = row_step(most);
        stored.steps[row] = to_halves(f32x8{} + step)[0];
        for (int64_t j = 0; j < dim; j += STEP) {
            const auto values = load<f32x8>(w + j);
            put(codes + j, words ? codes_by_chance(values, step, load<u32x8>(words + j)) : nearest_codes(values, step),
                dim - j);
        }
        return;
    }
    auto* held = reinterpret_cast<uint16_t*>(stored.weight) + row * dim;
    for (int64_t j = 0; j < dim; j += STEP) {
        const auto values = load<f32x8>(w + j);
        u16x8 bits;
        if (stored.format == FLOAT16)
            bits = words ? halves_by_chance(values, load<u32x8>(words + j)) : to_halves(values);
        else
            bits = words ? bfloats_by_chance(values, load<u32x8>(words + j)) : to_bfloats(values);
        put(held + j, bits, dim - j);
    }
}

// Memory of this thread for one row and the words of ROWS_TOGETHER rows, kept for the next call
struct Scratch {
    std::vector<float> row;
    std::vector<uint64_t> counters;
    std::vector<uint32_t> words;

    void fit(int64_t dim, int64_t blocks) {
        const auto counts = static_cast<size_t>(ROWS_TOGETHER * blocks + 2 * COUNTERS);
        row.resize(std::max(row.size(), static_cast<size_t>(rounded_up(dim, STEP))));
        counters.resize(std::max(counters.size(), 3 * counts));
        words.resize(std::max(words.size(), 4 * counts + STEP));
    }
};

// Settings of one update: of the optimizer, and of the words for a cast by chance
struct Update {
    Optimizer optimizer;
    Settings settings;
    State state;
    bool by_chance;
    uint64_t seed, number;
};

// Updates rows row_of(u) for start <= u < stop from gradient_of(u) (dim,); rows below `count` may be fetched ahead.
template <typename Dim, typename RowOf, typename GradientOf>
INLINE void update_range(const Stored& stored, const Update& update, int64_t start, int64_t stop, int64_t count,
                         const RowOf& row_of, const GradientOf& gradient_of, Dim dim) {
    thread_local Scratch scratch;
    const int64_t row_bytes = dim * (stored.format == INT8 ? 1 : 2), blocks = (dim + 3) / 4;
    scratch.fit(dim, blocks);
    float* w = scratch.row.data();
    Corrections corrections(update.settings);
    int64_t rows[ROWS_TOGETHER];
    for (int64_t first = start; first < stop; first += ROWS_TOGETHER) {
        const int64_t end = std::min(first + ROWS_TOGETHER, stop);
        for (int64_t u = first; u < end; ++u) rows[u - first] = row_of(u);
        if (update.by_chance)
            row_words(update.seed, update.number, rows, end - first, blocks, scratch.counters.data(),
                      scratch.words.data());
        const uint32_t* words = update.by_chance ? scratch.words.data() : nullptr;
        for (int64_t u = first; u < end; ++u) {
            if (u + AHEAD < count) {
                const int64_t later = row_of(u + AHEAD);
                for (int64_t byte = 0; byte < row_bytes; byte += 64)
                    __builtin_prefetch(stored.weight + later * row_bytes + byte, 1, 3);
                if (stored.steps) __builtin_prefetch(stored.steps + later, 1, 3);
                fetch_state(update.optimizer, update.state, later, dim);
            }
            const int64_t row = rows[u - first];
            const float* gradient = gradient_of(u);
            decode(stored, row, w, dim);
            step_row(update.optimizer, w, gradient, update.state, row, corrections, update.settings, dim);
            encode(stored, row, w, words, dim);
            if (words) words += 4 * blocks;
        }
    }
}

}  // namespace

// Rows of weight (height, dim), of format float16, bfloat16 or int8 with steps (height,), and their state at
// the distinct rows (count,) from gradient (count, dim), in place; state as `State` says. by_chance: cast by
// the words of seed and update. Returns 0, or -1 - place where a row is out of range; then nothing is written.
EXPORT int64_t autoembed_low_row_update(int64_t optimizer, int64_t format, uint8_t* weight, uint16_t* row_steps,
                                        const int64_t* rows, const float* gradient, float* moment,
                                        float* square, int32_t* touches, int64_t count, int64_t height,
                                        int64_t dim, float rate, float eps, float l2, double beta1,
                                        double beta2, int64_t by_chance, uint64_t seed, uint64_t number,
                                        int64_t threads) {
    for (int64_t u = 0; u < count; ++u)
        if (static_cast<uint64_t>(rows[u]) >= static_cast<uint64_t>(height)) return -1 - u;
    const Stored stored{static_cast<Format>(format), weight, row_steps};
    const Update update{static_cast<Optimizer>(optimizer), {rate, eps, l2, beta1, beta2},
                        {moment, square, touches}, by_chance != 0, seed, number};
    with_dim(dim, [&](auto width) INLINE_LAMBDA {
        for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            update_range(
                stored, update, start, stop, count, [&](int64_t u) INLINE_LAMBDA { return rows[u]; },
                [&](int64_t u) INLINE_LAMBDA { return gradient + u * width; }, width);
        });
    });
    return 0;
}

// The same at the rows of look-ups (count,), which may repeat: their gradients (count, dim) are summed on the
// way. count and height are below 2^32.
EXPORT int64_t autoembed_repeated_low_row_update(int64_t optimizer, int64_t format, uint8_t* weight,
                                                 uint16_t* row_steps, const int64_t* rows,
                                                 const float* gradient, float* moment, float* square,
                                                 int32_t* touches, int64_t count, int64_t height, int64_t dim,
                                                 float rate, float eps, float l2, double beta1, double beta2,
                                                 int64_t by_chance, uint64_t seed, uint64_t number,
                                                 int64_t threads) {
    thread_local SortedLookUps kept;
    SortedLookUps& sorted = kept;  // this thread's, in all threads of the loop
    const int64_t bad = sorted.sort(rows, count, height, threads);
    if (bad < 0) return bad;
    const Stored stored{static_cast<Format>(format), weight, row_steps};
    const Update update{static_cast<Optimizer>(optimizer), {rate, eps, l2, beta1, beta2},
                        {moment, square, touches}, by_chance != 0, seed, number};
    with_dim(dim, [&](auto width) INLINE_LAMBDA {
        sorted.for_rows_in_ranges(threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
            RowRoom<decltype(width)> room(width);
            float* sum = room.data();
            update_range(
                stored, update, start, stop, sorted.distinct,
                [&](int64_t u) INLINE_LAMBDA { return sorted.row(u); },
                [&](int64_t u) INLINE_LAMBDA {
                    sum_of_row(sorted, u, gradient, count, sum, width);
                    return sum;
                },
                width);
        });
    });
    return 0;
}

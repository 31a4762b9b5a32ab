// One optimizer step on rows stored in 16 or 8 bits: decoded, stepped in float32 and cast back, in one pass
// over each row. low_row_update.py and stochastic_round.py have the formulas.

#include <algorithm>
#include <vector>

#include "low_rows.h"
#include "philox.h"
#include "repeats.h"
#include "row_step.h"

namespace {


// 16 random bits for every number of up to TOGETHER rows below 2^32, of a width that the compiler knows: few rows
// at a time, so that the processor makes them while it waits for memory
template <typename Dim>
class RowChances {
    static_assert(Dim::value % 8 == 0);
    using Small = SmallRowWords<Dim::value / 8>;

  public:
    static constexpr int64_t TOGETHER = 2 * Small::ROWS;

    RowChances(uint64_t seed, uint64_t update, Dim) : made_(seed, update) {}

    // rows (count,), with room for TOGETHER -> (count, stride())
    INLINE const uint16_t* of(const int64_t* rows, int64_t count) {
        made_.make(rows, count, words_);
        return reinterpret_cast<const uint16_t*>(words_);
    }

    static constexpr int64_t stride() { return Dim::value; }

  private:
    Small made_;
    uint32_t words_[TOGETHER * Dim::value / 2];
};

// The same for any rows and width
template <>
class RowChances<int64_t> {
  public:
    static constexpr int64_t TOGETHER = 16;

    RowChances(uint64_t seed, uint64_t update, int64_t dim)
        : seed_(seed), update_(update), blocks_((dim + 7) / 8),
          counters_(static_cast<size_t>(3 * (TOGETHER * blocks_ + 2 * COUNTERS))),
          words_(static_cast<size_t>(4 * (TOGETHER * blocks_ + 2 * COUNTERS) + STEP)) {}

    const uint16_t* of(const int64_t* rows, int64_t count) {
        row_words(seed_, update_, rows, count, blocks_, counters_.data(), words_.data());
        return reinterpret_cast<const uint16_t*>(words_.data());
    }

    int64_t stride() const { return 8 * blocks_; }

  private:
    uint64_t seed_, update_;
    int64_t blocks_;
    std::vector<uint64_t> counters_;
    std::vector<uint32_t> words_;
};

// Settings of one update: of the optimizer, and of the random bits for a cast by chance
struct Update {
    Optimizer optimizer;
    Settings settings;
    State state;
    bool by_chance;
    uint64_t seed, number;
};

// Updates the source's rows start <= u < stop. What a row's step waits for comes from one operation after the
// other, so that some rows take each operation together.
template <Format FORMAT, typename Dim>
__attribute__((noinline)) void update_range(const Stored& stored, const Update& update, const Source& source,
                                            int64_t start, int64_t stop, Dim dim) {
    constexpr int64_t TOGETHER = RowChances<Dim>::TOGETHER;
    const int64_t row_bytes = dim * (FORMAT == INT8 ? 1 : 2), count = source.distinct();
    RowChances<Dim> row_chances(update.seed, update.number, dim);
    RowRoom<Dim, TOGETHER> values(dim), sums(dim);
    Corrections corrections(update.settings);
    int64_t rows[TOGETHER] = {};
    const float* gradients[TOGETHER];
    Steps steps[TOGETHER] = {};
    for (int64_t first = start; first < stop; first += TOGETHER) {
        const int64_t held = std::min(TOGETHER, stop - first);
        for (int64_t i = 0; i < held; ++i) {
            rows[i] = source.row(first + i);
            const int64_t ahead = first + i + AHEAD;
            if (ahead < count) {
                const int64_t later = source.row(ahead);
                for (int64_t byte = 0; byte < row_bytes; byte += 64)
                    __builtin_prefetch(stored.weight + later * row_bytes + byte, 1, 3);
                if (FORMAT == INT8) __builtin_prefetch(stored.steps + later, 1, 3);
                fetch_state(update.optimizer, update.state, later, dim);
            }
            gradients[i] = source.of(first + i, sums.row(i), dim);
        }
        const uint16_t* chances = update.by_chance ? row_chances.of(rows, held) : nullptr;
        for (int64_t i = 0; i < held; ++i) {
            float* w = values.row(i);
            decode<FORMAT, true>(stored, rows[i], w, dim);
            step_row(update.optimizer, w, gradients[i], update.state, rows[i], corrections, update.settings, dim);
        }
        if (FORMAT == INT8)
            for (int64_t i = 0; i < held; ++i) steps[i] = steps_of(values.row(i), dim);
        for (int64_t i = 0; i < held; ++i) {
            encode<FORMAT>(stored, rows[i], values.row(i), steps[i], chances, dim);
            if (chances) chances += row_chances.stride();
        }
    }
}

int64_t update_all(Format format, const Stored& stored, const Update& update, const int64_t* rows,
                   const float* gradient, int64_t count, int64_t height, int64_t dim, bool repeated,
                   int64_t threads) {
    int64_t result = 0;
    with_format(format, [&](auto kind) INLINE_LAMBDA {
        const auto updates = [&](auto width) INLINE_LAMBDA {
            const auto range = [&](const Source& source, int64_t start, int64_t stop) INLINE_LAMBDA {
                update_range<kind.value>(stored, update, source, start, stop, width);
            };
            result = for_sources(rows, gradient, count, height, repeated, threads, range);
        };
        // of a width that the compiler knows, bits are made of rows below 2^32
        if (height <= int64_t{1} << 32) with_dim(dim, updates);
        else updates(dim);
    });
    return result;
}

}  // namespace

// Rows of weight (height, dim), of format float16, bfloat16 or int8 with steps (height,), and their state at
// the distinct rows (count,) from gradient (count, dim), in place; state as `State` says. by_chance: cast by
// `row_chances` of seed and update. Returns 0, or -1 - place where a row is out of range; then nothing is written.
EXPORT int64_t autoembed_low_row_update(int64_t optimizer, int64_t format, uint8_t* weight, uint16_t* row_steps,
                                        const int64_t* rows, const float* gradient, float* moment,
                                        float* square, int32_t* touches, int64_t count, int64_t height,
                                        int64_t dim, float rate, float eps, float l2, double beta1,
                                        double beta2, int64_t by_chance, uint64_t seed, uint64_t number,
                                        int64_t threads) {
    const Update update{static_cast<Optimizer>(optimizer), {rate, eps, l2, beta1, beta2},
                        {moment, square, touches}, by_chance != 0, seed, number};
    return update_all(static_cast<Format>(format), {weight, row_steps}, update, rows, gradient, count, height, dim,
                      false, threads);
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
    const Update update{static_cast<Optimizer>(optimizer), {rate, eps, l2, beta1, beta2},
                        {moment, square, touches}, by_chance != 0, seed, number};
    return update_all(static_cast<Format>(format), {weight, row_steps}, update, rows, gradient, count, height, dim,
                      true, threads);
}

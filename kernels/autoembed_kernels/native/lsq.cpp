// Fake quantization with learned steps, of one grid per row or of a mixture of grids, in one pass over the rows.
// lsq.py has the formulas; the operations here come in the same order as in its torch version.

#include <vector>

#include "eights.h"

namespace {

constexpr int64_t BLOCK = 256;  // rows whose gradients of the offset are summed apart, for any number of threads

// steps (grids,) above zero; grids (grids, 3): lowest code, highest code, shift. which (count,): the row's grid, or
// none for the first; mixture (count, grids): the row's weight of every grid, or none.
struct Rows {
    const float *values, *steps, *offset, *grids;
    const int64_t* which;
    const float* mixture;
    int64_t count, widths, dim;
};

struct Grid {
    float step, lowest, highest, shift;

    Grid(const Rows& rows, int64_t number)
        : step(rows.steps[number]), lowest(rows.grids[3 * number]), highest(rows.grids[3 * number + 1]),
          shift(rows.grids[3 * number + 2]) {}

    INLINE f32x8 units(f32x8 values, f32x8 offset) const { return (values - offset) / step - shift; }

    INLINE f32x8 codes(f32x8 units) const {
        // to the ends of the range first, which are whole numbers: what is left is small enough to be rounded by
        // a sum, ties to even; NaN stays
        const f32x8 low = f32x8{} + lowest, high = f32x8{} + highest;
        f32x8 inside = units < low ? low : units;
        inside = inside > high ? high : inside;
        return (inside + 0x1.8p23f) - 0x1.8p23f;
    }

    INLINE f32x8 decoded(f32x8 codes, f32x8 offset) const { return (codes + shift) * step + offset; }
};

INLINE float sum_of(f32x8 v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

// Calls work(number, weight) for the grids of row n that have any weight
template <typename Work>
INLINE void for_grids(const Rows& rows, int64_t n, const Work& work) {
    if (!rows.mixture) return work(rows.which ? rows.which[n] : 0, 1.0f);
    for (int64_t p = 0; p < rows.widths; ++p) {
        const float weight = rows.mixture[n * rows.widths + p];
        if (weight != 0.0f) work(p, weight);
    }
}

// Rows of DIM = 2 or 4 columns lie 8 / DIM to a vector: their grids, lane by lane, for those from row n on
template <int DIM>
struct ShortRows {
    f32x8 step, lowest, highest, shift;

    INLINE ShortRows(const Rows& rows, int64_t n) {
        for (int lane = 0; lane < STEP; ++lane) {
            const int64_t number = rows.which ? rows.which[n + lane / DIM] : 0;
            step[lane] = rows.steps[number];
            lowest[lane] = rows.grids[3 * number];
            highest[lane] = rows.grids[3 * number + 1];
            shift[lane] = rows.grids[3 * number + 2];
        }
    }

    INLINE f32x8 codes(f32x8 units) const {
        f32x8 inside = units < lowest ? lowest : units;
        inside = inside > highest ? highest : inside;
        return (inside + 0x1.8p23f) - 0x1.8p23f;
    }
};

template <int DIM>
INLINE f32x8 repeated(const float* offset) {
    f32x8 found{};
    for (int lane = 0; lane < STEP; ++lane) found[lane] = offset[lane % DIM];
    return found;
}

// The rows of [start, stop) that fill whole vectors, as autoembed_lsq does; returns the first one left
template <int DIM>
INLINE int64_t quantize_short(const Rows& rows, int64_t start, int64_t stop, float* out) {
    const f32x8 zero = repeated<DIM>(rows.offset);
    for (; start + STEP / DIM <= stop; start += STEP / DIM) {
        const ShortRows<DIM> grid(rows, start);
        const f32x8 values = some<f32x8>(rows.values + start * DIM, STEP);
        const f32x8 codes = grid.codes((values - zero) / grid.step - grid.shift);
        put(out + start * DIM, (codes + grid.shift) * grid.step + zero, STEP);
    }
    return start;
}

// The same of the gradients, without that of the offset
template <int DIM>
INLINE int64_t short_gradients(const Rows& rows, int64_t start, int64_t stop, const float* gradient,
                               float* d_values, float* d_rows) {
    const f32x8 zero = repeated<DIM>(rows.offset), none{};
    for (; start + STEP / DIM <= stop; start += STEP / DIM) {
        const ShortRows<DIM> grid(rows, start);
        const f32x8 values = some<f32x8>(rows.values + start * DIM, STEP);
        const f32x8 given = some<f32x8>(gradient + start * DIM, STEP);
        const f32x8 units = (values - zero) / grid.step - grid.shift, codes = grid.codes(units);
        const i32x8 outside = (units < grid.lowest - grid.shift) | (units > grid.highest + grid.shift);
        const f32x8 of_step = (codes + (outside ? grid.shift : -units)) * given;
        put(d_values + start * DIM, given - (outside ? given : none), STEP);
        for (int row = 0; row < STEP / DIM; ++row) {
            const int at = row * DIM;
            float sum = of_step[at] + of_step[at + 1];
            if (DIM == 4) sum += of_step[at + 2] + of_step[at + 3];
            d_rows[start + row] = sum;
        }
    }
    return start;
}

// The first row whose grid there is not, or count
int64_t first_outside(const Rows& rows) {
    if (rows.which)
        for (int64_t n = 0; n < rows.count; ++n)
            if (static_cast<uint64_t>(rows.which[n]) >= static_cast<uint64_t>(rows.widths)) return n;
    return rows.count;
}

}  // namespace

// -> out (count, dim). offset (dim,). Returns 0, or -1 - place where which is out of range.
EXPORT int64_t autoembed_lsq(const float* values, const float* steps, const float* offset, const float* grids,
                             const int64_t* which, const float* mixture, int64_t count, int64_t widths,
                             int64_t dim, float* out, int64_t threads) {
    const Rows rows{values, steps, offset, grids, which, mixture, count, widths, dim};
    const int64_t bad = first_outside(rows);
    if (bad < count) return -1 - bad;
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        if (!mixture && dim == 4) start = quantize_short<4>(rows, start, stop, out);
        if (!mixture && dim == 2) start = quantize_short<2>(rows, start, stop, out);
        for (int64_t n = start; n < stop; ++n) {
            const float* row = values + n * dim;
            float* to = out + n * dim;
            for (int64_t j = 0; j < dim; j += STEP) put(to + j, f32x8{}, dim - j);
            for_grids(rows, n, [&](int64_t number, float weight) INLINE_LAMBDA {
                const Grid grid(rows, number);
                for (int64_t j = 0; j < dim; j += STEP) {
                    const auto zero = some<f32x8>(offset + j, dim - j);
                    const f32x8 codes = grid.codes(grid.units(some<f32x8>(row + j, dim - j), zero));
                    put(to + j, some<f32x8>(to + j, dim - j) + grid.decoded(codes, zero) * weight, dim - j);
                }
            });
        }
    });
    return 0;
}

// gradient (count, dim) -> d_values (count, dim); d_rows, the gradient of the row's step without sign and scale,
// (count,) or of every grid of a mixture (count, widths); d_mixture (count, widths) with a mixture; d_offset
// (blocks of 256 rows, dim), its sum in each block, with a scale (widths,) for each grid. Room for what is summed
// is zero before.
EXPORT int64_t autoembed_lsq_gradients(const float* gradient, const float* values, const float* steps,
                                       const float* offset, const float* grids, const float* scales,
                                       const int64_t* which, const float* mixture, int64_t count,
                                       int64_t widths, int64_t dim, float* d_values, float* d_rows,
                                       float* d_mixture, float* d_offset, int64_t threads) {
    const Rows rows{values, steps, offset, grids, which, mixture, count, widths, dim};
    const int64_t bad = first_outside(rows);
    if (bad < count) return -1 - bad;
    const auto row_gradients = [&](int64_t n, float* d_zero) INLINE_LAMBDA {
        const float *row = values + n * dim, *g = gradient + n * dim;
        float* to = d_values + n * dim;
        for_grids(rows, n, [&](int64_t number, float weight) INLINE_LAMBDA {
            const Grid grid(rows, number);
            const f32x8 below = f32x8{} + (grid.lowest - grid.shift), above = f32x8{} + (grid.highest + grid.shift);
            const f32x8 shift = f32x8{} + grid.shift, none{};
            f32x8 of_step{}, of_weight{};
            for (int64_t j = 0; j < dim; j += STEP) {
                const auto zero = some<f32x8>(offset + j, dim - j), given = some<f32x8>(g + j, dim - j);
                const f32x8 units = grid.units(some<f32x8>(row + j, dim - j), zero), codes = grid.codes(units);
                of_weight += grid.decoded(codes, zero) * given;
                const f32x8 weighed = given * weight;
                const i32x8 outside = (units < below) | (units > above);
                const f32x8 clipped = outside ? weighed : none;
                of_step += (codes + (outside ? shift : -units)) * weighed;
                put(to + j, some<f32x8>(to + j, dim - j) + (weighed - clipped), dim - j);
                if (d_zero) put(d_zero + j, some<f32x8>(d_zero + j, dim - j) + clipped * scales[number], dim - j);
            }
            if (mixture) {
                d_rows[n * widths + number] = sum_of(of_step);
                d_mixture[n * widths + number] = sum_of(of_weight);
            } else {
                d_rows[n] = sum_of(of_step);
            }
        });
    };
    for_rows((count + BLOCK - 1) / BLOCK, threads, [&](int64_t block) INLINE_LAMBDA {
        const int64_t stop = std::min((block + 1) * BLOCK, count);
        int64_t n = block * BLOCK;
        if (!mixture && !d_offset && dim == 4) n = short_gradients<4>(rows, n, stop, gradient, d_values, d_rows);
        if (!mixture && !d_offset && dim == 2) n = short_gradients<2>(rows, n, stop, gradient, d_values, d_rows);
        for (; n < stop; ++n) row_gradients(n, d_offset ? d_offset + block * dim : nullptr);
    });
    return 0;
}

// A choice for every group at a price for a byte, where neighbours that choose alike share what begins a run.
// cheapest_runs.py has the formula.

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

struct Groups {
    const double* losses;
    const double* sizes;
    const double* run;
    const uint8_t* joins;
    const uint8_t* is_first;  // of its field: it goes on with nothing
    int64_t groups, choices;
};

// The best at one price; `goes_on` (groups, choices) and `came_from` (groups,) are room to work in
INLINE double cheapest(const Groups& of, double price, uint8_t* goes_on, int64_t* came_from, double* total,
                       int64_t* chosen) {
    const int64_t choices = of.choices;
    std::fill_n(total, choices, 0.0);
    for (int64_t g = 0; g < of.groups; ++g) {
        const double *losses = of.losses + g * choices, *sizes = of.sizes + g * choices, *run = of.run + g * choices;
        const int64_t best = std::min_element(total, total + choices) - total;
        const double least = total[best];
        uint8_t* here = goes_on + g * choices;
        came_from[g] = best;
        for (int64_t c = 0; c < choices; ++c) {
            const double begun = least + price * run[c];
            const bool joined = !of.is_first[g] && of.joins[c] && total[c] <= begun;
            here[c] = joined;
            total[c] = (joined ? total[c] : begun) + losses[c] + price * sizes[c];
        }
    }
    int64_t at = std::min_element(total, total + choices) - total;
    const double value = total[at];
    for (int64_t g = of.groups - 1; g >= 0; --g) {
        chosen[g] = at;
        at = goes_on[g * choices + at] ? at : came_from[g];
    }
    return value;
}

}  // namespace

// losses, sizes, run (groups, choices); joins (choices,); is_first (groups,); prices (count,) -> chosen (count, groups)
// and values (count,)
EXPORT int64_t autoembed_cheapest_runs(const double* losses, const double* sizes, const double* run,
                                       const uint8_t* joins, const uint8_t* is_first, int64_t groups, int64_t choices,
                                       const double* prices, int64_t count, int64_t* chosen, double* values,
                                       int64_t threads) {
    const Groups of{losses, sizes, run, joins, is_first, groups, choices};
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        std::vector<uint8_t> goes_on(groups * choices);
        std::vector<int64_t> came_from(groups);
        std::vector<double> total(choices);
        for (int64_t p = start; p < stop; ++p)
            values[p] = cheapest(of, prices[p], goes_on.data(), came_from.data(), total.data(), chosen + p * groups);
    });
    return 0;
}

"""The best choices under one budget, from a good solution and its price of a byte.

Partial plans grow group by group. One is dropped where another with the same last choice has no more bytes
and no more loss, and where even its best completion cannot beat the solution at hand: for a byte's price mu,

    loss + mu bytes + (least loss + mu bytes of the groups to come) - mu budget

is below the loss of every completion within the budget (the solver's bound, for the rest of the plan). With
a good solution and a good price few are left. Those are dropped, too, that could beat it by a share of
`tolerance` at most, which leaves far fewer: what stands at the end is the best but for that share, or with
tolerance 0 the optimum. Where more than `width` are left the most promising go on, and the result is better
than before or the same, no longer surely the best.
"""

import numpy as np
import numpy.typing as npt

from autoembed.joint.problem import Numbers, Problem, Whole

WIDTH = 8192  # partial plans kept of one group: epinions' plans are no better with sixteen times as many


def repaired(
    problem: Problem, budget: int, chosen: Whole, price: float, *, tolerance: float = 0.0, width: int = WIDTH
) -> tuple[Whole, bool]:
    """Choices (G,) no worse than `chosen` within the budget, and whether none but these are better.

    `chosen` must be within the budget; `price` is the byte's at which the bound is highest. Others may have
    as little as (1 - tolerance) of the loss of `chosen`.
    """
    groups = len(problem.losses)
    to_come = _completions(problem, problem.losses, price)
    least_bytes = _completions(problem, np.where(np.isfinite(problem.losses), 0.0, np.inf), 1.0)
    incumbent = problem.loss_of(chosen)
    needed = incumbent * (1 - max(tolerance, 1e-12))  # rounding of the sums is no improvement
    size, loss = np.array([problem.fixed], dtype=np.int64), np.zeros(1)
    last = np.zeros(1, dtype=np.int64)
    trail: list[tuple[Whole, Whole]] = []  # of every group, the plan that each one grew from, and its choice
    was_cut = False
    for g in range(groups):
        bound = loss + price * (size - budget)
        source, choice, begins = _going_on(problem, g, last, needed - bound, price, to_come[g + 1])
        sizes = size[source] + problem.sizes[g, choice] + begins * problem.run[g, choice]
        fits = sizes + least_bytes[g + 1, choice] <= budget
        source, choice, sizes = source[fits], choice[fits], sizes[fits]
        if len(source) == 0:
            return chosen, not was_cut
        size, loss = sizes, loss[source] + problem.losses[g, choice]
        bound = loss + price * size + to_come[g + 1, choice]
        kept = _undominated(size, loss, choice)
        if len(kept) > width:
            was_cut = True
            kept = kept[np.argpartition(bound[kept], width)[:width]]
        size, loss, last = size[kept], loss[kept], choice[kept]
        trail.append((source[kept], last))
    best = int(loss.argmin())
    if not loss[best] < incumbent:
        return chosen, not was_cut
    found = np.empty(groups, dtype=np.int64)
    for g in reversed(range(groups)):
        sources, made = trail[g]
        found[g], best = made[best], sources[best]
    return found, not was_cut


def _going_on(
    problem: Problem, g: int, last: Whole, room: Numbers, price: float, to_come: Numbers
) -> tuple[Whole, Whole, npt.NDArray[np.bool_]]:
    """Which partial plans (P,) go on with which choice of group g, and whether it begins a run.

    Those whose loss and price of bytes, with what is `to_come` (C,) at least, are below `room` (P,). Few are:
    they are listed, and not looked for among all.
    """
    goes_on = problem.losses[g] + price * problem.sizes[g] + to_come
    begin = goes_on + price * problem.run[g]
    order = np.argsort(begin, kind="stable")
    counts = np.searchsorted(begin[order], room)
    source = np.repeat(np.arange(len(last)), counts)
    choice = order[np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)]
    if not g or problem.field[g] != problem.field[g - 1]:
        return source, choice, np.ones(len(source), dtype=bool)
    begins = ~problem.joins[last[source]] | (choice != last[source])
    joined = np.flatnonzero(problem.joins[last] & (goes_on[last] < room))
    source, choice = np.append(source[begins], joined), np.append(choice[begins], last[joined])
    return source, choice, np.arange(len(source)) < len(source) - len(joined)


def _completions(problem: Problem, losses: Numbers, price: float) -> Numbers:
    """(G + 1, C): the least loss + price * bytes of groups g, g + 1, ... behind choice c of group g - 1."""
    groups, choices = losses.shape
    least = np.zeros((groups + 1, choices))
    for g in reversed(range(groups)):
        goes_on = losses[g] + price * problem.sizes[g] + least[g + 1]
        begin = np.min(goes_on + price * problem.run[g])
        joins = problem.joins & bool(g and problem.field[g] == problem.field[g - 1])
        least[g] = np.where(joins, np.minimum(goes_on, begin), begin)
    return least


def _undominated(size: Whole, loss: Numbers, choice: Whole) -> Whole:
    """Those that no other with the same choice beats in both bytes and loss; of equals the first."""
    order = np.lexsort((loss, size, choice))
    rank = np.empty(len(order), dtype=np.int64)
    rank[np.argsort(loss, kind="stable")] = np.arange(len(order))
    # of ranks that fall by more than all of them from choice to choice, the least so far is that of a choice
    key = rank[order] - choice[order] * len(order)
    is_least = np.ones(len(order), dtype=bool)
    is_least[1:] = key[1:] < np.minimum.accumulate(key)[:-1]
    return np.asarray(order[is_least])

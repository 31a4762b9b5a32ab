"""Choices for a budget of the exported file, to the byte, and the smallest plan of all.

The solver adds up what groups and runs take. Two parts of a file do not add up: its header, which is longer
for larger numbers and where there are scales, and the padding in front of every segment where the hardware
profile aligns them. The solver counts the most of both. What its plan really takes is known once it is there:
where that is too much, its allowance is lowered, and where it is less than was counted it is raised, for as
long as files stay within the budget.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from autoembed.joint.choices import Choice, allowed, fields_of, row_bytes, run_bytes
from autoembed.joint.groups import Group
from autoembed.joint.knapsack import NEGLIGIBLE, smallest, solve
from autoembed.joint.problem import Numbers, Problem, Solution, Whole
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import Fields, fields_bytes, stored_plan
from autoembed.plan import TENSORS, directory_bytes, header_bytes, plan_bytes

MATTERS = 0.005  # part of a budget that a header is shorter by, above which that is spent
RAISES = 16  # of the allowance in a round, where segments are padded


class FileBudget:
    """The groups of a table and what each may be stored as, in bytes of the file."""

    def __init__(self, spec: TableSpec, groups: Sequence[Group], choices: Sequence[Choice]) -> None:
        self.spec, self.groups, self.choices = spec, groups, choices
        profile = spec.profile
        self.allowed = np.array([[allowed(g, c) for c in choices] for g in groups])
        self.sizes = np.array([[row_bytes(profile, g, c) for c in choices] for g in groups])
        self.is_padded = profile.table_align > 1

    def fields_of(self, chosen: Whole) -> Fields:
        return fields_of(self.spec, self.groups, [self.choices[number] for number in chosen])

    def bytes_of(self, chosen: Whole) -> int:
        """Of the exported file in which every group (G,) is stored as chosen."""
        return fields_bytes(self.spec, self.fields_of(chosen))

    def problem(self, losses: Numbers, *, most: bool = True) -> Problem:
        """What the solver is asked, counting the most that a file may take, or the least.

        losses (G, C), infinite where a choice is forbidden.
        """
        fixed = self._fixed
        if not most:
            fixed += self._header(self.smallest) - self._longest_header
        return self._problem(losses, fixed, padding=most)

    def best(self, losses: Numbers, budget: int) -> Solution:
        """The best plan found whose file is within the budget; `smallest` where the solver finds none.

        Raises ValueError where that is larger, too.
        """
        found = self._solved(losses, budget)
        if found is None:
            size = self.bytes_of(self.smallest)
            if size > budget:
                raise ValueError(
                    f"a budget of {budget:,} bytes is below the smallest plan of these fields, "
                    f"{size:,} bytes; raise the budget"
                )
            kept = losses[np.arange(len(self.groups)), self.smallest]
            loss = float(np.where(np.isfinite(kept), kept, 0.0).sum())
            found = Solution(budget, self.smallest, size, loss, 0.0, 0.0)
        return replace(found, budget=budget)

    @cached_property
    def smallest(self) -> Whole:
        """The plan (G,) of least bytes of those that are the least in some way."""
        losses = np.where(self.allowed, 0.0, np.inf)
        found = [smallest(self._problem(losses, 0, padding=padding)) for padding in {False, self.is_padded}]
        # or everything reads row 0, the first choice
        is_own = np.array([choice.sharing == "own" for choice in self.choices])
        least_row = np.where(self.allowed & is_own, self.sizes, np.iinfo(np.int64).max).argmin(1)
        first = np.array([group.start == 0 for group in self.groups])
        found.append(np.where(first, least_row, 0))
        # padding hides what a form saves, and a plan without scales has a shorter header
        for number in np.flatnonzero(is_own):
            found += [np.full(len(self.groups), number), np.where(first, number, 0)]
        return min(found, key=self.bytes_of)

    def _problem(self, losses: Numbers, fixed: int, *, padding: bool) -> Problem:
        return Problem(
            losses=losses,
            sizes=self.sizes,
            run=self._runs[padding],
            joins=np.array([choice.sharing != "one" for choice in self.choices]),
            field=np.array([group.field for group in self.groups]),
            fixed=fixed,
        )

    def _solved(self, losses: Numbers, budget: int) -> Solution | None:
        problem = self.problem(losses)
        found = self._lowered(problem, budget)
        if found is None:
            found = self._lowered(self.problem(losses, most=False), budget)
        elif self.is_padded:
            found = self._raised(problem, budget, found)
        else:
            # what its header is shorter by, or could be at most; the bound is convex in the budget
            shorter = problem.bytes_of(found.chosen) - self.bytes_of(found.chosen)
            most = self._longest_header - self._header(self.smallest)
            bound = found.bound - found.shadow_price * most
            if most > MATTERS * budget:
                found = self._best_of(problem, {budget + shorter, budget + most}, budget, found)
            return replace(found, bound=min(bound, found.loss))
        if found is None:
            return None
        (least,) = solve(self.problem(losses, most=False), [budget], negligible=NEGLIGIBLE)
        return replace(found, bound=min(least.bound, found.loss))

    def _best_of(self, problem: Problem, allowances: Iterable[int], budget: int, found: Solution) -> Solution:
        """Of `found` and the allowances' plans, those whose files are within the budget, the best."""
        solved = solve(problem, sorted(allowances), negligible=NEGLIGIBLE)
        fitting = [solution for solution in solved if self.bytes_of(solution.chosen) <= budget]
        return min([found, *fitting], key=lambda solution: solution.loss)

    def _lowered(self, problem: Problem, budget: int) -> Solution | None:
        """The solver's plan, asked for less until its file is within the budget."""
        allowance, bound = budget, None
        while True:
            try:
                (solution,) = solve(problem, [allowance], negligible=NEGLIGIBLE)
            except ValueError:
                return None
            bound = solution.bound if bound is None else bound
            excess = self.bytes_of(solution.chosen) - budget
            if excess <= 0:
                # the bound is of the budget, not of what a longer header left of it
                return replace(solution, bound=bound)
            # whatever else fits has fewer bytes than this plan, or the same with a shorter header
            allowance = min(allowance - excess, solution.bytes - 1)

    def _raised(self, problem: Problem, budget: int, found: Solution) -> Solution:
        """The best plan of larger allowances whose files are within the budget.

        A larger one may fit where a smaller one does not, for other segments are padded otherwise.
        """
        padding = problem.bytes_of(found.chosen) - self.bytes_of(found.chosen)
        reach = budget + np.linspace(0, 2 * padding, RAISES + 1)[1:]
        for _ in range(2):  # and again about the best
            allowances = np.unique(np.maximum(reach.astype(np.int64), budget)).tolist()
            best = self._best_of(problem, allowances, budget, found)
            if best.loss >= found.loss:
                break
            found, spread = best, 2 * padding / RAISES
            reach = best.budget + np.linspace(-spread, spread, RAISES + 1)[1:-1]
        return found

    @cached_property
    def _runs(self) -> dict[bool, Whole]:
        """(G, C) bytes of a run that begins there, by whether padding counts."""
        fields = range(len(self.spec.stats.fields))
        by_field = {
            padding: np.array(
                [[run_bytes(self.spec, field, c, padding=padding) for c in self.choices] for field in fields]
            )
            for padding in (False, True)
        }
        owner = np.array([group.field for group in self.groups])
        return {padding: runs[owner] for padding, runs in by_field.items()}

    @cached_property
    def _widest(self) -> Whole:
        number = max(n for n, c in enumerate(self.choices) if c.sharing == "own" and not c.parts)
        return np.full(len(self.groups), number)

    @cached_property
    def _fixed(self) -> int:
        """Header, directory header and field entries, of the plan that keeps everything."""
        fields = tuple(replace(field, segments=()) for field in self.fields_of(self._widest))
        return self._longest_header + directory_bytes(stored_plan(self.spec.profile, fields))

    @cached_property
    def _longest_header(self) -> int:
        """Of the plan that keeps everything, with as many scales as there may be."""
        profile = self.spec.profile
        size = plan_bytes(stored_plan(profile, self.fields_of(self._widest)))
        parts = max(len(choice.columns) for choice in self.choices)
        sizes = dict.fromkeys(TENSORS, 0) | {"index": size.index, "payload": size.payload}
        if profile.row_scale_bytes == 0:
            sizes["scales"] = 4 * parts * len(self.groups)
        return header_bytes(sizes)

    def _header(self, chosen: Whole) -> int:
        return plan_bytes(stored_plan(self.spec.profile, self.fields_of(chosen))).header

"""Plans for budgets of the file: within them to the byte, near to them, down to the smallest plan."""

import numpy as np
import pytest

from autoembed.joint.choices import menu
from autoembed.joint.file_budget import FileBudget
from autoembed.joint.groups import groups_of
from autoembed.joint.knapsack import solve
from autoembed.joint.planner import smallest_bytes
from autoembed.joint.problem import Numbers
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import fields_bytes, uniform_fields
from autoembed.plan import PROFILES
from autoembed.stats import FieldStats, Stats

FIELDS = ((900, 300), (60, 40, 12), (30,) * 40, (4,) * 30, (1,), (20_000,))


def files(profile: str, rows: tuple[int, ...], dim: int = 16) -> FileBudget:
    stats = Stats(tuple(FieldStats(f"f{i}", np.arange(n, 0, -1)) for i, n in enumerate(rows)))
    spec = TableSpec(stats, dim, PROFILES[profile])
    return FileBudget(spec, groups_of(stats), menu(spec))


def losses(of: FileBudget, seed: int) -> Numbers:
    random = np.random.default_rng(seed)
    found = random.exponential(size=of.sizes.shape) / (1 + of.sizes)
    return np.where(of.allowed, found, np.inf)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("rows", FIELDS, ids=lambda rows: f"{len(rows)}x{rows[0]}")
def test_every_budget_from_the_smallest_plan_on_has_a_plan_within_it(
    profile: str, rows: tuple[int, ...]
) -> None:
    of = files(profile, rows)
    floor = of.bytes_of(of.smallest)
    assert floor == smallest_bytes(of.spec)
    asked = losses(of, 1)
    for budget in (floor, floor + 4, floor + 9, floor + 128, 2 * floor):
        found = of.best(asked, budget)
        assert of.bytes_of(found.chosen) <= budget == found.budget
        assert of.allowed[np.arange(len(of.groups)), found.chosen].all()
        assert found.bound <= found.loss * (1 + 1e-9)
    with pytest.raises(ValueError, match=f"below the smallest plan of these fields, {floor:,} bytes"):
        of.best(asked, floor - 1)


@pytest.mark.parametrize("profile", PROFILES)
def test_no_plan_of_one_form_is_smaller_than_the_smallest(profile: str) -> None:
    for rows in FIELDS:
        for dim in (4, 16):
            of = files(profile, rows, dim)
            floor = of.bytes_of(of.smallest)
            for number, choice in enumerate(of.choices):
                if choice.sharing == "own":
                    assert floor <= of.bytes_of(np.full(len(of.groups), number))
                    first = np.array([group.start == 0 for group in of.groups])
                    assert floor <= of.bytes_of(np.where(first, number, 0))
            assert floor <= fields_bytes(of.spec, uniform_fields(of.spec, 32))


@pytest.mark.parametrize("rows", [(900, 300), (60, 40, 12), (30,) * 10, (20_000,)])
def test_what_a_header_is_shorter_by_is_spent(rows: tuple[int, ...]) -> None:
    of = files("packed", rows)
    asked = losses(of, 1)
    problem, floor = of.problem(asked), of.bytes_of(of.smallest)
    for budget in (floor + 16, floor + 60, floor + 200, 2 * floor, 8 * floor):
        found = of.best(asked, budget)
        tried = [solve(problem, [budget + more])[0] for more in range(0, 88, 8) if budget + more > floor + 64]
        fitting = [solution.loss for solution in tried if of.bytes_of(solution.chosen) <= budget]
        assert found.loss <= min(fitting, default=np.inf) * (1 + 1e-9)
        assert found.bound <= min(fitting, default=np.inf) * (1 + 1e-9)


@pytest.mark.parametrize(("profile", "rows"), [("fbgemm-cpu", (2000,) * 6), ("fbgemm-gpu", (5000, 300, 40))])
def test_padding_that_is_not_there_is_spent(profile: str, rows: tuple[int, ...]) -> None:
    of = files(profile, rows)
    asked = losses(of, 2)
    problem = of.problem(asked)
    for budget in (6_000, 20_000):
        found = of.best(asked, budget)
        tried = [solve(problem, [int(budget * share)])[0] for share in np.linspace(1.0, 1.5, 16)]
        fitting = [solution.loss for solution in tried if of.bytes_of(solution.chosen) <= budget]
        assert found.loss <= min(fitting) * 1.05
        assert found.bound <= min(fitting)
        assert of.bytes_of(found.chosen) > 0.93 * budget

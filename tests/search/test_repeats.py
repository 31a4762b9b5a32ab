import pytest

from autoembed.front import make_points
from autoembed.record import Role, TrialRecord
from autoembed.search.repeats import NEAR, wanted_repeats


def trial(
    number: int,
    candidate: str,
    total: int,
    auc: float,
    seed: int = 0,
    role: Role = "search",
    test: float = 0.5,
) -> TrialRecord:
    return TrialRecord(
        number, candidate, candidate, {}, seed, role, "complete", {"total": total},
        valid_auc=auc, valid_logloss=1 - auc, test_auc=test, test_logloss=0.5, seconds=1.0,
    )  # fmt: skip


RECORDS = [
    trial(0, "full", 1000, 0.80, role="reference"),
    trial(1, "near baseline", 500, 0.79 - NEAR / 2, role="baseline"),
    trial(2, "far baseline", 500, 0.70, role="baseline"),
    trial(3, "good", 400, 0.79),
    trial(4, "dominated", 450, 0.785, test=0.99),
    trial(5, "small", 100, 0.75),
    trial(6, "far below every budget", 74, 0.5),
]


def wanted(records: list[TrialRecord], seeds: int = 2) -> list[tuple[str, int]]:
    tried = {(record.candidate, record.seed) for record in records}
    pairs = wanted_repeats(make_points(records), tried, "auc", (500, 150), range(seeds))
    return [(point.candidate, seed) for point, seed in pairs]


def names(records: list[TrialRecord], seeds: int = 2) -> list[str]:
    return [candidate for candidate, _ in wanted(records, seeds)]


def test_repeats_go_to_the_reference_the_front_and_near_baselines() -> None:
    assert names(RECORDS) == ["full", "small", "good", "near baseline"]


def test_a_front_point_far_below_every_budget_gets_no_repeats() -> None:
    assert "far below every budget" not in names(RECORDS)


def test_the_test_split_does_not_decide_repeats() -> None:
    assert "dominated" not in names(RECORDS)


def test_seeds_that_ran_or_failed_are_not_wanted_again() -> None:
    failed = TrialRecord(7, "good", "good", {}, 1, "repeat", "failed", reason="no luck")
    records = [*RECORDS, trial(8, "full", 1000, 0.8, seed=1, role="repeat"), failed]
    assert names(records) == ["small", "near baseline"]


def test_a_point_that_enters_the_front_by_a_repeat_is_wanted_too() -> None:
    assert "dominated" in names([*RECORDS, trial(8, "good", 400, 0.77, seed=1, role="repeat")])


def test_one_seed_wants_no_repeats() -> None:
    assert names(RECORDS, seeds=1) == []


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_every_wanted_point_gets_all_seeds(seeds: int) -> None:
    for candidate in ("full", "good", "small"):
        assert [seed for name, seed in wanted(RECORDS, seeds) if name == candidate] == [*range(1, seeds)]


def test_seeds_go_first_to_points_that_are_not_told_from_a_neighbour() -> None:
    told_apart = [
        *(trial(20 + seed, "full", 1000, 0.80 + seed * 1e-5, seed=seed, role="reference") for seed in (0, 1)),
        *(trial(30 + seed, "small", 100, 0.70 + seed * 1e-5, seed=seed) for seed in (0, 1)),
        *(trial(40 + seed, "one", 300, 0.750 + seed * 1e-3, seed=seed) for seed in (0, 1)),
        *(trial(50 + seed, "other", 400, 0.751 + seed * 1e-3, seed=seed) for seed in (0, 1)),
    ]
    order = wanted(told_apart, seeds=4)
    assert {name for name, _ in order[:4]} == {"one", "other"}
    assert [seed for _, seed in order[:4]] == [2, 2, 3, 3]  # a seed each before the next
    assert {name for name, _ in order[4:]} == {"full", "small"}

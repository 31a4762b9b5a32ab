"""The front: chosen on validation, reported on test, and equal to brute force."""

import csv
import io
import itertools
import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.front import (
    FrontRecord,
    PickError,
    ReferencePoint,
    choose,
    from_json,
    front_record,
    hypervolume,
    make_points,
    pareto,
    pick_budget,
    pick_knee,
    pick_max_auc_drop,
    pick_trial,
    to_csv,
    to_json,
)
from autoembed.front.files import COLUMNS
from autoembed.front.point import reference_trials
from autoembed.record import TrialRecord


def trial(number, candidate, total, valid_auc, test_auc=None, *, seed=0, role="search", **changes):
    """A made-up complete trial; logloss falls as AUC rises."""
    test_auc = valid_auc if test_auc is None else test_auc
    record = TrialRecord(
        number=number,
        candidate=candidate,
        method=candidate.split("(")[0],
        parameters={"name": candidate},
        seed=seed,
        role=role,
        state="complete",
        bytes={"payload": total - 100, "scales": 8, "index": 52, "header": 40, "total": total},
        valid_auc=valid_auc,
        valid_logloss=1 - valid_auc,
        test_auc=test_auc,
        test_logloss=1 - test_auc,
        seconds=10.0,
    )
    return replace(record, **changes)


def study() -> list[TrialRecord]:
    """Full precision of 3 seeds, four candidates; 'c' is dominated by 'b'."""
    return [
        trial(0, "full", 160_000, 0.800, 0.790, seed=0, role="reference"),
        trial(1, "full", 160_000, 0.802, 0.793, seed=1, role="repeat"),
        trial(2, "full", 160_000, 0.804, 0.796, seed=2, role="repeat"),
        trial(3, "a", 10_000, 0.790, 0.780),
        trial(4, "b", 20_000, 0.7995, 0.7895),
        trial(5, "b", 21_000, 0.8018, 0.7925, seed=1, role="repeat"),
        trial(6, "c", 30_000, 0.795, 0.799, role="baseline"),
        trial(7, "d", 40_000, 0.8023, 0.788),
        trial(8, "huge", 1, 0.9, state="rejected", seconds=0.0, reason="above the budget"),
        trial(9, "bad", 1, 0.9, state="failed", seconds=4.0, reason="diverged"),
    ]


coordinates = st.tuples(st.integers(1, 12), st.integers(0, 8))


def points_at(places):
    """Points at (bytes, quality) in tenths of AUC."""
    return make_points(trial(i, f"p{i}", 1000 * b, q / 10) for i, (b, q) in enumerate(places))


@settings(deadline=None, max_examples=50)
@given(st.lists(coordinates, max_size=12), st.sampled_from(["auc", "logloss"]))
def test_the_front_is_what_no_point_beats(places, objective):
    points = points_at(places)

    def beats(p, q):
        pq, qq = p.quality("valid", objective), q.quality("valid", objective)
        return p.bytes <= q.bytes and pq >= qq and (p.bytes < q.bytes or pq > qq)

    unbeaten = [q for q in points if not any(beats(p, q) for p in points)]
    front = pareto(points, objective)
    assert {(p.bytes, p.value("valid", objective)) for p in front} == {
        (p.bytes, p.value("valid", objective)) for p in unbeaten
    }
    assert len({p.bytes for p in front}) == len(front), "of equal points one stays"
    for small, large in itertools.pairwise(front):
        assert small.bytes < large.bytes
        assert small.quality("valid", objective) < large.quality("valid", objective)


@settings(deadline=None, max_examples=50)
@given(st.lists(coordinates, min_size=1, max_size=10), st.sampled_from(["auc", "logloss"]))
def test_hypervolume_equals_counted_cells(places, objective):
    points = points_at([(min(b, 9), q) for b, q in places])
    value = 0.2 if objective == "auc" else 0.8
    origin = ReferencePoint(9000, value, objective, "valid", decades=2.0, height=0.5)
    edges = sorted({9000, *(p.bytes for p in points)})
    area = 0.0
    for low, high in itertools.pairwise(edges):
        best = max((p.value("valid", "auc") for p in points if p.bytes <= low), default=0.2)
        area += math.log10(high / low) * max(best - 0.2, 0.0)
    assert hypervolume(points, origin) == pytest.approx(area / (2.0 * 0.5), abs=1e-12)
    assert hypervolume(pareto(points, objective), origin) == pytest.approx(hypervolume(points, origin))


def test_hypervolume_of_a_worked_example():
    points = make_points([trial(0, "a", 100, 0.795), trial(1, "b", 1_000, 0.800), trial(2, "c", 10_000, 0.7)])
    origin = ReferencePoint(10_000, 0.79, "auc", "valid", decades=3.0, height=0.01)
    # 2 decades up to .795, 1 decade from there to .800, over a box of 3 decades by .01; c adds nothing
    assert hypervolume(points, origin) == pytest.approx((2 * 0.005 + 1 * 0.005) / 0.03)


def test_the_default_reference_point_stands_a_hundredth_below_full_precision():
    record = front_record(study(), [], "auc")
    assert record.reference_point == ReferencePoint(160_000, 0.802 - 0.01, "auc", "valid")
    by_logloss = front_record(study(), [], "logloss").reference_point
    assert by_logloss.value == pytest.approx(0.198 + 0.01)


def test_a_point_gathers_the_seeds_of_a_candidate():
    points = {point.candidate: point for point in make_points(study())}
    assert set(points) == {"full", "a", "b", "c", "d"}, "rejected and failed trials are no points"
    b = points["b"]
    assert b.bytes == 21_000, "a budget must hold for every seed"
    assert b.parts["payload"] == 20_900 and b.trials == (4, 5) and b.role == "search"
    assert b.metrics["valid_auc"].mean == pytest.approx((0.7995 + 0.8018) / 2)
    assert points["full"].role == "reference" and points["c"].role == "baseline"
    assert points["a"].metrics["test_auc"].low is None, "one seed has no interval"


def test_losses_pair_the_same_seeds():
    b = next(point for point in make_points(study()) if point.candidate == "b")
    loss = b.losses["valid_auc"]
    assert loss.count == 2
    assert loss.mean == pytest.approx((0.0005 + 0.0002) / 2), "not the difference of unpaired means"
    assert b.losses["test_logloss"].mean == pytest.approx(0.0005), "positive is worse for logloss too"


def test_seeds_without_a_reference_of_their_own_do_not_pair():
    records = [trial(0, "full", 100, 0.8, seed=7, role="reference"), trial(1, "a", 50, 0.79, seed=3)]
    a = make_points(records)[0]
    assert a.losses == {}
    assert pick_max_auc_drop(make_points(records), 0.02).point.candidate == "a", "then means are compared"


def test_a_reference_that_was_trained_again_pairs_with_all_its_seeds():
    first, *others = study()
    again = [*others, replace(first, number=90)]
    assert {seed: trial.number for seed, trial in reference_trials(again).items()} == {0: 90, 1: 1, 2: 2}
    losses = [
        {point.candidate: point.losses for point in make_points(records)} for records in (study(), again)
    ]
    assert losses[0] == losses[1]


def test_one_seed_that_ran_twice_counts_once():
    point = make_points([trial(3, "a", 10, 0.5), trial(5, "a", 10, 0.9)])[0]
    assert point.trials == (3,)


@settings(deadline=None, max_examples=50)
@given(st.randoms(use_true_random=False), st.sampled_from(["auc", "logloss"]))
def test_test_metrics_never_influence_the_front_or_a_pick(shuffler: random.Random, objective):
    records = study()
    values = [(r.test_auc, r.test_logloss) for r in records]
    shuffler.shuffle(values)
    shuffled = [
        replace(r, test_auc=auc, test_logloss=loss) for r, (auc, loss) in zip(records, values, strict=True)
    ]
    budgets = [10_000, 25_000, 160_000]
    one, other = front_record(records, budgets, objective), front_record(shuffled, budgets, objective)

    def chosen(record: FrontRecord):
        answers = (*record.budgets, *record.iso_accuracy, *record.iso_memory)
        picks = [answer.pick for answer in answers] + [record.knee]
        named = [pick and (pick.point.candidate, pick.trial, pick.reason) for pick in picks]
        return record.front, named, record.hypervolume, record.reference_point

    assert chosen(one) == chosen(other)


def test_a_budget_picks_the_best_that_fits_and_its_best_seed():
    points = make_points(study())
    assert pick_budget(points, 10_000, "auc").point.candidate == "a"
    assert pick_budget(points, 20_999, "auc").point.candidate == "a", "one seed of b is too large"
    pick = pick_budget(points, 21_000, "auc")
    assert (pick.point.candidate, pick.trial) == ("b", 5)
    assert "best valid auc 0.80065 of 2 candidates within 21000 bytes" in pick.reason
    assert pick_budget(points, 10**9, "logloss").point.candidate == "d"


def test_a_budget_below_everything_names_the_smallest_candidate():
    with pytest.raises(PickError, match=r"no candidate fits 9999 bytes.*a, needs 10000 bytes"):
        pick_budget(make_points(study()), 9_999, "auc")
    with pytest.raises(PickError, match="no complete trial"):
        pick_budget((), 1, "auc")


@settings(deadline=None, max_examples=50)
@given(st.lists(coordinates, min_size=1, max_size=10), st.integers(1, 12))
def test_budget_picks_stand_on_the_front(places, budget):
    points = points_at(places)
    try:
        pick = pick_budget(points, 1000 * budget, "auc")
    except PickError:
        assert min(point.bytes for point in points) > 1000 * budget
        return
    front = pareto(points, "auc")
    assert (pick.point.bytes, pick.point.value("valid", "auc")) in {
        (p.bytes, p.value("valid", "auc")) for p in front
    }


def test_an_allowed_drop_picks_the_smallest_that_keeps_it():
    points = make_points(study())
    assert pick_max_auc_drop(points, 0.02).point.candidate == "a"
    pick = pick_max_auc_drop(points, 0.0005)
    assert pick.point.candidate == "b" and "over 2 seeds" in pick.reason
    assert pick_max_auc_drop(points, 0.0).point.candidate == "d", "d gains on its seed"
    with pytest.raises(PickError, match=r"d .* loses least, -0\.00230"):
        pick_max_auc_drop(points, -0.01)
    with pytest.raises(PickError, match="needs a complete full-precision trial"):
        pick_max_auc_drop([p for p in points if p.role != "reference"], 0.001)


def test_the_knee_of_a_worked_example():
    places = [(100, 0.70), (1_000, 0.79), (10_000, 0.80), (100_000, 0.81)]
    front = pareto(make_points(trial(i, f"p{i}", b, q) for i, (b, q) in enumerate(places)), "auc")
    pick = pick_knee(front, "auc")
    # heights above the chord: .09 / .11 - 1/3 = .485 at p1, .10 / .11 - 2/3 = .242 at p2
    assert pick.point.candidate == "p1" and "0.48 above the line" in pick.reason


def test_a_collapsed_candidate_does_not_bend_the_knee():
    places = [(100, 0.795), (1_000, 0.7985), (10_000, 0.7995), (100_000, 0.8)]
    points = [trial(i, f"p{i}", b, q) for i, (b, q) in enumerate(places)]
    front = pareto(make_points([*points, trial(9, "collapsed", 10, 0.5)]), "auc")
    origin = ReferencePoint(100_000, 0.79, "auc", "valid")
    assert pick_knee(front, "auc").point.candidate == "p0", "the line starts at the collapsed one"
    assert pick_knee(front, "auc", origin).point.candidate == "p1"
    beyond = ReferencePoint(100_000, 0.9, "auc", "valid")
    assert pick_knee(front, "auc", beyond).point.candidate == "p0", "with nothing left, all count"


@pytest.mark.parametrize("qualities", [[0.8], [0.7, 0.8], [0.7, 0.71, 0.8]])
def test_without_a_knee_the_best_metric_is_picked(qualities):
    front = pareto(make_points(trial(i, f"p{i}", 10 ** (i + 2), q) for i, q in enumerate(qualities)), "auc")
    pick = pick_knee(front, "auc")
    assert pick.point is front[-1] and "none above the line" in pick.reason


def test_a_trial_is_picked_by_its_number():
    points = make_points(study())
    assert (pick_trial(points, 4).point.candidate, pick_trial(points, 4).trial) == ("b", 4)
    with pytest.raises(PickError, match="trial 9 is none of the points, whose trials are 0, 1, 2, 3, 4"):
        pick_trial(points, 9)


def test_choose_takes_exactly_one_wish():
    record = front_record(study(), [], "auc")
    assert choose(record, budget_bytes=12_000).point.candidate == "a"
    assert choose(record, max_auc_drop=0.0005).point.candidate == "b"
    assert choose(record, trial=7).point.candidate == "d"
    assert choose(record, knee=True) == record.knee
    with pytest.raises(PickError, match="exactly one of budget, knee, max-auc-drop, trial; got none"):
        choose(record)
    with pytest.raises(PickError, match="got knee, trial"):
        choose(record, knee=True, trial=0)


def test_held_out_fronts_bracket_what_a_user_gets():
    record = front_record(study(), [], "auc")
    assert record.front == ("a", "b", "d")  # test AUC .780, .791, .788
    held_out = record.held_out
    assert held_out.optimistic == ("a", "b"), "d is beaten by b on test"
    assert held_out.pessimistic == ("a", "d"), "b beats d on test"
    assert held_out.reference.split == "test" and held_out.reference.value == pytest.approx(0.793 - 0.01)
    assert held_out.pessimistic_hypervolume < held_out.optimistic_hypervolume


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=10))
def test_the_pessimistic_front_beats_no_chosen_point(places):
    records = [trial(i, f"p{i}", 1000 * b, v / 10, t / 10) for i, (b, v, t) in enumerate(places)]
    records.append(trial(99, "full", 13_000, 0.9, 0.85, role="reference"))
    record = front_record(records, [], "auc")
    held_out, front = record.held_out, record.front_points
    for name in held_out.pessimistic:
        mine = record.point(name)
        assert not any(
            mine.bytes < p.bytes and mine.value("test", "auc") >= p.value("test", "auc") for p in front
        )
    assert held_out.pessimistic_hypervolume <= held_out.optimistic_hypervolume + 1e-12


def test_front_record_answers_every_budget_and_adds_up_costs():
    record = front_record(study(), [5_000, 25_000], "auc")
    assert [a.pick and a.pick.point.candidate for a in record.budgets] == [None, "b"]
    assert "needs 10000 bytes" in record.budgets[0].problem
    assert [a.asked for a in record.iso_memory] == [4, 16, 64, 256]
    assert [a.pick and a.pick.point.candidate for a in record.iso_memory] == ["d", "a", None, None]
    assert [a.pick.point.candidate for a in record.iso_accuracy] == ["d", "b", "b", "b"]
    cost = record.cost
    assert (cost.trials, cost.complete, cost.rejected, cost.failed) == (10, 8, 1, 1)
    assert cost.seconds == pytest.approx(84.0)
    assert cost.fte == pytest.approx(8.4), "seconds over the reference's mean of 10 s"


def test_costs_are_counted_against_all_seeds_of_the_reference():
    slow = replace(trial(0, "full", 10, 0.8, role="reference"), seconds=30.0)
    again = replace(trial(1, "full", 10, 0.8, role="repeat", seed=1), seconds=10.0)
    point = make_points([slow, again, trial(2, "a", 5, 0.7, fte=0.25)])[0]
    assert point.fte == pytest.approx(10.0 / 20.0)


def test_a_recorded_cost_serves_where_there_is_no_reference():
    assert make_points([trial(1, "a", 5, 0.7, fte=0.25)])[0].fte == 0.25


def test_a_study_without_reference_still_has_a_front():
    record = front_record([r for r in study() if r.candidate != "full"], [25_000], "auc")
    assert record.front == ("a", "b", "d") and record.budgets[0].pick.point.candidate == "b"
    assert record.hypervolume is None and record.iso_accuracy == () and record.cost.fte is None


def test_an_empty_study_has_an_empty_front():
    record = front_record([], [1_000], "auc")
    assert record.points == () and record.front == () and record.knee is None and record.held_out is None
    assert "no complete trial" in record.budgets[0].problem


def test_a_complete_trial_without_the_metric_is_named():
    with pytest.raises(ValueError, match=r"a: trials \[3\] have no valid auc"):
        front_record([replace(trial(3, "a", 10, 0.8), valid_auc=None)], [], "auc")


@pytest.mark.parametrize("objective", ["auc", "logloss"])
def test_json_reads_back_to_an_equal_record(objective):
    for records in (study(), study()[3:], []):
        record = front_record(records, [5_000, 25_000], objective)
        assert from_json(to_json(record)) == record


def test_json_of_another_version_is_refused():
    content = json.loads(to_json(front_record(study(), [], "auc")))
    with pytest.raises(ValueError, match="version 99, expected 1"):
        from_json(json.dumps(content | {"version": 99}))


def test_csv_has_one_line_per_point_and_stable_columns():
    record = front_record(study(), [], "auc")
    rows = list(csv.DictReader(io.StringIO(to_csv(record))))
    assert tuple(rows[0]) == COLUMNS
    assert [row["candidate"] for row in rows] == ["a", "b", "c", "d", "full"]
    b = rows[1]
    assert (b["bytes"], b["payload_bytes"], b["scales_bytes"], b["on_front"]) == ("21000", "20900", "8", "1")
    assert float(b["valid_auc"]) == pytest.approx(0.80065) and float(b["test_auc_loss"]) == pytest.approx(
        0.0005
    )
    assert float(b["ratio"]) == pytest.approx(160_000 / 21_000, rel=1e-5)
    assert rows[0]["valid_auc_low"] == "", "one seed has no interval"


def test_records_in_any_order_give_the_same_front():
    records = study()
    assert front_record(records[::-1], [25_000], "auc") == front_record(records, [25_000], "auc")


def test_a_pick_whose_seeds_the_reference_lacks_says_so() -> None:
    records = [
        trial(0, "full", 9000, 0.80, role="reference"),
        trial(1, "x", 500, 0.80, seed=2),
        trial(2, "x", 500, 0.8008, seed=3),
        trial(3, "y", 400, 0.7999),
    ]
    points = make_points(records[:3])
    assert pick_max_auc_drop(points, 0.001).reason.endswith("-0.00040, a difference of means, no seed shared")
    assert pick_max_auc_drop(make_points(records), 0.001).reason.endswith("0.00010, one seed")

"""Recipes: what Optuna proposes from the walks before, which walks fall behind, which one is the best."""

from autoembed.search.recipes import LEVELS, NAMES, RANGES, Walked, best_recipe, falls_behind, next_recipe

USUAL = {"rate": 0.3, "l2": 0.3, "teacher": 1.0, "step_rate": 0.002}


def walk(*values: float, stopped: bool = False) -> Walked:
    return Walked(USUAL, values, (True,) * len(values), stopped)


def test_proposals_are_a_function_of_the_seed_and_the_walks_before() -> None:
    before = [walk(0.8, 0.7)]
    first = next_recipe(before, seed=1)
    assert first == next_recipe(before, seed=1) != next_recipe(before, seed=2)
    assert first != next_recipe([*before, walk(0.8, 0.7)], seed=1)
    assert first.keys() == set(NAMES) == USUAL.keys()
    many = list(before)
    for _ in range(8):  # also once the sampler has learned
        parameters = next_recipe(many, seed=3)
        for name, (low, high) in RANGES.items():
            assert low <= parameters[name] <= high
        for name, levels in LEVELS.items():
            assert parameters[name] in levels
        many.append(Walked(parameters, (0.8, 0.7), (True, True)))


def test_a_walk_below_the_others_at_the_same_budgets_falls_behind() -> None:
    before = [walk(0.80, 0.78, 0.70), walk(0.80, 0.77, 0.71)]
    assert falls_behind(before, walk(0.80, 0.70), seed=1)
    assert not falls_behind(before, walk(0.80, 0.79), seed=1)
    assert not falls_behind(before, walk(), seed=1)
    # before any step is spent, recipes do not differ
    assert not falls_behind(before, Walked(USUAL, (0.1,), (False,)), seed=1)


def test_the_best_is_the_one_with_the_best_mean_that_went_all_the_way() -> None:
    assert best_recipe([walk(0.8, 0.7), walk(0.8, 0.72), walk(0.9, stopped=True)]) == 1
    assert best_recipe([walk(0.8, 0.7), walk(0.7, 0.8)]) == 0


def test_a_users_own_settings_need_not_be_among_those_that_are_proposed() -> None:
    odd = {"rate": 7.0, "l2": 2.5, "teacher": 0.35, "step_rate": 1e-5}
    before = [Walked(odd, (0.8, 0.7), (True, True))]
    for _ in range(8):
        assert not falls_behind(before, Walked(odd, (0.9,), (True,)), seed=1)
        before.append(Walked(next_recipe(before, seed=1), (0.8, 0.7), (True, True)))
    assert best_recipe(before) == 0

"""A fitted knob: the largest setting within a budget, by the byte model, whichever way bytes go with it."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.settings import spec

from autoembed.config import ConfigError
from autoembed.fitting import Fitted, _largest
from autoembed.methods import make_method
from autoembed.methods.base import Float
from autoembed.methods.full_precision import FullPrecision
from autoembed.space import fitted_part, load_space
from autoembed.stats import FieldStats, Stats

FULL = FullPrecision().footprint(spec()).high_bytes
ENTRIES = (
    Fitted("hashing", (("small_rows", 1), ("bits", 8)), "ratio"),
    Fitted("frequency_cut", (("bits", 4),), "keep"),
    Fitted("robe", (), "ratio"),
    Fitted("mpe_budget", (("groups", 16),), "ratio"),
    Fitted("pep", (("bits", 8),), "keep"),
    Fitted("quotient_remainder", (("small_rows", 1), ("combine", "add")), "collisions"),
    Fitted("mixed_dimension", (("blocks", "group"), ("bits", 8)), "keep"),
)


@cache
def size(entry: Fitted, value: float) -> int:
    method = make_method(entry.method, {**dict(entry.parameters), entry.knob: value})
    return method.footprint(spec()).high_bytes


def stored(entry: Fitted, value: float) -> bool:
    try:
        return size(entry, value) > 0
    except (ValueError, ConfigError):
        return False


@given(st.sampled_from(ENTRIES), st.floats(0.02, 1.2))
@settings(deadline=None, max_examples=60)
def test_what_is_fitted_is_within_the_budget_and_a_little_more_is_not(entry: Fitted, share: float) -> None:
    budget = int(share * FULL)
    found = entry.within(spec(), [budget])
    values = range(2, 200) if entry.knob == "collisions" else [1.02**-power for power in range(300)]
    possible = [size(entry, value) for value in values if stored(entry, value)]
    if min(possible) > budget:
        assert not found
        return
    (setting,) = found
    assert setting.footprint(spec()).high_bytes <= budget
    best = max(size for size in possible if size <= budget)
    # hashed rows are a whole number by field, dimensions powers of two, and an entry of the index some bytes
    assert setting.footprint(spec()).high_bytes >= 0.8 * best - 64


def test_a_budget_that_no_value_meets_gives_none_and_one_that_all_meet_the_largest() -> None:
    entry = Fitted("frequency_cut", (("bits", 8),), "keep")
    assert entry.within(spec(), [10]) == []
    assert entry.within(spec(), [100 * FULL]) == [make_method("frequency_cut", {"keep": 1.0, "bits": 8})]


def test_a_space_holds_one_fitted_setting_a_budget_without_repeats() -> None:
    content = {"methods": [{"method": "robe", "baselines": [{"ratio": "fit", "block": 4}, {"ratio": 0.25}]}]}
    space = load_space(content)
    budgets = (FULL // 4, FULL // 8, FULL // 8, 10)
    found = space.baselines(spec(), budgets)
    assert found[0] == make_method("robe", {"ratio": 0.25})
    assert [method.name for method in found] == ["robe"] * 3
    sizes = [method.footprint(spec()).high_bytes for method in found[1:]]
    assert FULL // 8 < sizes[0] <= FULL // 4 and 0.9 * (FULL // 8) < sizes[1] <= FULL // 8
    assert space.fingerprint != load_space({"methods": [{"method": "robe"}]}).fingerprint


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rato": "fit"}, "no knob 'rato'.*ratio"),
        ({"ratio": "fit", "small_rows": "fit"}, "ratio and small_rows cannot be fitted to one budget"),
        ({"bits": "fit"}, "hashing.bits is one of .* cannot be fitted"),
        ({"ratio": "fit", "bits": 5}, "hashing.bits takes"),
    ],
)
def test_what_cannot_be_fitted_is_named(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_space({"methods": [{"method": "hashing", "baselines": [setting]}]})


def test_a_knob_that_changes_no_bytes_cannot_be_fitted() -> None:
    with pytest.raises(ConfigError, match=r"fiited\.decay changes no bytes"):
        Fitted("fiited", (), "decay").within(spec(), [FULL])


@pytest.mark.parametrize("preset", ["hashing", "cafe", "cafe_offline", "quotient_remainder"])
def test_where_every_field_is_small_one_setting_stands_for_all_budgets(preset: str) -> None:
    counts = np.arange(20, 0, -1, dtype=np.int64)
    small = replace(spec(), stats=Stats((FieldStats("a", counts), FieldStats("b", counts))))
    space = load_space(fitted_part(preset))
    full = FullPrecision().footprint(small).high_bytes
    found = space.baselines(small, [full, full // 2, full // 1000])
    assert len(found) <= len(space.fitted)
    assert all(method.footprint(small).high_bytes <= full for method in found)


def test_a_range_that_begins_at_zero_is_searched_to_an_end() -> None:
    def size(value: float) -> int:
        return 1000 if value > 0 else 10

    assert _largest(size, Float(0.0, 1.0), 100) == pytest.approx(0, abs=1e-3)


def test_the_fitted_part_of_a_preset_is_a_space_and_a_preset_without_says_so() -> None:
    part = load_space(fitted_part("hashing"))
    assert len(part.fitted) == 2 and not part.searched and not part.fixed_settings
    with pytest.raises(ConfigError, match="search space uniform: no baseline has a knob that is 'fit'"):
        fitted_part("uniform")

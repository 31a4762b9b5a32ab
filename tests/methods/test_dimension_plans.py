"""Plans whose bytes are added up, against plans that are made and measured, one after another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.methods import plans
from autoembed.methods.base import TableSpec
from autoembed.methods.dimension_plans import DimensionPlans
from autoembed.methods.mixed_dimension import LAST, MixedDimension, _changes, blocks_of, popularity_dims
from autoembed.methods.plans import Fields, fields_bytes, stored_segment
from autoembed.plan import PROFILES, FieldPlan, plan_bytes
from autoembed.stats import FieldStats, Stats


def slow_plan(spec: TableSpec, blocks: list, dims: list[int], bits: int) -> Fields:
    """Every field in both ways, the one of fewer bytes."""
    fields: list[FieldPlan] = []
    at = step = 0
    for field, own_blocks in zip(spec.stats.fields, blocks, strict=True):
        chosen = dims[at : at + len(own_blocks)]
        at += len(own_blocks)
        full = [spec.dim if d == max(chosen) else d for d in chosen]
        narrow, wide = (slow_field(spec, field.name, own_blocks, d, bits, step) for d in (chosen, full))
        sizes = [fields_bytes(spec, (plan,)) for plan in (narrow, wide)]
        fields.append(wide if sizes[1] <= sizes[0] else narrow)
        step += len(fields[-1].segments)
    return tuple(fields)


def slow_field(spec: TableSpec, name: str, blocks: list, dims: list[int], bits: int, step: int) -> FieldPlan:
    precision, widest = f"int{bits}" if bits <= 8 else f"fp{bits}", max(dims)
    runs: list[tuple[int, int, int]] = []
    for (start, stop, _), dim in zip(blocks, dims, strict=True):
        size = spec.profile.row_bytes(dim, precision)
        dim = max(d for d in range(dim, widest + 1) if spec.profile.row_bytes(d, precision) <= size)
        if runs and runs[-1][2] == dim:
            start = runs.pop()[0]
        runs.append((start, stop, dim))
    segments = tuple(stored_segment(*run, bits, step + number) for number, run in enumerate(runs))
    return FieldPlan(name, blocks[-1][1], spec.dim, segments, 0 if widest == spec.dim else widest)


def slow_fields(method: MixedDimension, spec: TableSpec) -> Fields:
    """The plan of `method`, by making every plan that it looks at."""
    blocks = blocks_of(spec.stats, method.blocks)
    popularity = [p for field in blocks for *_, p in field]

    def plan_at(alpha: float) -> Fields:
        dims = popularity_dims(popularity, spec.dim, alpha, method.rounding == "power_of_two")
        return slow_plan(spec, blocks, dims, method.bits)

    smallest = plan_at(method.alpha)
    allowed = method.keep * 4 * spec.stats.rows * spec.dim
    if method.keep == 1.0 or fields_bytes(spec, smallest) <= allowed:
        return smallest
    alphas = [alpha for alpha in _changes(popularity, spec.dim) if alpha > method.alpha]
    low, high = 0, len(alphas)
    while low < high:
        middle = (low + high) // 2
        if fields_bytes(spec, plan_at(alphas[middle])) <= allowed:
            high = middle
        else:
            low = middle + 1
    if high < len(alphas):
        return plan_at(alphas[high])
    for alpha in (*alphas, 1.0)[-LAST:]:
        fields = plan_at(alpha)
        if fields_bytes(spec, fields) <= allowed:
            return fields
        smallest = min(smallest, fields, key=lambda plan: fields_bytes(spec, plan))
    return smallest


COUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=80).map(
    lambda counts: np.array([counts[0], *sorted(counts[1:], reverse=True)])
)
SPECS = st.builds(
    lambda counts, dim, profile: TableSpec(
        Stats(tuple(FieldStats(f"f{i}", c) for i, c in enumerate(counts))), dim, PROFILES[profile]
    ),
    st.lists(COUNTS, min_size=1, max_size=6),
    st.sampled_from([1, 2, 5, 16]),
    st.sampled_from(list(PROFILES)),
)
METHODS = st.builds(
    MixedDimension,
    alpha=st.sampled_from([0.0, 0.01, 0.1, 0.5]),
    keep=st.floats(1e-4, 1.0),
    blocks=st.sampled_from(["field", "group"]),
    rounding=st.sampled_from(["power_of_two", "nearest"]),
    bits=st.sampled_from([2, 4, 8, 16, 32]),
)


@given(SPECS, METHODS)
@settings(deadline=None, max_examples=60)
def test_mixed_dimension_plans_what_it_would_by_making_every_plan(
    spec: TableSpec, method: MixedDimension
) -> None:
    assert method._fields(spec) == slow_fields(method, spec)


@given(SPECS, st.sampled_from([2, 4, 8, 16, 32]), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_bytes_are_those_of_the_plan(spec: TableSpec, bits: int, random) -> None:
    blocks = tuple(map(tuple, blocks_of(spec.stats, "group")))
    made = DimensionPlans(blocks, spec.profile, spec.dim, bits)
    cuts = made.cuts([random.randint(1, spec.dim) for field in blocks for _ in field])
    fields = made.fields(cuts, spec)
    assert made.bytes(cuts) == fields_bytes(spec, fields)


def test_a_bound_that_no_plan_meets_makes_one_plan_and_not_hundreds(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [np.array([0, *range(30 + field, 10, -1)]) for field in range(30)]
    spec = TableSpec(
        Stats(tuple(FieldStats(f"f{i}", c) for i, c in enumerate(counts))), 16, PROFILES["packed"]
    )
    made: list[int] = []

    def counted(plan):
        made.append(len(plan.fields))
        return plan_bytes(plan)

    monkeypatch.setattr(plans, "plan_bytes", counted)
    assert MixedDimension(keep=1e-4, blocks="group").footprint(spec).high_bytes
    assert made == [30]

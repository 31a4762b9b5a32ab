"""Groups tile the fields, and the solver's bytes are those of the file."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.joint.choices import Choice, allowed, fields_of, menu, row_bytes, run_bytes
from autoembed.joint.groups import Group, groups_of
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import fields_bytes, stored_plan
from autoembed.plan import PROFILES, Plan, Sharing, check, directory_bytes, plan_bytes
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.code_stream import code_bits


def stats(*rows: int) -> Stats:
    return Stats(
        tuple(
            FieldStats(f"f{n}", np.concatenate([[5], np.maximum(1000 // np.arange(1, r), 1)])[:r], False)
            for n, r in enumerate(rows)
        )
    )


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_groups_tile_every_field_and_row_0_stands_alone(rows: list[int]) -> None:
    groups = groups_of(stats(*rows))
    for number, count in enumerate(rows):
        own = [group for group in groups if group.field == number]
        assert (own[0].start, own[0].stop) == (0, 1) and own[-1].stop == count
        assert all(a.stop == b.start for a, b in itertools.pairwise(own))
    assert len(groups) <= max(300, 2 * len(rows))
    assert [group.field for group in groups] == sorted(group.field for group in groups)


def test_no_tail_group_is_large_and_ties_stay_together_where_they_fit() -> None:
    counts = np.concatenate([[5], np.repeat([90, 40, 7, 2, 1], [3, 9, 50, 200, 9738])])
    groups = groups_of(Stats((FieldStats("items", counts, False),)))
    assert max(group.rows for group in groups) <= 0.02 * 10_001 * 1.5
    starts = {group.start for group in groups}
    assert {13, 63} <= starts  # where the count falls from 40 to 7 and from 7 to 2


@pytest.mark.parametrize("profile", list(PROFILES))
@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_the_bytes_of_choices_are_those_of_the_file(profile: str, seed: int) -> None:
    spec = TableSpec(stats(20_000, 1, 3000, 37), 8, PROFILES[profile])
    groups, choices = groups_of(spec.stats), menu(spec)
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for group in groups:
        possible = [choice for choice in choices if allowed(group, choice)]
        again = chosen and chosen[-1] in possible and torch.rand(1, generator=generator) < 0.5
        draw = int(torch.randint(0, len(possible), (1,), generator=generator))
        chosen.append(chosen[-1] if again else possible[draw])
    fields = fields_of(spec, groups, chosen)
    plan = stored_plan(spec.profile, fields)
    check(plan)
    predicted, before = 0, None
    for group, choice in zip(groups, chosen, strict=True):
        begins = before is None or before != (group.field, choice) or choice.sharing == "one"
        predicted += row_bytes(spec.profile, group, choice) + begins * run_bytes(spec, group.field, choice)
        before = group.field, choice
    size = plan_bytes(plan)
    empty = tuple(replace(field, segments=()) for field in plan.fields)
    exact = size.total - size.header - directory_bytes(Plan(spec.profile, empty))
    segments = sum(len(field.segments) for field in fields)
    # hashed neighbours together round up once, as codes do; alignment is charged in full to every segment,
    # and a codebook as if its run had as many rows
    spare = sum(8 * 4 for choice in chosen if choice.sharing == "hashed")
    spare += sum(choice.sharing == "codebook" for choice in chosen)
    for s in (s for field in fields for s in field.segments if s.sharing is Sharing.CODEBOOK):
        spare += spec.profile.row_bytes(s.dim, s.precision) * (
            (1 << code_bits(s.stored_rows)) - s.stored_rows
        )
        spare += spec.profile.row_bytes(s.dim, s.precision) * 256 * (s.stored_rows == s.rows)
    assert exact <= predicted <= exact + segments * spec.profile.table_align + spare
    assert fields_bytes(spec, fields) == size.total


def test_every_choice_is_drawn_where_groups_are_large_enough() -> None:
    spec = TableSpec(stats(20_000, 1, 3000, 37), 8, PROFILES["packed"])
    groups = groups_of(spec.stats)
    assert all(any(allowed(group, choice) for group in groups) for choice in menu(spec))
    assert any(choice.sharing == "codebook" for choice in menu(spec))
    for profile in ("packed-row-scale", "fbgemm-cpu", "fbgemm-gpu"):
        other = TableSpec(spec.stats, 8, PROFILES[profile])
        assert not any(choice.sharing == "codebook" for choice in menu(other))


def test_a_codebook_is_charged_where_its_run_begins_and_codes_by_the_row() -> None:
    spec, group = TableSpec(stats(1010), 8, PROFILES["packed"]), Group(0, 10, 1010)
    for bits, dim in ((1, 8), (3, 4), (8, 8)):
        choice = Choice("codebook", 0.0, dim, "int8", code_bits=bits)
        assert row_bytes(spec.profile, group, choice) == -(-1000 * bits // 8)
        # sharing, precision and dimension, two bytes each of where it ends and of its rows; a scale
        assert run_bytes(spec, 0, choice) == 2 + 2 + 2 + 4 + 2**bits * dim

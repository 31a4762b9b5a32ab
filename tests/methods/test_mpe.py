import numpy as np
import pytest
import torch
from methods.settings import batch, spec

from autoembed.methods.base import TableSpec, initial_rows
from autoembed.methods.mpe import FrequencyGroups, Mpe, MpeTable, widths
from autoembed.methods.plans import fields_bytes
from autoembed.plan import PROFILES, Sharing
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.row_update import RowOptimizer


def table(method: Mpe, profile: str = "packed") -> MpeTable:
    return method.table(spec(profile), torch.Generator().manual_seed(3), RowOptimizer("adam"))


def two_fields() -> Stats:
    """Counts a = (2, 9, 5, 1), b = (0, 9, 1, 1)."""
    counts = ([2, 9, 5, 1], [0, 9, 1, 1])
    return Stats(
        tuple(FieldStats(name, np.array(c, dtype=np.int64)) for name, c in zip("ab", counts, strict=True))
    )


def test_groups_of_the_worked_example() -> None:
    # ascending: b0 (0), a3 (1), b3 (1), b2 (1), a0 (2), a2 (5), a1 (9), b1 (9); four groups of two
    groups = FrequencyGroups.of(two_fields(), 4)
    # group sums 1, 2, 7, 18; relative to the rarest group's
    assert groups.relative_counts.tolist() == [1.0, 2.0, 7.0, 18.0]
    # rows a0..a3 and b0..b3 as runs of one group
    assert groups.starts.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert groups.group_of_run.tolist() == [2, 3, 2, 0, 0, 3, 1]


def test_neighbours_of_equal_bits_become_one_segment() -> None:
    groups = FrequencyGroups.of(two_fields(), 4)
    fields = groups.fields(TableSpec(two_fields(), 8, PROFILES["packed"]), np.array([0, 0, 3, 3]))
    a, b = (
        [(s.start, s.stop, s.bits, s.sharing, s.scale, s.offset) for s in field.segments] for field in fields
    )
    assert a == [(0, 3, 3, Sharing.OWN, 2, 0), (3, 4, 0, Sharing.ZERO, None, None)]
    assert b == [
        (0, 1, 0, Sharing.ZERO, None, None),
        (1, 2, 3, Sharing.OWN, 2, 0),
        (2, 4, 0, Sharing.ZERO, None, None),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_equal_in_size_and_ranges_of_ranks_in_every_field(seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts = [
        np.concatenate([generator.integers(0, 5, 1), np.sort(generator.zipf(1.6, rows))[::-1]])
        for rows in (1, 17, 300)
    ]
    stats = Stats(tuple(FieldStats(str(i), c.astype(np.int64)) for i, c in enumerate(counts)))
    groups = FrequencyGroups.of(stats, 16)
    sizes = np.zeros(groups.count, dtype=int)
    ends = (*groups.starts[1:], stats.rows)
    for start, end, group in zip(groups.starts, ends, groups.group_of_run, strict=True):
        sizes[group] += end - start
    assert set(sizes[:-1]) == {-(-stats.rows // 16)} and sizes.sum() == stats.rows
    of_row = np.repeat(groups.group_of_run, np.diff([*groups.starts, stats.rows]))
    for first, field in zip(stats.first_rows, stats.fields, strict=True):
        ranks = of_row[first + 1 : first + field.rows]
        assert (np.diff(ranks) <= 0).all()
    pooled = np.concatenate(counts)
    for group in range(groups.count - 1):
        assert pooled[of_row == group].max() <= pooled[of_row == group + 1].min()


@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize("seed", range(8))
def test_bytes_are_those_of_the_plan(seed: int, profile: str) -> None:
    random = np.random.default_rng(seed)
    counts = [np.sort(random.integers(0, 9, random.integers(1, 60)))[::-1] for _ in range(5)]
    fields = tuple(FieldStats(f"f{i}", count) for i, count in enumerate(counts))
    at = TableSpec(Stats(fields), int(random.integers(1, 20)), PROFILES[profile])
    groups = FrequencyGroups.of(at.stats, int(random.integers(1, 20)))
    known = np.array([0, *widths(at.profile)])
    for most in range(1, len(known) + 1):  # nothing stored, then with wider and wider codes
        bits = random.choice(known[:most], groups.count)
        for merge in (False, True):
            made = fields_bytes(at, groups.fields(at, bits, merge=merge))
            assert groups.bytes(at, bits, merge=merge) == made


def test_at_the_start_every_group_takes_six_bits_and_the_penalty_is_three_bits_each() -> None:
    method = Mpe(groups=16, penalty=0.5)
    fresh = table(method)
    assert torch.allclose(fresh.mixture(), torch.tensor(1 / 7))
    assert fresh.chosen_bits().tolist() == [6] * fresh.groups.count
    penalty = fresh.penalty()
    assert penalty is not None
    expected = 0.5 * 3 * (1 / fresh.groups.relative_counts).sum()
    assert penalty.item() == pytest.approx(expected, rel=1e-5)


def test_the_widest_bits_with_half_an_equal_share_win_over_more_likely_fewer_bits() -> None:
    fresh = table(Mpe(groups=3, tau=1.0))
    with torch.no_grad():
        shares = torch.tensor([0.6, 0.2, 0.06, 0.06, 0.04, 0.02, 0.02])
        fresh.gamma[0] = shares.log()
        fresh.gamma[1] = torch.tensor([0.72, 0.0, 0.0, 0.072, 0.07, 0.07, 0.068]).clamp(min=1e-30).log()
        fresh.gamma[2] = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).clamp(min=1e-30).log()
    # 1 / 14 = 0.0714: of the first group only 0 and 1 bit reach it, of the second 0 and 3
    assert fresh.chosen_bits().tolist() == [1, 3, 0]


def test_the_penalty_pushes_towards_fewer_bits_and_hardest_on_rare_groups() -> None:
    fresh = table(Mpe(groups=16, penalty=1.0, tau=0.1))
    penalty = fresh.penalty()
    assert penalty is not None
    penalty.backward()
    gradient = fresh.gamma.grad
    assert gradient is not None
    # d R / d gamma[g, b] = pi_b (b - mean b) / tau / c_g
    slope = (torch.arange(7) - 3.0) / 7 / 0.1
    relative = torch.from_numpy(fresh.groups.relative_counts).float()
    torch.testing.assert_close(gradient, slope / relative.unsqueeze(1))


def test_retraining_restarts_from_the_first_rows_and_keeps_steps_and_offset() -> None:
    method = Mpe(groups=16)
    learning = table(method)
    with torch.no_grad():
        learning.gamma[:8, 0] = 1.0
        assert learning.offset is not None
        learning.offset += 0.01
        learning.steps += 0.02
    steps, offset = learning.steps.clone(), learning.offset.clone()
    learning(batch(64, seed=1)).sum().backward()
    learning.update(0.1)
    assert learning.settle()
    plan = learning.plan()
    assert learning.settled is not None
    first = initial_rows(spec(), spec().stats.rows, torch.Generator().manual_seed(3))
    kept = [
        first[begin + s.start : begin + s.stop]
        for begin, field in zip(spec().stats.first_rows, plan.fields, strict=True)
        for s in field.segments
        if s.stored_rows
    ]
    stored = sum(len(rows) for rows in kept)
    assert 0 < stored < len(first)
    weight = learning.settled.rows.weight
    assert torch.equal(weight[:stored], torch.cat(kept)) and not weight[stored:].any()
    assert not any(learning.settled.rows.get_buffer(name).any() for name in ("moment", "square", "touches"))
    assert learning.settled.precision.steps is not None and learning.settled.precision.offset is not None
    assert torch.equal(learning.settled.precision.steps, steps)
    assert torch.equal(learning.settled.precision.offset, offset)
    assert {name for name, _ in learning.named_parameters()} == {
        "settled.precision.steps",
        "settled.precision.offset",
    }
    assert learning.penalty() is None and not learning.settle()


def test_training_after_pruning_holds_the_kept_rows_only() -> None:
    learning = table(Mpe(groups=16))
    before = learning.training_bytes
    with torch.no_grad():
        learning.gamma[:12, 0] = 1.0
    learning.settle()
    assert learning.training_bytes < before / 2


def test_ids_of_zero_bits_read_the_zero_vector() -> None:
    learning = table(Mpe(groups=1))
    with torch.no_grad():
        learning.gamma[:, 0] = 1.0
    learning.settle()
    assert not learning(batch(32, seed=2)).any()
    assert learning.pack().payload.numel() == 0


def test_a_mixture_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="settle"):
        table(Mpe()).pack()


def test_profiles_narrow_the_widths_and_row_scales_drop_the_offset() -> None:
    assert widths(PROFILES["packed"]) == (1, 2, 3, 4, 5, 6)
    assert widths(PROFILES["fbgemm-cpu"]) == (2, 4)
    fresh = table(Mpe(groups=16), "fbgemm-cpu")
    assert fresh.offset is None
    assert fresh.gamma.shape[1] == 3
    assert fresh.chosen_bits().tolist() == [4] * fresh.groups.count

"""Latent rows to a table under a plan and back: what each kind of sharing starts from, what is kept."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_plans import plain_fields
from tiny_data import tiny_data

from autoembed.joint.table import Weights, best_step, stored_rows, table_under, weights_of
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import fields_bytes, stored_segment, uniform_fields
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Segment, Sharing
from autoembed_kernels.lsq import Grid
from autoembed_kernels.row_update import RowOptimizer

_, STATS = tiny_data(rows=400, fields=(20, 7, 30))
SPEC = TableSpec(STATS, 8, PROFILES["packed"])
ROWS = torch.randn(STATS.rows, 8, generator=torch.Generator().manual_seed(0))
ADAM = RowOptimizer("adam")


def one_field(*segments: Segment):
    """The first field under these segments, the others full."""
    return (FieldPlan("field0", 20, 8, segments), *uniform_fields(SPEC, 32)[1:])


def test_own_rows_are_taken_over_to_the_bit():
    assert torch.equal(stored_rows(SPEC, uniform_fields(SPEC, 4), ROWS), ROWS)


def test_one_shared_row_is_the_mean_weighted_by_look_ups():
    fields = one_field(stored_segment(0, 1, 8, 32, 0), stored_segment(1, 20, 8, 32, 0, stored_rows=1))
    counts = torch.from_numpy(STATS.fields[0].counts[1:]).clamp(min=1).double()
    mean = (ROWS[1:20].double() * counts.unsqueeze(1)).sum(0) / counts.sum()
    torch.testing.assert_close(stored_rows(SPEC, fields, ROWS)[1], mean.float())


def test_ids_that_read_row_0_leave_nothing_and_come_back_as_row_0():
    fields = one_field(stored_segment(0, 5, 8, 32, 0), Segment(5, 20, Sharing.OOV))
    table = table_under(SPEC, fields, Weights(ROWS), ADAM)
    assert torch.equal(table.rows.weight[:5], ROWS[:5])
    back = weights_of(table).rows
    assert torch.equal(back[5:20], ROWS[:1].expand(15, 8))
    assert torch.equal(back[20:], ROWS[20:])


@pytest.mark.parametrize("profile", ["packed", "packed-row-scale"])
@pytest.mark.parametrize("dim", [8, 3])
def test_the_table_reads_as_its_packed_form_also_where_prefixes_are_stored(profile, dim):
    spec = TableSpec(STATS, 8, PROFILES[profile])
    table = table_under(spec, plain_fields(spec, 4, 0.5, dim), Weights(ROWS), ADAM)
    data, _ = tiny_data(rows=400, fields=(20, 7, 30))
    (batch,) = data.batches("train", 400)
    packed = PackedTable(table.pack(), STATS.first_rows)
    with torch.no_grad():
        torch.testing.assert_close(table(batch), packed(batch), rtol=1e-5, atol=1e-6)
        assert dim == 8 or not table(batch)[:, :, dim:].any()
    assert table.pack().bytes.total == fields_bytes(spec, table.fields)


def in_parts(*parts: tuple[int, int]) -> tuple[FieldPlan, ...]:
    """The first field's rows in parts (columns, bits), the others full."""
    segments: list[Segment] = []
    for scale, (columns, bits) in enumerate(parts):
        start, sharing = (20, Sharing.TAIL) if segments else (0, Sharing.OWN)
        segments.append(Segment(start, 20, sharing, 20, columns, f"int{bits}", bits <= 2, scale))
    return one_field(*segments)


@pytest.mark.parametrize("parts", [((2, 4), (4, 2)), ((4, 3), (2, 2), (2, 1)), ((1, 8), (7, 1)), ((8, 2),)])
def test_rows_in_parts_read_as_their_packed_form_and_come_back(parts):
    table = table_under(SPEC, in_parts(*parts), Weights(ROWS), ADAM)
    data, _ = tiny_data(rows=400, fields=(20, 7, 30))
    (batch,) = data.batches("train", 400)
    packed = PackedTable(table.pack(), STATS.first_rows)
    with torch.no_grad():
        torch.testing.assert_close(table(batch), packed(batch), rtol=1e-5, atol=1e-6)
    assert table.pack().bytes.total == fields_bytes(SPEC, table.fields)
    assert torch.equal(packed.decode(1), ROWS[20:27])
    stored, stops = packed.decode(0), [0, *torch.tensor([columns for columns, _ in parts]).cumsum(0).tolist()]
    for (_, bits), start, stop in zip(parts, stops[:-1], stops[1:], strict=True):
        assert len(stored[:, start:stop].unique()) <= 2**bits
    assert not stored[:, stops[-1] :].any()
    weights = weights_of(table)
    assert not weights.rows[:20, stops[-1] :].any()
    assert torch.equal(weights.rows[:20, : stops[-1]], ROWS[:20, : stops[-1]])
    again = table_under(SPEC, in_parts(*parts), weights, ADAM)
    assert torch.equal(again.precision.steps, table.precision.steps)


CODES = torch.tensor([0, 2, 2, 1, 0, 3, 1, 1, 2, 0, 3, 3, 1, 0, 2])


def coded(*parts: tuple[int, int]) -> tuple[FieldPlan, ...]:
    """The first field's rows behind 5 read a codebook of 4 rows in parts (columns, bits), or of float32."""
    segments = [stored_segment(0, 5, 8, 32, 0)]
    if not parts:
        segments.append(Segment(5, 20, Sharing.CODEBOOK, 4, 8, "fp32"))
    for scale, (columns, bits) in enumerate(parts):
        start, sharing = (20, Sharing.TAIL) if scale else (5, Sharing.CODEBOOK)
        segments.append(Segment(start, 20, sharing, 4, columns, f"int{bits}", bits <= 2, scale))
    return one_field(*segments)


@pytest.mark.parametrize("parts", [(), ((8, 8),), ((3, 2),), ((2, 6), (6, 2))])
def test_ids_of_a_codebook_share_the_mean_of_their_rows_and_read_as_their_packed_form(parts):
    codes = {(0, 5): CODES}
    table = table_under(SPEC, coded(*parts), Weights(ROWS), ADAM, codes)
    counts = torch.from_numpy(STATS.fields[0].counts[5:20]).clamp(min=1).double()
    for row in range(4):
        mine = codes[0, 5] == row
        share = counts[mine].unsqueeze(1)
        mean = (ROWS[5:20][mine].double() * share).sum(0) / share.sum()
        torch.testing.assert_close(table.rows.weight[5 + row], mean.float())
    data, _ = tiny_data(rows=400, fields=(20, 7, 30))
    (batch,) = data.batches("train", 400)
    packed = table.pack()
    for _ in range(2):
        with torch.no_grad():
            read = PackedTable(packed, STATS.first_rows)
            torch.testing.assert_close(table(batch), read(batch), rtol=1e-5, atol=1e-6)
        table.tabulate()  # the same answers from tables
    assert packed.bytes.total == fields_bytes(SPEC, table.fields)
    assert torch.equal(packed.codes()[0, 5], CODES)
    back = weights_of(table)
    for row in range(4):
        assert len(back.rows[5:20][codes[0, 5] == row].unique(dim=0)) == 1
    again = table_under(SPEC, coded(*parts), back, ADAM, codes)
    assert torch.equal(again.rows.weight, table.rows.weight) or parts in (((3, 2),), ((2, 6), (6, 2)))
    if parts:
        assert torch.equal(again.precision.steps, table.precision.steps)


def test_all_ids_of_a_codebooks_row_teach_it():
    table = table_under(SPEC, coded(), Weights(ROWS), ADAM, {(0, 5): CODES})
    before = table.rows.weight.clone()
    data, _ = tiny_data(rows=400, fields=(20, 7, 30))
    (batch,) = data.batches("train", 400)
    table(batch)[:, 0].sum().backward()
    table.update(0.01)
    read = set(CODES[[i - 5 for i in batch.ids[:, 0].tolist() if i >= 5]].tolist())
    changed = (table.rows.weight != before).any(1)[5:9].nonzero().squeeze(1).tolist()
    assert set(changed) == read


def test_pruned_ids_read_row_0_also_where_it_reads_a_codebook():
    fields = one_field(Segment(0, 15, Sharing.CODEBOOK, 4, 8, "fp32"), Segment(15, 20, Sharing.OOV))
    codes = {(0, 0): CODES.roll(4)}
    table = table_under(SPEC, fields, Weights(ROWS), ADAM, codes)
    rows = table.address(torch.arange(20))
    assert int(codes[0, 0][0]) > 0 and rows[15:].tolist() == [int(rows[0])] * 5
    packed = PackedTable(table.pack(), STATS.first_rows)
    torch.testing.assert_close(packed.decode(0), table.rows.weight[rows])


@pytest.mark.parametrize("codes", [CODES[1:], CODES.clamp(max=3) + 1, CODES - 1])
def test_codes_that_do_not_fit_their_codebook_are_refused(codes):
    with pytest.raises(ValueError, match="expected 15 codes below 4"):
        table_under(SPEC, coded(), Weights(ROWS), ADAM, {(0, 5): codes})


def test_every_part_learns_its_own_step():
    table = table_under(SPEC, in_parts((2, 4), (6, 2)), Weights(ROWS), ADAM)
    data, _ = tiny_data(rows=400, fields=(20, 7, 30))
    (batch,) = data.batches("train", 400)
    table(batch)[:, 0, 2:].square().sum().backward()
    gradient = table.precision.steps.grad
    assert gradient[0] == 0 and gradient[1] != 0
    table.tabulate()  # the same answers from tables
    with torch.no_grad():
        torch.testing.assert_close(table(batch)[:, 0], PackedTable(table.pack())(batch)[:, 0])


def test_what_a_prefix_cuts_off_takes_no_gradient_and_stays_zero():
    table = table_under(SPEC, plain_fields(SPEC, 4, 0.5, 3), Weights(ROWS), ADAM)
    data, _ = tiny_data(rows=400, fields=(20, 7, 30))
    (batch,) = data.batches("train", 400)
    before = table.rows.weight.clone()
    table(batch).square().sum().backward()
    table.update(0.01)
    assert torch.equal(table.rows.weight[:, 3:], before[:, 3:])
    assert not torch.equal(table.rows.weight[:, :3], before[:, :3])
    assert not weights_of(table).rows[:, 3:].any()


def test_a_learned_step_is_kept_where_nothing_changed_and_searched_where_bits_did():
    table = table_under(SPEC, uniform_fields(SPEC, 4), Weights(ROWS), ADAM)
    with torch.no_grad():
        table.precision.steps.mul_(1.25)
    weights = weights_of(table)
    same = table_under(SPEC, uniform_fields(SPEC, 4), weights, ADAM)
    assert torch.equal(same.precision.steps, table.precision.steps)
    fresh = table_under(SPEC, uniform_fields(SPEC, 2), Weights(ROWS), ADAM)
    changed = table_under(SPEC, uniform_fields(SPEC, 2), weights, ADAM)
    assert torch.equal(changed.precision.steps, fresh.precision.steps)


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(1, 8), scale=st.floats(1e-4, 10.0), count=st.integers(1, 50), seed=st.integers(0, 99))
def test_the_searched_step_is_no_worse_than_one_that_reaches_the_largest_value(bits, scale, count, seed):
    values = scale * torch.randn(count, generator=torch.Generator().manual_seed(seed))
    grid = Grid(bits, bits <= 2)

    def error(step: float) -> float:
        codes = (values / step - grid.shift).round().clamp(grid.lowest, grid.highest)
        return float(((codes + grid.shift) * step - values).square().sum())

    largest = float(values.abs().max()) / (grid.highest + grid.shift)
    assert best_step(values, grid) > 0 and error(best_step(values, grid)) <= error(largest) * (1 + 1e-5)


def test_rows_of_zeros_have_a_step():
    assert best_step(torch.zeros(8), Grid(4)) > 0
    assert best_step(torch.zeros(0), Grid(4)) > 0


def test_the_step_of_many_rows_is_searched_on_all_of_their_columns():
    rows = torch.randn(9000, 4, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [0.01, 0.1, 0.1, 1.0]
    )
    grid = Grid(8)
    step = best_step(rows.flatten(), grid)
    error = ((rows / step).round().clamp(-128, 127) * step - rows).square().mean()
    assert error < 1e-3, "the largest column is not cut off"

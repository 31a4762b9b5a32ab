import numpy as np
import pytest
import torch
from methods.settings import BAG_FIELD, DIM, all_rows, batch, spec

from autoembed.data.batch import Batch
from autoembed.lookup import look_up
from autoembed.methods.base import TableSpec
from autoembed.methods.quotient_remainder import (
    QuotientRemainder,
    QuotientRemainderTable,
    initial_parts,
    path_stored_rows,
    stored_rows,
)
from autoembed.plan import PROFILES, Segment, Sharing
from autoembed.quotient_pairs import QuotientPairs
from autoembed.quotient_paths import QuotientPaths
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.path_mlp import path_networks, path_rows
from autoembed_kernels.path_mlp import reference as reference_path
from autoembed_kernels.quotient_remainder import least_stored, multiplier, reference, remainder_rows
from autoembed_kernels.row_update import RowOptimizer

HOW = pytest.mark.parametrize("how", ["multiply", "add", "concatenate"])


def table(method: QuotientRemainder) -> QuotientRemainderTable:
    made = method.table(spec(), torch.Generator().manual_seed(0), RowOptimizer("sgd"))
    assert isinstance(made, QuotientRemainderTable)
    return made


def vector(parts: torch.Tensor, how: str, place: int, ids: int) -> torch.Tensor:
    """What the id at `place` reads, of a segment's stored rows."""
    quotient, remainder = reference(place, ids, len(parts))
    one, other = parts[quotient], parts[len(parts) - remainder_rows(ids, len(parts)) + remainder]
    if how == "concatenate":
        return torch.cat([one, other])
    return one + other if how == "add" else one * other


@HOW
def test_an_id_reads_its_quotient_and_its_remainder(how: str) -> None:
    made = table(QuotientRemainder(collisions=8, combine=how, small_rows=60))
    segment = made.plan().fields[0].segments[1]
    assert (segment.stop, segment.stored_rows, remainder_rows(199, segment.stored_rows)) == (200, 33, 8)
    parts = made.rows.segment_rows(0, segment).values
    read = made(all_rows())[:, 0]
    for row in (1, 2, 77, 199):
        torch.testing.assert_close(read[row], vector(parts, how, row - 1, 199))


@pytest.mark.parametrize("how", ["multiply", "add", "concatenate", "path"])
def test_the_combination_starts_with_the_deviation_of_the_study(how: str) -> None:
    counts = FieldStats("user", np.ones(20_001, dtype=np.int64))
    at = TableSpec(Stats((counts,)), 16, PROFILES["packed"], initial_std=0.01)
    made = QuotientRemainder(collisions=100, combine=how).table(
        at, torch.Generator().manual_seed(1), RowOptimizer("sgd")
    )
    values = made.values(look_up(one_field(torch.arange(1, 20_001)), made.first_rows))
    # U(+-sqrt(1 / n)) would have the deviation sqrt(1 / 3n); 300 stored rows of 16 tell it to about 3 percent
    assert values.std().item() == pytest.approx(0.01, rel=0.1)
    assert abs(values.mean().item()) < 0.001


def one_field(ids: torch.Tensor) -> Batch:
    return Batch(torch.zeros(len(ids)), torch.zeros(len(ids), 0), ids.unsqueeze(1), {})


@HOW
def test_every_id_has_a_vector_of_its_own(how: str) -> None:
    made = table(QuotientRemainder(collisions=100, combine=how, small_rows=10))
    rows = made(all_rows())[:, 0]
    assert len(rows.unique(dim=0)) == 200
    assert made.plan().fields[0].segments[1].stored_rows == least_stored(199) == 29


def test_ids_above_two_to_the_24_are_addressed_exactly() -> None:
    ids = 2**25 + 12_345
    stored = stored_rows(ids, 5793)
    segment = Segment(1, ids + 1, Sharing.QUOTIENT_ADD, stored, 2, "fp32")
    place = torch.arange(ids - 1_000_000, ids)
    pairs = QuotientPairs([Segment(0, 1, Sharing.OWN, 1, 2), segment])
    first, paired, second = pairs.split(torch.ones_like(place), place)
    assert torch.equal(paired, torch.arange(len(place)))
    assert int(second.max()) < stored and int(first.max()) < stored - remainder_rows(ids, stored)
    assert len((first * 2**32 + second).unique()) == len(place)


def test_bags_combine_each_id_before_they_pool() -> None:
    made = table(QuotientRemainder(collisions=4, small_rows=10))
    segment = made.plan().fields[BAG_FIELD].segments[1]
    assert segment.sharing is Sharing.QUOTIENT_MULTIPLY
    parts = made.rows.segment_rows(BAG_FIELD, segment).values
    example = batch(64, seed=5)
    bag = example.bags[BAG_FIELD]
    read = made(example)[:, BAG_FIELD]
    row_0 = made.rows.segment_rows(BAG_FIELD, made.plan().fields[BAG_FIELD].segments[0]).values[0]
    for number, (a, b) in enumerate(zip(bag.offsets[:-1], bag.offsets[1:], strict=True)):
        ids = bag.values[a:b].tolist()
        vectors = [row_0 if i == 0 else vector(parts, "multiply", i - 1, 59) for i in ids]
        expected = torch.stack(vectors).mean(0) if vectors else torch.zeros(DIM)
        torch.testing.assert_close(read[number], expected)


def test_small_fields_keep_their_rows_and_large_ones_never_store_more_than_their_ids() -> None:
    fields = table(QuotientRemainder(collisions=2, small_rows=100)).plan().fields
    assert [len(f.segments) for f in fields] == [2, 1, 1, 1]
    fields = table(QuotientRemainder(collisions=2, small_rows=1)).plan().fields
    # two ids or none cannot be told apart with fewer rows than themselves
    assert [len(f.segments) for f in fields] == [2, 1, 1, 2]


def test_training_holds_the_shared_rows_only() -> None:
    at = TableSpec(Stats((FieldStats("user", np.ones(20_001, dtype=np.int64)),)), 16, PROFILES["packed"])
    method = QuotientRemainder(collisions=20)
    made = method.table(at, torch.Generator().manual_seed(0), RowOptimizer("adam"))
    # 1 + 1000 + 20 rows of 16 values, two moments and a counter; and where the two segments lie
    assert 1021 * (3 * 64 + 4) <= made.training_bytes < 1021 * (3 * 64 + 4) + 400


def test_halves_of_an_odd_dimension_are_refused() -> None:
    at = TableSpec(spec().stats, 7, PROFILES["packed"])
    with pytest.raises(ValueError, match="even dimension"):
        QuotientRemainder(combine="concatenate").footprint(at)


@HOW
def test_parts_of_a_segment_start_as_the_method_says(how: str) -> None:
    sharing = {"add": 4, "multiply": 5, "concatenate": 6}[how]
    segment = Segment(1, 10_001, Sharing(sharing), 2000, 8, "fp32")
    count = remainder_rows(10_000, 2000)
    weight = initial_parts(segment, 0.02, torch.Generator().manual_seed(0))
    quotients, remainders = weight[:-count], weight[-count:]
    wanted = {"add": (0.0141, 0.0141), "multiply": (0.02, 1.0), "concatenate": (0.02, 0.02)}[how]
    assert quotients.std().item() == pytest.approx(wanted[0], rel=0.2)
    assert remainders.std().item() == pytest.approx(wanted[1], rel=0.3)


PATH = QuotientRemainder(collisions=2, combine="path", hidden=8, small_rows=60)


def walked(parts: torch.Tensor, place: int, ids: int, hidden: int) -> torch.Tensor:
    """What the id at `place` reads, of a path segment's stored rows."""
    size = path_rows(hidden, parts.shape[1])
    networks = path_networks(ids, len(parts), size)
    quotient, remainder = divmod(place * multiplier(ids) % ids, networks)
    start = len(parts) - (networks - remainder) * size
    return reference_path(parts[quotient : quotient + 1], parts[start : start + size], hidden)[0].float()


@pytest.mark.parametrize("ids", [1, 2, 199, 4096, 100_000, 237_653])
@pytest.mark.parametrize("network_rows", [18, 133])
def test_every_stored_quotient_row_of_a_path_is_read(ids: int, network_rows: int) -> None:
    before = None
    for collisions in (2, 3, 9, 26, 27, 28, 100, 117, 1000, 65536):
        stored = path_stored_rows(ids, collisions, network_rows)
        networks = path_networks(ids, stored, network_rows)
        assert networks <= collisions
        assert stored - networks * network_rows == -(-ids // networks)
        assert before is None or stored <= before
        before = stored


def test_on_a_path_an_id_reads_its_quotient_through_the_network_of_its_remainder() -> None:
    made = table(PATH)
    segment = made.plan().fields[0].segments[1]
    assert (segment.sharing, segment.stop, segment.chunks) == (Sharing.QUOTIENT_PATH, 200, 1)
    # 100 quotients and two networks of 8 + 8 + 1 + 1 rows
    assert segment.stored_rows == 100 + 2 * 18
    assert path_networks(199, segment.stored_rows, 18) == 2
    parts = made.rows.segment_rows(0, segment).values
    read = made(all_rows())[:, 0]
    for row in (1, 2, 77, 199):
        torch.testing.assert_close(read[row], walked(parts, row - 1, 199, 8), atol=1e-6, rtol=1e-4)
    assert len(read.unique(dim=0)) == 200


def test_one_step_trains_the_quotient_and_the_network_of_an_id_and_no_other() -> None:
    made = table(PATH)
    segment = made.plan().fields[0].segments[1]
    before = made.rows.segment_rows(0, segment).values.clone()
    ids = torch.tensor([[5, 0, 0, 0]])
    made(Batch(torch.zeros(1), torch.zeros(1, 0), ids, {})).sum().backward()
    made.update(0.5)
    changed = (made.rows.segment_rows(0, segment).values != before).any(dim=1).nonzero().flatten()
    quotient, remainder = divmod(4 * multiplier(199) % 199, 2)
    network = range(100 + 18 * remainder, 118 + 18 * remainder)
    assert quotient in changed and network[16] in changed  # b2 has a gradient in any case
    assert set(changed.tolist()) <= {quotient, *network}


def test_rows_of_several_networks_and_of_none_are_read_in_one_call() -> None:
    segments = [
        Segment(0, 1, Sharing.OWN, 1, 4),
        Segment(1, 101, Sharing.QUOTIENT_PATH, 20 + 5 * path_rows(8, 4), 4, chunks=1),
        Segment(0, 300, Sharing.QUOTIENT_PATH, 100 + 3 * path_rows(16, 2), 2, chunks=2),
    ]
    parts = [
        torch.randn(s.stored_rows, 5, generator=torch.Generator().manual_seed(i))
        for i, s in enumerate(segments)
    ]
    for part, segment in zip(parts, segments, strict=True):
        part[:, segment.dim :] = 0
    segment = torch.tensor([2, 1, 0, 1, 2, 1, 1])
    place = torch.tensor([299, 0, 0, 99, 7, 0, 50])
    paths = QuotientPaths(segments)
    first, walk = paths.split(segment, place)

    def gather(where: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([parts[s][r] for s, r in zip(where.tolist(), rows.tolist(), strict=True)])

    read = paths.join(gather(segment, first), walk, gather(walk.segment, walk.rows))
    for number, (s, p) in enumerate(zip(segment.tolist(), place.tolist(), strict=True)):
        expected = torch.zeros(5)
        if s == 0:
            expected[:] = parts[0][p]
        else:
            dim = segments[s].dim
            expected[:dim] = walked(parts[s][:, :dim], p, segments[s].rows, 8 * s)
        torch.testing.assert_close(read[number], expected, atol=1e-4, rtol=1e-4)


def test_paths_of_ids_above_two_to_the_24_are_addressed_exactly() -> None:
    ids, hidden = 2**25 + 12_345, 64
    size = path_rows(hidden, 16)
    segment = Segment(1, ids + 1, Sharing.QUOTIENT_PATH, -(-ids // 4) + 4 * size, 16, chunks=hidden // 8)
    place = torch.arange(ids - 1000, ids)
    first, walk = QuotientPaths([segment]).split(torch.zeros_like(place), place)
    networks = path_networks(ids, segment.stored_rows, size)
    exact = [divmod(p * multiplier(ids) % ids, networks) for p in place.tolist()]
    assert first.tolist() == [quotient for quotient, _ in exact]
    assert max(first.tolist()) > 2**22 and networks == 4
    met = torch.tensor([remainder for _, remainder in exact])
    assert torch.equal(met[walk.chosen], met.sort(stable=True).values)
    assert int(walk.rows.max()) == segment.stored_rows - 1

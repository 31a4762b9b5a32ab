from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_plans import Rows, grid_of, packed_with_rows, plans
from torch import Tensor

from autoembed.data.batch import Bag, Batch
from autoembed.packed import Packed, PackedTable, SegmentRows, pack
from autoembed.plan import PROFILES, FieldPlan, Plan, Segment, Sharing, own, segment_index_bytes
from autoembed.segment_index import check_segment_index, pack_codes, placed_index
from autoembed.tables_file import TablesError
from autoembed_kernels.code_stream import code_bits
from autoembed_kernels.code_stream import reference as reference_code
from autoembed_kernels.listed_marks import pack_listed, unpack_listed
from autoembed_kernels.lsq import Grid, fake_quantize, grid_table
from autoembed_kernels.marked_bits import pack_marks, unpack_marks
from autoembed_kernels.native.loader import library
from autoembed_kernels.path_mlp import path_networks, path_rows
from autoembed_kernels.path_mlp import reference as reference_path
from autoembed_kernels.pool_slots import reference as reference_slots
from autoembed_kernels.quotient_remainder import multiplier, remainder_rows
from autoembed_kernels.quotient_remainder import reference as reference_pair
from autoembed_kernels.row_hash import reference as reference_row_hash
from autoembed_kernels.signature_pool import reference as signed_slots

FLOATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def quantized(packed: Packed, segment: Segment, values: Tensor) -> Tensor:
    """Rows as training sees them: rounded by the LSQ kernel, or cast."""
    if not segment.is_integer:
        return values.to(FLOATS[segment.precision]).float()
    assert segment.scale is not None
    offset = None
    if segment.offset is not None:
        start = sum(packed.plan.offset_dims()[: segment.offset])
        offset = packed.offsets[start : start + segment.dim]
    scale = packed.scales[segment.scale].view(1)
    return fake_quantize(values, scale, grid_table([grid_of(segment)]), torch.ones(1), None, offset)


def expected_rows(packed: Packed, rows: Rows, index: int) -> Tensor:
    """All rows of a field, row by row, from the rows as training sees them."""
    field = packed.plan.fields[index]
    vectors: list[Tensor] = []
    column = 0
    pool = packed.plan.pool
    head = field.segments[0]
    for number, segment in enumerate(field.segments):
        if segment.stored_rows:
            stored = quantized(packed, segment, rows[index, number])
        if segment.sharing is Sharing.TAIL:
            for place, vector in enumerate(vectors[-head.rows :]):
                is_coded = head.sharing is Sharing.CODEBOOK
                read = code(packed, head, head.start + place, index) if is_coded else place
                vector[column : column + segment.dim] = stored[read]
        else:
            head = segment
        column = segment.dim if segment.sharing is not Sharing.TAIL else column + segment.dim
        for row in range(segment.start, segment.stop):
            vector = torch.zeros(field.projection_dim or field.dim)
            if segment.sharing is Sharing.OOV:
                vector = vectors[0].clone()
            elif segment.sharing is Sharing.HASHED:
                vector[: segment.dim] = stored[reference_row_hash(row, index, segment.stored_rows)]
            elif segment.sharing is Sharing.CODEBOOK:
                vector[: segment.dim] = stored[code(packed, segment, row, index)]
            elif segment.sharing is Sharing.OWN:
                vector[: segment.dim] = stored[row - segment.start]
            elif segment.sharing.is_marked:
                vector = pad_to(marked(packed, segment, stored, row, index), len(vector))
            elif segment.sharing.is_pooled:
                assert pool is not None
                flat = pooled_values(packed, rows).flatten()
                blocks = -(-field.dim // pool.dim)
                starts = reference_slots(row, index, blocks, pool.dim, len(flat))
                if segment.sharing is Sharing.SIGNATURE_POOL:
                    word = signature(packed, segment, row, index)
                    starts = signed_slots(word, segment.chunks, blocks, pool.dim, len(flat))
                vector = torch.cat([flat[start : start + pool.dim] for start in starts])[: field.dim]
            elif segment.sharing is Sharing.QUOTIENT_PATH:
                vector = pad_to(on_path(segment, stored, row), len(vector))
            elif segment.sharing.is_paired:
                vector = pad_to(paired(segment, stored, row), len(vector))
            vectors.append(vector)
    result = torch.stack(vectors)
    if field.projection_dim:
        before = sum(f.projection_dim * f.dim for f in packed.plan.fields[:index])
        matrix = packed.projections[before : before + field.projection_dim * field.dim].float()
        result = result @ matrix.view(field.projection_dim, field.dim)
    return result


def code(packed: Packed, segment: Segment, row: int, index: int) -> int:
    """The row of its codebook that a row reads."""
    at = next(at for field, s, at in placed_index(packed.plan) if field == index and s == segment)
    bits = code_bits(segment.stored_rows)
    return reference_code(bytes(packed.segment_index.tolist()), at, bits, row - segment.start)


def marked(packed: Packed, segment: Segment, stored: Tensor, row: int, index: int) -> Tensor:
    """The chunks of a row behind one another, found by counting the marks before them one by one."""
    at = next(at for field, s, at in placed_index(packed.plan) if field == index and s == segment)
    own_index = packed.segment_index[at : at + segment_index_bytes(segment)]
    places = segment.rows * segment.chunks
    if segment.sharing is Sharing.LISTED:
        marks = unpack_listed(own_index, places, segment.stored_rows).tolist()
    else:
        marks = unpack_marks(own_index, places).tolist()
    hashed = segment.stored_rows - sum(marks)
    chunks = []
    for place in range((row - segment.start) * segment.chunks, (row - segment.start + 1) * segment.chunks):
        if marks[place]:
            chunks.append(stored[hashed + sum(marks[:place])])
        elif segment.sharing is Sharing.MARKED_OR_HASHED:
            chunks.append(stored[reference_row_hash(row, index, hashed)])
        else:
            chunks.append(torch.zeros(segment.dim))
    return torch.cat(chunks)


def signature(packed: Packed, segment: Segment, row: int, index: int) -> int:
    """The word of a row in its segment's index bytes."""
    at = next(at for field, s, at in placed_index(packed.plan) if field == index and s == segment)
    at += 8 * (row - segment.start)
    return int.from_bytes(packed.segment_index[at : at + 8].numpy().tobytes(), "little")


def pooled_values(packed: Packed, rows: Rows) -> Tensor:
    """The pool (stored_rows, dim), wherever it is stored."""
    for index, field in enumerate(packed.plan.fields):
        for number, segment in enumerate(field.segments):
            if segment is packed.plan.pool:
                return quantized(packed, segment, rows[index, number])
    raise AssertionError("this plan has no pool")


def pad_to(vector: Tensor, size: int) -> Tensor:
    return torch.cat([vector, torch.zeros(size - len(vector))])


def on_path(segment: Segment, stored: Tensor, row: int) -> Tensor:
    """The quotient row of a row, through the network of its remainder."""
    hidden = 8 * segment.chunks
    size = path_rows(hidden, segment.dim)
    networks = path_networks(segment.rows, segment.stored_rows, size)
    permuted = (row - segment.start) * multiplier(segment.rows) % segment.rows
    quotient, remainder = divmod(permuted, networks)
    at = segment.stored_rows - (networks - remainder) * size
    return reference_path(stored[quotient : quotient + 1], stored[at : at + size], hidden)[0].float()


def paired(segment: Segment, stored: Tensor, row: int) -> Tensor:
    """The vector of a row that reads a quotient and a remainder, as long as both or as one."""
    quotient, remainder = reference_pair(row - segment.start, segment.rows, segment.stored_rows)
    remainders = remainder_rows(segment.rows, segment.stored_rows)
    one, other = stored[quotient], stored[segment.stored_rows - remainders + remainder]
    if segment.sharing is Sharing.QUOTIENT_CONCATENATE:
        return torch.cat([one, other])
    return one + other if segment.sharing is Sharing.QUOTIENT_ADD else one * other


@given(plans(PROFILES["packed"]), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_packed_rows_equal_the_fake_quantized_rows(plan: Plan, seed: int) -> None:
    packed, rows = packed_with_rows(plan, seed)
    table = PackedTable(packed)
    for index in range(len(plan.fields)):
        field = plan.fields[index]
        # a projection sums at most 8 terms of size < 300 in another order; path_mlp promises 1e-4 of float64
        paths = any(segment.sharing is Sharing.QUOTIENT_PATH for segment in field.segments)
        tolerance = 1e-3 if field.projection_dim else 1e-4 if paths else 1e-6
        torch.testing.assert_close(
            table.decode(index), expected_rows(packed, rows, index), rtol=1e-6, atol=tolerance
        )


@given(plans(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_a_saved_file_loads_to_the_same_bytes_and_rows(plan: Plan, seed: int) -> None:
    packed, _ = packed_with_rows(plan, seed)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tables.safetensors"
        packed.save(path)
        loaded = Packed.load(path, [field.name for field in plan.fields])
        before = path.read_bytes()
        loaded.save(path)
        assert path.read_bytes() == before
    assert loaded.plan == plan
    table, again = PackedTable(packed), PackedTable(loaded)
    for index in range(len(plan.fields)):
        assert torch.equal(table.decode(index), again.decode(index))


@given(plans(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_a_batch_reads_the_decoded_rows_and_pools_its_bags(plan: Plan, seed: int) -> None:
    packed, _ = packed_with_rows(plan, seed)
    first_rows = [sum(f.rows for f in plan.fields[:i]) for i in range(len(plan.fields))]
    table = PackedTable(packed, first_rows)
    generator = torch.Generator().manual_seed(seed)
    size = seed % 4
    ids = torch.stack([torch.randint(0, f.rows, (size,), generator=generator) for f in plan.fields], dim=1)
    bags: dict[int, Bag] = {}
    if seed % 3:
        lengths = torch.randint(0, 4, (size,), generator=generator)
        values = torch.randint(0, plan.fields[0].rows, (int(lengths.sum()),), generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        bags[0] = Bag(values, offsets, "mean" if seed % 3 == 1 else "sum")
        ids[:, 0] = 0
    read = table(Batch(torch.zeros(size), torch.zeros(size, 0), ids, bags))
    assert read.shape == (size, len(plan.fields), plan.fields[0].dim)
    for index in range(len(plan.fields)):
        rows = table.decode(index)
        expected = rows[ids[:, index]]
        if index in bags:
            bag = bags[index]
            pooled = [rows[bag.values[a:b]] for a, b in zip(bag.offsets[:-1], bag.offsets[1:], strict=True)]
            sums = [r.sum(0) / (max(len(r), 1) if bag.pooling == "mean" else 1) for r in pooled]
            expected = torch.stack(sums) if sums else expected
        torch.testing.assert_close(read[:, index], expected, rtol=1e-5, atol=1e-3)


def test_columns_of_a_row_lie_in_parts_of_their_own_bits() -> None:
    # head: 2 columns of 4 bits, step 1; tails: 2 of 2 bits, mid-rise, step 0.1; 1 of 1 bit, step 2: {-2, 0}
    rows = [torch.tensor([[3.0, -2.0], [7.0, 1.0]]), torch.tensor([[0.15, -0.05], [0.05, -0.15]])]
    rows.append(torch.tensor([[-2.0], [0.0]]))
    field = FieldPlan(
        "user",
        3,
        6,
        (
            own(0, 2, 2, "int4", scale=0),
            Segment(2, 2, Sharing.TAIL, 2, 2, "int2", True, 1),
            Segment(2, 2, Sharing.TAIL, 2, 1, "int1", False, 2),
            Segment(2, 3, Sharing.OOV),
        ),
    )
    parts = iter(rows)
    scales = torch.tensor([1.0, 0.1, 2.0])
    packed = pack(Plan(PROFILES["packed"], (field,)), lambda *_: SegmentRows(next(parts)), scales)
    assert packed.payload.tolist() == [11 + (6 << 4), 15 + (9 << 4), 3 + (1 << 2), 2, 0, 1]
    expected = torch.tensor([[3.0, -2.0, 0.15, -0.05, -2.0, 0.0], [7.0, 1.0, 0.05, -0.15, 0.0, 0.0]])
    torch.testing.assert_close(PackedTable(packed).decode(0), expected[[0, 1, 0]])
    bag = Bag(torch.tensor([0, 1, 2]), torch.tensor([0, 3]), "sum")
    pooled = PackedTable(packed)(Batch(torch.zeros(1), torch.zeros(1, 0), torch.zeros(1, 1).long(), {0: bag}))
    torch.testing.assert_close(pooled[0, 0], expected[[0, 1, 0]].sum(0))


def one_segment(profile: str, precision: str, values: Tensor, mid_rise: bool = False) -> Plan:
    rows, dim = values.shape
    shared = precision.startswith("int") and PROFILES[profile].row_scale_bytes == 0
    segment = own(0, rows, dim, precision, mid_rise=mid_rise, scale=0 if shared else None)
    return Plan(PROFILES[profile], (FieldPlan("user", rows, dim, (segment,)),))


def decoded(plan: Plan, values: Tensor, scale: Tensor | None = None) -> Tensor:
    return PackedTable(pack(plan, lambda *_: SegmentRows(values, scale))).decode(0)


@pytest.mark.parametrize("profile", ["packed-row-scale", "fbgemm-cpu", "fbgemm-gpu"])
@pytest.mark.parametrize("precision", ["int2", "int4", "int8"])
@pytest.mark.parametrize("mid_rise", [False, True])
def test_a_fitted_row_scale_is_within_half_a_step(profile: str, precision: str, mid_rise: bool) -> None:
    values = torch.randn(13, 7, generator=torch.Generator().manual_seed(1))
    bits = int(precision.removeprefix("int"))
    read = decoded(one_segment(profile, precision, values, mid_rise), values)
    reach = values.abs().amax(1) * 2
    if profile.startswith("fbgemm"):
        step = (values.amax(1) - values.amin(1)) / (2**bits - 1)
    else:
        step = reach / (2**bits - 1 if mid_rise else 2**bits - 2)
    # half a step, and what fp16 scale and bias lose (2^-11 of the row's reach, each)
    assert ((read - values).abs().amax(1) <= step / 2 + reach * 2.0**-10).all()


@pytest.mark.parametrize("profile", ["packed-row-scale", "fbgemm-cpu", "fbgemm-gpu"])
@pytest.mark.parametrize("mid_rise", [False, True])
def test_a_learned_row_scale_gives_the_codes_of_training(profile: str, mid_rise: bool) -> None:
    values = torch.randn(9, 5, generator=torch.Generator().manual_seed(2)) * 0.1
    scale = torch.linspace(0.01, 0.05, 9).half().float()  # what fp16 holds exactly
    read = decoded(one_segment(profile, "int4", values, mid_rise), values, scale)
    grids = grid_table([Grid(4, mid_rise)] * 9)
    expected = fake_quantize(values, scale, grids, torch.ones(9), torch.arange(9))
    # the fp16 bias of a mid-rise row (7.5 steps) is off by at most 2^-11 of itself
    torch.testing.assert_close(read, expected, rtol=0, atol=7.5 * 0.05 * 2.0**-11 if mid_rise else 1e-7)


@pytest.mark.parametrize("profile", ["packed-row-scale", "fbgemm-cpu", "fbgemm-gpu"])
def test_constant_and_zero_rows_survive_a_fitted_scale(profile: str) -> None:
    values = torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [-0.25, -0.25, -0.25]])
    read = decoded(one_segment(profile, "int8", values), values)
    torch.testing.assert_close(read, values, rtol=0, atol=0.5 * 2.0**-8)


def test_fbgemm_rows_hold_scale_bias_and_codes_in_this_order() -> None:
    # scale 0.5, bias -4 = -2^3 * 0.5; codes 8 + (-2, 0, 1) = 6, 8, 9, the low half of a byte first
    values = torch.tensor([[-1.0, 0.0, 0.5]])
    plan = one_segment("fbgemm-gpu", "int4", values)
    payload = pack(plan, lambda *_: SegmentRows(values, torch.tensor(0.5))).payload
    assert len(payload) == 128
    assert bytes(payload[:16].tolist()).hex() == "003800c48609" + "00" * 10
    assert torch.equal(decoded(plan, values, torch.tensor(0.5)), values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("profile", list(PROFILES))
def test_tables_on_the_gpu_read_the_same_rows(profile: str) -> None:
    segments = (
        own(0, 3, 7, "fp16"),
        own(3, 60, 7, "int4", scale=None if PROFILES[profile].row_scale_bytes else 0),
        own(60, 90, 5, "fp32"),
        Segment(
            90, 200, Sharing.HASHED, 11, 6, "int2", False, None if PROFILES[profile].row_scale_bytes else 1
        ),
        Segment(200, 210, Sharing.OOV),
    )
    packed, _ = packed_with_rows(Plan(PROFILES[profile], (FieldPlan("user", 210, 7, segments, 7),)), seed=1)
    table = PackedTable(packed)
    expected = table.decode(0)
    torch.testing.assert_close(table.to("cuda").decode(0).cpu(), expected, rtol=1e-5, atol=1e-4)


def test_the_sign_of_a_learned_step_is_dropped() -> None:
    values = torch.tensor([[-0.9, 0.2, 0.7]])
    plan = one_segment("packed", "int4", values)
    one, other = (pack(plan, lambda *_: SegmentRows(values), torch.tensor([s])) for s in (0.1, -0.1))
    assert torch.equal(one.payload, other.payload) and torch.equal(one.scales, other.scales)


@given(plans(PROFILES["packed"]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_row_that_is_not_there_is_refused_whatever_the_plan(plan: Plan, bagged: bool) -> None:
    if library() is None:
        pytest.skip("without C++ only plans of several rows a look-up are checked")
    table = PackedTable(packed_with_rows(plan, seed=1)[0])
    total = sum(field.rows for field in plan.fields)
    for row in (total, 2**62, 2**63 - 1, -1, -(2**63)):
        with pytest.raises(IndexError, match=f"row {row} at place 1 is out of range, there are {total}"):
            table.stored(torch.tensor([0, row, 0]))
    fields = len(plan.fields)
    ids = torch.zeros(2, fields, dtype=torch.int64)
    bags = {}
    if bagged:
        bags[fields - 1] = Bag(torch.tensor([0, plan.fields[-1].rows]), torch.tensor([0, 1, 2]))
    else:
        ids[1, -1] = plan.fields[-1].rows
    with pytest.raises(IndexError, match=f"row {total} at place"):
        table(Batch(torch.zeros(2), torch.zeros(2, 0), ids, bags))


def test_only_packed_bytes_are_held_while_looking_up() -> None:
    values = torch.zeros(5000, 16)
    table = PackedTable(
        pack(one_segment("packed", "int1", values), lambda *_: SegmentRows(values), torch.ones(1))
    )
    held = sum(buffer.numel() * buffer.element_size() for buffer in table.buffers())
    assert held < 5000 * 2 + 1000  # 2 bytes a row against 64 in float32


@pytest.mark.parametrize(
    ("precision", "value", "message"),
    [
        ("fp32", float("nan"), "rows .0, 2.: the rows hold NaN"),
        ("int4", float("inf"), "diverged"),
        ("fp16", 1e6, "does not fit float16"),
    ],
)
def test_rows_that_cannot_be_stored_are_refused(precision: str, value: float, message: str) -> None:
    values = torch.full((2, 3), value)
    with pytest.raises(ValueError, match=message):
        pack(one_segment("packed", precision, values), lambda *_: SegmentRows(values), torch.ones(1))


def test_rows_scales_and_projections_that_do_not_fit_the_plan_are_refused() -> None:
    values = torch.zeros(2, 3)
    plan = one_segment("packed", "int4", values)
    with pytest.raises(ValueError, match=r"expected values \(2, 3\), got \(2, 2\)"):
        pack(plan, lambda *_: SegmentRows(values[:, :2]), torch.ones(1))
    with pytest.raises(ValueError, match="scales: expected 1 finite numbers"):
        pack(plan, lambda *_: SegmentRows(values))
    with pytest.raises(ValueError, match="expected projections"):
        pack(plan, lambda *_: SegmentRows(values), torch.ones(1), projections=[torch.ones(3, 3)])
    with pytest.raises(ValueError, match="made for other data"):
        PackedTable(pack(plan, lambda *_: SegmentRows(values), torch.ones(1)), [0, 2])


def test_a_shortened_or_lengthened_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tables.safetensors"
    values = torch.ones(3, 3)
    pack(one_segment("packed", "int4", values), lambda *_: SegmentRows(values), torch.ones(1)).save(path)
    whole = path.read_bytes()
    for content in [*(whole[:length] for length in range(0, len(whole), 7)), whole[:-1], whole + b"\0"]:
        path.write_bytes(content)
        with pytest.raises(TablesError, match=r"tables\.safetensors"):
            Packed.load(path)
    with pytest.raises(TablesError, match="no such file"):
        Packed.load(tmp_path / "missing")


def marked_table(sharing: Sharing = Sharing.MARKED) -> tuple[Plan, Tensor, Tensor]:
    """600 rows of which 1, 515 and 599 are marked, and what is stored for them."""
    plan = Plan(PROFILES["packed"], (FieldPlan("user", 600, 2, (Segment(0, 600, sharing, 3, 2),)),))
    marks = torch.zeros(600, dtype=torch.bool)
    marks[[1, 515, 599]] = True
    index = pack_listed(marks) if sharing is Sharing.LISTED else pack_marks(marks)
    return plan, index, torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


@pytest.mark.parametrize("sharing", [Sharing.MARKED, Sharing.LISTED])
def test_marked_rows_read_what_is_stored_and_the_others_zero(sharing: Sharing) -> None:
    plan, index, values = marked_table(sharing)
    rows = PackedTable(pack(plan, lambda *_: SegmentRows(values, index=index))).decode(0)
    assert torch.equal(rows[[1, 515, 599]], values)
    assert rows.abs().sum() == values.sum()


def test_a_list_of_marks_that_is_altered_is_refused(tmp_path: Path) -> None:
    plan, index, values = marked_table(Sharing.LISTED)
    path = tmp_path / "tables.safetensors"
    pack(plan, lambda *_: SegmentRows(values, index=index)).save(path)
    whole = path.read_bytes()
    start = whole.index(index.numpy().tobytes())
    # a mark before the first block, the last mark before the others, and one behind the last row
    for at, value in ((0, 1), (9, 0), (9, 255)):
        path.write_bytes(whole[: start + at] + bytes([value]) + whole[start + at + 1 :])
        with pytest.raises(TablesError, match="its list is none of 3 marks"):
            Packed.load(path)


def test_codes_are_checked_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoembed.segment_index._CODES", 8)
    for rows in (1, 7, 8, 9, 16, 50):
        segment = Segment(0, rows, Sharing.CODEBOOK, min(5, rows), 3, "fp32")
        plan = Plan(PROFILES["packed"], (FieldPlan("user", rows, 3, (segment,)),))
        largest = segment.stored_rows - 1
        for place in range(rows):
            codes = torch.zeros(rows, dtype=torch.int64)
            codes[place] = largest
            check_segment_index(plan, pack_codes(segment, codes))
            codes[place] += 1
            if largest + 1 < 1 << code_bits(segment.stored_rows):
                with pytest.raises(ValueError, match=f"a code of {largest + 1} names no row"):
                    check_segment_index(plan, pack_codes(segment, codes))


def test_codes_that_are_altered_are_refused(tmp_path: Path) -> None:
    segment = Segment(0, 7, Sharing.CODEBOOK, 5, 3, "fp32")
    plan = Plan(PROFILES["packed"], (FieldPlan("user", 7, 3, (segment,)),))
    values = torch.arange(15.0).view(5, 3)
    index = pack_codes(segment, torch.tensor([4, 0, 1, 4, 2, 3, 3]))
    packed = pack(plan, lambda *_: SegmentRows(values, index=index))
    assert torch.equal(PackedTable(packed).decode(0), values[[4, 0, 1, 4, 2, 3, 3]])
    path = tmp_path / "tables.safetensors"
    packed.save(path)
    whole = path.read_bytes()
    start = whole.index(index.numpy().tobytes())
    assert len(index) == 3  # 21 bits
    for at, value, message in ((0, 1, "a code of 5 names no row"), (2, 32, "behind the last code")):
        altered = whole[start + at] | value
        path.write_bytes(whole[: start + at] + bytes([altered]) + whole[start + at + 1 :])
        with pytest.raises(TablesError, match=message):
            Packed.load(path)


def test_index_bytes_that_do_not_fit_their_segment_are_refused(tmp_path: Path) -> None:
    plan, index, values = marked_table()
    with pytest.raises(ValueError, match="expected 83 index bytes, got shape"):
        pack(plan, lambda *_: SegmentRows(values))
    fewer = torch.arange(600) == 7
    with pytest.raises(ValueError, match="1 chunks are marked, 3 are stored"):
        pack(plan, lambda *_: SegmentRows(values, index=pack_marks(fewer)))
    none_left = marked_table(Sharing.MARKED_OR_HASHED)[0]
    with pytest.raises(ValueError, match="at least 1 must be left"):
        pack(none_left, lambda *_: SegmentRows(values, index=index))
    path = tmp_path / "tables.safetensors"
    pack(plan, lambda *_: SegmentRows(values, index=index)).save(path)
    whole = path.read_bytes()
    start = whole.index(index.numpy().tobytes())
    for at in range(start, start + len(index)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(TablesError, match=r"rows \[0, 600\): .* mark"):
            Packed.load(path)


def test_a_file_of_another_version_or_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tables.safetensors"
    values = torch.ones(3, 3)
    pack(one_segment("packed", "int4", values), lambda *_: SegmentRows(values), torch.ones(1)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"version":"2"', b'"version":"1"'))
    with pytest.raises(TablesError, match="another version"):
        Packed.load(path)
    # the field's dimension, 3 -> 9: the rows would take 5 bytes each, the payload has 2
    at = whole.index(bytes([3, 3, 0, 0, 3, 3]))  # rows, dimension, no projection; own, int4, to row 3
    path.write_bytes(whole[:at] + bytes([3, 9, 0, 0, 3, 3]) + whole[at + 6 :])
    with pytest.raises(TablesError):
        Packed.load(path)
    path.write_bytes(whole)
    with pytest.raises(TablesError, match="2 names"):
        Packed.load(path, ["a", "b"])


def test_the_file_is_these_bytes(tmp_path: Path) -> None:
    """The format on one page (docs/format.md), byte by byte."""
    plan = Plan(
        PROFILES["packed"],
        (
            FieldPlan(
                "user",
                5,
                4,
                (
                    own(0, 1, 4, "fp16"),
                    own(1, 3, 3, "int3", scale=0, offset=0),
                    Segment(3, 5, Sharing.OOV),
                ),
            ),
        ),
    )
    rows = {0: torch.tensor([[1.0, -2.0, 0.5, 0.0]]), 1: torch.tensor([[0.0, 0.5, -9.0], [9.0, 0.25, 0.3]])}
    packed = pack(plan, lambda _, s: SegmentRows(rows[s.start]), torch.tensor([0.5]), [torch.zeros(3)])
    path = tmp_path / "tables.safetensors"
    packed.save(path)
    header = (
        b'{"__metadata__":{"format":"autoembed-tables","version":"2"},'
        b'"offsets":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},'
        b'"scales":{"dtype":"F32","shape":[1],"data_offsets":[12,16]},'
        b'"index":{"dtype":"U8","shape":[16],"data_offsets":[16,32]},'
        b'"payload":{"dtype":"U8","shape":[12],"data_offsets":[32,44]}}'
    )
    header += b" " * (-len(header) % 8)
    index = (
        "02"
        "00"
        "08"
        "01"  # version 2, profile packed, scales in turn and offsets of a byte, 1 field
        "05"
        "04"
        "00"  # 5 rows of dimension 4, no projection
        "00"
        "08"
        "01"  # own, all 4 values in fp16, to row 1
        "00"
        "32"
        "03"
        "00"  # own, 3 values in int3, to row 3, offset 0
        "02"
        "05"  # reads row 0, to row 5
    )
    # codes 4, 5, 0 and 7, 4, 5 (0.25 / 0.5 rounds to even 0, 0.6 to 1), 3 bits each
    payload = "003c00c0003800 00".replace(" ", "") + "2c00" + "6701"
    expected = len(header).to_bytes(8, "little") + header
    expected += bytes(12) + bytes.fromhex("0000003f") + bytes.fromhex(index) + bytes.fromhex(payload)
    assert path.read_bytes() == expected
    read = PackedTable(Packed.load(path)).decode(0)
    first = [1.0, -2.0, 0.5, 0.0]
    assert read.tolist() == [first, [0.0, 0.5, -2.0, 0.0], [1.5, 0.0, 0.5, 0.0], first, first]

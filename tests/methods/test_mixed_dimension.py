import numpy as np
import pytest
import torch
from methods.settings import BAG_FIELD, DIM, all_rows, batch, spec, stats

from autoembed.lookup import look_up
from autoembed.methods.base import TableSpec
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.mixed_dimension import (
    MixedDimension,
    MixedDimensionTable,
    blocks_of,
    popularity_dims,
)
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, plan_bytes
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.row_update import RowOptimizer

# rows of the 26 categorical fields of Criteo Kaggle, nothing filtered
CRITEO = (
    1460,
    583,
    10131227,
    2202608,
    305,
    24,
    12517,
    633,
    3,
    93145,
    5683,
    8351593,
    3194,
    27,
    14992,
    5461306,
)
CRITEO += (10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572)


def table(method: MixedDimension, profile: str = "packed") -> MixedDimensionTable:
    made = method.table(spec(profile), torch.Generator().manual_seed(3), RowOptimizer("sgd"))
    assert isinstance(made, MixedDimensionTable)
    return made


def zipf_spec(profile: str = "packed", dim: int = 16) -> TableSpec:
    """Three fields of one look-up per example, 10, 300 and 20000 rows."""
    fields = []
    for rows in (10, 300, 20000):
        counts = np.maximum(40_000 // np.arange(1, rows), 1)
        counts = np.concatenate([[0], counts])
        counts[0] = max(500_000 - counts.sum(), 0)
        fields.append(FieldStats(f"field_{rows}", counts.astype(np.int64)))
    return TableSpec(Stats(tuple(fields)), dim, PROFILES[profile])


@pytest.mark.parametrize(
    ("alpha", "ratio", "widest"), [(0.05, 2.0, 8), (0.1, 3.98, 4), (0.15, 7.86, 2), (0.2, 15.69, 1)]
)
def test_the_rule_gives_the_known_dimensions_of_criteo(alpha: float, ratio: float, widest: int) -> None:
    dims = popularity_dims([1 / rows for rows in CRITEO], 16, alpha, powers_of_two=True)
    largest = sorted(zip(CRITEO, dims, strict=True))[-5:]
    assert [dim for _, dim in largest] == [widest] * 5
    values = sum(rows * dim for rows, dim in zip(CRITEO, dims, strict=True))
    assert round(16 * sum(CRITEO) / values, 2) == ratio


def test_popularity_is_look_ups_per_row_so_that_fields_of_several_ids_count_them_all() -> None:
    one = FieldStats("one", np.array([0, 6, 2]))
    several = FieldStats("several", np.array([0, 20, 8, 4]), bag=True)
    never = FieldStats("never", np.array([0, 0]))
    blocks = blocks_of(Stats((one, several, never)), "field")
    assert blocks == [[(0, 3, 8 / 3)], [(0, 4, 8.0)], [(0, 2, 0.5)]]
    assert popularity_dims([8 / 3, 8.0, 0.5], 16, 1.0, powers_of_two=False) == [5, 16, 1]


def test_alpha_zero_is_full_precision_to_the_byte() -> None:
    for profile in ("packed", "fbgemm-gpu"):
        method = MixedDimension(alpha=0.0)
        assert method.footprint(spec(profile)) == FullPrecision().footprint(spec(profile))


@pytest.mark.parametrize("blocks", ["field", "group"])
@pytest.mark.parametrize("keep", [0.5, 0.25, 0.1])
def test_keep_bounds_the_bytes_and_no_smaller_alpha_meets_it(keep: float, blocks: str) -> None:
    at = zipf_spec()
    method = MixedDimension(alpha=0.0, keep=keep, blocks=blocks, rounding="nearest")
    allowed = keep * 4 * 16 * at.stats.rows
    size = method.footprint(at).high_bytes
    assert size <= allowed
    sizes = [
        MixedDimension(alpha=alpha, blocks=blocks, rounding="nearest").footprint(at).high_bytes
        for alpha in np.linspace(0.0, 1.0, 60)
    ]
    assert size >= max(s for s in sizes if s <= allowed)


def test_groups_inside_a_field_fill_a_budget_that_whole_fields_overshoot() -> None:
    at = zipf_spec()
    sizes = {
        blocks: MixedDimension(alpha=0.0, keep=0.3, blocks=blocks).footprint(at).high_bytes
        for blocks in ("field", "group")
    }
    assert sizes["field"] < sizes["group"] <= 0.3 * 4 * 16 * at.stats.rows


def test_a_bound_that_the_rule_cannot_reach_gives_its_smallest_plan() -> None:
    at = zipf_spec()
    sizes = [MixedDimension(alpha=alpha).footprint(at).high_bytes for alpha in np.linspace(0, 1, 400)]
    assert MixedDimension(alpha=0.0, keep=1e-3).footprint(at).high_bytes == min(sizes)


def test_a_bound_is_met_where_bytes_do_not_fall_with_every_step_of_alpha() -> None:
    a = [1, 30, 30, 17, 11, 9, 9, 8, 8, 7, 6, 6, 5, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, *[1] * 12]
    stats = Stats(tuple(FieldStats(name, np.array(counts)) for name, counts in (("a", a), ("b", [0, 9, 4]))))
    at = TableSpec(stats, 16, PROFILES["fbgemm-cpu"])

    def size(**knobs: float) -> int:
        return (
            MixedDimension(**{"blocks": "group", "bits": 8, "alpha": 0.0, **knobs}).footprint(at).high_bytes
        )

    # padded to 16 bytes a row: of all alphas the one with 1232 bytes is followed by larger ones
    sizes = [size(alpha=alpha) for alpha in np.linspace(0, 1, 2001).tolist()]
    assert sizes != sorted(sizes, reverse=True) and min(sizes) <= 1232
    assert size(keep=0.50678454) <= 1232


def test_no_field_is_narrowed_where_its_matrix_costs_more_than_it_saves() -> None:
    fields = table(MixedDimension(alpha=0.8)).fields
    assert popularity_dims([p for ((_, _, p),) in blocks_of(stats(), "field")], DIM, 0.8, True) == [
        4,
        8,
        4,
        1,
    ]
    # field_2 has 3 rows: a matrix of 8 columns costs more than narrower rows save
    assert [f.segments[0].dim for f in fields] == [4, 8, 8, 1]
    assert [f.projection_dim for f in fields] == [4, 0, 0, 1]


def test_rows_that_cost_the_same_take_the_wider_dimension() -> None:
    # 16-byte rows: two floats cost as much as four
    method = MixedDimension(alpha=0.4, blocks="group")
    dims = {p: {s.dim for s in table(method, p).fields[0].segments} for p in ("packed", "fbgemm-gpu")}
    assert dims["packed"] == {1, 2, 4, 8} and dims["fbgemm-gpu"] == {4, 8}


def test_training_holds_rows_of_their_own_width() -> None:
    at = zipf_spec()
    sizes = []
    for method in (MixedDimension(alpha=0.0), MixedDimension(alpha=0.0, keep=1 / 8, blocks="group")):
        made = method.table(at, torch.Generator().manual_seed(0), RowOptimizer("adam"))
        assert isinstance(made, MixedDimensionTable)
        held = sum(b.numel() for name, b in made.named_buffers() if name.endswith("weight"))
        assert held == sum(s.stored_rows * s.dim for f in made.fields for s in f.segments)
        sizes.append(made.training_bytes)
    assert sizes[1] < sizes[0] / 6  # the row counters of Adam do not shrink


def test_the_matrix_is_applied_after_pooling() -> None:
    made = table(MixedDimension(alpha=0.3))
    assert made.fields[BAG_FIELD].projection_dim and made.matrices is not None
    example = batch(64, seed=5)
    bag = example.bags[BAG_FIELD]
    assert bag.pooling == "mean" and (bag.offsets.diff() == 0).any()
    rows = made.values(look_up(example, made.first_rows))[-len(bag.values) :, :4]
    mapped = rows @ made.matrices[-1, :4].half().float()
    expected = torch.stack(
        [mapped[a:b].sum(0) / max(b - a, 1) for a, b in zip(bag.offsets[:-1], bag.offsets[1:], strict=True)]
    )
    torch.testing.assert_close(made(example)[:, BAG_FIELD], expected)


def test_groups_of_a_projected_field_share_its_matrix_and_read_back() -> None:
    made = table(MixedDimension(alpha=0.15, blocks="group", rounding="nearest"))
    fields: tuple[FieldPlan, ...] = made.fields
    assert len({s.dim for s in fields[0].segments}) > 2
    assert any(f.projection_dim and len(f.segments) > 1 for f in fields)
    for seed in range(3):
        made(batch(64, seed)).square().sum().backward()
        made.update(0.1)
    reader = PackedTable(made.pack(), spec().stats.first_rows)
    with torch.no_grad():
        torch.testing.assert_close(reader(all_rows()), made(all_rows()), atol=1e-6, rtol=0)


def test_a_plan_of_criteo_counts_every_byte() -> None:
    counts = tuple(FieldStats(str(i), np.full(rows, 1)) for i, rows in enumerate(CRITEO[:2] + CRITEO[4:8]))
    at = TableSpec(Stats(counts), 16, PROFILES["packed"])
    method = MixedDimension(alpha=0.1)
    made = method.table(at, torch.Generator().manual_seed(0), RowOptimizer("sgd"))
    packed = made.pack()
    assert packed.bytes == plan_bytes(made.plan())
    expected = sum(4 * s.stored_rows * s.dim for f in made.plan().fields for s in f.segments)
    assert packed.bytes.payload == expected
    assert packed.bytes.projections == sum(2 * f.projection_dim * 16 for f in made.plan().fields)


def test_the_dimension_of_the_study_is_never_exceeded() -> None:
    for dim in (1, 3, DIM):
        at = zipf_spec(dim=dim)
        for field in (
            MixedDimension(alpha=0.3, blocks="group")
            .table(at, torch.Generator(), RowOptimizer("sgd"))
            .plan()
            .fields
        ):
            assert all(1 <= s.dim <= dim for s in field.segments) and field.projection_dim < dim

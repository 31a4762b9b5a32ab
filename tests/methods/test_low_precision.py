import pytest
import torch
from methods.settings import all_rows, batch, spec

from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.low_precision import LowPrecision, LowPrecisionTable
from autoembed.methods.low_rows import LowRows
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, plan_bytes
from autoembed_kernels.low_row_update import row_steps, write_low_rows
from autoembed_kernels.repeated_update import repeated_row_update
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
FORMATS = pytest.mark.parametrize("format", list(DTYPES))


def table(method: LowPrecision, optimizer: str = "sgd", seed: int = 0) -> LowPrecisionTable:
    made = method.table(spec(), torch.Generator().manual_seed(seed), RowOptimizer(optimizer))
    assert isinstance(made, LowPrecisionTable)
    return made


@FORMATS
def test_small_steps_stall_with_nearest_rounding_and_arrive_with_stochastic(format: str) -> None:
    # every value starts at 1 and is pushed down by 0.0001 a step: a fifth of float16's spacing below 1, and a
    # 39th of bfloat16's
    moved = {}
    for rounding, seed in (("stochastic", 11), ("nearest", None)):
        rows = LowRows(torch.ones(64, 8, dtype=DTYPES[format]), RowOptimizer("sgd"), seed)
        for _ in range(200):
            values = rows.look_up(torch.arange(64))
            values.sum().backward()
            rows.update(1e-4)
        moved[rounding] = 1 - rows.weight.float().mean().item()
    assert moved["nearest"] == 0.0
    # 512 walks of 200 steps whose deviation is at most half a spacing: four standard errors of their mean
    spacing = 2.0**-11 if format == "fp16" else 2.0**-8
    assert moved["stochastic"] == pytest.approx(0.02, abs=4 * 0.5 * spacing * (200 / 512) ** 0.5)


@FORMATS
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_is_the_float32_step_rounded_to_a_neighbour(format: str, optimizer: str) -> None:
    made = table(LowPrecision(format=format), optimizer)
    exact = made.rows.weight.float()
    state = RowOptimizer(optimizer).state(exact)
    made(all_rows()).square().sum().backward()
    assert made.rows._pending is not None
    rows, values = made.rows._pending
    assert values.grad is not None
    repeated_row_update(RowOptimizer(optimizer), exact, state, rows, values.grad.clone(), 0.01)
    made.update(0.01)
    nearest = exact.to(DTYPES[format]).float()
    # a neighbour is less than a spacing away, at most twice what the nearest value's exponent says
    spacing = 2.0 ** (nearest.abs().clamp(min=2.0**-14).log2().floor() - (10 if format == "fp16" else 7))
    assert ((made.rows.weight.float() - exact).abs() <= spacing).all()
    assert (made.rows.weight.float() != nearest).any()
    for name, expected in state.items():
        torch.testing.assert_close(made.rows.get_buffer(name), expected)


@FORMATS
def test_training_holds_half_of_the_rows_and_full_optimizer_state(format: str) -> None:
    full = {
        name: FullPrecision().table(spec(), torch.Generator(), RowOptimizer(name)).training_bytes
        for name in ("sgd", "rowwise_adagrad", "adam")
    }
    made = {name: table(LowPrecision(format=format), name) for name in full}
    rows = 264
    assert made["sgd"].training_bytes == 2 * 8 * rows
    assert made["rowwise_adagrad"].training_bytes == (2 * 8 + 4) * rows
    assert made["adam"].training_bytes == (2 * 8 + 2 * 4 * 8 + 4) * rows
    assert all(made[name].training_bytes <= full[name] - 2 * 8 * rows for name in full)
    for state in made["adam"].rows.buffers():
        assert state.untyped_storage().nbytes() == state.numel() * state.element_size()


@FORMATS
def test_the_file_holds_the_trained_rows_bit_for_bit(format: str) -> None:
    made = table(LowPrecision(format=format), "adam")
    for seed in range(3):
        made(batch(64, seed)).square().sum().backward()
        made.update(0.01)
    reader = PackedTable(made.pack(), spec().stats.first_rows)
    for field, first in enumerate(spec().stats.first_rows):
        rows = reader.decode(field)
        assert torch.equal(rows, made.rows.weight[first : first + len(rows)].float())


def test_the_same_seed_rounds_alike_and_another_seed_does_not() -> None:
    weights = []
    for seed in (1, 1, 2):
        rows = LowRows(torch.full((16, 8), 0.5, dtype=torch.float16), RowOptimizer("sgd"), seed)
        for _ in range(3):
            values = rows.look_up(torch.arange(16))
            values.sum().backward()
            rows.update(1e-4)
        weights.append(rows.weight.clone())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_rows_that_were_not_read_stay_as_they_are() -> None:
    made = table(LowPrecision(), "adam")
    before = made.rows.weight.clone()
    example = batch(4, seed=0)
    made(example).sum().backward()
    assert made.rows._pending is not None
    read = made.rows._pending[0]
    made.update(0.05)
    untouched = torch.ones(len(before), dtype=torch.bool)
    untouched[read] = False
    assert untouched.sum() > 200 and torch.equal(made.rows.weight[untouched], before[untouched])


ROW_SCALES = pytest.mark.parametrize("profile", [p for p in PROFILES if p != "packed"])


def int8_table(profile: str, rounding: str = "stochastic") -> LowPrecisionTable:
    method = LowPrecision(format="int8", rounding=rounding)
    made = method.table(spec(profile), torch.Generator().manual_seed(0), RowOptimizer("sgd"))
    assert isinstance(made, LowPrecisionTable)
    return made


@ROW_SCALES
def test_codes_of_eight_bits_pack_to_what_was_trained(profile: str) -> None:
    made = int8_table(profile)
    for seed in range(3):
        made(batch(64, seed)).square().sum().backward()
        made.update(0.05)
    packed = made.pack()
    footprint = LowPrecision(format="int8").footprint(spec(profile))
    assert packed.bytes == plan_bytes(made.plan()) and packed.bytes.total == footprint.high_bytes
    reader = PackedTable(packed, spec().stats.first_rows)
    for field, first in enumerate(spec().stats.first_rows):
        rows = reader.decode(field)
        assert torch.equal(rows, made.rows.read(torch.arange(first, first + len(rows))))


@ROW_SCALES
def test_codes_of_eight_bits_hold_a_byte_a_value_and_a_step_a_row(profile: str) -> None:
    made = int8_table(profile)
    assert made.rows.weight.dtype is torch.int8
    assert made.training_bytes == 264 * (8 + 2)
    assert set(made.state_dict()) == {"rows.weight", "rows.steps"}


def test_small_steps_stall_in_eight_bits_too_unless_rounded_by_chance() -> None:
    moved = {}
    for rounding in ("stochastic", "nearest"):
        made = int8_table("packed-row-scale", rounding)
        rows = torch.arange(264)
        # the first column is 127 steps of 1 / 128 and is not pushed, so that the step of the row stays
        ones = torch.full((264, 8), 0.5)
        ones[:, 0] = 127 / 128
        write_low_rows(made.rows.weight, made.rows.steps, rows, ones, None)
        assert (made.rows.weight[:, 0] == 127).all()
        before = made.rows.read(rows)
        for _ in range(200):
            values = made.rows.look_up(rows)
            values[:, 1:].sum().backward()
            made.rows.update(1e-4)
        moved[rounding] = (before - made.rows.read(rows))[:, 1:].mean().item()
    step = 1 / 128
    assert moved["nearest"] == 0.0
    # 1848 walks whose deviation is at most half a step a step: four standard errors of their mean
    assert moved["stochastic"] == pytest.approx(0.02, abs=4 * 0.5 * step * (200 / 1848) ** 0.5)


def test_a_profile_without_row_scales_refuses_eight_bits_and_names_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"'packed' cannot store a scale in each row.*fp16"):
        LowPrecision(format="int8").footprint(spec("packed"))


@pytest.mark.parametrize("size", [1e-6, 1e-3, 0.3, 5.0])
def test_steps_are_held_exactly_in_half_precision_and_read_back_as_they_were(size: float) -> None:
    values = torch.randn(500, 8, generator=torch.Generator().manual_seed(2)) * size
    steps = row_steps(values)
    assert torch.equal(steps.half().float(), steps) and torch.equal(steps.bfloat16().float(), steps)
    assert torch.equal((128 * steps).half().float(), 128 * steps)
    assert (values.abs() <= 127 * steps * (1 + 1e-6)).all()
    assert torch.equal(row_steps(127 * steps), steps)

import pytest
import torch
from torch import Tensor

from autoembed_kernels.lsq import Grid, fake_quantize, grid_table, mix_quantized, reference

GRIDS = [Grid(bits, mid_rise) for bits in (1, 2, 3, 4, 8) for mid_rise in (False, True)]


def rows(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def surrogate(values: Tensor, step: Tensor, grid: Grid, offset: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
    """The function whose true gradient is the straight-through one: rounding errors and clipping frozen.

    `at` are the units and the rounded codes where the gradient is taken.
    """
    units, codes = at
    moved = (values - offset) / step - grid.shift + (codes - units)
    low, high = grid.lowest - grid.shift, grid.highest + grid.shift
    inside = (units >= low) & (units <= high)
    clipped = codes.clamp(grid.lowest, grid.highest)
    return (torch.where(inside, moved, clipped) + grid.shift) * step + offset


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("count", "dim"), [(1, 1), (7, 5), (13, 16), (0, 3)])
def test_values_equal_the_reference_for_every_grid_and_awkward_shape(
    grid: Grid, count: int, dim: int
) -> None:
    values, offset = rows(count, dim).float(), rows(1, dim, 1)[0].float() * 0.1
    quantized = fake_quantize(values, torch.tensor([0.3]), grid_table([grid]), torch.ones(1), None, offset)
    torch.testing.assert_close(quantized.double(), reference(values, 0.3, grid, offset), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_equal_finite_differences_inside_and_outside_the_clip_range(
    grid: Grid, sign: float
) -> None:
    values, offset = rows(11, 3), rows(1, 3, 1)[0] * 0.1
    step = torch.tensor([sign * 2.0 / 2**grid.bits], dtype=torch.float64)
    weight = rows(11, 3, 2)
    leaves = [x.clone().requires_grad_() for x in (values, step, offset)]
    scale = torch.tensor([0.7], dtype=torch.float64)
    output = fake_quantize(leaves[0], leaves[1], grid_table([grid]).double(), scale, None, leaves[2])
    (output * weight).sum().backward()

    units = (values - offset) / step.abs() - grid.shift
    at = (units, units.round())
    low, high = grid.lowest - grid.shift, grid.highest + grid.shift
    outside = (units < low) | (units > high)
    assert outside.any() and not outside.all()

    def value(v: Tensor, s: Tensor, o: Tensor) -> Tensor:
        return (surrogate(v, s.abs(), grid, o, at) * weight).sum()

    for position, factor in ((0, 1.0), (1, 0.7), (2, 0.7)):
        start = (values, step, offset)[position]
        expected = torch.empty(start.numel(), dtype=torch.float64)
        for index in range(start.numel()):
            ends = []
            for change in (1e-6, -1e-6):
                moved = [values.clone(), step.clone(), offset.clone()]
                moved[position].view(-1)[index] += change
                ends.append(value(*moved))
            expected[index] = (ends[0] - ends[1]) / 2e-6
        gradient = leaves[position].grad
        assert gradient is not None
        # central differences of a function linear or hyperbolic in its arguments: error about 1e-9
        torch.testing.assert_close(gradient.view(-1), expected * factor, atol=1e-6, rtol=1e-6)


def test_one_bit_has_two_levels() -> None:
    values = torch.linspace(-2, 2, 41).unsqueeze(1)
    for grid, levels in ((Grid(1), [-0.5, 0.0]), (Grid(1, mid_rise=True), [-0.25, 0.25])):
        quantized = fake_quantize(values, torch.tensor([0.5]), grid_table([grid]), torch.ones(1))
        assert quantized.unique().tolist() == levels


def test_rows_with_their_own_steps_equal_rows_quantized_apart() -> None:
    grids = [Grid(2, mid_rise=True), Grid(4), Grid(8)]
    which = torch.tensor([0, 2, 1, 1, 0, 2, 2])
    scales = torch.tensor([0.5, 0.25, 0.125])
    together = [x.requires_grad_() for x in (rows(7, 5).float(), torch.tensor([0.4, 0.2, 0.02]))]
    weight = rows(7, 5, 3).float()
    output = fake_quantize(together[0], together[1], grid_table(grids), scales, which)
    (output * weight).sum().backward()
    for number, grid in enumerate(grids):
        part = which == number
        values = rows(7, 5).float()[part].requires_grad_()
        step = torch.tensor([[0.4, 0.2, 0.02][number]], requires_grad=True)
        alone = fake_quantize(values, step, grid_table([grid]), scales[number : number + 1])
        (alone * weight[part]).sum().backward()
        assert torch.equal(output[part], alone)
        assert together[0].grad is not None and values.grad is not None
        assert torch.equal(together[0].grad[part], values.grad)
        assert together[1].grad is not None and step.grad is not None
        torch.testing.assert_close(together[1].grad[number : number + 1], step.grad)


def test_a_mixture_of_widths_equals_the_sum_of_single_widths() -> None:
    grids = [Grid(1), Grid(3), Grid(6)]
    values = rows(9, 4).requires_grad_()
    steps = torch.tensor([0.8, -0.3, 0.05], dtype=torch.float64, requires_grad=True)
    offset = (rows(1, 4, 1)[0] * 0.1).requires_grad_()
    mixture = torch.rand(9, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mixture[2] = torch.tensor([0.0, 0.0, 1.0])
    mixture[3] = 0.0
    mixture.requires_grad_()
    scales = torch.tensor([0.5, 0.25, 0.125], dtype=torch.float64)
    leaves = (values, steps, offset, mixture)
    weight = rows(9, 4, 2)
    table = grid_table(grids).double()
    mixed = mix_quantized(values, steps, table, scales, mixture, offset)
    got = torch.autograd.grad((mixed * weight).sum(), leaves)
    single = sum(
        mixture[:, p : p + 1]
        * fake_quantize(values, steps[p : p + 1], table[p : p + 1], scales[p : p + 1], None, offset)
        for p in range(3)
    )
    assert isinstance(single, Tensor)
    expected = torch.autograd.grad((single * weight).sum(), leaves)
    torch.testing.assert_close(mixed, single)
    for name, one, other in zip(("values", "steps", "offset"), got, expected, strict=False):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")
    weighed = mixture.detach() > 0
    torch.testing.assert_close(got[3][weighed], expected[3][weighed])
    assert not mixed[3].any()


def test_an_empty_batch_has_empty_gradients() -> None:
    values = torch.zeros(0, 4, requires_grad=True)
    steps = torch.tensor([0.1, 0.2], requires_grad=True)
    table = grid_table([Grid(2), Grid(4)])
    output = mix_quantized(values, steps, table, torch.ones(2), torch.zeros(0, 2))
    output.sum().backward()
    assert output.shape == (0, 4) and steps.grad is not None and not steps.grad.any()


def test_a_mixture_of_whole_numbers_is_that_of_floats() -> None:
    values, table = rows(5, 4).float(), grid_table([Grid(4), Grid(2)])
    steps, scales = torch.tensor([0.1, 0.2]), torch.ones(2)
    mixture = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0], [2, 0]])
    mixed = mix_quantized(values, steps, table, scales, mixture)
    assert torch.equal(mixed, mix_quantized(values, steps, table, scales, mixture.float()))


def test_numbers_in_another_dtype_give_what_float32_gives() -> None:
    values, table = rows(5, 4).float(), grid_table([Grid(4), Grid(2)])
    steps, scales, which = torch.tensor([0.125, 0.25]), torch.ones(2), torch.tensor([1, 0, 0, 1, 1])
    expected = fake_quantize(values, steps, table, scales, which)
    assert torch.equal(fake_quantize(values, steps, table, scales, which.int()), expected)
    # steps that float32 holds exactly; the guard is added in float64
    wide = fake_quantize(values, steps.double(), table.double(), scales, which)
    torch.testing.assert_close(wide.float(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"which": torch.zeros(2, dtype=torch.int64)},
        {"which": None},
        {"which": torch.zeros(5)},
        {"offset": torch.zeros(2)},
        {"steps": torch.ones(1)},
        {"grids": torch.zeros(2, 2)},
        {"values": torch.zeros(5)},
        {"gradient_scales": torch.ones(1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Tensor | None]) -> None:
    of_both = {
        "values": torch.zeros(5, 4, requires_grad=True),
        "steps": torch.ones(2),
        "grids": grid_table([Grid(4), Grid(2)]),
        "gradient_scales": torch.ones(2),
        "offset": torch.zeros(4),
    }
    one = {**of_both, "which": torch.zeros(5, dtype=torch.int64), **change}
    with pytest.raises(ValueError, match=r"shape .* expected"):
        fake_quantize(**one).sum().backward()
    change = {"mixture": torch.ones(5, 3)} if "which" in change else change
    mixed = {**of_both, "mixture": torch.ones(5, 2), **change}
    with pytest.raises(ValueError, match=r"shape .* expected"):
        mix_quantized(**mixed).sum().backward()

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.chunk_rounds import reference_moves
from autoembed_kernels.field_scales import PERCENT, SAMPLES, field_scales, reference

UTILITIES = st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0, 1e-3, 1e-6, 1e4])


@st.composite
def utilities(draw: st.DrawFn) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """Of fields that may be empty or hold nothing above zero, each in a scale of its own."""
    chunks = draw(st.sampled_from([1, 2, 3]))
    rows: list[list[float]] = []
    fields = []
    for _ in range(draw(st.integers(1, 4))):
        scale = draw(st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
        first = len(rows)
        for _ in range(draw(st.sampled_from([0, 1, 2, 7, 30]))):
            rows.append([scale * draw(UTILITIES) for _ in range(chunks)])
        fields.append((first, len(rows)))
    return torch.tensor(rows).view(-1, chunks), fields


@given(utilities())
@settings(deadline=None, max_examples=60)
def test_scales_are_those_of_the_reference_and_the_largest_is_one(
    made: tuple[torch.Tensor, list[tuple[int, int]]],
) -> None:
    utility, fields = made
    before = utility.clone()
    scales = field_scales(utility, fields)
    torch.testing.assert_close(
        scales.scale.double(), torch.tensor(reference(utility.tolist(), fields)).double()
    )
    assert torch.equal(utility, before) and scales.scale.max() == 1
    for chunk, u in enumerate(utility.flatten()):
        (field,) = [f for f, (first, last) in enumerate(fields) if first <= chunk // utility.shape[1] < last]
        assert scales.divide(u.view(1), torch.tensor([chunk])) == u / scales.scale[field]


@given(
    utilities(), st.sampled_from([0.5, 0.98]), st.sampled_from([(0.0, 0.0), (0.2, 0.4)]), st.integers(0, 99)
)
@settings(deadline=None, max_examples=60)
def test_moves_are_those_that_the_reference_makes_field_by_field(
    made: tuple[torch.Tensor, list[tuple[int, int]]], decay: float, bounds: tuple[float, float], seed: int
) -> None:
    utility, fields = made
    generator = torch.Generator().manual_seed(seed)
    pointers = torch.randint(-1, 1, utility.shape, generator=generator, dtype=torch.int32)
    scales = field_scales(utility, fields)
    decayed = utility * decay
    expected: tuple[list[int], list[int]] = [], []
    for (first, last), scale in zip(fields, scales.scale.tolist(), strict=True):
        exact = [float(torch.tensor(bound * scale)) for bound in bounds]
        held = pointers[first:last].flatten().tolist(), decayed[first:last].flatten().tolist()
        for chosen, found in zip(expected, reference_moves(*held, *exact), strict=True):
            chosen += [first * utility.shape[1] + chunk for chunk in found]
    leave, come = scales.choose_moves(pointers, utility, decay, *bounds)
    assert (leave.tolist(), come.tolist()) == expected
    assert torch.equal(utility, decayed)


def test_a_percentile_is_the_least_that_so_many_do_not_exceed() -> None:
    utility = torch.tensor([*range(1, 101), *[0] * 50, 1000]).float().view(-1, 1)
    assert field_scales(utility, [(0, 150), (150, 151)]).scale.tolist() == pytest.approx(
        [PERCENT / 1000, 1.0]
    )


def test_a_field_that_is_long_is_read_from_all_its_parts_and_all_chunks() -> None:
    rows = 3 * SAMPLES + 1
    # frequent rows come first, and the second chunk's utilities are 100 times as large
    utility = torch.linspace(2.0, 1.0, rows).unsqueeze(1) * torch.tensor([0.01, 1.0])
    scales = field_scales(torch.cat([utility, torch.ones(1, 2)]), [(0, rows), (rows, rows + 1)])
    exact = utility.flatten().sort().values[PERCENT * 2 * rows // 100]
    ratio = float(scales.scale[0] / scales.scale[1])
    assert ratio == pytest.approx(float(exact), rel=1e-3)


def test_a_long_field_of_which_hardly_anything_was_looked_up_has_a_scale_all_the_same() -> None:
    utility = torch.zeros(SAMPLES + 10, 2)
    utility[7, 1], utility[-1] = 0.001, 1.0
    scales = field_scales(utility, [(0, SAMPLES + 9), (SAMPLES + 9, SAMPLES + 10)])
    assert scales.scale.tolist() == pytest.approx([0.001, 1.0])

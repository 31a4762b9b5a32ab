"""The custom operators: schemas, shapes, gradients; compiled fronts give what eager ones give."""

import dataclasses
from collections.abc import Callable, Sequence

import pytest
import torch
from random_plans import packed_with_rows
from torch import Tensor

import autoembed_kernels.ops  # noqa: F401
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Plan, Segment, Sharing, own
from autoembed_kernels.bitpack import pack_bits, unpack_bits
from autoembed_kernels.dedupe import dedupe, repeat, sum_repeats, take_rows
from autoembed_kernels.gather_packed import gather_packed
from autoembed_kernels.look_up_packed import look_up_packed
from autoembed_kernels.low_row_update import low_row_update, low_row_values
from autoembed_kernels.lsq import Grid, fake_quantize, grid_table, mix_quantized
from autoembed_kernels.ops.packed import rows_as_arguments, segments_as_arguments
from autoembed_kernels.pair_products import pair_places, pair_products
from autoembed_kernels.philox import row_chances
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer, row_update, state_tensors
from autoembed_kernels.stochastic_round import stochastic_codes, stochastic_round

# torch's own tracing warns of its own internals in some releases
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:At pre-dispatch tracing:UserWarning"),
]

OPS = torch.ops.autoembed
ROWS = torch.tensor([5, 2, 5, 0, 2, 5, 9])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return drawn(*shape, seed=seed).requires_grad_()


def table() -> PackedTable:
    """Two fields: rows of their own in 32, 3 and 8 bits, and hashed ones."""
    items = (
        own(0, 2, 5, "fp32"),
        own(2, 9, 4, "int3", scale=0),
        Segment(9, 40, Sharing.HASHED, 7, 5, "fp16"),
    )
    users = (own(0, 11, 5, "int8", scale=0),)
    fields = (FieldPlan("items", 40, 5, items), FieldPlan("users", 11, 5, users))
    return PackedTable(packed_with_rows(Plan(PROFILES["packed"], fields), 1)[0])


def repeats() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    unique, found = dedupe(ROWS, 10)
    return unique, found.inverse, found.order, found.starts


def quantized(offset: bool, which: bool) -> tuple[object, ...]:
    grids = grid_table([Grid(2), Grid(4, mid_rise=True)])
    chosen = torch.tensor([0, 1, 1, 0]) if which else None
    steps = torch.tensor([0.3, 0.1][: 2 if which else 1]).requires_grad_()
    zero = leaf(3, seed=4) if offset else None
    return leaf(4, 3), steps, zero, grids[: len(steps)], torch.ones(len(steps)), chosen


def updated(name: str) -> tuple[object, ...]:
    optimizer, weight = RowOptimizer(name), drawn(10, 3)
    state = state_tensors(optimizer.state(weight))
    return name, [0.9, 0.999], 1e-8, 0.1, weight, *state, torch.tensor([1, 4]), drawn(2, 3, seed=1), 0.05


def low_updated(dtype: torch.dtype) -> tuple[object, ...]:
    weight = (drawn(10, 3) * 10).to(dtype)
    steps = torch.full((10,), 0.125, dtype=torch.float16) if dtype is torch.int8 else None
    rows = torch.tensor([1, 4])
    held = ("adagrad", [0.9, 0.999], 1e-8, 0.1, weight, steps, None, torch.zeros(10, 3), None, rows)
    return *held, low_row_values(weight, steps, rows), drawn(2, 3, seed=1), 0.05, [7, 3]


def arguments() -> dict[str, list[tuple[object, ...]]]:
    """Operator -> calls of it."""
    values = drawn(4, 3)
    chances = row_chances(1, 2, torch.arange(4), 3)
    _, inverse, order, starts = repeats()
    packed = table()
    held = segments_as_arguments(packed._layout)
    served = rows_as_arguments(packed._addresses)
    mixture = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 0.0], [0.2, 0.8]]).requires_grad_()
    mixed = (leaf(4, 3), torch.tensor([0.3, -0.1]).requires_grad_(), leaf(3, seed=4))
    grids = (grid_table([Grid(2), Grid(4)]), torch.ones(2))
    return {
        "pair_products": [(leaf(4, 5, 3), *pair_places(5))],
        "pair_products_gradient": [(drawn(4, 10), drawn(4, 5, 3), pair_places(5)[1])],
        "dedupe": [(ROWS, 10)],
        "take_rows": [(drawn(10, 3), ROWS)],
        "sum_repeats": [(drawn(7, 3), order, starts)],
        "repeat": [(leaf(4, 3), inverse, order, starts)],
        "row_update": [updated(name) for name in OPTIMIZERS],
        "low_row_update": [low_updated(torch.float16), low_updated(torch.int8)],
        "gather_packed": [(packed.words, *held, torch.tensor([0, 1, 3]), torch.tensor([1, 6, 10]))],
        "look_up_packed": [(packed.words, *held, *served, torch.arange(51), 1)],
        "pack_bits": [(torch.arange(12, dtype=torch.uint8).view(2, 6) % 8, bits) for bits in (3, 8)],
        "unpack_bits": [(torch.arange(12, dtype=torch.uint8).view(2, 6), 5, bits) for bits in (3, 8)],
        "row_chances": [(-5, 3, ROWS, 6)],
        "stochastic_round": [(values, chances, torch.float16), (values, chances, torch.bfloat16)],
        "stochastic_codes": [(values, torch.full((4, 1), 0.1), chances, -127, 127)],
        "fake_quantize": [quantized(offset, which) for offset, which in ((True, True), (False, False))],
        "fake_quantize_gradients": [(drawn(4, 3, seed=9), *detached(quantized(True, True)))],
        "mix_quantized": [(*mixed, *grids, mixture)],
        "mix_quantized_gradients": [(drawn(4, 3, seed=9), *detached((*mixed, *grids, mixture)))],
    }


def detached(call: Sequence[object]) -> list[object]:
    return [each.detach() if isinstance(each, Tensor) else each for each in call]


def test_every_operator_is_checked() -> None:
    registered = {name.removeprefix("autoembed::") for name in torch._C._dispatch_get_all_op_names() if
                  name.startswith("autoembed::")}  # fmt: skip
    assert registered == set(arguments())


@pytest.mark.parametrize("name", list(arguments()))
def test_schema_shapes_and_gradient_of_the_operator_agree_with_what_it_does(name: str) -> None:
    for call in arguments()[name]:
        torch.library.opcheck(getattr(OPS, name).default, call)


def compare(function: Callable[..., object], *inputs: Tensor) -> None:
    """Values, gradients and changed inputs of the function, compiled in one graph and eager, bit for bit."""
    torch._dynamo.reset()
    # older releases ask for it where the number of distinct rows is not known
    torch._dynamo.config.capture_dynamic_output_shape_ops = True
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    results = []
    for one in (compiled, function):
        given = [each.detach().clone().requires_grad_(each.requires_grad) for each in inputs]
        made = one(*given)
        made = [made] if isinstance(made, Tensor) else list(made)  # type: ignore[call-overload]
        if any(each.requires_grad for each in made):
            sum((each * drawn(*each.shape, seed=3)).sum() for each in made).backward()  # type: ignore[union-attr]
        results.append([each.detach() for each in made] + [each.detach() for each in given])
        results[-1] += [each.grad for each in given if each.grad is not None]
    assert len(results[0]) == len(results[1])
    for compiled_result, eager_result in zip(*results, strict=True):
        assert torch.equal(compiled_result, eager_result)


def test_compiled_pairs_equal_eager_ones() -> None:
    places = pair_places(5)
    compare(lambda x: pair_products(x, *places), leaf(4, 5, 3))
    compare(lambda x: pair_products(x.transpose(0, 1), *pair_places(4)), leaf(4, 5, 3))


def test_a_compiled_step_on_repeated_rows_equals_an_eager_one() -> None:
    def step(weight: Tensor, moment: Tensor, square: Tensor, touches: Tensor, factor: Tensor) -> Tensor:
        unique, repeats = dedupe(ROWS, len(weight))
        values = take_rows(weight, unique)
        vectors = repeat(values, repeats) * factor
        gradient = sum_repeats(vectors.square(), repeats.order, repeats.starts)
        state = {"moment": moment, "square": square, "touches": touches}
        row_update(RowOptimizer("adam", l2=0.1), weight, state, unique, gradient, 0.05)
        return vectors

    zeros = torch.zeros(10, 3)
    compare(step, drawn(10, 3), zeros, zeros, torch.zeros(10, dtype=torch.int32), drawn(7, 3, seed=5))


def test_a_compiled_step_on_rows_of_eight_bits_equals_an_eager_one() -> None:
    def step(weight: Tensor, steps: Tensor, gradient: Tensor) -> Tensor:
        rows = torch.tensor([1, 4])
        values = low_row_values(weight, steps, rows)
        low_row_update(
            *(RowOptimizer("sgd"), weight, steps, {}, rows, values.clone(), gradient, 0.05), (2**63 + 1, 3)
        )
        return values

    weight = torch.arange(-15, 15, dtype=torch.int8).view(10, 3)
    compare(step, weight, torch.full((10,), 0.125, dtype=torch.float16), drawn(2, 3, seed=1))


def test_the_gradient_of_repeats_is_summed_in_a_compiled_graph() -> None:
    def spread(values: Tensor) -> Tensor:
        _, repeats = dedupe(ROWS, 10)
        return repeat(values, repeats)

    compare(spread, leaf(4, 3))


def test_compiled_quantization_equals_eager_quantization() -> None:
    grids = grid_table([Grid(2), Grid(4)])
    which = torch.tensor([0, 1, 1, 0])
    compare(
        lambda w, s, o: fake_quantize(w, s, grids, torch.ones(2), which, o),
        *(leaf(4, 3), torch.tensor([0.3, 0.1], requires_grad=True), leaf(3, seed=4)),
    )
    compare(
        lambda w, s, m: mix_quantized(w, s, grids, torch.ones(2), m.softmax(1)),
        *(leaf(4, 3), torch.tensor([0.3, 0.1], requires_grad=True), leaf(4, 2, seed=4)),
    )


@pytest.mark.parametrize("seed", [3, 2**64 - 3])
def test_compiled_casts_by_chance_equal_eager_ones(seed: int) -> None:
    def cast(values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        chances = row_chances(seed, 4, rows, values.shape[1])
        codes = stochastic_codes(values, torch.full((len(values), 1), 0.1), chances, -127, 127)
        packed = pack_bits((codes & 7).to(torch.uint8), 3)
        half = stochastic_round(values, chances, torch.float16)
        return chances, half, packed, unpack_bits(packed, values.shape[1], 3)

    compare(cast, drawn(7, 5), ROWS)


def test_a_packed_table_is_exported_as_one_look_up_for_any_number_of_rows() -> None:
    packed = table()
    rows = torch.arange(51)

    class Stored(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = packed

        def forward(self, rows: Tensor) -> Tensor:
            return self.table.stored(rows)

    batch = torch.export.Dim("batch", min=2, max=4096)
    program = torch.export.export(Stored(), (rows,), dynamic_shapes={"rows": {0: batch}}, strict=False)
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert calls == ["autoembed.look_up_packed.default"]
    for asked in (rows, rows[7:20].flip(0)):
        assert torch.equal(program.module()(asked), packed.stored(asked))


def test_a_compiled_gather_reads_what_an_eager_one_reads() -> None:
    packed = table()
    layout = dataclasses.replace(packed._layout)
    segment = torch.tensor([0, 1, 3, 2])
    compare(lambda row: gather_packed(packed.words, layout, segment, row), torch.tensor([1, 6, 10, 2]))
    held = (packed.words, layout, packed._addresses)
    compare(lambda rows: look_up_packed(*held, rows), torch.arange(51))


def test_an_index_out_of_range_is_refused_in_a_compiled_graph_too() -> None:
    compiled = torch.compile(lambda t, r: take_rows(t, r), fullgraph=True, backend="aot_eager")
    with pytest.raises(IndexError):
        compiled(drawn(4, 3), torch.tensor([1, 4]))

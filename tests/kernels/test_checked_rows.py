"""The checked mode, on the paths that do not check by themselves: torch here, Triton on a GPU."""

from collections.abc import Callable

import pytest
import torch
from random_plans import packed_with_rows

from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Plan, own
from autoembed_kernels import dedupe, look_up_packed, low_row_update, row_update
from autoembed_kernels.checked_rows import checked_rows
from autoembed_kernels.row_update import RowOptimizer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def updated(rows: torch.Tensor) -> torch.Tensor:
    weight = torch.zeros(4, 3, device=DEVICE)
    gradient = torch.ones(len(rows), 3, device=DEVICE)
    row_update.row_update(RowOptimizer("sgd"), weight, {}, rows, gradient, 1.0)
    return weight


def low_updated(rows: torch.Tensor) -> torch.Tensor:
    weight = torch.zeros(4, 3, device=DEVICE, dtype=torch.float16)
    values, gradient = torch.zeros(2, len(rows), 3, device=DEVICE)
    low_row_update.low_row_update(
        RowOptimizer("sgd"), weight, None, {}, rows, values, gradient + 1, 1.0, None
    )
    return weight


def looked_up(rows: torch.Tensor) -> torch.Tensor:
    field = FieldPlan("items", 4, 3, (own(0, 4, 3, "fp32"),))
    table = PackedTable(packed_with_rows(Plan(PROFILES["packed"], (field,)), 0)[0]).to(DEVICE)
    return table.stored(rows)


CALLS: dict[str, Callable[[torch.Tensor], object]] = {
    "dedupe": lambda rows: dedupe.dedupe(rows, 4)[0],
    "take_rows": lambda rows: dedupe.take_rows(torch.zeros(4, 3, device=DEVICE), rows),
    "row_update": updated,
    "low_row_update": low_updated,
    "look_up_packed": looked_up,
}


@pytest.fixture(autouse=True)
def without_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dedupe, row_update, look_up_packed):
        monkeypatch.setattr(module, "native_for", lambda *tensors: None)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("row", [-1, 4, 2**40])
def test_a_row_out_of_range_is_named_with_its_place(call: str, row: int) -> None:
    rows = torch.tensor([1, row], device=DEVICE)
    message = rf"row {row} at place 1 is out of range, there are 4"
    with checked_rows(), pytest.raises(IndexError, match=message):
        CALLS[call](rows)


@pytest.mark.parametrize("call", CALLS)
def test_rows_in_range_give_what_they_give_unchecked(call: str) -> None:
    rows = torch.tensor([3, 0], device=DEVICE)
    with checked_rows():
        checked = CALLS[call](rows)
    assert torch.equal(checked, CALLS[call](rows))  # type: ignore[arg-type]


def test_nothing_is_checked_outside_of_the_mode() -> None:
    with checked_rows():
        pass
    assert dedupe.dedupe(torch.tensor([7], device=DEVICE), 4)[0].tolist() == [7]

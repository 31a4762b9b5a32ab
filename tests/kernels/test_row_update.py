"""Row updates against the row-by-row reference in float64 and against torch's optimizers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from autoembed_kernels.repeated_update import repeated_row_update
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer, reference, row_update

Update = Callable[[RowOptimizer, Tensor, dict[str, Tensor], Tensor, Tensor, float], None]
RATE = 0.05
STEPS = [[0, 2, 5], [2], [6, 5, 0], [], [1, 2, 3, 4], [2, 6]]


def _gradients(dim: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.tensor(rows, dtype=torch.int64), torch.randn(len(rows), dim, generator=generator))
        for rows in STEPS
    ]


def _weight(dim: int) -> Tensor:
    return torch.randn(7, dim, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("dim", [1, 3, 16])
def test_updates_equal_the_reference_a_row_at_a_time(name: str, l2: float, dim: int) -> None:
    optimizer = RowOptimizer(name, l2=l2)
    weight = _weight(dim)
    exact = weight.double()
    state, exact_state = optimizer.state(weight), optimizer.state(exact)
    for rows, gradient in _gradients(dim):
        row_update(optimizer, weight, state, rows, gradient, RATE)
        reference(optimizer, exact, exact_state, rows, gradient.double(), RATE)
    # float32 against float64 over six steps of size 0.05
    torch.testing.assert_close(weight.double(), exact, rtol=1e-5, atol=1e-6)
    for key in optimizer.state_names:
        torch.testing.assert_close(state[key].double(), exact_state[key].double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_other_rows_and_their_state_stay_untouched(name: str) -> None:
    optimizer = RowOptimizer(name, l2=0.1)
    weight = _weight(4)
    before, state = weight.clone(), optimizer.state(weight)
    row_update(optimizer, weight, state, torch.tensor([1, 4]), torch.ones(2, 4), RATE)
    others = [0, 2, 3, 5, 6]
    assert torch.equal(weight[others], before[others])
    assert not torch.equal(weight[[1, 4]], before[[1, 4]])
    assert all(not state[key][others].any() for key in state)


def test_adam_equals_torch_adam_where_every_step_touches_every_row() -> None:
    weight = _weight(5).double()
    parameter = weight.clone().requires_grad_()
    optimizer, state = RowOptimizer("adam", l2=0.2), RowOptimizer("adam").state(weight)
    theirs = torch.optim.Adam([parameter], lr=RATE, weight_decay=0.2)
    for seed in range(5):
        gradient = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed)).double()
        parameter.grad = gradient
        theirs.step()
        row_update(optimizer, weight, state, torch.arange(7), gradient, RATE)
    torch.testing.assert_close(weight, parameter.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_adam_equals_sparse_adam_started_at_the_first_look_up_of_the_row() -> None:
    weight = _weight(3).double()
    # SparseAdam adds eps before the bias of the second moment is corrected, here it comes after
    optimizer, state = RowOptimizer("adam", eps=1e-15), RowOptimizer("adam").state(weight)
    started = weight.clone()
    gradients = [(rows, g.double()) for rows, g in _gradients(3)]
    for rows, gradient in gradients:
        row_update(optimizer, weight, state, rows, gradient, RATE)
    for row in range(7):
        single = started[row : row + 1].clone().requires_grad_()
        theirs = torch.optim.SparseAdam([single], lr=RATE, eps=1e-15)
        for rows, gradient in gradients:
            if row in rows:
                chosen = gradient[rows == row]
                single.grad = torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.int64), chosen, (1, 3))
                theirs.step()
        torch.testing.assert_close(weight[row], single.detach()[0], rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_adagrad_equals_torch_adagrad_on_sparse_gradients() -> None:
    weight = _weight(3).double()
    parameter = weight.clone().requires_grad_()
    optimizer, state = RowOptimizer("adagrad", eps=1e-10), RowOptimizer("adagrad").state(weight)
    theirs = torch.optim.Adagrad([parameter], lr=RATE, eps=1e-10)
    for rows, gradient in _gradients(3):
        parameter.grad = torch.sparse_coo_tensor(rows.unsqueeze(0), gradient.double(), (7, 3))
        theirs.step()
        row_update(optimizer, weight, state, rows, gradient.double(), RATE)
    torch.testing.assert_close(weight, parameter.detach(), rtol=1e-9, atol=1e-12)


def test_the_first_adam_step_of_a_row_is_one_learning_rate_however_late_it_comes() -> None:
    weight = torch.zeros(2, 1)
    optimizer, state = RowOptimizer("adam"), RowOptimizer("adam").state(weight)
    for _ in range(200):
        row_update(optimizer, weight, state, torch.tensor([0]), torch.ones(1, 1), RATE)
    row_update(optimizer, weight, state, torch.tensor([1]), torch.full((1, 1), 3.0), RATE)
    assert weight[1].item() == pytest.approx(-RATE, rel=1e-4)


def test_an_unknown_optimizer_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match="adagrad"):
        RowOptimizer("adamw")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_of_32_bits_and_state_in_other_dtypes_give_what_float32_gives(name: str) -> None:
    optimizer, rows = RowOptimizer(name), torch.tensor([2, 6, 0])
    gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    weight, other = _weight(4), _weight(4)
    state = optimizer.state(weight)
    wide = {key: held.long() if key == "touches" else held.double() for key, held in state.items()}
    for _ in range(2):
        row_update(optimizer, weight, state, rows, gradient, RATE)
        row_update(optimizer, other, wide, rows.int(), gradient, RATE)
    # wide state differs from float32 by its rounding
    torch.testing.assert_close(other, weight, rtol=1e-5, atol=1e-6)
    for key, held in wide.items():
        assert held.dtype in (torch.int64, torch.float64)
        torch.testing.assert_close(held.double(), state[key].double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("update", [row_update, repeated_row_update])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_does_not_fit_is_refused_and_changes_nothing(name: str, update: Update) -> None:
    optimizer, rows, gradient = RowOptimizer(name), torch.tensor([1, 2, 3]), torch.ones(3, 16)
    weight = _weight(16)
    before, state = weight.clone(), optimizer.state(weight)
    wrong = [
        (state, rows, gradient[:1]),
        (state, rows, gradient[:, :8]),
        (state, rows.view(1, 3), gradient),
        (state, rows.float(), gradient),
    ]
    wrong += [({k: v for k, v in state.items() if k != key}, rows, gradient) for key in state]
    wrong += [({**state, key: state[key][:2]}, rows, gradient) for key in state]
    for case in wrong:
        with pytest.raises(ValueError, match=r"expected|needs the state"):
            update(optimizer, weight, *case, RATE)
    with pytest.raises(ValueError, match=r"weight has shape \(16,\), expected \(R, D\)"):
        update(optimizer, weight[0], state, rows, gradient, RATE)
    assert torch.equal(weight, before)
    assert not any(held.any() for held in state.values())

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.path_mlp import path_mlp, path_networks, path_rows, reference, thriftiest_networks


@given(st.integers(1, 9), st.integers(1, 17), st.integers(0, 4), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_rows_through_the_network_equal_the_reference(hidden: int, dim: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(path_rows(hidden, dim), dim, generator=generator)
    x = torch.randn(count, dim, generator=generator)
    # sums of at most 17 and 9 terms of size 10
    torch.testing.assert_close(
        path_mlp(x, weights, hidden).double(), reference(x, weights, hidden), atol=1e-4, rtol=1e-4
    )


def test_every_stored_value_but_the_padding_has_a_gradient() -> None:
    hidden, dim = 5, 4
    weights = torch.randn(path_rows(hidden, dim), dim, generator=torch.Generator().manual_seed(1))
    weights.requires_grad_()
    x = 9 * torch.randn(200, dim, generator=torch.Generator().manual_seed(2))
    path_mlp(x, weights, hidden).square().sum().backward()
    assert weights.grad is not None
    still = (weights.grad == 0).nonzero().tolist()
    assert still == [[12, 1], [12, 2], [12, 3]]  # b1 takes one value of its second row


@given(st.integers(1, 2**32 - 1), st.integers(1, 2000), st.integers(3, 200))
@settings(deadline=None, max_examples=80)
def test_the_networks_are_the_fewest_that_serve_all_ids(ids: int, collisions: int, rows: int) -> None:
    stored = -(-ids // collisions) + collisions * rows
    count = path_networks(ids, stored, rows)
    assert 1 <= count <= collisions
    assert count * (stored - count * rows) >= ids
    assert count == 1 or (count - 1) * (stored - (count - 1) * rows) < ids


@given(st.integers(1, 5000), st.integers(3, 200))
@settings(deadline=None, max_examples=80)
def test_no_number_of_networks_stores_fewer_rows_than_the_thriftiest(ids: int, rows: int) -> None:
    def stored(networks: int) -> int:
        return -(-ids // networks) + networks * rows

    best = thriftiest_networks(ids, rows)
    assert stored(best) == min(map(stored, range(1, ids + 1)))
    assert all(stored(fewer) >= stored(fewer + 1) for fewer in range(1, best))


def test_too_few_rows_serve_no_ids() -> None:
    assert path_networks(100, 20, 19) == 0
    assert path_networks(10_000, 50, 3) == 0
    assert path_networks(2**32 - 1, 2**20, 100) == 0

import torch
from methods.settings import all_rows, batch, spec

from autoembed.methods.fp16 import Fp16
from autoembed.methods.uniform import Uniform
from autoembed_kernels.row_update import RowOptimizer


def test_every_field_reads_no_more_levels_than_its_bits_allow() -> None:
    for bits in (1, 2, 3, 4):
        table = Uniform(bits=bits).table(spec(), torch.Generator().manual_seed(0), RowOptimizer("adam"))
        values = table(all_rows())[:, 0].unique()
        assert 2 <= len(values) <= 2**bits


def test_one_and_two_bits_are_symmetric_about_zero() -> None:
    for bits in (1, 2):
        table = Uniform(bits=bits).table(spec(), torch.Generator().manual_seed(0), RowOptimizer("adam"))
        values = table(all_rows())[:, 0].unique()
        torch.testing.assert_close(values, -values.flip(0))


def test_each_field_learns_its_own_step() -> None:
    table = Uniform(bits=4).table(spec(), torch.Generator().manual_seed(0), RowOptimizer("adam"))
    (steps,) = table.parameters()
    assert steps.shape == (4,)
    table(batch(64, 0))[:, 0].square().sum().backward()
    assert steps.grad is not None and steps.grad[0] != 0 and not steps.grad[1:].any()


def test_half_precision_trains_in_32_bits_and_reads_the_nearest_16() -> None:
    table = Fp16().table(spec(), torch.Generator().manual_seed(0), RowOptimizer("sgd"))
    before = table.state_dict()["rows.weight"].clone()
    values = table(all_rows())
    assert torch.equal(values[:, 0], before[:200].half().float())
    values[:, 0].sum().backward()
    table.update(1e-6)
    # the change is below the half precision spacing of most rows, and is kept
    assert (table.state_dict()["rows.weight"][:200] != before[:200]).float().mean() > 0.9

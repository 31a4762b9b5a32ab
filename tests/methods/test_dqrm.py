"""Steps from the range, refreshed on time and never learned."""

import torch
from methods.settings import batch, spec

from autoembed.methods import make_method
from autoembed.methods.dqrm import DqrmTable
from autoembed_kernels.row_update import RowOptimizer


def table(**parameters: int) -> DqrmTable:
    method = make_method("dqrm", parameters)
    made = method.table(spec(), torch.Generator().manual_seed(1), RowOptimizer("sgd"))
    assert isinstance(made, DqrmTable)
    return made


def test_steps_reach_the_largest_value_and_follow_it_every_period() -> None:
    made = table(bits=4, period=3)
    assert not list(made.parameters())
    steps = made.precision.steps
    assert steps is not None
    largest = made.rows.weight[:200].abs().max()
    torch.testing.assert_close(steps[0], largest / 7)
    for step in range(1, 4):
        before = steps.clone()
        made(batch(64, step)).square().sum().backward()
        made.update(0.3)
        made.after_step(step)
        assert torch.equal(steps, before) == (step < 3)
    torch.testing.assert_close(steps[0], made.rows.weight[:200].abs().max() / 7)


def test_settling_leaves_the_steps_that_were_validated() -> None:
    made = table(bits=2, period=1000)
    made(batch(64, 1)).square().sum().backward()
    made.update(0.5)
    steps = made.precision.steps
    assert steps is not None
    validated, read = steps.clone(), made(batch(64, 2)).detach()
    assert made.settle() is False
    assert torch.equal(steps, validated) and torch.equal(made(batch(64, 2)).detach(), read)

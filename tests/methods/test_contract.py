"""What every method promises, over the settings list."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.settings import BAG_FIELD, GROWING, SETTINGS, all_rows, batch, methods, spec
from torch import nn

from autoembed.data.batch import Bag
from autoembed.methods import METHODS, describe, make_method, method_parameters
from autoembed.methods.base import Method, Table
from autoembed.packed import Packed, PackedTable
from autoembed.plan import PROFILES, plan_bytes
from autoembed.space import load_space
from autoembed_kernels.row_update import RowOptimizer

EVERY_METHOD = pytest.mark.parametrize("method", methods(), ids=str)
EVERY_PROFILE = pytest.mark.parametrize("profile", list(PROFILES))


def serving(method: Method) -> str:
    """The first profile that can store the method."""
    for profile in PROFILES:
        try:
            method.footprint(spec(profile))
        except ValueError:
            continue
        return profile
    raise AssertionError(f"no profile stores {method}")


def new_table(method: Method, profile: str | None = None, seed: int = 3) -> Table:
    return method.table(
        spec(profile or serving(method)), torch.Generator().manual_seed(seed), RowOptimizer("adam")
    )


def train(table: Table, steps: int, rate: float = 0.02) -> list[float]:
    """A linear network over the flattened vectors; returns the losses, without penalties."""
    torch.manual_seed(0)
    example = batch(256, seed=1)
    head = nn.Linear(table(example).flatten(1).shape[1], 1)
    dense = torch.optim.Adam([*head.parameters(), *table.parameters()], lr=rate)
    losses = []
    for step in range(1, steps + 1):
        dense.zero_grad()
        logits = head(table(example).flatten(1)).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, example.labels)
        penalty = table.penalty()
        (loss if penalty is None else loss + penalty).backward()
        dense.step()
        table.update(rate)
        table.after_step(step)
        losses.append(loss.item())
    return losses


def settled(method: Method, profile: str | None = None) -> Table:
    table = new_table(method, profile)
    train(table, 3)
    if table.settle():
        train(table, 3)
    return table


def test_every_method_of_the_list_is_in_the_suite() -> None:
    assert {name for name, _ in SETTINGS} == set(METHODS)


@EVERY_METHOD
@EVERY_PROFILE
def test_bytes_equal_the_byte_model_and_the_file_or_the_profile_is_refused(
    method: Method, profile: str, tmp_path: Path
) -> None:
    try:
        footprint = method.footprint(spec(profile))
    except ValueError as error:
        assert profile in str(error) and "cannot store" in str(error)
        return
    table = settled(method, profile)
    packed = table.pack()
    size = packed.save(tmp_path / "tables.safetensors")
    assert size == plan_bytes(table.plan()).total == (tmp_path / "tables.safetensors").stat().st_size
    assert footprint.low_bytes <= size <= footprint.high_bytes


@EVERY_METHOD
@EVERY_PROFILE
def test_packed_rows_equal_the_settled_table(method: Method, profile: str) -> None:
    try:
        method.footprint(spec(profile))
    except ValueError:
        return
    table = settled(method, profile)
    reader = PackedTable(table.pack(), spec().stats.first_rows)
    for example in (all_rows(), batch(64, seed=5)):
        with torch.no_grad():
            torch.testing.assert_close(reader(example), table(example), atol=1e-6, rtol=0)


@EVERY_METHOD
def test_a_saved_table_reads_back_bit_for_bit(method: Method, tmp_path: Path) -> None:
    packed = settled(method).pack()
    packed.save(tmp_path / "tables.safetensors")
    again = Packed.load(tmp_path / "tables.safetensors", [field.name for field in packed.plan.fields])
    assert again.plan == packed.plan
    for name in ("payload", "scales", "offsets", "projections"):
        assert torch.equal(getattr(again, name), getattr(packed, name))


@EVERY_METHOD
def test_every_parameter_and_row_that_is_read_gets_a_gradient(method: Method) -> None:
    # outside of the clip range too, or the offset gets none
    table = method.table(
        replace(spec(serving(method)), initial_std=1.0), torch.Generator().manual_seed(3), RowOptimizer("sgd")
    )
    table.after_step(100)  # mpe_budget's mixture stays as it is before
    example = all_rows()
    before = table(example).detach().clone()
    weight = torch.randn(before.shape, generator=torch.Generator().manual_seed(1))
    (table(example) * weight).sum().backward()
    for name, parameter in table.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    rows = {name: value.clone() for name, value in table.state_dict().items() if name.endswith("weight")}
    assert rows
    table.update(1.0)  # far enough to reach another code of 4 bits
    for name, old in rows.items():
        # 1 bit clips more than half of the values; a whole row of eight is rarely clipped
        assert (table.state_dict()[name] != old).any(dim=1).float().mean() > 0.9


@EVERY_METHOD
def test_ten_steps_lower_the_loss(method: Method) -> None:
    losses = train(new_table(method), 10)
    assert losses[-1] < losses[0]


@EVERY_METHOD
@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_an_id_of_weight_two_is_an_id_twice(method: Method, pooling: str) -> None:
    table = settled(method)
    weights = torch.tensor([2.0, 1.0, 1.0])
    weighted = Bag(torch.tensor([1, 0, 3]), torch.tensor([0, 2, 2, 3]), pooling, weights)
    repeated = Bag(torch.tensor([1, 1, 0, 3]), torch.tensor([0, 3, 3, 4]), pooling)
    once, twice = (replace(batch(3, seed=5), bags={BAG_FIELD: bag}) for bag in (weighted, repeated))
    with torch.no_grad():
        torch.testing.assert_close(table(once), table(twice))
        packed = PackedTable(table.pack())
        torch.testing.assert_close(packed(once), packed(twice))


@EVERY_METHOD
def test_the_same_seed_gives_the_same_table_and_another_seed_does_not(method: Method) -> None:
    first, second, third = (new_table(method, seed=seed) for seed in (1, 1, 2))
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert any(not torch.equal(v, third.state_dict()[name]) for name, v in first.state_dict().items())


@EVERY_METHOD
def test_training_again_from_the_same_seed_gives_the_same_file_to_the_bit(method: Method) -> None:
    losses, files = [], []
    for _ in range(2):
        table = new_table(method)
        losses.append(train(table, 4))
        table.settle()
        files.append(table.pack())
    assert losses[0] == losses[1] and files[0].plan == files[1].plan
    for name in ("payload", "scales", "offsets", "projections", "segment_index"):
        assert torch.equal(getattr(files[0], name), getattr(files[1], name)), name


@EVERY_METHOD
def test_a_remembered_state_is_read_again_by_the_table_and_by_a_fresh_one_and_trained_on(
    method: Method,
) -> None:
    table = new_table(method)
    train(table, 3)
    remembered = {name: value.clone() for name, value in table.state_dict().items()}
    with torch.no_grad():
        before = table(all_rows()).clone()
    train(table, 3)
    for again in (table, new_table(method, seed=4)):
        again.load_state_dict(remembered)
        with torch.no_grad():
            assert torch.equal(again(all_rows()), before)
        train(again, 3)
        again.settle()
        reader = PackedTable(again.pack(), spec().stats.first_rows)
        with torch.no_grad():
            torch.testing.assert_close(reader(all_rows()), again(all_rows()), atol=1e-6, rtol=0)


@EVERY_METHOD
def test_bags_without_an_id_read_zero(method: Method) -> None:
    table = settled(method)
    reader = PackedTable(table.pack(), spec().stats.first_rows)
    for pooling in ("sum", "mean"):
        bag = Bag(torch.tensor([2]), torch.tensor([0, 0, 1, 1]), pooling)
        example = replace(batch(3, seed=5), bags={BAG_FIELD: bag})
        with torch.no_grad():
            for read in (table, reader):
                assert not read(example)[[0, 2], BAG_FIELD].any()


@EVERY_METHOD
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_trains_and_packs_what_it_trained(method: Method) -> None:
    trains_and_packs_on(method, torch.device("cuda"))


def trains_and_packs_on(method: Method, device: torch.device) -> None:
    """Train, settle and train again; the packed table, there and on the CPU, reads what was trained."""
    table = new_table(method).to(device)
    example, every = batch(256, seed=1).to(device), all_rows().to(device)
    for _ in range(2):
        optimizer = torch.optim.Adam([*table.parameters()], lr=0.02) if [*table.parameters()] else None
        for step in range(1, 4):
            penalty = table.penalty()
            (table(example).square().sum() + (0.0 if penalty is None else penalty)).backward()
            if optimizer is not None:
                optimizer.step()
            table.update(0.02)
            table.after_step(step)
        if not table.settle():
            break
    with torch.no_grad():
        trained = table(every)
        reader = PackedTable(table.pack(), spec().stats.first_rows)
        assert trained.device.type == device.type
        torch.testing.assert_close(reader(all_rows()), trained.cpu(), atol=1e-5, rtol=0)
        torch.testing.assert_close(reader.to(device)(every), trained, atol=1e-5, rtol=0)


def test_the_gpu_check_holds_on_the_cpu() -> None:
    for name in METHODS:
        trains_and_packs_on(next(m for m in methods() if m.name == name), torch.device("cpu"))


@EVERY_METHOD
def test_training_bytes_cover_the_rows_and_their_optimizer_state(method: Method) -> None:
    table = new_table(method)
    held = [b for b in table.buffers() if b.ndim == 2 and b.shape[1] in (1, 4, 8)]
    assert table.training_bytes >= sum(b.numel() * b.element_size() for b in held) > 0


@EVERY_METHOD
def test_a_method_is_made_again_from_its_name_and_parameters(method: Method) -> None:
    assert make_method(method.name, method_parameters(method)) == method


@pytest.mark.parametrize(("name", "knob", "values", "others"), GROWING)
@EVERY_PROFILE
def test_more_bits_or_rows_never_cost_fewer_bytes(
    name: str, knob: str, values: tuple[Any, ...], others: dict[str, Any], profile: str
) -> None:
    sizes = []
    for value in values:
        try:
            sizes.append(make_method(name, {**others, knob: value}).footprint(spec(profile)).high_bytes)
        except ValueError as error:
            assert profile in str(error) and "cannot store" in str(error)
    # a profile lacks some widths, or all that a method needs; this one has everything
    assert len(sizes) in (0, len(values)) or knob in ("bits", "format")
    assert len(sizes) == len(values) or profile != "packed-row-scale"
    assert sizes == sorted(sizes)


@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_any_setting_sampled_from_the_default_space_builds(seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    method = load_space("default").suggest(study.ask())
    table = new_table(method)
    table.settle()
    size = table.pack().bytes.total
    footprint = method.footprint(spec())
    assert footprint.low_bytes <= size <= footprint.high_bytes


def test_the_description_is_plain_json_and_names_every_knob() -> None:
    import json

    rows = {row["name"]: row for row in json.loads(json.dumps(describe()))}
    assert set(rows) == set(METHODS)
    for name, method in METHODS.items():
        assert [row["name"] for row in rows[name]["parameters"]] == [knob for knob, *_ in method.knobs()]
        for row in rows[name]["parameters"]:
            assert row["help"] and row["domain"]
        for key in ("summary", "source", "levers", "bags", "trains_small"):
            assert key in rows[name]


def test_every_default_lies_in_its_domain() -> None:
    for method in METHODS.values():
        for knob, default, domain, _ in method.knobs():
            assert default in domain, f"{method.name}.{knob}"


# ids that share rows read what other ids train
SHARING = {"hashing", "quotient_remainder", "cafe_offline", "cafe", "robe", "lma"}


@EVERY_METHOD
def test_rows_of_their_own_that_train_never_reads_start_at_zero(method: Method) -> None:
    if method.name in SHARING:
        pytest.skip("rows are shared")
    has_signs = method.name == "bebr" or getattr(method, "grid", "steps") == "signs"
    if has_signs or getattr(method, "bits", 32) <= 2:
        pytest.skip("no code stands for zero")
    table = new_table(method)
    with torch.no_grad():
        first = table(all_rows())[0, 2]  # row 0 of field_2, which train never reads
    assert not first.any()

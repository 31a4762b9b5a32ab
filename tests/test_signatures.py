from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tiny_data import tiny_data

from autoembed import signatures as module
from autoembed.data.batch import Bag, Batch
from autoembed.signatures import Signatures
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.min_hash import reference


class Log:
    """Examples of two fields and a bag of a third, cut into batches of 7."""

    def __init__(self, ids: list[tuple[int, int]], bags: list[list[int]]) -> None:
        self.ids, self.bags = ids, bags

    def rows(self, split: str) -> int:
        assert split == "train"
        return len(self.ids)

    def batches(self, split: str, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        assert split == "train" and shuffle_seed is None
        for start in range(0, len(self.ids), 7):
            some, bags = self.ids[start : start + 7], self.bags[start : start + 7]
            values = torch.tensor([v for bag in bags for v in bag], dtype=torch.int64)
            offsets = torch.tensor([0, *(len(bag) for bag in bags)]).cumsum(0)
            ids = torch.tensor([(a, b, 0) for a, b in some])
            yield Batch(torch.zeros(len(some)), torch.zeros(len(some), 0), ids, {2: Bag(values, offsets)})


FIRST = (0, 6, 10)  # global rows of the fields' rows 0
SIZES = (6, 4, 5)


def log(seed: int = 0, size: int = 40) -> tuple[Log, Stats]:
    random = np.random.default_rng(seed)
    ids = [(int(random.integers(0, 6)), int(random.integers(0, 4))) for _ in range(size)]
    bags = [random.integers(0, 5, random.integers(0, 3)).tolist() for _ in range(size)]
    counts = [np.full(rows, 9) for rows in SIZES]
    return Log(ids, bags), Stats(tuple(FieldStats(f"f{i}", c, i == 2) for i, c in enumerate(counts)))


def sets(held: Log, over: str) -> list[set[int]]:
    """The set of every global row, built from the definition."""
    found: list[set[int]] = [set() for _ in range(sum(SIZES))]
    for number, ((a, b), bag) in enumerate(zip(held.ids, held.bags, strict=True)):
        fields = [{a}, {b}, set(bag)]
        for field, ids in enumerate(fields):
            others = {FIRST[f] + i for f, some in enumerate(fields) if f != field for i in some if i}
            for one in ids:
                found[FIRST[field] + one] |= {number} if over == "examples" else others
    return found


@pytest.mark.parametrize("over", ["examples", "partners"])
def test_signatures_are_the_min_hashes_of_the_sets_bags_included(over: str) -> None:
    held, stats = log()
    found = Signatures(over, 1000, 5).compute(held, stats).tolist()
    expected = reference(sets(held, over))
    for row, word in enumerate(expected):
        assert found[row] % 2**64 == (0 if row in FIRST else word)


def test_rows_below_the_threshold_get_none_and_do_not_change_the_others() -> None:
    held, stats = log()
    some = Stats((FieldStats("f0", np.array([9, 9, 9, 4, 1, 0])), *stats.fields[1:]))
    all_rows, few = (Signatures("examples", 1000, 5).compute(held, s) for s in (stats, some))
    assert torch.equal(few[:3], all_rows[:3]) and torch.equal(few[6:], all_rows[6:])
    assert not few[3:6].any() and all_rows[3:6].all()


def test_many_ids_take_several_passes_and_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    held, stats = log()
    asked = Signatures("partners", 1000, 5)
    one_pass = asked.compute(held, stats)
    for size in (1, 8 * 3 * 20):
        monkeypatch.setattr(module, "MINIMA_BYTES", size)
        assert torch.equal(asked.compute(held, stats), one_pass)


def test_of_many_examples_about_as_many_are_read_as_asked_for() -> None:
    held, stats = log(size=2000)
    read = set()
    drawn = module.row_hash(torch.arange(2000), module._DRAW, 2000) < 500
    for number in drawn.nonzero().flatten().tolist():
        read.add(number)
    assert abs(len(read) - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5
    expected = reference([one & read for one in sets(held, "examples")])
    found = Signatures("examples", 500, 5).compute(held, stats).tolist()
    assert [word % 2**64 for word in found[1:6]] == expected[1:6]


def test_ids_of_one_field_are_similar_by_their_partners_never_by_their_examples() -> None:
    # users 1 and 2 meet the same items at the same rate, user 3 meets others
    random = np.random.default_rng(0)
    ids = [
        (u, int(random.integers(1, 3)) + (2 if u == 3 else 0)) for u in random.integers(1, 4, 400).tolist()
    ]
    counts = (np.array([0, 134, 133, 133]), np.array([0, 150, 130, 70, 50]), np.array([0]))
    stats = Stats(tuple(FieldStats(f"f{i}", c, i == 2) for i, c in enumerate(counts)))
    held = Log(ids, [[] for _ in ids])

    def common(over: str, one: int, other: int) -> int:
        words = Signatures(over, 1000, 1).compute(held, stats)
        return sum(int((words[one] ^ words[other]) >> (4 * k) & 15) == 0 for k in range(16))

    assert common("partners", 1, 2) == 16
    assert common("partners", 1, 3) <= 5
    assert common("examples", 1, 2) <= 5


def test_only_train_is_read_and_the_batches_of_prepared_data_fit() -> None:
    data, stats = tiny_data(rows=500)
    only = type(data)({"train": data.splits["train"]}, data.dense, data.bags)
    words = Signatures("examples", 1000, 3).compute(only, stats)
    assert words.shape == (stats.rows,) and len(words.unique()) > 50

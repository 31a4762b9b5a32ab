"""The contract of a compression method: what it costs, what it trains, what it packs.

A method is a frozen dataclass in its own file. Its fields are its knobs, declared with `knob`, so the
object is its own configuration and yields its search space. `autoembed.methods` lists all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from autoembed.budget import Footprint
from autoembed.companions import Companion
from autoembed.data.batch import Batch
from autoembed.methods.ranks import Ranks, ranked_only
from autoembed.packed import Packed
from autoembed.plan import Plan, Profile
from autoembed.stats import Stats
from autoembed.tables import Lookup, look_up
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class Int:
    """Whole numbers from low to high, both included."""

    low: int
    high: int
    log: bool = False

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"whole numbers {self.low} .. {self.high}" + (" (log)" if self.log else "")


@dataclass(frozen=True)
class Float:
    """Real numbers from low to high, both included."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} .. {self.high:g}" + (" (log)" if self.log else "")


@dataclass(frozen=True)
class Choice:
    """One of the named values, in the order of what they cost where they have one."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in self.values)

    def __str__(self) -> str:
        return ", ".join(str(value) for value in self.values)


Domain = Int | Float | Choice


def knob(default: Any, domain: Domain, text: str) -> Any:
    """A dataclass field that is a knob: its default, the values it may take, and one line of help."""
    return field(default=default, metadata={"domain": domain, "help": text})


@dataclass(frozen=True)
class TableSpec:
    """What a table is built for: the fields' statistics, the output dimension, where it will be served.

    Every method starts its rows from N(0, initial_std^2), so that only the methods differ; rows of their own
    that train never looks up start at zero, see `unread_rows`. `companions`: the answers to what the method
    asks of the train split, see `Method.companions`; `footprint` needs none.
    """

    stats: Stats
    dim: int
    profile: Profile
    initial_std: float = 0.01
    companions: Mapping[Companion, Tensor] = field(default_factory=dict)


class Table(nn.Module, ABC):
    """Trainable embeddings of all fields. Rows are trained by `update`, nn.Parameters by the trainer."""

    first_rows: Tensor

    def __init__(self, spec: TableSpec) -> None:
        super().__init__()
        # what a method needs of its companions it has copied: they are as long as all fields' rows
        self.spec = replace(spec, companions={})
        self.register_buffer(
            "first_rows", torch.tensor(spec.stats.first_rows, dtype=torch.int64), persistent=False
        )

    def forward(self, batch: Batch) -> Tensor:
        """-> (B, F, D): the vector of every field of every example, bags pooled."""
        lookup = look_up(batch, self.first_rows)
        return lookup.pool(self.values(lookup))

    @abstractmethod
    def values(self, lookup: Lookup) -> Tensor:
        """The vectors (N, D) of `lookup.rows` (N,), differentiable."""

    @abstractmethod
    def update(self, learning_rate: float) -> None:
        """The sparse optimizer step of the rows read last."""

    def penalty(self) -> Tensor | None:
        """A term to add to the loss, or None."""
        return None

    def after_step(self, step: int) -> None:
        """Called after each optimizer step, counted from 1."""

    def settle(self) -> bool:
        """Fix what was learned about the plan. True: train once more from here (see `retrain`)."""
        return False

    @abstractmethod
    def plan(self) -> Plan:
        """What `pack` will store; before `settle`, the plan as it would be settled now."""

    @abstractmethod
    def pack(self) -> Packed:
        """The rows as stored in the exported file. What is reported is measured on these."""

    @property
    @abstractmethod
    def training_bytes(self) -> int:
        """Bytes of rows, optimizer state and indexes held now, while training."""


class Method(ABC):
    """A compression method. Subclasses are frozen dataclasses; none is subclassed again.

    `levers` say what it saves on: rows, sharing, precision, dimension. `bags`: fields of several ids
    work. `trains_small`: training, too, holds fewer bytes than full precision does. `ranks`: it needs rows
    in order of frequency, always, never, or with one value of a knob (name, value); `footprint` and `table`
    refuse fields without it before anything else.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    levers: ClassVar[tuple[str, ...]]
    bags: ClassVar[bool] = True
    trains_small: ClassVar[bool] = False
    ranks: ClassVar[Ranks] = False

    def __init_subclass__(cls) -> None:
        for name in {"footprint", "table"} & vars(cls).keys():  # here, so that no method can forget to
            setattr(cls, name, ranked_only(vars(cls)[name]))

    @abstractmethod
    def footprint(self, spec: TableSpec) -> Footprint:
        """Bytes of the exported tables file, low and high bound, before any training.

        Raises ValueError where the profile cannot store what the method needs.
        """

    @abstractmethod
    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        """A freshly initialised trainable table. The same generator state gives the same table."""

    def companions(self) -> tuple[Companion, ...]:
        """What `table` needs of the train split beside the statistics, in `TableSpec.companions`."""
        return ()

    @classmethod
    def knobs(cls) -> Iterator[tuple[str, Any, Domain, str]]:
        """Name, default, domain and help of every knob."""
        for item in fields(cls):  # type: ignore[arg-type]
            yield item.name, item.default, item.metadata["domain"], item.metadata["help"]


def initial_rows(spec: TableSpec, rows: int, generator: torch.Generator) -> Tensor:
    """(rows, spec.dim) drawn from N(0, spec.initial_std^2)."""
    return torch.empty(rows, spec.dim).normal_(0.0, spec.initial_std, generator=generator)


def initial_table(spec: TableSpec, generator: torch.Generator) -> Tensor:
    """(R, D) first values of the rows of all fields, where every row has its own."""
    weight = initial_rows(spec, spec.stats.rows, generator)
    weight[unread_rows(spec.stats)] = 0.0
    return weight


def unread_rows(stats: Stats) -> Tensor:
    """Global rows (U,) int64 that train never looks up: mostly row 0, where all ids of train are kept.

    Nothing trains them, yet unseen ids read them: a random vector there costs or gains up to .005 of AUC by
    the luck of the draw (studies/cache), so rows of their own start, and stay, at zero.
    """
    unread = [
        first + np.flatnonzero(field.counts == 0)
        for first, field in zip(stats.first_rows, stats.fields, strict=True)
    ]
    return torch.from_numpy(np.concatenate(unread, dtype=np.int64))

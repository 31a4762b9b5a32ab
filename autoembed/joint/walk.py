"""Down the budgets, from the largest to the smallest: plan, start from the larger neighbour, fine-tune.

At every budget the planner prices the choices at the weights as they are now and solves for this and all
smaller budgets. The table starts from the larger neighbour's rows, and is packed and measured as it stands:
where that is as good as the trunk no step is spent. Otherwise quantization-aware fine-tuning follows, with
the trunk's cached predictions as targets, fresh optimizers, and learning rates that fall to zero; the better
of the two on the validation split is kept. Steps that a budget did not need are saved, but for those that
trials took before. At the first budget it is tried whether labels among the targets make better models
(settle.py); where they do, what is as good as the trunk is not enough: the best point so far is to be met.

Far down, a plan may lose so much as it stands that little is left of what larger budgets learned, and rows
that shared one there cannot be told apart any more: it is planned and tuned from the trunk's rows, faster.

Where the search is for the smallest model within a drop (`max_drop`, goal.py), steps are saved for the budget
that decides; all but the first then start from the first one's weights, since what others learned with few
steps is no better to start from than these are with many.
"""

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autoembed.evaluate import EVALUATION_BATCH, evaluate
from autoembed.joint.checkpoint import Standing, load_standing, save_standing
from autoembed.joint.config import JointConfig
from autoembed.joint.fine_tune import fine_tune, tuning_settings
from autoembed.joint.goal import portion, rest
from autoembed.joint.point import Point as Point
from autoembed.joint.settle import Settings, Trial, Tuned, settle, steps_of_trials, usual
from autoembed.joint.shares import next_steps
from autoembed.joint.table import Weights, table_under, weights_of
from autoembed.joint.teacher import Relabelled, taught, teacher_logits
from autoembed.joint.trunk import Trunk
from autoembed.methods.base import TableSpec
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.methods.plans import Codes, Fields, fields_bytes, uniform_fields
from autoembed.metrics import Metrics
from autoembed.models import ModelConfig
from autoembed.packed import Packed, PackedTable
from autoembed.training import denormals_are_zero
from autoembed.training_loop import Diverged, Examples, draw_seed

LOST = 0.15  # of the trunk's AUC above one half, from which a plan is tuned from the trunk's rows
FASTER = 3.0  # times the rate there, up to the trunk's own


class Planner(Protocol):
    """Prices choices at the weights as they are, and solves.

    rows (R, D): the latent row of every id; network: in evaluation mode, not to be changed. Returns one
    plan per budget, in order, none above its budget by `fields_bytes`.
    """

    def __call__(self, rows: Tensor, network: nn.Module, budgets: Sequence[int]) -> Sequence[Fields]: ...

    def codes(self, rows: Tensor, fields: Fields) -> Codes:
        """The codes of all segments of the plan that read a codebook, at the weights of the last call."""
        ...

    def metrics(self) -> Sequence[Tensor] | None:
        """(D, D) of every field: how the loss minds changes of its rows, at the weights of the last call.

        None where that is not known: rows are then rounded to nearest.
        """
        ...


def walk(
    data: Relabelled,
    spec: TableSpec,
    model: ModelConfig,
    trunk: Trunk,
    budgets: Sequence[int],
    planner: Planner,
    config: JointConfig,
    *,
    seed: int,
    device: torch.device | str | None = None,
    progress: Callable[[Point], None] | None = None,
    explain: Callable[[], dict[str, Any]] | None = None,
    checkpoint: Path | None = None,
) -> list[Point]:
    """A model for every budget (bytes of the tables file), the largest first.

    The rows of `data`, `spec.stats` and `trunk` stand in one order.
    `progress`: called with every point, and first with those that `checkpoint` holds already.
    `explain`: asked after each plan; what it returns is kept with the point.
    The same seed on one CPU thread gives the same points, also where a walk was cut off and goes on from
    its `checkpoint` folder. Raises CheckpointError where the folder holds another walk, ValueError where
    a plan is above its budget, Diverged where fine-tuning diverges.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    budgets = sorted(set(budgets), reverse=True)
    about = {"budgets": budgets, "seed": seed, "joint": config.model_dump(), "trunk_valid": trunk.valid.auc}
    about["rows"] = hashlib.sha256(trunk.rows.cpu().contiguous().numpy().data).hexdigest()
    names = tuple(field.name for field in spec.stats.fields)
    settings = usual(config)
    standing = Standing(Weights(trunk.rows), trunk.network.state_dict(), settings)
    points: list[Point] = []
    if checkpoint:
        found = load_standing(checkpoint, about, model, names, len(data.dense), settings)
        standing, points = found or (standing, points)
    if progress:
        for point in points:
            progress(point)
    if len(points) == len(budgets):
        return points
    forked = [device] if device.type == "cuda" else []
    walker = _Walker(data, spec, trunk, config, device)
    with denormals_are_zero(), torch.random.fork_rng(devices=forked):
        for number in range(len(points), len(budgets)):
            # a point's own seed: a walk that goes on needs no generator's state
            seeds = torch.Generator().manual_seed(seed * 1_000_003 + number)
            torch.manual_seed(draw_seed(seeds))
            allowed = walker.steps_for(budgets, points)
            point, standing = walker.point(
                standing, budgets[number:], allowed, planner, seeds, explain, points
            )
            points.append(point)
            if checkpoint:
                save_standing(checkpoint, standing, points, about)
            if progress:
                progress(point)
    return points


def retrain(
    data: Relabelled,
    spec: TableSpec,
    trunk: Trunk,
    fields: Fields,
    codes: Codes,
    budget: int,
    config: JointConfig,
    trainings: float,
    *,
    seed: int,
    device: torch.device | str | None = None,
) -> Point:
    """Train the plan `fields`, with its `codes`, anew from the trunk's weights, at the trunk's rates, for
    `trainings` trainings.

    The polish of one point: what the walk would have given with all its steps spent on this budget alone.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    started = time.perf_counter(), time.process_time()
    walker = _Walker(data, spec, trunk, config, device)
    settings = Settings(usual(config).teacher, 1.0)
    forked = [device] if device.type == "cuda" else []
    with denormals_are_zero(), torch.random.fork_rng(devices=forked):
        seeds = torch.Generator().manual_seed(seed)
        torch.manual_seed(draw_seed(seeds))
        network = copy.deepcopy(trunk.network).to(device)
        weights = Weights(trunk.rows.to(device))
        table = table_under(spec, fields, weights, walker.optimizer, codes).to(device)
        untuned = walker.measure(table.pack(), network, "valid")
        steps = round(trainings * trunk.ledger.steps)
        tuned = walker.tuned(table, network, settings, steps, seeds)
        seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
        test = walker.measure(tuned.packed, network, "test")
    size, held = fields_bytes(spec, fields), walker.held(weights, table)
    return Point(
        *(budget, size, tuned.packed, network, tuned.valid, test, untuned, True, steps, seconds, cpu_seconds),
        held,
        teacher=settings.teacher,
        rate=settings.rate,
    )


@dataclass(frozen=True)
class _Begun:
    """A plan's table as it stands: its bytes in the file, packed, measured. `another` makes it anew."""

    weights: Weights
    network: nn.Module
    size: int
    table: FixedPlanTable
    packed: Packed
    untuned: Metrics
    another: Callable[[], FixedPlanTable]


class _Walker:
    """What all points of one walk share."""

    def __init__(
        self, data: Relabelled, spec: TableSpec, trunk: Trunk, config: JointConfig, device: torch.device
    ) -> None:
        self.data, self.spec, self.trunk, self.config, self.device = data, spec, trunk, config, device
        self.metric = trunk.training.metric
        self.optimizer = tuning_settings(trunk.training, config, config.rate).row_optimizer
        self.full_bytes = fields_bytes(spec, uniform_fields(spec, 32))
        self.allowed_steps = round(config.fine_tune * trunk.ledger.steps)
        self._logits: npt.NDArray[np.float32] | None = None
        self._taught: tuple[float, Examples] | None = None

    def steps_for(self, budgets: Sequence[int], points: Sequence[Point]) -> int:
        """Steps that the next point may take; `points` are those before it."""
        taken = [point.steps for point in points]
        goal = self.config.max_drop
        if goal is not None:
            is_over = any(self._drop(point.valid) > goal for point in points)
            return 0 if is_over else max(self.allowed_steps - sum(taken), 0)
        ratios = [self.full_bytes / budget for budget in budgets]
        return next_steps(ratios, self.allowed_steps, taken)

    def _trial_steps(self) -> int:
        """Steps of every trial of settings (settle.py), 0 where the user gave them."""
        if self.config.teacher != "auto":
            return 0
        return steps_of_trials(self.trunk.ledger.steps, self.allowed_steps)

    def point(
        self,
        standing: Standing,
        budgets: Sequence[int],
        allowed: int,
        planner: Planner,
        seeds: torch.Generator,
        explain: Callable[[], dict[str, Any]] | None,
        points: Sequence[Point],
    ) -> tuple[Point, Standing]:
        """The model of the first of `budgets` after 0 or `allowed` steps, and where the walk stands then.

        `points` are those of larger budgets; where there are none, settings are tried first.
        """
        started = time.perf_counter(), time.process_time()
        carried = Weights(standing.weights.rows.to(self.device), standing.weights.steps)
        begun = self._begun(planner, carried, self._network(standing.network), budgets)
        explained = None if explain is None else explain()
        goal, settings, few = self.config.max_drop, standing.settings, 0
        afresh = bool(points) and goal is None and allowed > 0 and self._is_lost(begun.untuned)
        # what stands without a step, should the steps be in vain
        stands = Tuned(begun.weights, begun.packed, begun.network, begun.untuned)
        size, told = first = begun.size, explained
        if afresh:
            faster = min(float(f"{FASTER * settings.rate:.6g}"), 1.0)
            settings = Settings(settings.teacher, max(settings.rate, faster))
            begun = self._begun(planner, Weights(self.trunk.rows.to(self.device)), self._network(), budgets)
            size, told = begun.size, None if explain is None else explain()
        untuned = begun.untuned
        is_enough = self._is_enough(untuned, points)
        tuned: Tuned | None = None
        steps = 0
        tried: tuple[Trial, ...] = ()
        trial = 0 if points else self._trial_steps()

        def tune(table: FixedPlanTable, asked: Settings, count: int, seeds: torch.Generator) -> Tuned | None:
            """None where it diverges at a rate that the user never asked for."""
            try:
                return self.tuned(table, copy.deepcopy(begun.network), asked, count, seeds)
            except Diverged:
                if asked == usual(self.config):
                    raise
                return None

        if trial:
            settings, tuned, tried = self._settled(
                lambda asked, alike: tune(begun.another(), asked, trial, alike), untuned, is_enough, seeds
            )
            steps = len(tried) * trial

        def go_on(table: FixedPlanTable, more: int) -> None:
            nonlocal tuned, steps
            longer = tune(table, settings, more, seeds)
            steps += more
            if longer and (tuned is None or longer.valid.better_than(tuned.valid, self.metric)):
                tuned = longer

        def drop() -> float:
            return min(map(self._drop, [untuned] if tuned is None else [untuned, tuned.valid]))

        if goal is not None:
            few = portion(drop(), goal, allowed - steps, self.allowed_steps)
        if goal is not None and few:
            go_on(begun.table, few)
            # the second point starts from what the first one learned, the others from where this one did
            from_here = not points and tuned is not None and tuned.valid.better_than(untuned, self.metric)
            start = tuned if tuned is not None and from_here else begun
            ahead = partial(self._untuned_drop, planner, start.weights, start.network, budgets[1:])
            if many := rest(drop(), self._drop(untuned), goal, ahead, allowed - steps):
                go_on(begun.another(), many)
        # behind trials only where the share of this budget leaves more than one of them had
        elif goal is None and allowed - steps > trial and not is_enough:
            go_on(begun.table, allowed - steps)
        kept = tuned if tuned is not None and tuned.valid.better_than(untuned, self.metric) else None
        found = kept or Tuned(begun.weights, begun.packed, begun.network, untuned)
        if stands.valid.better_than(found.valid, self.metric):
            afresh, kept, found, untuned, size, told = False, None, stands, stands.valid, *first
        # as the trunk's, a point's cost ends before the test split, which only the report needs
        seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
        if not points:
            seconds += self.trunk.basis_seconds
            cpu_seconds += self.trunk.basis_cpu_seconds
        test = self.measure(found.packed, found.network, "test")
        point = Point(
            *(budgets[0], size, found.packed, found.network, found.valid, test, untuned, kept is not None),
            *(steps, seconds, cpu_seconds),
            self.held(begun.weights, begun.table, trials=trial > 0 or few > 0),
            told,
            settings.teacher if kept else None,
            settings.rate if kept else None,
            tried,
            afresh,
        )
        # what was tuned afresh in vain leaves nothing behind
        onward = kept if kept and (goal is None or not points) else stands
        settings = standing.settings if points else settings
        return point, Standing(onward.weights, onward.network.state_dict(), settings)

    def _network(self, state: dict[str, Tensor] | None = None) -> nn.Module:
        """The trunk's network in evaluation mode, or with this state."""
        network = copy.deepcopy(self.trunk.network).to(self.device)
        if state is not None:
            network.load_state_dict(state)
        return network.eval()

    def _is_lost(self, untuned: Metrics) -> bool:
        """Whether a plan leaves so little as it stands that what larger budgets learned is no help."""
        return self.trunk.valid.auc - untuned.auc > LOST * (self.trunk.valid.auc - 0.5)

    def _begun(
        self, planner: Planner, weights: Weights, network: nn.Module, budgets: Sequence[int]
    ) -> "_Begun":
        """The plan of the first of `budgets` and what it gives as it stands, from `weights`."""
        fields = planner(weights.rows, network, budgets)[0]
        size = fields_bytes(self.spec, fields)
        if size > budgets[0]:
            raise ValueError(f"a plan of {size:,} bytes was made for a budget of {budgets[0]:,} bytes")
        codes, metrics = planner.codes(weights.rows, fields), planner.metrics()

        def another() -> FixedPlanTable:
            table = table_under(self.spec, fields, weights, self.optimizer, codes, metrics)
            return table.to(self.device)

        table = another()
        packed = table.pack()
        untuned = self.measure(packed, network, "valid")
        return _Begun(weights, network, size, table, packed, untuned, another)

    def _untuned_drop(
        self, planner: Planner, weights: Weights, network: nn.Module, budgets: Sequence[int]
    ) -> float | None:
        """What the first of `budgets` would lose without a step; None where there is none."""
        if not budgets:
            return None
        return self._drop(self._begun(planner, weights, network, budgets).untuned)

    def _settled(
        self,
        tune: Callable[[Settings, torch.Generator], Tuned | None],
        untuned: Metrics,
        is_enough: bool,
        seeds: torch.Generator,
    ) -> tuple[Settings, Tuned | None, tuple[Trial, ...]]:
        """As `settle`; all trials see the same examples in the same order, and the same dropout."""
        order = draw_seed(seeds)

        def tune_alike(asked: Settings) -> Tuned | None:
            torch.manual_seed(order)
            return tune(asked, torch.Generator().manual_seed(order))

        return settle(tune_alike, untuned, is_enough, self.config.rate, self.metric)

    def held(self, weights: Weights, table: FixedPlanTable, *, trials: bool = False) -> int:
        """Bytes of tables at the peak of a point.

        The trunk's rows and sensitivities stay, and a number of every row; pricing holds newer ones and a
        copy of the rows. Trials have a table more, and leave the rows of two models: without labels, and the
        best with them.
        """
        rows = weights.rows.nbytes
        places = 8 * (self.spec.stats.rows + len(table.rows.weight))  # of the table that is tried
        beside = trials * (table.training_bytes + places + 2 * rows)
        most = max(table.training_bytes + beside, 2 * rows)
        return 2 * self.trunk.rows.nbytes + rows + rows // self.spec.dim + most

    def _is_enough(self, valid: Metrics, points: Sequence[Point]) -> bool:
        """Whether no fine-tuning is needed: no worse than the best so far but for the tolerance."""
        so_far = [self.trunk.valid, *(point.valid for point in points if point.fine_tuned)]
        return self._worth(valid) >= max(map(self._worth, so_far)) - self.config.tolerance

    def _drop(self, valid: Metrics) -> float:
        """What is lost of the trunk's."""
        return self._worth(self.trunk.valid) - self._worth(valid)

    def _worth(self, valid: Metrics) -> float:
        """More is better."""
        return valid.auc if self.metric == "auc" else -valid.logloss

    def tuned(
        self,
        table: FixedPlanTable,
        network: nn.Module,
        settings: Settings,
        steps: int,
        seeds: torch.Generator,
    ) -> Tuned:
        """Table and network after so many steps, which change them in place."""
        training = tuning_settings(self.trunk.training, self.config, settings.rate)
        fine_tune(
            *(self._lessons(settings.teacher), table, network, training, steps, seeds, self.device),
            dropout=self.config.dropout,
            step_rate=self.config.step_rate,
        )
        network.eval()
        packed = table.pack()
        return Tuned(weights_of(table), packed, network, self.measure(packed, network, "valid"))

    def _lessons(self, teacher: float) -> Examples:
        """The data under labels of which `teacher` is the trunk's part, made when first needed."""
        if self._logits is None:
            network = copy.deepcopy(self.trunk.network).to(self.device)
            rows = Weights(self.trunk.rows.to(self.device))
            table = table_under(self.spec, uniform_fields(self.spec, 32), rows, self.optimizer)
            self._logits = teacher_logits(self.data, network, table.to(self.device), self.device)
        if self._taught is None or self._taught[0] != teacher:
            self._taught = teacher, taught(self.data, self._logits, teacher)
        return self._taught[1]

    def measure(self, packed: Packed, network: nn.Module, split: str) -> Metrics:
        embeddings = PackedTable(packed, self.spec.stats.first_rows).to(self.device)
        batches = self.data.batches(split, EVALUATION_BATCH)
        return evaluate(network, embeddings, batches, self.data.labels(split), self.device)

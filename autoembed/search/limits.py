"""Budgets in bytes, and what the byte model says about a candidate before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoembed.budget import Footprint, format_bytes
from autoembed.front import Objective
from autoembed.methods import make_method, method_parameters
from autoembed.methods.base import Method, TableSpec
from autoembed.methods.full_precision import FullPrecision
from autoembed.record import TrialRecord
from autoembed.search.proposals import Verdict
from autoembed.search.study import StudyConfig

STAND_IN: Mapping[Objective, float] = {"auc": 0.5, "logloss": 1.0}  # told for candidates without a model


@dataclass(frozen=True)
class Limits:
    """The budgets of a study in bytes, largest first, and the sizes that candidates may have."""

    full_bytes: int
    budgets_bytes: tuple[int, ...]
    low_bytes: int
    high_bytes: int

    def excess(self, footprint: Footprint) -> int:
        """Bytes by which every outcome misses the limits; <= 0 where one may fit."""
        return max(footprint.low_bytes - self.high_bytes, self.low_bytes - footprint.high_bytes)


def unmet_budgets(budgets_bytes: Sequence[int], floor: int) -> str:
    """Which budgets a joint search leaves out, its smallest plan taking `floor` bytes; "" for none."""
    beyond = ", ".join(f"{budget:,}" for budget in budgets_bytes if budget < floor)
    told = f"no plan meets {beyond} bytes: the smallest takes {floor:,}; these budgets are left out"
    return told if beyond else ""


def limits_of(config: StudyConfig, spec: TableSpec) -> Limits:
    """The budgets of a study for its data; ratios are of the exported full-precision tables."""
    full_bytes = FullPrecision().footprint(spec).high_bytes
    return Limits(full_bytes, config.budgets_bytes(full_bytes), *config.range_bytes(full_bytes))


def candidate_name(method: Method) -> str:
    """The method with all its parameters, the same for equal methods: "uniform(bits=4)"."""
    parameters = method_parameters(method)
    return f"{method.name}({', '.join(f'{name}={value}' for name, value in parameters.items())})"


def rejection(method: Method, spec: TableSpec, limits: Limits) -> str:
    """Why a candidate is not worth training, or "" where some outcome of it fits."""
    try:
        footprint = method.footprint(spec)
    except ValueError as error:
        return str(error)
    low, high = footprint.low_bytes, footprint.high_bytes
    if low > limits.high_bytes:
        return (
            f"needs at least {low} bytes ({format_bytes(low)}); "
            f"the largest budget is {limits.high_bytes} ({format_bytes(limits.high_bytes)})"
        )
    if high < limits.low_bytes:
        return (
            f"takes at most {high} bytes ({format_bytes(high)}); "
            f"the byte range starts at {limits.low_bytes} ({format_bytes(limits.low_bytes)})"
        )
    return ""


def verdict(record: TrialRecord, objective: Objective, spec: TableSpec, limits: Limits) -> Verdict:
    """What the sampler is told about a finished trial."""
    if record.state == "complete":
        value = record.valid_auc if objective == "auc" else record.valid_logloss
        assert value is not None, "a complete trial has validation metrics"
        # what was learned counts: the outcome may miss limits that the footprint's low end met
        size = record.total_bytes
        return Verdict(value, size, limits.excess(Footprint(size, size)))
    try:
        footprint = make_method(record.method, record.parameters).footprint(spec)
    except ValueError:  # the profile cannot store it: as bad as full precision, whatever its size
        return Verdict(STAND_IN[objective], limits.full_bytes, limits.full_bytes)
    failed = record.state == "failed"
    return Verdict(STAND_IN[objective], footprint.low_bytes, limits.excess(footprint), failed)

"""Why a plan is what it is: what every field and group got, what it is predicted to cost, what comes next."""

import math
from typing import Any

import numpy as np

from autoembed.joint.choices import Choice, fields_of
from autoembed.joint.knapsack import more_bytes
from autoembed.joint.planner import Planned
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import stored_plan
from autoembed.plan import Sharing, segment_bytes, segment_index_bytes


def explained(planned: Planned, spec: TableSpec) -> dict[str, Any]:
    """JSON of one point. Losses are predicted increases of the mean log loss, bytes those of the solver.

    `fields`: per field its look-ups in train (a share of all), bytes of its rows and codes in the file, rows
    that are stored, rows, predicted loss, and its groups, whose bytes are without the codebooks they read.
    `shadow_price`: predicted loss that one more byte saves. `next`: the single change that would save the
    most per byte, and None where no change saves anything. `dim`: that of rows stored whole.
    `rank_correlation`: how well prices ranked random plans by their measured loss, at the trunk.
    `planning_seconds`: processor time of this plan, the first one's with the calibration.
    """
    problem, chosen = planned.problem, planned.solution.chosen
    places = np.arange(len(chosen))
    losses, sizes = problem.losses[places, chosen], problem.sizes[places, chosen]
    lookups = [int(field.counts.sum()) for field in spec.stats.fields]
    plan = stored_plan(spec.profile, fields_of(spec, planned.groups, [planned.choices[c] for c in chosen]))
    fields = []
    for number, field in enumerate(spec.stats.fields):
        own = [g for g, group in enumerate(planned.groups) if group.field == number]
        fields.append(
            {
                "name": field.name,
                "lookups": lookups[number] / max(sum(lookups), 1),
                "bytes": sum(
                    segment_bytes(spec.profile, s) + segment_index_bytes(s)
                    for s in plan.fields[number].segments
                ),
                "rows": field.rows,
                "stored_rows": sum(
                    s.stored_rows for s in plan.fields[number].segments if s.sharing is not Sharing.TAIL
                ),
                "loss": float(losses[own].sum()),
                "groups": [
                    {
                        "start": planned.groups[g].start,
                        "stop": planned.groups[g].stop,
                        "choice": label(planned.choices[chosen[g]]),
                        "bytes": int(sizes[g]),
                        "loss": float(losses[g]),
                    }
                    for g in own
                ],
            }
        )
    solution = planned.solution
    return {
        "budget_bytes": solution.budget,
        "dim": spec.dim,
        "loss": solution.loss,
        "bound": solution.bound,
        "shadow_price": solution.shadow_price,
        # JSON has no nan: constant losses, as of a model without weights, rank nothing
        "rank_correlation": None if math.isnan(planned.rank_correlation) else planned.rank_correlation,
        "measured_every_choice": planned.used_fallback,
        "planning_seconds": planned.seconds,
        "fields": fields,
        "next": _next(planned, spec),
    }


def label(choice: Choice) -> str:
    """`own int4 d4 + int2 d12`, `hashed 1/16 int8 d16`, `codebook 2^4 int8 d16`, `zero`: for people."""
    if choice.sharing == "zero":
        return "zero"
    ratio = f" 1/{round(1 / choice.ratio)}" if choice.sharing == "hashed" else ""
    ratio = f" 2^{choice.code_bits}" if choice.sharing == "codebook" else ratio
    return f"{choice.sharing}{ratio} " + " + ".join(
        f"{precision} d{dim}" for dim, precision in choice.columns
    )


def _next(planned: Planned, spec: TableSpec) -> dict[str, Any] | None:
    problem, chosen = planned.problem, planned.solution.chosen
    gain = problem.losses[np.arange(len(chosen)), chosen][:, None] - problem.losses
    more = more_bytes(problem, chosen)
    worth = np.where((gain > 0) & (more > 0), gain / np.maximum(more, 1), 0.0)
    g, c = (int(place) for place in np.unravel_index(int(worth.argmax()), worth.shape))
    if worth[g, c] <= 0:
        return None
    group = planned.groups[g]
    return {
        "field": spec.stats.fields[group.field].name,
        "start": group.start,
        "stop": group.stop,
        "from": label(planned.choices[chosen[g]]),
        "to": label(planned.choices[c]),
        "bytes": int(more[g, c]),
        "saves": float(gain[g, c]),
    }

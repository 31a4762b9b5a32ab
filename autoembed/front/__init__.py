"""From trial records to the front: points over seeds, the Pareto set, picks, and one record of it all.

Selection reads validation metrics only; test metrics are carried along and reported.
"""

from autoembed.front.files import from_json, to_csv, to_json
from autoembed.front.pareto import (
    HeldOutFronts,
    ReferencePoint,
    held_out_fronts,
    hypervolume,
    pareto,
    reference_point,
)
from autoembed.front.pick import (
    Pick,
    PickError,
    find_reference,
    pick_budget,
    pick_knee,
    pick_max_auc_drop,
    pick_trial,
)
from autoembed.front.point import Objective, Point, Repeat, Split, make_points, sign
from autoembed.front.record import Answer, Cost, FrontRecord, choose, front_record

__all__ = [
    "Answer",
    "Cost",
    "FrontRecord",
    "HeldOutFronts",
    "Objective",
    "Pick",
    "PickError",
    "Point",
    "ReferencePoint",
    "Repeat",
    "Split",
    "choose",
    "find_reference",
    "from_json",
    "front_record",
    "held_out_fronts",
    "hypervolume",
    "make_points",
    "pareto",
    "pick_budget",
    "pick_knee",
    "pick_max_auc_drop",
    "pick_trial",
    "reference_point",
    "sign",
    "to_csv",
    "to_json",
]

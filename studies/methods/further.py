"""Settings drawn at random from a preset, beside those that its search tried."""

import tempfile
from pathlib import Path
from typing import Any

from autoembed.config import read_yaml
from autoembed.methods import method_parameters
from autoembed.search.inputs import prepare_inputs
from autoembed.search.limits import limits_of, rejection
from autoembed.search.proposals import Proposals
from autoembed.search.study import StudyConfig
from autoembed.space import load_space, preset_path

FIRST = 1000  # draws follow from the seed and a trial's number: none of these is one that a search drew
ATTEMPTS = 1000


def further(config: StudyConfig, method: str, count: int, run: Path) -> dict[str, Any]:
    """A space of `count` settings of the preset `method`, at random among those that the budgets admit."""
    (entry,) = read_yaml(preset_path(method))["methods"]
    space = load_space({"methods": [{"method": method, "knobs": entry["knobs"]}]})
    spec = prepare_inputs(config, run).spec
    limits = limits_of(config, spec)
    settings: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        proposals = Proposals(Path(folder, "journal"), space, "random", config.seed, True, print)
        for number in range(FIRST, FIRST + ATTEMPTS):
            drawn = proposals.ask(number, 0).method
            setting = method_parameters(drawn)
            if not rejection(drawn, spec, limits) and setting not in settings:
                settings.append(setting)
            if len(settings) == count:
                break
    return {"methods": [{"method": method, "baselines": settings}]}

"""AutoEmbed: compression search for recommender embedding tables under a memory budget.

    from autoembed import load_study, run_study, run_front, pick_trial, export_pick, load

Heavy modules are imported when a name is first used, so that `import autoembed` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoembed.front import FrontRecord as Front
    from autoembed.run import export_pick, pick_trial, run_front
    from autoembed.runtime import load
    from autoembed.search.driver import run_study
    from autoembed.search.study import StudyConfig as Study
    from autoembed.search.study import load_study

__version__ = "0.1.0"
__all__ = ["Front", "Study", "export_pick", "load", "load_study", "pick_trial", "run_front", "run_study"]

# functions are not called `search` and `export`: those are subpackages, and importing one would hide them
_HOMES = {
    "Front": ("autoembed.front", "FrontRecord"),
    "Study": ("autoembed.search.study", "StudyConfig"),
    "export_pick": ("autoembed.run", "export_pick"),
    "load": ("autoembed.runtime", "load"),
    "load_study": ("autoembed.search.study", "load_study"),
    "pick_trial": ("autoembed.run", "pick_trial"),
    "run_front": ("autoembed.run", "run_front"),
    "run_study": ("autoembed.search.driver", "run_study"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autoembed' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)

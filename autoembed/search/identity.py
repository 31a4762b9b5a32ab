"""What a run folder belongs to: a search goes on only with the study that began it."""

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from autoembed.config import ConfigError
from autoembed.joint.config import UNWRITTEN
from autoembed.record import write_json
from autoembed.search.folder import RunFolder
from autoembed.search.study import JOINT, StudyConfig
from autoembed.space import Space

FREE = (
    *("data", "search_space", "trials", "time_limit", "patience_trials", "seeds", "workers", "sampler"),
    "warm_start",
)
PACKAGES = ("autoembed", "torch", "numpy", "optuna", "scipy", "pyarrow", "safetensors", "pydantic")


def check_identity(folder: RunFolder, config: StudyConfig, fingerprint: str, space: Space) -> None:
    """Note the study on the first run; later raise ConfigError naming the keys that have changed.

    Data and search space count by content, not by name; the keys in FREE may change.
    """
    unused = [] if config.is_joint else ["joint"]
    if config.promotion is None:
        unused.append("promotion")
    content = config.model_dump(mode="json", exclude={*FREE, *unused})
    walks = f"{JOINT} + " if config.is_joint and config.single_spaces else ""
    identity = _flat({**content, "data": fingerprint, "search_space": walks + space.fingerprint})
    if not folder.identity.exists():
        write_json(folder.identity, identity)
        return
    try:
        earlier = dict(json.loads(folder.identity.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{folder.identity} is damaged ({error}), so what {folder.path} holds cannot be told; "
            "choose another run folder"
        ) from None
    if config.is_joint:
        earlier = _flat({"joint": UNWRITTEN}) | earlier
    changed = [key for key in {**earlier, **identity} if earlier.get(key) != identity.get(key)]
    if changed:
        lines = [
            f"{key} (its content)" if key in FREE else f"{key}: {earlier.get(key)!r} -> {identity.get(key)!r}"
            for key in changed
        ]
        raise ConfigError(
            f"{folder.path} holds a search of another study; changed: {'; '.join(lines)}. "
            f"Choose another run folder, or undo the change. Free to change: {', '.join(FREE[2:])}"
        )


def environment() -> dict[str, Any]:
    """Versions, cores and thread settings, for env.json."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "1 per worker"),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()

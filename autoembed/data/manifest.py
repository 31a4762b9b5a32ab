"""The manifest of a prepared folder: what is in it, where it came from, the checksum of every file."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from autoembed.config import ConfigError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_CONTENT_KEYS = ("format", "splits", "dense", "fields", "files")


def fingerprint_of(manifest: dict[str, Any]) -> str:
    """A hash of all content, independent of where the data lay: equal data, equal fingerprint."""
    content = {key: manifest[key] for key in _CONTENT_KEYS}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write and fsync it."""
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises ConfigError where there is none, it is damaged, altered, or of another format version."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{folder}: no prepared data here ({MANIFEST} is missing); run prepare") from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: damaged ({error}); prepare the data again") from None
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise ConfigError(
            f"{path}: format version {version!r}, this program reads {FORMAT_VERSION}; prepare the data again"
        )
    if any(key not in manifest for key in (*_CONTENT_KEYS, "config", "source", "fingerprint")):
        raise ConfigError(f"{path}: damaged (keys are missing); prepare the data again")
    if manifest["fingerprint"] != fingerprint_of(manifest):
        raise ConfigError(f"{path}: altered since it was written; prepare the data again")
    return manifest

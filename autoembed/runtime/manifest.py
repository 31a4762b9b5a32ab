"""The manifest of an artifact: what the other files are, and a checksum of each, the manifest included.

Its bytes are exactly `manifest_bytes` of its content, so that any altered byte is found, blanks too.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from autoembed.files import sha256_of

FORMAT = "autoembed-artifact"
VERSION = 1
MANIFEST = "manifest.json"
TABLES = "tables.safetensors"
NETWORK = "network.safetensors"
VOCABULARY = "vocabulary.safetensors"
FILES = (TABLES, NETWORK, VOCABULARY)

_KEYS = {"format", "version", "files", "bytes", "plan", "model", "data", "metrics", "provenance", "checksum"}
_AGAIN = "copy the folder again from where it was exported, or export the model again"


class ArtifactError(ValueError):
    """An exported model cannot be used; the message names the file and what to do."""


def manifest_bytes(content: dict[str, Any]) -> bytes:
    """`content` without its checksum -> the file: JSON with the SHA-256 of the rest as last key.

    Raises ValueError where the content holds NaN or infinity, which JSON does not know.
    """
    body = {key: value for key, value in content.items() if key != "checksum"}
    checksum = hashlib.sha256(_text(body)).hexdigest()
    return _text({**body, "checksum": checksum})


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the files beside the manifest, as they are now."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in FILES
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest itself. Raises ArtifactError."""
    path = folder / MANIFEST
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no exported model here, {MANIFEST} is missing; {_AGAIN}") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from None
    try:
        content = json.loads(found)
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path}: cut off or altered, it is no JSON; {_AGAIN}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtifactError(f"{path}: this is not the manifest of an exported model ({FORMAT!r}); {_AGAIN}")
    if content.get("version") != VERSION:
        raise ArtifactError(
            f"{path}: format version {content.get('version')!r}, this program reads {VERSION}; "
            "use the autoembed that wrote it, or export the model again"
        )
    if set(content) != _KEYS or not _is_intact(content, found):
        raise ArtifactError(f"{path}: altered since it was written; {_AGAIN}")
    return content


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare size and SHA-256 of every file with the manifest. Raises ArtifactError."""
    for name in FILES:
        path, expected = folder / name, manifest["files"][name]
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise ArtifactError(
                    f"{path}: cut off or altered, {size} bytes instead of {expected['bytes']}; {_AGAIN}"
                )
            if sha256_of(path) != expected["sha256"]:
                raise ArtifactError(f"{path}: altered, its SHA-256 is not that of the manifest; {_AGAIN}")
        except FileNotFoundError:
            raise ArtifactError(f"{path}: missing; {_AGAIN}") from None
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read: {error}") from None


def _is_intact(content: dict[str, Any], found: bytes) -> bool:
    try:
        return manifest_bytes(content) == found
    except (ValueError, RecursionError):
        return False


def _text(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()

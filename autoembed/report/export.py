"""What `autoembed export` prints about a model that it wrote and checked."""

from pathlib import Path

from rich.console import Console

from autoembed.budget import format_bytes
from autoembed.export.artifact import Verified


def print_export(path: Path, verified: Verified, console: Console) -> None:
    """What was picked, the bytes part by part, and the two checks of the reloaded model."""
    for line in export_lines(path, verified):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def export_lines(path: Path, verified: Verified) -> list[str]:
    """The same as text: sizes are those of the files, the rest is what the manifest says."""
    manifest = verified.artifact.manifest
    sizes, origin = manifest["bytes"], manifest["provenance"]
    parts = ", ".join(f"{name} {size:,}" for name, size in sizes["tables"].items() if name != "total")
    packing = origin["packing_difference"]
    trained = (
        "" if packing is None else f"; packing it changed validation predictions by at most {packing:.2g}"
    )
    return [
        f"picked trial {origin['trial']}, {origin['candidate']}: {origin['picked']}",
        f"wrote {path}: tables {verified.table_bytes:,} B ({format_bytes(verified.table_bytes)}), "
        f"network {sizes['network']:,} B, vocabulary {sizes['vocabulary']:,} B "
        f"(before pruning {sizes['vocabulary_unpruned']:,} B)",
        f"tables file equals the byte model: {parts}",
        f"reloaded: predictions of {verified.examples:,} test examples differ by at most "
        f"{verified.largest_difference:.2g} from the trained candidate's{trained}",
    ]

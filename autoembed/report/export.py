"""What `autoembed export` prints about a model that it wrote and checked."""

from rich.console import Console

from autoembed.budget import format_bytes
from autoembed.run import Exported


def print_export(exported: Exported, console: Console) -> None:
    """The pick, the bytes part by part, and the two checks of the reloaded model."""
    for line in export_lines(exported):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def export_lines(exported: Exported) -> list[str]:
    """The same as text: sizes are those of the files."""
    manifest = exported.verified.artifact.manifest
    sizes = manifest["bytes"]
    parts = ", ".join(f"{name} {size:,}" for name, size in sizes["tables"].items() if name != "total")
    record, verified = exported.record, exported.verified
    return [
        f"picked trial {record.number}, {record.candidate}: {exported.pick.reason}",
        f"wrote {exported.path}: tables {verified.table_bytes:,} B ({format_bytes(verified.table_bytes)}), "
        f"network {sizes['network']:,} B, vocabulary {sizes['vocabulary']:,} B "
        f"(before pruning {sizes['vocabulary_unpruned']:,} B)",
        f"tables file equals the byte model: {parts}",
        f"reloaded: predictions of {verified.examples:,} test examples differ by at most "
        f"{verified.largest_difference:.2g} from the trained candidate's",
    ]

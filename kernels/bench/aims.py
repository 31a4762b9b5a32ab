"""What the kernels are to reach, and what keeps those from it that miss.

    python kernels/bench/aims.py                      what kernels/bench/cpu.json reached and missed
    python kernels/bench/aims.py kernels/bench/gpu.json

`cpu.py`, `cpu_training.py` and `gpu.py` write the same into their records, as `aims`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

# ratios: the peer's time over ours
AT_LEAST = {
    **dict.fromkeys((f"int{bits}_gather_vs_fbgemm" for bits in (8, 4, 2)), 3.0),
    **dict.fromkeys((f"int{bits}_gather_vs_fbgemm_dim64" for bits in (8, 4, 2)), 2.5),
    **dict.fromkeys((f"int{bits}_gather_vs_random_read_limit" for bits in (8, 4)), 0.77),
    **dict.fromkeys((f"int{bits}_gather_vs_float32_embedding" for bits in (8, 4, 2)), 1.0),
    **dict.fromkeys((f"int{bits}_gather_vs_float32_embedding_dim64" for bits in (8, 4, 2)), 1.0),
    "mixed_gather_vs_int8": 0.667,
    "mixed_gather_vs_fbgemm_int4": 2.0,
    **dict.fromkeys((f"pooled_int{bits}_vs_fbgemm" for bits in (8, 4)), 1.5),
    **dict.fromkeys((f"pooled_int{bits}_vs_fbgemm_dim64" for bits in (8, 4)), 1.3),
    **dict.fromkeys((f"pooled_fp32_vs_fbgemm{suffix}" for suffix in ("", "_dim64")), 1.0),
    **dict.fromkeys((f"fp32_update_vs_fbgemm{suffix}" for suffix in ("", "_dim64")), 1.0),
    **dict.fromkeys((f"fp16_sr_update_vs_fbgemm{suffix}" for suffix in ("", "_dim64")), 1.8),
    **dict.fromkeys((f"interaction_vs_bmm{suffix}" for suffix in ("", "_dim64")), 3.0),
    "train_step_dim16_vs_fbgemm": 1.2,
    "train_step_dim16_vs_sparse_adam": 1.6,
    "train_step_dim64_vs_fbgemm": 1.4,
    "train_step_vs_bound": 0.85,
}
# our time over another time of ours
AT_MOST = {
    **dict.fromkeys((f"int8_sr_over_own_fp32{suffix}" for suffix in ("", "_dim64")), 1.25),
    **dict.fromkeys((f"fp16_sr_over_nearest{suffix}" for suffix in ("", "_dim64")), 1.1),
    **dict.fromkeys((f"int8_sr_over_nearest{suffix}" for suffix in ("", "_dim64")), 1.1),
}

# of a GPU: shares of what a copy moves, and of a step in which kernels run; ratios as above
GPU_AT_LEAST = {
    **{f"{piece}, ours {kind}": 0.8 for piece in ("gather", "gather_dim64") for kind in ("fp32", "fp16")},
    **{
        f"{piece}, ours {kind}": 0.65
        for piece in ("gather", "gather_dim64")
        for kind in ("int8", "int4", "mixed")
    },
    **{f"{piece}, ours fp32": 0.6 for piece in ("update", "update_dim64")},
    **{
        f"{kind}_gather_vs_{peer}_dim{dim}": aim
        for kind in ("fp32", "fp16", "int8", "int4", "mixed")
        for peer, aim in {"embedding_bag": 1.5, "torch_decoding": 3.0}.items()
        for dim in (16, 64)
    },
    **{f"{kind}_by_chance_vs_nearest_dim{dim}": 0.909 for kind in ("fp16", "int8") for dim in (16, 64)},
    **{f"{piece}, ours, CUDA graph": 0.9 for piece in ("step", "step_tf32")},
}

# What limits, in words: figures change with every record and stand beside these in it
_DISTANCE = (
    "reading rows and writing the output; what the reads alone take stands beside FBGEMM's time, as limit"
)
_WRITES = "the output, 64 bytes of a look-up at dimension 16, which the limit leaves out and we write"
_CHANCE = "ten rounds of Philox for every eight numbers, and the cast by chance"
_NETWORK = "products of matrices, the same for all, which take most of every step (bound, parts_ms)"
_WORDS = "instructions: a thread that may meet any width reads up to five words for four values"
# by the beginning of a figure's name; the first that fits
LIMITS = {
    "int8_gather_vs_random_read_limit": _WRITES,
    "int4_gather_vs_random_read_limit": _WRITES,
    **dict.fromkeys((f"int{bits}_gather_vs_fbgemm" for bits in (8, 4, 2)), _DISTANCE),
    "mixed_gather_vs_fbgemm_int4": _DISTANCE,
    "fp16_sr": _CHANCE,
    "int8_sr": _CHANCE,
    "train_step": _NETWORK,
    "interaction_vs_bmm_dim64": "the products themselves; with AVX-512 one example is computed at a time",
    "gather, ours fp": "rows of at most 64 bytes; those of a plain table, only copied, stand beside them",
    "gather, ours mixed": _WORDS,
    "gather_dim64, ours mixed": _WORDS,
    "update": "gradients read and summed in the order of rows, which take most of the time (sums of repeats)",
}


def compared(pieces: dict[str, Any], ratios: dict[str, float]) -> dict[str, dict[str, object]]:
    """Every figure of a CPU record that has an aim: reached or missed, by what, and what limits it."""
    figures = dict(ratios)
    for piece in pieces.values():
        figures |= piece.get("time_over", {})
    return _judged(figures, AT_LEAST, 1) | _judged(figures, AT_MOST, -1)


def compared_on_gpu(pieces: dict[str, Any], ratios: dict[str, float]) -> dict[str, dict[str, object]]:
    """The same of a GPU record."""
    figures = dict(ratios)
    for piece, entries in pieces.items():
        for candidate, entry in entries.items():
            shares = [entry[key] for key in ("share_of_copy", "busy_share") if key in entry]
            figures |= {f"{piece}, {candidate}": share for share in shares}
    return _judged(figures, GPU_AT_LEAST, 1)


def _judged(figures: dict[str, float], aims: dict[str, float], better: int) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for name, aim in aims.items():
        if name not in figures:
            continue
        found[name] = {"reached": figures[name], "at_least" if better > 0 else "at_most": aim}
        if better * figures[name] < better * aim:
            missed_by = round((aim / figures[name]) ** better, 2)
            found[name] |= {"missed_by": missed_by, "limit": limit_of(name)}
    return found


def limit_of(name: str) -> str:
    return next((limit for start, limit in LIMITS.items() if name.startswith(start)), "not known")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", nargs="?", type=Path, default=Path(__file__).with_name("cpu.json"))
    record = json.loads(parser.parse_args().record.read_text(encoding="utf-8"))
    judged = compared_on_gpu if "copy_gb_per_s" in record else compared
    for name, held in judged(record["pieces"], record["ratios"]).items():
        aim = f"at least {held['at_least']}" if "at_least" in held else f"at most {held['at_most']}"
        missed = f"   missed by {held['missed_by']}: {held['limit']}" if "limit" in held else ""
        print(f"{name:42s} {held['reached']:7.3f}   {aim:15s}{missed}")


if __name__ == "__main__":
    main()

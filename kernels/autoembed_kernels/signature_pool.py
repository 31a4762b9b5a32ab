"""Where a row's vector lies in one flat pool of values, found by the row's signature (LMA).

Desai et al., arXiv:2103.06124. A vector of D values is cut into blocks of Z (the paper's is Z = 1). For block
z, `keys` of the 16 keys of the signature (`autoembed_kernels.min_hash`) are chosen by a hash of z, and a hash
of those keys alone says at which slot the block begins:

    begins = row_hash(signature & mask[keys, z], 2^40 + z, slots - Z + 1)

so that two ids read the same block where their chosen keys agree: of similarity J, with probability about
(J + (1 - J) / 16)^keys, and of no similarity about as often as by any hash.

Signatures are stored as 8 bytes each, little-endian.
"""

from functools import lru_cache

import torch
from torch import Tensor

from autoembed_kernels.checks import as_indices
from autoembed_kernels.min_hash import KEY_BITS, KEYS
from autoembed_kernels.native.loader import address, native_for, threads
from autoembed_kernels.row_hash import reference as reference_row_hash
from autoembed_kernels.row_hash import row_hash

SIGNATURE_BYTES = 8
MAX_KEYS = 8  # of a block; 32 bits of hash
_BLOCK = 1 << 40  # salts from here on are nobody else's
_ORDER = 1 << 41


def signature_slots(signatures: Tensor, masks: Tensor, block: int, slots: int) -> Tensor:
    """signatures (N,) int64 -> (N, blocks) int64, the first slot of every block of Z = `block` values.

    masks: a row of `key_masks`, (blocks,) int64, or one for each signature, (N, blocks). The pool has
    `slots` >= Z. Raises ValueError where shapes do not fit.
    """
    signatures = as_indices("signatures", signatures)
    if masks.dim() not in (1, 2) or (masks.dim() == 2 and len(masks) != len(signatures)):
        raise ValueError(
            f"masks has shape {tuple(masks.shape)}, expected (blocks,) or ({len(signatures)}, blocks): "
            "a row for each signature"
        )
    if not 1 <= block <= slots:
        raise ValueError(f"a pool of {slots} values has no block of {block}")
    if not torch.compiler.is_compiling():
        native = native_for(signatures, masks) if masks.dtype == torch.int64 else None
        if native is not None:
            out = signatures.new_empty(len(signatures), masks.shape[-1])
            stride = masks.shape[1] if masks.dim() == 2 else 0
            numbers = (stride, len(signatures), masks.shape[-1], slots - block + 1)
            native.autoembed_signature_slots(
                address(signatures), address(masks), *numbers, address(out), threads()
            )
            return out
    return torch_signature_slots(signatures, masks, block, slots)


def torch_signature_slots(signatures: Tensor, masks: Tensor, block: int, slots: int) -> Tensor:
    """`signature_slots` in torch, on any device."""
    number = torch.arange(masks.shape[-1], device=signatures.device)
    return row_hash(signatures.unsqueeze(1) & masks, _BLOCK + number, slots - block + 1)


def key_masks(blocks: int) -> Tensor:
    """(MAX_KEYS, blocks) int64: the bits of a signature that place a block, for 1 key, 2 keys, ..."""
    masks = [[_mask(keys, z) for z in range(blocks)] for keys in range(1, MAX_KEYS + 1)]
    return torch.tensor(masks, dtype=torch.int64)


def stored_signatures(signatures: Tensor) -> Tensor:
    """signatures (N,) int64 -> (8 N,) uint8."""
    parts = [signatures >> (8 * i) & 255 for i in range(SIGNATURE_BYTES)]
    return torch.stack(parts, dim=1).to(torch.uint8).flatten()


def read_signatures(stored: Tensor, at: Tensor) -> Tensor:
    """stored (bytes,) uint8 and the byte (N,) int64 at which each signature begins -> (N,) int64."""
    words = torch.zeros_like(at)
    for i in range(SIGNATURE_BYTES):
        words |= stored[at + i].long() << (8 * i)
    return words


def reference(signature: int, keys: int, blocks: int, block: int, slots: int) -> list[int]:
    """The slots of one signature, an unsigned word, in Python's exact integers."""
    word = 2**64 - 1
    return [
        reference_row_hash(signature & (_mask(keys, z) & word), _BLOCK + z, slots - block + 1)
        for z in range(blocks)
    ]


@lru_cache(maxsize=1 << 12)
def _mask(keys: int, block: int) -> int:
    """The bits of the `keys` keys that place a block, as a signed word: those of the smallest hashes."""
    order = sorted(range(KEYS), key=lambda k: reference_row_hash(k, _ORDER + block, 1 << 62))
    mask = sum(((1 << KEY_BITS) - 1) << (KEY_BITS * k) for k in order[:keys])
    return mask - 2**64 if mask >= 2**63 else mask

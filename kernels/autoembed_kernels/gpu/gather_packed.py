"""Rows of packed tables decoded on a GPU. See `gather_packed` for the layout.

A program serves BLOCK look-ups and all columns, four columns (a quad) at a time: a quad's values, of 1 to 8,
16 or 32 bits, are cut out of 1 to 4 words of 32 bits, each made of two neighbouring ones of memory:

    bit   = 8 * front + quad * 4 * bits                            of the row, which begins at any byte
    w[i]  = words[bit / 32 + i .. bit / 32 + i + 1] >> (bit mod 32)
    value k < 4:    codes   w[0] >> k * bits      of 16 bits   halves of w[0], w[1]      of 32 bits   w[k]

So a thread reads the few words of a quad once and writes 16 bytes. Rows of nothing but floats, all aligned,
are read 16 bytes at a time. What is known of a segment lies in three words of 64 bits (`SegmentWords`): a
look-up reads three numbers in place of ten. Output is streamed past the cache, which is left to the tables.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gather_packed import BF16, FP16, FP32, INTEGER, PackedSegments
from autoembed_kernels.gpu.present import capturing, launches

LOOKUPS = 32  # of a warp: a thread finds the segment of one
MOST_VALUES = 8192  # of a program
_INTEGER, _FP16, _BF16, _FP32 = (tl.constexpr(kind) for kind in (INTEGER, FP16, BF16, FP32))


@dataclass(frozen=True)
class SegmentWords:
    """Segments (S,) as the kernels read them.

    base int64: the first value's byte of the first row, scale and bias of the row lie before it. shape int64:
    row bytes (32 bits), dimension (16), bits of a value (8), kind (4), front (4). numbers int64: shift and
    scale, each the bits of a float32. offset int64, offsets (O, W) float32: of `PackedSegments`.
    """

    base: Tensor
    shape: Tensor
    numbers: Tensor
    offset: Tensor
    offsets: Tensor
    flags: dict[str, int]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of the kernels."""
        return self.base, self.shape, self.numbers, self.offset, self.offsets


def segment_words(segments: PackedSegments) -> SegmentWords:
    """Made once for `segments` and kept with them."""
    held: SegmentWords | None = segments.__dict__.get("gpu_words")
    if held is None:
        held = _segment_words(segments)
        if not capturing(segments.base):
            if segments.base.is_cuda:  # any stream may read them next
                torch.cuda.current_stream().synchronize()
            segments.__dict__["gpu_words"] = held
    return held


def _segment_words(segments: PackedSegments) -> SegmentWords:
    kind = segments.kind.long()
    bits = torch.where(kind == INTEGER, segments.bits, torch.where(kind == FP32, 32, 16))
    shape = segments.row_bytes | segments.dim << 32 | bits << 48 | kind << 56 | segments.front << 60
    pairs = torch.stack([segments.shift, segments.scale], dim=1).contiguous()
    base = segments.base + segments.front
    flags = {
        "INTEGERS": int(INTEGER in segments.kinds),
        "HALVES": int(FP16 in segments.kinds),
        "BRAINS": int(BF16 in segments.kinds),
        "SINGLES": int(FP32 in segments.kinds),
        "NARROW": int(segments.any_narrow or segments.width % 4 > 0),
        "WHOLE_ROWS": INTEGER,
        "ROW_SCALES": int(segments.row_scales),
        "ROW_BIASES": int(segments.row_biases),
        "ANY_OFFSET": int(segments.any_offset),
    }
    if segments.whole_rows:
        flags["WHOLE_ROWS"] = segments.kinds[0]
    return SegmentWords(
        base, shape, pairs.view(torch.int64).squeeze(1), segments.offset, segments.offsets, flags
    )


@triton.jit
def two_words(low, high, shift):
    """The 32 bits from bit `shift` (below 32) of two words on."""
    both = low.to(tl.uint32, bitcast=True).to(tl.uint64) | (
        high.to(tl.uint32, bitcast=True).to(tl.uint64) << 32
    )
    return (both >> shift.to(tl.uint64)).to(tl.uint32)


@triton.jit
def _half_at(words, byte, mask):
    """The float16 at a byte address."""
    word = words + (byte >> 2)
    shift = (byte & 3).to(tl.int32) * 8
    low = tl.load(word, mask=mask, other=0)
    high = tl.load(word + 1, mask=mask, other=0)
    return two_words(low, high, shift).to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def _half_of(word):
    """The float16 in the lower half of uint32 words."""
    return word.to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def _whole_rows(words, at, here, width, KIND: tl.constexpr, COLUMNS: tl.constexpr):
    """Aligned rows of `width` floats that begin at bytes `at` (BLOCK,) -> (BLOCK, COLUMNS) float32."""
    column = tl.arange(0, COLUMNS)[None, :]
    live = here[:, None] & (column < width)
    if KIND == _FP32:
        floats = words.to(tl.pointer_type(tl.float32), bitcast=True)
        first = tl.multiple_of(at >> 2, [4])
        values = tl.load(floats + first[:, None] + column, mask=live, other=0.0)
    else:
        if KIND == _FP16:
            halves = words.to(tl.pointer_type(tl.float16), bitcast=True)
        else:
            halves = words.to(tl.pointer_type(tl.bfloat16), bitcast=True)
        first = tl.multiple_of(at >> 1, [8])
        values = tl.load(halves + first[:, None] + column, mask=live, other=0.0).to(tl.float32)
    return values


@triton.jit
def decoded(
    words, segment, stored, here,
    base, shape, numbers, offset, offsets, width,
    INTEGERS: tl.constexpr, HALVES: tl.constexpr, BRAINS: tl.constexpr, SINGLES: tl.constexpr,
    NARROW: tl.constexpr, WHOLE_ROWS: tl.constexpr,
    ROW_SCALES: tl.constexpr, ROW_BIASES: tl.constexpr, ANY_OFFSET: tl.constexpr,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Segments and stored rows (BLOCK,) -> values (BLOCK, COLUMNS) float32; any where not `here`."""
    form = tl.load(shape + segment)
    at = tl.load(base + segment) + stored * (form & 0xFFFFFFFF)
    if WHOLE_ROWS != _INTEGER:
        values = _whole_rows(words, at, here, width, WHOLE_ROWS, COLUMNS)
    else:
        QUADS: tl.constexpr = COLUMNS // 4
        first = tl.arange(0, QUADS)[None, :] * 4  # column of a quad
        # taken apart behind [:, None]: what goes to other threads are three numbers of a look-up
        of_row, begin = form[:, None], at[:, None]
        dims = ((of_row >> 32) & 0xFFFF).to(tl.int32)
        bits = ((of_row >> 48) & 0xFF).to(tl.int32)
        kind = ((of_row >> 56) & 0xF).to(tl.int32)
        bit = (begin & 3).to(tl.int32) * 8 + first * bits
        # not so for fewer than 8 bits, but no load is made wider by it, whose alignment is not known: it has
        # a row's quads lie in neighbouring threads
        word = words + tl.max_contiguous((begin >> 2) + (bit >> 5), [1, QUADS])
        shift = bit & 31
        live = here[:, None] & (first < width)
        if NARROW:
            live = live & (first < dims)
        low = tl.load(word, mask=live, other=0)
        high = tl.load(word + 1, mask=live & (shift + 4 * bits > 32), other=0)
        w0 = two_words(low, high, shift)
        if INTEGERS:
            kept = ((1 << tl.minimum(bits, 8)) - 1).to(tl.uint32)
            pair = tl.load(numbers + segment)[:, None]
            up = pair.to(tl.int32).to(tl.float32, bitcast=True)
            step = (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)
            if ROW_SCALES:
                # floats have no scale in their rows
                front = (of_row >> 60) & 0xF
                scaled = here[:, None] & (dims > 0) & (kind == _INTEGER)
                step = _half_at(words, begin - front, scaled)
            v0 = ((w0 & kept).to(tl.float32) + up) * step
            v1 = (((w0 >> bits.to(tl.uint32)) & kept).to(tl.float32) + up) * step
            v2 = (((w0 >> (2 * bits).to(tl.uint32)) & kept).to(tl.float32) + up) * step
            v3 = (((w0 >> (3 * bits).to(tl.uint32)) & kept).to(tl.float32) + up) * step
            if ROW_BIASES:
                bias = _half_at(words, begin - front + 2, scaled)
                v0 += bias
                v1 += bias
                v2 += bias
                v3 += bias
            elif ANY_OFFSET:
                place = offsets + tl.load(offset + segment)[:, None] * width + first
                v0 += tl.load(place, mask=first < width, other=0.0)
                v1 += tl.load(place + 1, mask=first + 1 < width, other=0.0)
                v2 += tl.load(place + 2, mask=first + 2 < width, other=0.0)
                v3 += tl.load(place + 3, mask=first + 3 < width, other=0.0)
        else:
            v0 = tl.zeros([BLOCK, QUADS], tl.float32)
            v1 = v0
            v2 = v0
            v3 = v0
        if HALVES or BRAINS or SINGLES:
            wide = live & (bits >= 16)
            third = tl.load(word + 2, mask=wide & (bits * 4 + shift > 64), other=0)
            w1 = two_words(high, third, shift)
        if HALVES:
            half = kind == _FP16
            v0 = tl.where(half, _half_of(w0), v0)
            v1 = tl.where(half, _half_of(w0 >> 16), v1)
            v2 = tl.where(half, _half_of(w1), v2)
            v3 = tl.where(half, _half_of(w1 >> 16), v3)
        if BRAINS:
            brain = kind == _BF16
            v0 = tl.where(brain, (w0 << 16).to(tl.float32, bitcast=True), v0)
            v1 = tl.where(brain, (w0 & 0xFFFF0000).to(tl.float32, bitcast=True), v1)
            v2 = tl.where(brain, (w1 << 16).to(tl.float32, bitcast=True), v2)
            v3 = tl.where(brain, (w1 & 0xFFFF0000).to(tl.float32, bitcast=True), v3)
        if SINGLES:
            single = kind == _FP32
            fourth = tl.load(word + 3, mask=live & single, other=0)
            fifth = tl.load(word + 4, mask=live & single & (shift > 0), other=0)
            v0 = tl.where(single, w0.to(tl.float32, bitcast=True), v0)
            v1 = tl.where(single, w1.to(tl.float32, bitcast=True), v1)
            v2 = tl.where(single, two_words(third, fourth, shift).to(tl.float32, bitcast=True), v2)
            v3 = tl.where(single, two_words(fourth, fifth, shift).to(tl.float32, bitcast=True), v3)
        if NARROW:  # columns past the dimension hold bits of what follows
            v0 = tl.where(live, v0, 0.0)
            v1 = tl.where(live & (first + 1 < dims), v1, 0.0)
            v2 = tl.where(live & (first + 2 < dims), v2, 0.0)
            v3 = tl.where(live & (first + 3 < dims), v3, 0.0)
        values = tl.interleave(tl.interleave(v0, v2), tl.interleave(v1, v3))
    return values


@triton.jit
def write_rows(out, values, look_up, here, width, COLUMNS: tl.constexpr):
    """values (BLOCK, COLUMNS) to rows look_up (BLOCK,) of out (N, width), past the cache."""
    column = tl.arange(0, COLUMNS)[None, :]
    tl.store(out + look_up[:, None] * width + column, values, mask=here[:, None] & (column < width),
             cache_modifier=".cs")  # fmt: skip


@triton.jit
def gather_kernel(
    words, segments, rows, out, count,
    base, shape, numbers, offset, offsets, width,
    INTEGERS: tl.constexpr, HALVES: tl.constexpr, BRAINS: tl.constexpr, SINGLES: tl.constexpr,
    NARROW: tl.constexpr, WHOLE_ROWS: tl.constexpr,
    ROW_SCALES: tl.constexpr, ROW_BIASES: tl.constexpr, ANY_OFFSET: tl.constexpr,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    look_up = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = look_up < count
    segment = tl.load(segments + look_up, mask=here, other=0)
    stored = tl.load(rows + look_up, mask=here, other=0)
    values = decoded(
        words, segment, stored, here,
        base, shape, numbers, offset, offsets, width,
        INTEGERS, HALVES, BRAINS, SINGLES, NARROW, WHOLE_ROWS, ROW_SCALES, ROW_BIASES, ANY_OFFSET,
        BLOCK, COLUMNS,
    )  # fmt: skip
    write_rows(out, values, look_up, here, width, COLUMNS)


def tile(width: int, kinds: int = 1) -> tuple[int, int, int]:
    """Look-ups, columns and warps of a program that reads so many kinds of numbers."""
    columns = max(4, int(triton.next_power_of_2(width)))
    # on an H200 1 and 2 warps are 2 to 10 % faster than 4, several kinds with 1
    warps = 2 if kinds == 1 else 1
    most = MOST_VALUES if kinds < 4 else MOST_VALUES // 8  # all four together need many registers
    return max(1, min(LOOKUPS * warps, most // columns)), columns, warps


@launches
def triton_gather_packed(words: Tensor, segments: PackedSegments, segment: Tensor, row: Tensor) -> Tensor:
    """`gather_packed` without a check: segment and row (N,) int64, contiguous -> (N, W) float32."""
    count, width = len(row), segments.width
    out = torch.empty(count, width, device=row.device)
    if count == 0 or width == 0:
        return out
    block, columns, warps = tile(width, len(segments.kinds))
    held = segment_words(segments)
    gather_kernel[(triton.cdiv(count, block),)](
        *(words.view(torch.int32), segment, row, out, count),
        *held.tensors,
        width,
        **held.flags,
        BLOCK=block,
        COLUMNS=columns,
        num_warps=warps,
    )
    return out

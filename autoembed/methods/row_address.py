"""Where the vector of an id is stored under a plan: global rows -> rows of a table of the stored rows."""

import torch
from torch import Tensor, nn

from autoembed.methods.plans import Codes, Fields, placed_segments
from autoembed.plan import Segment, Sharing
from autoembed_kernels.row_hash import row_hash


class RowAddress(nn.Module):
    """Global rows -> rows of the store; `zero_row` is where rows read zero, None where none does.

    `codes`: of every segment that reads a codebook, by field and first row, the codes (rows,) of its ids.
    """

    def __init__(self, fields: Fields, codes: Codes | None = None) -> None:
        super().__init__()
        first_stored = {(field, s.start): start for field, s, start in placed_segments(fields)}
        self.stored_rows = sum(s.stored_rows for _, s, _ in placed_segments(fields))
        zero = self.stored_rows
        entries = []
        first_row = coded_rows = 0
        streams = [torch.zeros(0, dtype=torch.uint8)]
        self._coded: dict[tuple[int, int], slice] = {}  # of `codes`
        for number, field in enumerate(fields):
            for s in (s for s in field.segments if s.sharing is not Sharing.TAIL):
                base = first_stored.get((number, s.start), zero)
                if s.sharing is Sharing.OOV:
                    base = first_stored.get((number, 0), zero)
                    if field.segments[0].sharing is Sharing.CODEBOOK:
                        base += int(_checked(codes or {}, number, field.segments[0])[0])
                own = int(s.sharing is Sharing.OWN)
                hashed = s.stored_rows if s.sharing is Sharing.HASHED else 0
                code_at = -1
                if s.sharing is Sharing.CODEBOOK:
                    streams.append(_checked(codes or {}, number, s))
                    code_at, coded_rows = coded_rows, coded_rows + s.rows
                    self._coded[number, s.start] = slice(code_at, coded_rows)
                entries.append((first_row + s.start, base, own, hashed, number, first_row, code_at))
            first_row += field.rows
        columns = torch.tensor(entries, dtype=torch.int64).T.contiguous()
        for name, column in zip(
            ("start", "base", "own", "buckets", "field", "first_row", "code_at"), columns, strict=True
        ):
            self.register_buffer(name, column.clone(), persistent=False)
        self.register_buffer("codes", torch.cat(streams), persistent=False)
        self.is_identity = bool(self.own.all())
        self.hashes = bool(self.buckets.any())
        self.zero_row = zero if bool((self.base == zero).any()) else None
        self.rows = first_row
        self.table: Tensor | None = None

    start: Tensor
    base: Tensor
    own: Tensor
    buckets: Tensor
    field: Tensor
    first_row: Tensor
    code_at: Tensor
    codes: Tensor

    def codes_of(self, field: int, start: int) -> Tensor:
        """The codes (rows,) uint8 of the segment of the field that reads a codebook from row `start` on."""
        return self.codes[self._coded[field, start]]

    def tabulate(self) -> None:
        """Keep the answer for every row, 8 bytes each: short steps read it faster than they work it out."""
        if not self.is_identity and self.table is None:
            answers = self(torch.arange(self.rows, device=self.start.device))
            del self.table
            self.register_buffer("table", answers, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """rows (N,) global -> (N,) rows of the store."""
        if self.is_identity:
            return rows
        if self.table is not None:
            return self.table.index_select(0, rows)
        segment = torch.searchsorted(self.start, rows, right=True) - 1  # (N,)
        stored = self.base[segment] + (rows - self.start[segment]) * self.own[segment]
        if self.hashes:
            buckets = self.buckets[segment]
            row = rows - self.first_row[segment]
            hashed = row_hash(row, self.field[segment], buckets.clamp(min=1))
            stored = torch.where(buckets > 0, self.base[segment] + hashed, stored)
        if len(self.codes):
            at = self.code_at[segment]
            code = self.codes[torch.where(at >= 0, at + rows - self.start[segment], 0)].long()
            stored = torch.where(at >= 0, self.base[segment] + code, stored)
        return stored


def _checked(codes: Codes, field: int, segment: Segment) -> Tensor:
    """The segment's codes as bytes."""
    own = codes.get((field, segment.start))
    if own is None:
        raise ValueError(f"field {field}, rows [{segment.start}, {segment.stop}) read a codebook by no codes")
    if own.shape != (segment.rows,) or int(own.min()) < 0 or int(own.max()) >= segment.stored_rows:
        raise ValueError(
            f"field {field}, rows [{segment.start}, {segment.stop}): expected {segment.rows} codes below "
            f"{segment.stored_rows}, got {len(own)} up to {int(own.max())}"
        )
    return own.to("cpu", torch.uint8)

"""Packed segments whose stored chunks are found by marks: which chunk of a look-up is stored, and where."""

import torch
from torch import Tensor, nn

from autoembed.plan import Plan, Sharing, segment_index_bytes
from autoembed.segment_index import hashed_rows, placed_index
from autoembed_kernels.listed_marks import find_listed
from autoembed_kernels.marked_bits import find_marked
from autoembed_kernels.row_hash import row_hash


class MarkedRows(nn.Module):
    """The marked segments of a plan (S segments, most of which may not be marked).

    `chunks` is the largest number of chunks of any of them; 0 where no segment is marked.
    """

    segment_index: Tensor
    is_marked: Tensor
    at: Tensor
    start: Tensor
    marks: Tensor
    chunk_count: Tensor
    dim: Tensor
    hashed: Tensor
    listed: Tensor
    field: Tensor

    def __init__(self, plan: Plan, segment_index: Tensor) -> None:
        super().__init__()
        segments = list(placed_index(plan))
        marked = [s.sharing.is_marked for _, s, _ in segments]
        self.chunks = max((s.chunks for _, s, _ in segments if s.sharing.is_marked), default=0)
        hashed = [
            hashed_rows(s, segment_index[at : at + segment_index_bytes(s)])
            if s.sharing is Sharing.MARKED_OR_HASHED
            else 0
            for _, s, at in segments
        ]
        self.any_listed = any(s.sharing is Sharing.LISTED for _, s, _ in segments)
        columns = {
            "at": [at for _, _, at in segments],
            "start": [s.start for _, s, _ in segments],
            "marks": [s.rows * s.chunks for _, s, _ in segments],
            "chunk_count": [s.chunks if m else 0 for (_, s, _), m in zip(segments, marked, strict=True)],
            "dim": [s.dim for _, s, _ in segments],
            "hashed": hashed,
            "listed": [s.stored_rows if s.sharing is Sharing.LISTED else 0 for _, s, _ in segments],
            "field": [field for field, _, _ in segments],
        }
        for name, column in columns.items() if self.chunks else ():
            self.register_buffer(name, torch.tensor(column, dtype=torch.int64), persistent=False)
        self.register_buffer("is_marked", torch.tensor(marked, dtype=torch.bool), persistent=False)
        self.register_buffer("segment_index", segment_index, persistent=False)

    def chunk(self, segment: Tensor, place: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
        """Look-ups (N,) by their marked segment and their row in it -> of their chunk of this number: whether
        it reads a stored row (N,) bool, which one (N,) int64, 0 where none, and its first column (N,) int64.
        """
        count = self.chunk_count[segment]
        has = chunk < count
        position = place * count + torch.where(has, chunk, 0)
        marked, rank = self._find(segment, position)
        hashed = self.hashed[segment]
        row = torch.where(
            marked,
            hashed + rank,
            row_hash(place + self.start[segment], self.field[segment], hashed.clamp(min=1)),
        )
        present = has & (marked | (hashed > 0))
        return present, torch.where(present, row, 0), chunk * self.dim[segment]

    def _find(self, segment: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Look-ups (N,) by segment and place among its marks -> whether it is marked, and its rank (N,)."""
        if not self.any_listed:
            return find_marked(self.segment_index, self.at[segment], self.marks[segment], position)
        is_listed = self.listed[segment] > 0
        marked, rank = torch.zeros_like(is_listed), torch.zeros_like(position)
        for chosen in (is_listed.nonzero().squeeze(1), (~is_listed).nonzero().squeeze(1)):
            where = segment[chosen]
            columns = self.at[where], self.marks[where]
            if len(chosen) and is_listed[chosen[0]]:
                found = find_listed(self.segment_index, *columns, self.listed[where], position[chosen])
            else:
                found = find_marked(self.segment_index, *columns, position[chosen])
            marked[chosen], rank[chosen] = found
        return marked, rank

    def moved(self, segment: Tensor, values: Tensor, column: Tensor) -> Tensor:
        """values (N, W), of which the segment's first `dim` count -> (N, W), those from `column` (N,) on."""
        source = torch.arange(values.shape[1], device=values.device) - column.unsqueeze(1)  # (N, W)
        inside = (source >= 0) & (source < self.dim[segment].unsqueeze(1))
        return torch.where(inside, values.gather(1, source.clamp(min=0)), 0.0)

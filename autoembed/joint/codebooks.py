"""Rows that read codebooks: which rows a codebook holds, and which of them each row reads.

A change delta of row r costs u^T C u / 2 with u = sqrt(V_r) delta (prices.py). With V_r taken as a share s_r
of the field's mean v of V this is s_r |delta L|^2 / 2, where L L^T = diag(sqrt v) C diag(sqrt v): a good
codebook has the least weighted squared distance to the rows times L, which is k-means, from codebooks of half
as many rows (autoembed_kernels/split_codes.py). Codebooks of groups by frequency: Kang et al., "Learning
multi-granular quantized embeddings for large-vocab categorical features", arXiv:2002.08530.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoembed.joint.samples import drawn
from autoembed.joint.sensitivity import Sensitivity
from autoembed_kernels.add_rows import add_rows
from autoembed_kernels.nearest_row import nearest_row
from autoembed_kernels.split_codes import split_codes

CODE_BITS = (1, 2, 3, 4, 5, 6, 8)
FITTED_ROWS = 2048  # of a field, drawn with a fixed seed, for the codebooks that prices are made with
SEGMENT_ROWS = 2048  # and of a segment that is stored
HEAD = 256  # rows of a field that its codebooks leave out: with so few the codebook would be the rows
ROUNDS = 3  # of k-means for a codebook that is wanted; 1 for one that is only split further
_UNSEEN = 1e-3  # weight of a row that the pass never met, of the field's mean weight


@dataclass(frozen=True)
class FieldMetric:
    """How a field's rows are compared: turned (D, D) = L and shares (R,), see above."""

    turned: Tensor
    shares: Tensor

    def nearest(self, rows: Tensor, codebook: Tensor) -> Tensor:
        """rows (N, D), codebook (K, D) -> the codebook's rows (N,) that are nearest."""
        return nearest_row(rows @ self.turned, codebook @ self.turned)


def field_metric(sensitivity: Sensitivity, field: int) -> FieldMetric:
    """Shares are above 0, also of rows that the pass never met."""
    first = sensitivity.first_rows[field]
    ends = (*sensitivity.first_rows, len(sensitivity.second))
    second = sensitivity.second[first : ends[field + 1]]
    mean = second.mean(0)
    mean = mean + 1e-6 * mean.mean() + 1e-30
    shares = second.sum(1) / mean.sum()
    shares = shares + _UNSEEN * shares.mean() + 1e-30
    root = mean.sqrt().double()
    metric = root.unsqueeze(1) * sensitivity.correlation(field).double() * root
    values, vectors = torch.linalg.eigh(metric)  # correlations of few look-ups have no Cholesky root
    return FieldMetric((vectors * values.clamp(min=0.0).sqrt()).to(second), shares)


class Codebooks:
    """Codebooks of all fields in every size of `CODE_BITS`, fitted to a sample of each field's rows.

    weight (R, D): the rows that `sensitivity` was measured at. Made when first asked for, field by field.
    """

    def __init__(self, weight: Tensor, sensitivity: Sensitivity) -> None:
        self.weight, self.first_rows = weight, sensitivity.first_rows
        self.metrics = [field_metric(sensitivity, field) for field in range(len(self.first_rows))]
        self._found: dict[int, dict[int, Tensor]] = {}

    def of(self, field: int) -> dict[int, Tensor]:
        """The field's codebooks (2^bits, D), or fewer rows, by bits."""
        if field not in self._found:
            metric, first = self.metrics[field], self.first_rows[field]
            count = len(metric.shares)
            generator = torch.Generator().manual_seed(field)
            chosen = drawn(min(HEAD, count // 4), count, FITTED_ROWS, generator).to(self.weight.device)
            rows = self.weight.index_select(0, first + chosen)
            self._found[field] = fitted(metric, rows, metric.shares[chosen], CODE_BITS)
        return self._found[field]

    def codes(self, field: int, start: int, stop: int, stored_rows: int) -> Tensor:
        """Codes (stop - start,) uint8 of a segment, whose codebook has `stored_rows` rows at most.

        It is fitted to the segment's own rows. Where no more of them differ than are stored, each has a
        code of its own.
        """
        metric, first = self.metrics[field], self.first_rows[field]
        rows, shares = self.weight[first + start : first + stop], metric.shares[start:stop]
        sample = drawn(0, len(rows), SEGMENT_ROWS, torch.Generator().manual_seed(start)).to(rows.device)
        distinct, weights, place = _distinct(rows.index_select(0, sample), shares[sample])
        if len(distinct) <= stored_rows:
            if len(sample) < len(rows):
                distinct, weights, place = _distinct(rows, shares)
            if len(distinct) <= stored_rows:
                return place.byte()
        # a number of stored rows that is no power of 2 is that of all rows of the segment
        bits = stored_rows.bit_length() - 1
        if bits == 0:
            return rows.new_zeros(len(rows), dtype=torch.uint8)
        return metric.nearest(rows, _fitted(metric, distinct, weights, (bits,))[bits]).byte()


def fitted(metric: FieldMetric, rows: Tensor, shares: Tensor, sizes: Sequence[int]) -> dict[int, Tensor]:
    """Codebooks (at most 2^bits, D) by bits, of rows (N, D), N above 0, with weights (N,) above 0.

    Where no more than 2^bits rows differ, the codebook is these.
    """
    rows, shares, _ = _distinct(rows, shares)
    return _fitted(metric, rows, shares, sizes)


def _fitted(metric: FieldMetric, rows: Tensor, shares: Tensor, sizes: Sequence[int]) -> dict[int, Tensor]:
    """The same of rows that all differ."""
    levels = min(max(sizes), (len(rows) - 1).bit_length() - 1)
    rounds = [ROUNDS if bits in sizes else 1 for bits in range(1, levels + 1)]
    codes = split_codes(rows @ metric.turned, shares, rounds)
    return {
        bits: _means(rows, shares, codes[bits - 1], 1 << bits) if bits <= levels else rows for bits in sizes
    }


def _distinct(rows: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows that differ (K, D), their weights (K,), and which of them each row is (N,)."""
    # equal rows have equal products with any numbers, and different ones all but surely do not
    mixed = torch.randn(rows.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    keys = (rows.double() * mixed.to(rows.device)).sum(1)
    distinct, place = torch.unique(keys, return_inverse=True)
    if len(distinct) == len(rows):
        return rows, shares, torch.arange(len(rows), device=rows.device)
    which = torch.zeros(len(distinct), dtype=torch.int64, device=rows.device)
    which[place] = torch.arange(len(rows), device=rows.device)
    weights = shares.new_zeros(len(distinct)).index_add_(0, place, shares)
    return rows[which], weights, place


def _means(rows: Tensor, shares: Tensor, codes: Tensor, count: int) -> Tensor:
    """Weighted means (count, D) of the rows of each code; 0 where it has none."""
    sums = add_rows(rows.new_zeros(count, rows.shape[1]), codes, rows * shares.unsqueeze(1))
    total = shares.new_zeros(count).index_add_(0, codes, shares)
    return sums / total.clamp(min=1e-30).unsqueeze(1)

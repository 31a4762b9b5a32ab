"""Plans by a rule that needs no prices: own rows, then hashed ones, then a tail that reads row 0."""

from collections.abc import Sequence

from torch import Tensor, nn

from autoembed.methods.base import TableSpec
from autoembed.methods.plans import Codes, Fields, fields_bytes, stored_segment
from autoembed.plan import FieldPlan, Segment, Sharing


def plain_fields(spec: TableSpec, bits: int, own: float, dim: int, hashed: bool = True) -> Fields:
    """Every field: `own` of its rows with codes of `bits`, a quarter of the next as shared rows."""
    fields = []
    scale = 0
    for field in spec.stats.fields:
        head = max(1, int(own * field.rows))
        middle = min(field.rows, head + max(1, int(own * field.rows / 2))) if hashed else head
        segments = []
        for start, stop, rows in ((0, head, 0), (head, middle, max(1, (middle - head) // 4))):
            if stop > start:
                segments.append(stored_segment(start, stop, dim, bits, scale, rows))
                scale += 1
        if middle < field.rows:
            segments.append(Segment(middle, field.rows, Sharing.OOV))
        fields.append(FieldPlan(field.name, field.rows, spec.dim, tuple(segments)))
    return tuple(fields)


class PlainPlanner:
    """The first of a falling list of plans that fits. Counts how often it was asked, keeps what it saw."""

    def __init__(self, spec: TableSpec) -> None:
        self.spec = spec
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, rows: Tensor, network: nn.Module, budgets: Sequence[int]) -> list[Fields]:
        assert rows.shape == (self.spec.stats.rows, self.spec.dim)
        assert not network.training
        self.asked.append(tuple(budgets))
        return [next(f for f in self._falling() if fields_bytes(self.spec, f) <= b) for b in budgets]

    def codes(self, rows: Tensor, fields: Fields) -> Codes:
        return {}

    def metrics(self) -> None:
        return None

    def _falling(self):
        yield plain_fields(self.spec, 8, 1.0, self.spec.dim)
        for own in (0.8, 0.5, 0.3, 0.1, 0.0):
            for bits in (4, 2, 1):
                yield plain_fields(self.spec, bits, own, self.spec.dim)
        yield plain_fields(self.spec, 1, 0.0, 1, hashed=False)

"""Random plans whose rows share what is stored, as `look_up_shared` reads them: without paths and marks."""

from hypothesis import strategies as st
from random_plans import plans

from autoembed.plan import Plan, Sharing


def shared_plans() -> st.SearchStrategy[Plan]:
    """With a pair of rows or a block of a pool in at least one segment."""
    return plans().filter(_shares)


def _shares(plan: Plan) -> bool:
    sharings = {segment.sharing for _, segment in plan.segments()}
    walks = any(one.is_marked or one is Sharing.QUOTIENT_PATH for one in sharings)
    return not walks and any(one.is_paired or one.is_pooled for one in sharings)

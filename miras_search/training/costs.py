"""What a design costs, found without training it: a search refuses what is over a limit before it pays for it."""

from __future__ import annotations

from collections.abc import Collection

from miras_search.tasks import task_from_spec
from miras_search.training.job import Job


def known_costs(job: Job, names: Collection[str]) -> dict[str, float]:
    """Those of `params`, `state_bytes` and `flops_per_token` that are named, as the job's training would record them.

    A layer of the user's own may keep a state that nobody can measure; it is left out then. Imports torch.
    """
    from miras_search.models import budget
    from miras_search.training.start import drawn

    if not names:
        return {}
    model, length = drawn(job), task_from_spec(job.task).sequence_length
    found: dict[str, float] = {}
    if "params" in names:
        found["params"] = float(budget.parameters(model))
    if "state_bytes" in names and (carried := budget.state_bytes(model, length)) is not None:
        found["state_bytes"] = float(carried)
    if "flops_per_token" in names:
        found["flops_per_token"] = float(budget.flops_per_token(model, length))
    return found

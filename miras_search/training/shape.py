"""Which jobs can be trained as one stack: those that run the same operators on tensors of the same shapes.

Plain data, no torch: the driver groups jobs by it.
"""

from __future__ import annotations

import json

from miras_search.training.job import Job

SCALARS = ("lr", "weight_decay", "betas", "warmup", "schedule", "final_lr", "clip")
"""Settings of a training that a stack takes model by model."""


def unpackable(job: Job) -> str:
    """Why a job can only be trained by itself; empty when it can be packed."""
    if job.owned:
        return "a layer of your own may draw random numbers or look at its values, which a stack of models cannot do"
    return ""


def shape(job: Job) -> str:
    """The same text for jobs that differ in seed and `SCALARS` only."""
    plain = job.to_plain()
    train = {key: value for key, value in job.train.to_plain().items() if key not in SCALARS}
    return json.dumps({**plain, "train": train, "seed": None}, sort_keys=True)

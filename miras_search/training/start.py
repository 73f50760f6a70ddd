"""A job's model before its first step."""

from __future__ import annotations

import dataclasses

import torch

from miras_search.models import inner_step
from miras_search.models.language import LanguageModel
from miras_search.space.control import NoControl
from miras_search.tasks import task_from_spec
from miras_search.training.config import Seeds
from miras_search.training.job import Job


def new_model(job: Job) -> LanguageModel:
    """The job's model at its start, on the CPU: weights drawn there are the same whatever the training runs on."""
    model = drawn(job)
    if job.train.inner_step == "match_base":
        model.scale_steps(_matching_scale(job))
    return model


def drawn(job: Job) -> LanguageModel:
    """The job's model with its parameters and buffers drawn, the steps of its memories as they are."""
    with torch.random.fork_rng(devices=[]):  # torch's layers draw starting weights from the global generator, unasked
        model = LanguageModel(job.model, job.design, task_from_spec(job.task).vocab_size)
    model.initialise(torch.Generator().manual_seed(Seeds.of(job.seed).init))
    return model


def _matching_scale(job: Job) -> float:
    """The scale that matches the job's first writes to those of its base design, in the same model, from one seed.

    That of a negative control is its design's without it: what is taken away must be all that a control changes.
    """
    design, base = dataclasses.replace(job.design, control=NoControl()), job.base_design
    assert base is not None  # or the job would not exist
    if design.hash == base.hash:
        return 1.0
    model, reference = (drawn(dataclasses.replace(job, design=point)) for point in (design, base))
    batch = task_from_spec(job.task).train_batch(Seeds.of(job.seed).data, 0, job.train.batch)
    return inner_step.match(model, reference, torch.from_numpy(batch.tokens))

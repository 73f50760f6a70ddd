"""A job's model before its first step."""

from __future__ import annotations

import torch

from miras_search.models.language import LanguageModel
from miras_search.tasks import task_from_spec
from miras_search.training.config import Seeds
from miras_search.training.job import Job


def blank_model(job: Job) -> LanguageModel:
    """The job's model on the CPU, its parameters not yet set."""
    with torch.random.fork_rng(devices=[]):  # torch's layers draw starting weights from the global generator, unasked
        return LanguageModel(job.model, job.design, task_from_spec(job.task).vocab_size)


def new_model(job: Job) -> LanguageModel:
    """The job's model at its start, on the CPU: weights drawn there are the same whatever the training runs on."""
    model = blank_model(job)
    model.initialise(torch.Generator().manual_seed(Seeds.of(job.seed).init))
    return model

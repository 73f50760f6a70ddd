"""A training amid its steps as bytes, and back: what goes on from it finds what it would have found without the break.

Bytes of safetensors, so that reading runs no code: parameters, every buffer, the optimiser's moments, the states of the
generators, and what was measured so far. Batches need no state: they are drawn by the step's number. A layer of the
user's own that keeps anything outside of its buffers is beyond this.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

import miras_search
from miras_search.models.language import LanguageModel
from miras_search.training.checkpoint import metadata
from miras_search.training.evaluate import Score
from miras_search.training.job import Point

if TYPE_CHECKING:
    from miras_search.training.run import Training

FORMAT = "miras-search snapshot 3"
log = logging.getLogger(__name__)


def dump(training: Training, step: int) -> bytes:
    """The training after `step` optimiser steps."""
    tensors = {f"model.{name}": tensor for name, tensor in _held(training.model).items()}
    for index, moments in enumerate(training.optimiser.moments):
        tensors |= {f"adamw.{index}.{name}": moment for name, moment in moments._asdict().items()}
    tensors["generator"] = torch.get_rng_state()
    if training.device.type == "cuda":
        tensors["generator.cuda"] = torch.cuda.get_rng_state(training.device)
    tensors["losses"] = torch.tensor(training.losses, dtype=torch.float64)
    tensors["seconds"] = torch.tensor(training.seconds, dtype=torch.float64)
    if training.seen:
        tensors["seen"] = torch.stack(training.seen)
    about = {
        **_made_by(training),
        "step": str(step),
        "elapsed": repr(training.elapsed),
        "compared": json.dumps([training.first.taken, training.first.worst]),
        "points": json.dumps([(p.step, p.name, p.split, p.value) for p in training.points]),
        "scores": json.dumps({name: (score.accuracy, score.loss) for name, score in training.scores.items()}),
    }
    # copies: safetensors takes no tensors that share memory, as buffers may
    return save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, about)


def restore(training: Training, data: bytes) -> int:
    """Put a new training where `dump` found it; the steps it has taken by then.

    0, with a line in the log and the training as it was, where the bytes are no snapshot of this job by these versions
    on this kind of device: another machine would go on to other numbers.
    """
    try:
        about, tensors = metadata(data), load(data)
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        log.warning("a damaged snapshot is left aside, and the training starts over: %s", error)
        return 0
    odd = [name for name, value in _made_by(training).items() if about.get(name) != value]
    if odd:
        log.warning("a snapshot with another %s is left aside, and the training starts over", ", ".join(odd))
        return 0
    with torch.no_grad():
        for name, tensor in _held(training.model).items():
            tensor.copy_(tensors[f"model.{name}"])
        for index, moments in enumerate(training.optimiser.moments):
            for name, moment in moments._asdict().items():
                moment.copy_(tensors[f"adamw.{index}.{name}"])
    torch.set_rng_state(tensors["generator"])
    if training.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["generator.cuda"], training.device)
    training.losses = tensors["losses"].tolist()
    training.seconds = tensors["seconds"].tolist()
    training.seen = list(tensors["seen"].to(training.device)) if "seen" in tensors else []
    training.began -= float(about["elapsed"])
    training.first.taken, training.first.worst = json.loads(about["compared"])
    training.points = [Point(*row) for row in json.loads(about["points"])]
    training.pending = list(training.points)  # a curve belongs to an attempt, and this is a new one
    training.scores = {name: Score(*score) for name, score in json.loads(about["scores"]).items()}
    return int(about["step"])


def _made_by(training: Training) -> dict[str, str]:
    """What must be the same for the numbers to be."""
    return {
        "format": FORMAT,
        "job": json.dumps(training.job.to_plain(), sort_keys=True),
        "device": training.device.type,
        "threads": str(torch.get_num_threads()),
        "kernels": training.kernels,
        "torch": torch.__version__,
        "miras_search": miras_search.__version__,
    }


def _held(model: LanguageModel) -> dict[str, Tensor]:
    """Parameters, and buffers whether or not a checkpoint keeps them."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}

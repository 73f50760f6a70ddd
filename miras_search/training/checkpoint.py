"""A trained model as one safetensors file that says how it came to be.

The file holds the parameters, and in its metadata the job, the step and the versions. It is read back without running
any code from it, and it appears under its name only when it is whole.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

import miras_search
from miras_search import files
from miras_search.errors import MirasError
from miras_search.models.language import LanguageModel
from miras_search.training.job import Job
from miras_search.training.start import drawn

FORMAT = "miras-search 1"


def save_checkpoint(path: Path, job: Job, model: LanguageModel, step: int) -> None:
    """Write the parameters and their origin. The folder is made; a reader sees the old file or the new one."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _kept(model).items()}
    metadata = {
        "format": FORMAT,
        "job": json.dumps(job.to_plain(), sort_keys=True),
        "step": str(step),
        "step_scale": repr(model.step_scale),
        "miras_search": miras_search.__version__,
        "torch": torch.__version__,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, save(tensors, metadata))


def load_checkpoint(path: Path) -> tuple[Job, LanguageModel]:
    """The job and the trained model, on the CPU.

    Raises `MirasError` for a file that is missing, that is no checkpoint, or whose parameters the model does not have.
    """
    if not path.is_file():
        raise MirasError(f"{path}: no such checkpoint")
    return read_checkpoint(path.read_bytes(), str(path))


def read_checkpoint(data: bytes, name: str) -> tuple[Job, LanguageModel]:
    """The same from the bytes of such a file, which errors call by `name`."""
    try:
        tensors, about = load(data), metadata(data)
    except SafetensorError as error:
        raise MirasError(f"{name}: not a checkpoint, or a damaged one ({error})") from error
    if about.get("format") != FORMAT:
        raise MirasError(f"{name}: not a checkpoint of this version (format {about.get('format')!r}, not {FORMAT!r})")
    job = Job.from_plain(json.loads(about["job"]))
    model = drawn(job)  # a layer of the user's own may have drawn what it does not give out as its state
    params = _kept(model)
    if params.keys() != tensors.keys():
        odd = ", ".join(sorted(params.keys() ^ tensors.keys()))
        raise MirasError(f"{name}: written by another version of the model; these parameters do not match: {odd}")
    with torch.no_grad():
        for parameter_name, parameter in params.items():
            parameter.copy_(tensors[parameter_name])
    model.scale_steps(float(about.get("step_scale", 1.0)))  # measured before training: not in the parameters
    return job, model


def metadata(data: bytes) -> dict[str, str]:
    """The metadata of safetensors' bytes, which its own reader shows of files only; empty where there is none."""
    size = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    return found


def _kept(model: LanguageModel) -> dict[str, Tensor]:
    """Parameters and persistent buffers: once where tied, as safetensors stores no shared memory under two names."""
    persistent = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {**dict(model.named_parameters()), **buffers}

"""Which implementation runs which design, for `space --kernels`: the presets as published, then every option alone.

Each option is put into one plain design that the fastest kernel runs, so that the answer is about the option. Needs
torch, but no GPU: what a GPU would be given is decided by traits and shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from miras_search.kernels.dispatch import Setting, choose
from miras_search.models import fit
from miras_search.models.config import ModelConfig
from miras_search.space.design import AXES, CHOICES, DesignPoint
from miras_search.space.execution import Execution, Gradient
from miras_search.space.presets import PRESETS, preset

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The implementation on one device, and the reason that each faster one was passed over."""

    device: str
    name: str
    passed_over: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Implemented:
    """What runs one preset or option; `refused` is the reason where the option does not fit into the plain design."""

    axis: str
    option: str
    choices: tuple[Chosen, ...]
    refused: str | None = None


def implementations(model: ModelConfig | None = None) -> list[Implemented]:
    """Every preset, then every option of the four axes in a delta rule with frozen gradients, in the model's shapes."""
    shapes = model or ModelConfig()
    found = [_implemented("preset", name, preset(name), shapes) for name in PRESETS]
    plain = replace(preset("delta_net"), execution=Execution(gradient=Gradient(0)))
    for axis in CHOICES:
        for name, option in AXES[axis].options.items():
            point = replace(plain, **{axis: option()})
            found.append(_implemented(axis, name, point, shapes))
    return found


def _implemented(axis: str, option: str, point: DesignPoint, model: ModelConfig) -> Implemented:
    broken = fit.violations(point, model)
    if broken:
        return Implemented(axis, option, (), "; ".join(map(str, broken)))
    choices = []
    for device in DEVICES:
        choice = choose(point, Setting(device, torch.float32, model.memory_keys, model.values))
        choices.append(Chosen(device, choice.name, choice.passed_over))
    return Implemented(axis, option, tuple(choices))

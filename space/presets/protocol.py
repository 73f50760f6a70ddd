"""What a preset is: a published model as a design point, with what its paper puts around the memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from miras_search.space.option import RegistrationError


@dataclass(frozen=True, slots=True)
class Preset:
    """A published model: its recurrence in the project's row-vector form, its paper, and its plain design."""

    name: str
    equation: str
    source: str
    design: Mapping[str, Any]
    """The memory, as `DesignPoint.parse` reads it."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the model that belong to the published layer (feature map, norms, rotary positions, a hybrid's
    attention layers). They are defaults: what a study says under `model:` wins, in every cell."""


PRESETS: dict[str, Preset] = {}


def register(preset: Preset) -> Preset:
    """Make a preset known by its name. Raises `RegistrationError` where the name is taken."""
    if preset.name in PRESETS:
        raise RegistrationError(f"a preset named '{preset.name}' is already registered: give yours another name")
    PRESETS[preset.name] = preset
    return preset

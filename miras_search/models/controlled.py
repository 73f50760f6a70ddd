"""What a negative control changes in the model around the memory. Plain data: a study is checked without torch."""

from __future__ import annotations

from miras_search.models.config import ModelConfig
from miras_search.space.control import Control
from miras_search.space.fields import Problem, build, to_plain


def controlled(config: ModelConfig, control: Control) -> ModelConfig:
    """The model with the settings that the control changes."""
    return build(ModelConfig, {**to_plain(config), **control.model}) if control.model else config


def problem(config: ModelConfig, control: Control) -> Problem | None:
    """What is wrong with a control of the model that would change nothing; None where it does, or is none."""
    if not control.model or controlled(config, control).canonical() != config.canonical():
        return None
    settings = ", ".join(f"model.{key}: {value}" for key, value in control.model.items())
    return Problem(("control",), f"it sets {settings}, which the model has already: drop the control")

"""Settings of a training, and the seeds it draws from. Plain data: a study is checked and planned without torch.

Every cell of a study trains under the same settings unless the study varies them, so the defaults are those that a
small recall model tolerates over the whole design space: AdamW with a short memory of squares (a run is hundreds of
steps, not hundreds of thousands), a linear warm-up, a cosine down to a tenth, and clipping, without which a design
with an unstable inner loop ends the comparison at its first spike.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal, final

from miras_search.seeds import crossed
from miras_search.space.fields import Path, Plain, build, require, setting, to_plain


@final
@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a model is trained and how often it is looked at."""

    steps: int = setting(300, "optimiser steps")
    batch: int = setting(32, "sequences in a step")
    lr: float = setting(1e-2, "highest learning rate, reached after the warm-up")
    weight_decay: float = setting(0.1, "decoupled decay of the projections; nothing else is decayed")
    betas: tuple[float, ...] = setting((0.9, 0.95), "AdamW's memory of gradients and of their squares, two numbers")
    warmup: float = setting(0.1, "share of the steps in which the rate rises linearly from 0")
    schedule: Literal["cosine", "constant"] = setting("cosine", "the rate after the warm-up")
    final_lr: float = setting(0.1, "where the cosine ends, as a share of lr")
    clip: float = setting(1.0, "longest gradient, by its norm over all parameters; 0 never clips")
    eval_every: int = setting(100, "steps between looks at the validation split; 0 looks only at the end")
    eval_examples: int = setting(256, "sequences of the validation split, and of the test split")
    eval_batch: int = setting(128, "sequences evaluated at once: memory, never a result")
    inner_step: Literal["as_is", "match_base"] = setting(
        "as_is",
        "match_base multiplies the memory's step by one number, the same for all layers, so that RMS(step * signal) "
        "on the first batch, before training and against the memory's start, is that of the study's base",
    )
    precision: Literal["float32", "bfloat16"] = setting("float32", "of products; bfloat16 by autocast, weights float32")

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "eval_examples", "eval_batch"):
            require(getattr(self, name) >= 1, name, f"{getattr(self, name)} must be at least 1")
        for name in ("lr", "weight_decay", "clip"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, name, f"{value:g} must be a finite number, 0 or more")
        require(self.lr > 0, "lr", "0 trains nothing; take a number above 0")
        require(self.eval_every >= 0, "eval_every", f"{self.eval_every} must be 0 (only at the end) or more")
        for name in ("warmup", "final_lr"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, f"{value:g} is a share and lies in [0, 1]")
        good = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(good, "betas", f"{list(self.betas)} must be two numbers in [0, 1)")

    @classmethod
    def from_plain(cls, data: object, where: Path = (), default: object = None) -> TrainConfig:
        """Settings from a mapping. Raises `SpecError` with every problem found, each at its own path."""
        return build(cls, data, where)

    def to_plain(self) -> dict[str, Plain]:
        """Every setting as plain data; `from_plain` gives an equal one back."""
        return to_plain(self)

    @property
    def warmup_steps(self) -> int:
        """Steps of the linear rise; the last of them runs at the full rate."""
        return round(self.warmup * self.steps)

    def share(self, step: int) -> float:
        """The learning rate of step 0, 1, ... as a share of `lr`."""
        rise = self.warmup_steps
        if step < rise:
            return (step + 1) / rise
        if self.schedule == "constant":
            return 1.0
        passed = (step - rise) / max(1, self.steps - rise)
        return self.final_lr + (1 - self.final_lr) * 0.5 * (1 + math.cos(math.pi * passed))


@final
@dataclass(frozen=True, slots=True)
class Seeds:
    """The three generators of a training. Apart, so that the data stay the same when a design draws more weights."""

    init: int
    """Starting weights."""
    data: int
    """Training batches."""
    eval: int
    """Validation and test sequences."""

    @classmethod
    def of(cls, seed: int) -> Seeds:
        """Three unrelated 63-bit numbers for a study's seed; the same on every machine and in every version.

        A crossed seed stands for three numbers, each of which gives one.
        """
        numbers = crossed(seed) or (seed, seed, seed)
        roles = ("init", "data", "eval")
        return cls(*(_derive(number, role) for number, role in zip(numbers, roles, strict=True)))


def _derive(seed: int, role: str) -> int:
    # a hash rather than seed + 1, seed + 2: neighbouring study seeds must not share a stream
    digest = hashlib.sha256(f"miras-search {role} {seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

"""The metric registry: what is measured, in which unit, and which direction is better.

Quality metrics are recorded per split (train, validation, test); costs have the empty split.
Store, analysis, export and dashboard all read a metric's direction from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured quantity."""

    name: str
    direction: Direction
    unit: str
    help: str
    split: str = ""  # the split a table reports; "" for a cost
    reduction: str = "last"  # how a curve becomes one number
    everywhere: bool = True  # whether every training records it; what is not is shown and nothing is judged by it

    @property
    def symbol(self) -> str:
        """An arrow for table headers."""
        return "↑" if self.direction == "maximize" else "↓"


SATURATED = 0.95  # of the range above chance: better cells have nowhere left to go
AT_CHANCE = 0.1


def standing(accuracy: float, chance: float) -> float:
    """Where an accuracy lies in the range above chance: 0 is a guess, 1 is perfect; never below 0, and 0 where a guess
    is always right.
    """
    return 0.0 if chance >= 1 else max(0.0, (accuracy - chance) / (1 - chance))


def saturation(cell: str, accuracy: float, chance: float) -> str | None:
    """Why a task cannot tell cells apart, with the cure, from the accuracy of the cell compared with; else None."""
    share = standing(accuracy, chance)
    if AT_CHANCE <= share <= SATURATED:
        return None
    where = f"{cell} is at {share:.2f} of the range above chance"
    what, task = ("saturated", "a harder") if share > SATURATED else ("at the floor", "an easier")
    return (
        f"The study is {what}: {where}, so the task hardly tells cells apart; miras-search calibrate finds {task} one."
    )


def unfit(name: str) -> str | None:
    """Why cells or trials are not judged by a registered metric; None where they can be."""
    if METRICS[name].everywhere:
        return None
    return f"{name} is no result that every training has: take {', '.join(m.name for m in METRICS.values() if m.split)}"


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "maximize", "", "share of labelled tokens predicted right", split="test"),
        Metric("loss", "minimize", "nats", "cross-entropy on labelled tokens", split="test"),
        Metric("params", "minimize", "", "trained parameters"),
        Metric(
            "state_bytes",
            "minimize",
            "bytes",
            "bytes that a stream carries at the end of one sequence, what its execution keeps included",
        ),
        Metric(
            "flops_per_token",
            "minimize",
            "",
            "multiplications and additions a token of a forward pass, in products and solves; nothing elementwise",
        ),
        Metric("tokens_per_second", "maximize", "1/s", "training tokens per second, evaluation excluded"),
        Metric("peak_memory_bytes", "minimize", "bytes", "largest memory of the training process or device"),
        Metric(
            "inner_step_scale",
            "minimize",
            "",
            "factor on the memory's step that matches the base's first writes",
            everywhere=False,
        ),
        Metric(
            "kernel_mismatch",
            "minimize",
            "",
            "largest relative difference from torch in the first steps on compiled kernels; none where torch alone ran",
            everywhere=False,
        ),
        Metric("wall_seconds", "minimize", "s", "wall time of the training"),
    )
}


def has_levels(metric: str, split: str) -> bool:
    """Whether a task's chance, and what can be had without binding, are levels of these values: held-out accuracy.

    What is labelled in training may be more than what is tested, so its accuracy begins elsewhere.
    """
    return metric == "accuracy" and split != "train"

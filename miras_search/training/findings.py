"""What a training finds: when a step is a divergence, and the final numbers. The same for one model and for a pack."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from miras_search.models import budget
from miras_search.models.language import LanguageModel
from miras_search.training.config import TrainConfig
from miras_search.training.evaluate import Score
from miras_search.training.job import Final, Outcome, State

HUGE = 100  # a loss of so many times a uniform guess's is a divergence, though still a number


def limit(vocab_size: int) -> float:
    """The largest loss, in nats, that is still a training's."""
    return HUGE * math.log(vocab_size)


def problem(loss: float, norm: float, largest: float) -> str:
    """Why a step with this loss and gradient norm is a divergence; empty when it is none."""
    if not math.isfinite(loss):
        return f"loss {loss}"
    if loss > largest:
        return f"loss {loss:.3g}, over {HUGE} times a uniform guess's"
    return "" if math.isfinite(norm) else f"gradient norm {norm}"


def outcome(
    config: TrainConfig,
    model: LanguageModel,
    length: int,
    *,
    state: State,
    steps: int,
    note: str,
    losses: Sequence[float],
    scores: Mapping[str, Score],
    step_scale: float,
    mismatch: float | None,
    speed: float | None,
    wall: float,
    peak: int,
) -> Outcome:
    """The outcome of a training on sequences of `length` tokens, with every number that is finite.

    `losses` are those of the steps, `scores` the last of each split, `speed` training tokens a second, None where no
    step was taken; `mismatch` what the first steps on compiled kernels were off by, None where torch alone ran.
    """
    finals = [
        Final("params", "", budget.parameters(model)),
        Final("flops_per_token", "", budget.flops_per_token(model, length)),
        Final("peak_memory_bytes", "", peak),
        Final("wall_seconds", "", wall),
    ]
    if (carried := budget.state_bytes(model, length)) is not None:
        finals.insert(1, Final("state_bytes", "", carried))
    if config.inner_step == "match_base":
        finals.append(Final("inner_step_scale", "", step_scale))
    if mismatch is not None:
        finals.append(Final("kernel_mismatch", "", mismatch))
    if losses and speed is not None:
        tail = losses[-max(1, config.steps // 10) :]
        finals.append(Final("loss", "train", statistics.fmean(tail)))
        finals.append(Final("tokens_per_second", "", speed))
    if state == "complete":
        for split, score in scores.items():
            finals += [Final("accuracy", split, score.accuracy), Final("loss", split, score.loss)]
    return Outcome(state, tuple(finals), steps, wall, peak, note)


def speed(seconds: Sequence[float], tokens: int) -> float | None:
    """Training tokens a second by the median of a window's seconds a step, the first left out as a warm-up."""
    return tokens / statistics.median(seconds[1:] or seconds) if seconds else None

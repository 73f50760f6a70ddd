"""Random points of the whole space: are they valid, does every spelling lead back to them, and do they train?

The space is every option with all its words, every gate with all sources, scopes, squashes and ties, numbers of the
options named below, and every kind of gradient. Each point has to meet all rules, keep its hash through JSON text
(which is YAML), and be told by its parameters and tell them. Some are trained for a few steps on a tiny recall task; a
divergence is a result, an exception is not.

    python -m miras_search.bench.space_audit --points 10000 --trained 200
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from miras_search.models.config import ModelConfig
from miras_search.space.combinations import DIMS, choices
from miras_search.space.design import AXES, CHOICES, DesignPoint
from miras_search.space.fields import Plain, field_types
from miras_search.space.gates import Gate
from miras_search.space.rules import violations
from miras_search.space.sampling import Sample, Space
from miras_search.space.sampling_grammar import Label
from miras_search.training.config import TrainConfig
from miras_search.training.job import Job
from miras_search.training.run import train

WORDS: Mapping[str, Plain] = {"source": "any", "scope": "any", "squash": "any", "tie": "any"}
GATES: Mapping[str, tuple[float, float]] = {"keep": (0.6, 0.99), "step": (0.05, 0.9), "delta": (0.1, 4.0)}
NUMBERS: Mapping[str, Plain] = {  # small, so that a training takes a second
    "memory.mlp.depth": [1, 2, 3],
    "memory.mlp.expansion": [1, 2],
    "memory.gated_mlp.expansion": [1, 2],
    "memory.attention.window": [None, 5],
    "bias.lp.p": {"uniform": [1.0, 4.0]},
    "retention.lq.q": {"uniform": [1.5, 4.0]},
    "retention.elastic_net.shrink": {"log_uniform": [1e-3, 0.1]},
    "algorithm.multi_step.writes": [1, 2, 3],
    "algorithm.omega.window": [1, 3],
    "algorithm.muon.window": [1, 3],
    "algorithm.muon.iterations": {"int": [1, 5]},
    "algorithm.newton.iterations": [None, 4],
}
TASK: Mapping[str, Plain] = {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2}
MODEL = ModelConfig(layers=1, d_model=16, heads=2)
SHOWN = 20  # failures printed in full
TOLD = 50  # times that a long audit says how far it is


def whole(words: Mapping[str, Plain] = WORDS) -> dict[str, Plain]:
    """The plain form of the whole space: all that is registered now, with these words of the gates."""

    def gate(slot: str) -> dict[str, Plain]:
        return {**words, "value": {"uniform": [*GATES.get(slot, (0.3, 0.7))]}}

    def option(axis: str, name: str) -> dict[str, Plain]:
        found: dict[str, Plain] = {}
        for key, hint in field_types(AXES[axis].options[name]).items():
            path = f"{axis}.{name}.{key}"
            if hint is Gate:
                found[key] = gate(key)
            elif path in NUMBERS or choices(hint):
                found[key] = NUMBERS.get(path, "any")
        return found

    axes: dict[str, Plain] = {axis: [{n: option(axis, n)} for n in AXES[axis].options] for axis in CHOICES}
    execution: dict[str, Plain] = dict.fromkeys(("gradient", "gradient_at", "link_refresh"), "any")
    return {**axes, "step": gate("step"), "execution": {**execution, "chunk": [1, 4, 16]}}


@dataclass(slots=True)
class Draw:
    """What Optuna's random sampler does, without its bookkeeping. Takes down what it is asked."""

    random: random.Random
    params: dict[str, Label] = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: Sequence[Label]) -> Label:
        """One of the choices."""
        self.params[name] = found = self.random.choice(choices)
        return found

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number, evenly or evenly in the logarithm."""
        found = math.exp(self.random.uniform(math.log(low), math.log(high))) if log else self.random.uniform(low, high)
        self.params[name] = found = min(max(found, low), high)
        return found

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number."""
        self.params[name] = found = self.random.randint(low, high)
        return found


@dataclass(slots=True)
class Audit:
    """What was found so far."""

    checked: int = 0
    trained: Counter[str] = field(default_factory=Counter)
    """Trainings by state."""
    options: dict[str, Counter[str]] = field(default_factory=lambda: {axis: Counter() for axis in CHOICES})
    failures: list[tuple[str, DesignPoint]] = field(default_factory=list)
    """What went wrong, and where."""


def drawn(space: Space, count: int, seed: int) -> Iterator[tuple[Sample, dict[str, Label]]]:
    """So many random points with their parameters."""
    generator = random.Random(seed)
    for _ in range(count):
        draw = Draw(generator)
        yield space.suggest(draw), draw.params


def problem(space: Space, sample: Sample, params: Mapping[str, Label]) -> str | None:
    """What is wrong with a point, or None."""
    design = sample.design
    if broken := violations(design, *DIMS):
        return f"not valid: {broken[0]}"
    again = DesignPoint.parse(json.loads(json.dumps(design.to_plain())))  # JSON is YAML as well
    if again.hash != design.hash:
        return f"another hash through its text: {again.hash}, not {design.hash}"
    if (simple := design.canonical()).hash != design.hash or simple.canonical() != simple:
        return f"its simplest form is another design: {simple}"
    if (found := space.to_params(design)) != params:
        return f"its parameters are told as {found}, not {dict(params)}"
    if space.from_params(params).design.to_plain() != design.to_plain():
        return f"its parameters lead to {space.from_params(params).design}"
    return None


def trained(design: DesignPoint, seed: int, steps: int) -> str:
    """The state that a short training ends in. Raises whatever the training raises."""
    settings = TrainConfig(steps=steps, batch=4, eval_every=0, eval_examples=8, eval_batch=8)
    outcome = train(Job(design, MODEL, TASK, settings, seed), device="cpu", threads=1)
    losses = [final.value for final in outcome.finals if final.name == "loss"]
    if outcome.state == "complete" and not (losses and all(map(math.isfinite, losses))):
        raise ArithmeticError(f"complete with the losses {losses}")
    return outcome.state


def run(
    points: int,
    trainings: int,
    *,
    seed: int = 0,
    steps: int = 20,
    space: Space | None = None,
    tell: Callable[[str], object] = print,
) -> Audit:
    """Check random points of the whole space, or of another, and train some of them, evenly spread."""
    space = space or Space.parse(whole())
    tell(f"space: {space.size():g} points, {len(space.distributions())} parameters")
    audit, every = Audit(), max(1, points // trainings) if trainings else 0
    for number, (sample, params) in enumerate(drawn(space, points, seed)):
        audit.checked += 1
        for axis, counts in audit.options.items():
            counts[getattr(sample.design, axis).name] += 1
        if what := problem(space, sample, params):
            audit.failures.append((what, sample.design))
        if every and number % every == 0 and audit.trained.total() < trainings:
            try:
                audit.trained[trained(sample.design, seed, steps)] += 1
            except Exception as error:  # whatever a kernel raises is what an audit is for
                audit.trained["failed"] += 1
                audit.failures.append((f"training: {type(error).__name__}: {error}", sample.design))
        if points >= TOLD and (number + 1) % (points // TOLD) == 0:
            tell(f"{number + 1} points, {audit.trained.total()} trained, {len(audit.failures)} failed")
    return audit


def report(audit: Audit) -> str:
    """Counts an option, failures with their points, and the verdict as the last line."""
    lines = [
        f"{axis}: {', '.join(f'{name} {count}' for name, count in sorted(counts.items()))}"
        for axis, counts in audit.options.items()
    ]
    if audit.trained:
        lines.append("trained: " + ", ".join(f"{count} {state}" for state, count in sorted(audit.trained.items())))
    for what, design in audit.failures[:SHOWN]:
        lines += [what, f"    {json.dumps(design.to_plain())}"]
    if (more := len(audit.failures) - SHOWN) > 0:
        lines.append(f"... and {more} more")
    total = audit.checked + audit.trained.total()
    return "\n".join([*lines, f"{total - len(audit.failures)} passed, {len(audit.failures)} failed"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0 where everything passed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m miras_search.bench.space_audit", description=run.__doc__)
    parser.add_argument("--points", type=int, default=10_000, help="points that are checked")
    parser.add_argument("--trained", type=int, default=200, help="of these, points that are trained")
    parser.add_argument("--steps", type=int, default=20, help="steps of a training")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(argv)
    audit = run(chosen.points, chosen.trained, seed=chosen.seed, steps=chosen.steps)
    print(report(audit))
    return 1 if audit.failures else 0


if __name__ == "__main__":
    sys.exit(main())

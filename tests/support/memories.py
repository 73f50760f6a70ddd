"""Random inputs for a design point, and outputs with all their gradients, for tests that compare implementations."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from miras_search.kernels.state import State
from miras_search.space.algorithm import ALGORITHM
from miras_search.space.control import Inputs
from miras_search.space.design import AXES, DesignPoint
from miras_search.space.execution import Execution
from miras_search.space.fields import Plain
from miras_search.space.rules import violations

Run = Callable[..., tuple[Tensor, State]]

SOFT = {"source": "data", "squash": "softplus", "value": 1.0}
MEMORIES: list[Plain] = [
    "matrix",
    {"mlp": {"residual": False}},
    {"mlp": {"depth": 3, "expansion": 2, "residual": True, "affine": True}},
    {"mlp": {"depth": 1, "residual": False, "norm": "layer", "activation": "tanh"}},
    {"gated_mlp": {"expansion": 2, "residual": False}},
]
BIASES: list[Plain] = [
    "dot",
    "l2",
    {"l2": {"scale": "full"}},
    "lp",
    {"lp": {"p": 3.0, "scale": "paper"}},
    {"lp": {"p": 1.5, "smoothing": "tanh"}},
    "l1",
    {"l1": {"smoothing": "tanh"}},
    {"huber": {"form": "coordinate", "delta": SOFT}},
    {"huber": {"form": "norm", "delta": SOFT}},
    {"huber": {"form": "pseudo", "delta": SOFT}},
    {"huber": {"form": "pseudo_norm", "delta": SOFT}},
    {"huber": {"form": "switch", "delta": SOFT}},
    "logcosh",
    {"value_shift": {"delta": SOFT}},
    "kl",
]
RETENTIONS: list[Plain] = [
    "none",
    "l2",
    "kl",
    {"kl": {"slice": "row", "scale": 2.0}},
    {"kl": {"slice": "whole"}},
    "f_divergence",
    {"f_divergence": {"divergence": "chi_squared", "slice": "row", "scale": 2.0, "keep": "data"}},
    {"f_divergence": {"divergence": "hellinger", "slice": "whole"}},
    {"elastic_net": {"shrink": 0.02}},
    {"elastic_net": {"view": "ftrl", "threshold": "smooth", "shrink": 0.05, "learned_shrink": True}},
    {"lq": {"epsilon": 0.1}},
    {"lq": {"q": 1.5, "reading": "primal_index", "over": "column", "epsilon": 0.1}},
    {"lq": {"q": 1.5, "reading": "primal_index", "over": "memory", "epsilon": 0.1, "restart": True}},
    {"bregman": {"potential": "logit"}},
    {"bregman": {"potential": "arcsinh", "b": 0.5}},
]
ALGORITHMS: list[Plain] = [
    "gd",
    "momentum",
    {"multi_step": {"writes": 2}},
    "implicit",
    "erase_write",
    {"erase_write": {"own_keys": False, "erase": {"scope": "head"}}},
    {"omega": {"window": 3}},
    {"omega": {"window": 2, "momentum": "data"}},
    "muon",
    {"muon": {"window": 2, "share": "data", "iterations": 3}},
    "adam",
    {"adam": {"correction": False, "momentum": 0.0}},
]
EXECUTIONS: list[Plain] = [
    {"gradient": gradient, "gradient_at": at, "chunk": chunk, "link_refresh": refresh}
    for gradient in ("exact", "frozen", {"refined": 1}, {"refined": 3})
    for at in ("previous", "decayed")
    for chunk in (1, 4, 16)
    for refresh in ("token", "chunk", "lag")
]


def points(count: int, seed: int, algorithms: list[Plain] = ALGORITHMS) -> Iterator[DesignPoint]:
    """A random sample of valid combinations of all options, as many with each algorithm: some allow few."""
    parsed = {
        axis: [AXES[axis].parse(spec) for spec in specs]
        for axis, specs in (("memory", MEMORIES), ("bias", BIASES), ("retention", RETENTIONS))
    }
    executions = [Execution.from_plain(spec, ()) for spec in EXECUTIONS]
    everything = list(itertools.product(*parsed.values(), executions))
    draw = random.Random(seed)

    def valid(spec: Plain) -> Iterator[DesignPoint]:
        algorithm = ALGORITHM.parse(spec)
        for memory, bias, retention, execution in draw.sample(everything, len(everything)):
            point = DesignPoint(memory, bias, retention, algorithm, execution=execution)
            if not violations(point, 5, 5):
                yield point

    turns = itertools.chain.from_iterable(itertools.zip_longest(*map(valid, algorithms)))
    return itertools.islice((point for point in turns if point is not None), count)


@dataclass(frozen=True)
class Case:
    """Inputs, learned start and static parameters of one memory layer."""

    inputs: Inputs
    start: tuple[Tensor, ...]
    static: dict[str, Tensor]

    def leaves(self) -> list[Tensor]:
        return [x for x in (*self.inputs, *self.start, *self.static.values()) if x is not None]

    def with_leaves(self, leaves: list[Tensor]) -> Case:
        given = iter(leaves)
        inputs = Inputs(*(None if x is None else next(given) for x in self.inputs))
        return Case(inputs, tuple(next(given) for _ in self.start), {name: next(given) for name in self.static})


def case(
    point: DesignPoint,
    tokens: int,
    *,
    seed: int,
    batch: int = 2,
    heads: int = 2,
    key_dim: int = 3,
    value_dim: int = 5,
    dtype: torch.dtype = torch.float64,
) -> Case:
    """Fresh random inputs; normalised keys, keep from 0.7 to 1, steps up to 0.5, or to 0.1 in a deep memory, whose
    gradients at larger steps amplify rounding by orders of magnitude. A residual memory gets K = V.
    """
    if point.memory.square:
        key_dim = value_dim
    longest = 0.5 if point.memory.bare else 0.1
    generator, n = torch.Generator().manual_seed(seed), tokens * point.algorithm.writes

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    def uniform(slot: str, *shape: int) -> Tensor:
        scope = point.scopes[slot]
        channels = {"head": (), "key": (key_dim,), "value": (value_dim,), "key_value": (key_dim + value_dim,)}[scope]
        return torch.rand(*shape, *channels, generator=generator, dtype=dtype)

    def unit(x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)

    everything_kept, algorithm = point.retention.keep.is_one, point.algorithm
    inputs = Inputs(
        q=unit(normal(batch, tokens, heads, key_dim)),
        k=unit(normal(batch, n, heads, key_dim)),
        v=normal(batch, n, heads, value_dim),
        log_keep=uniform("keep", batch, tokens, heads) * (0.0 if everything_kept else -0.35),
        step=uniform("step", batch, n, heads) * longest,
        momentum=uniform("momentum", batch, n, heads) * 0.9 if algorithm.has_momentum else None,
        threshold=uniform("threshold", batch, n, heads) + 0.2 if "threshold" in point.gates else None,
        w=unit(normal(batch, n, heads, key_dim)) if algorithm.splits_keys else None,
        share=torch.rand(batch, tokens, heads, algorithm.window, generator=generator, dtype=dtype)
        if algorithm.window > 1
        else None,
    )
    layers = point.memory.layers(key_dim, value_dim) if point.descends else ()
    start = tuple(normal(heads, s.rows, s.cols) / s.rows**0.5 for s in layers)
    static = {
        name: value + 0.1 * normal(heads, *shape) for name, (shape, value) in point.static(key_dim, value_dim).items()
    }
    return Case(inputs, start, static)


def evaluate(run: Run, point: DesignPoint, given: Case) -> tuple[list[Tensor], list[Tensor], State]:
    """Outputs and every tensor of the final state; the gradients of a random linear functional of all of them; the
    state.

    A keep gate that is the constant 1 is no input, so it gets no gradient.
    """
    leaves = [x.detach().clone().requires_grad_() for x in given.leaves()]
    copy = given.with_leaves(leaves)
    y, state = run(point, copy.inputs, copy.start, copy.static)
    outputs = [y, *state.tensors().values()]
    generator = torch.Generator().manual_seed(99)
    weights = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in outputs]
    loss = torch.stack([(x * w).sum() for x, w in zip(outputs, weights, strict=True)]).sum()
    wanted = [x for x in leaves if not (point.retention.keep.is_one and x is copy.inputs.log_keep)]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]
    return [x.detach() for x in outputs], gradients, state


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference, relative to 1 + the largest expected entry of the same tensor."""
    assert len(found) == len(expected)
    return max(
        ((a - b).abs().max() / (1 + b.abs().max())).item() for a, b in zip(found, expected, strict=True) if b.numel()
    )

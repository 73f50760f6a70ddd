"""What an option of the user's own must do before an ablation with it means something, tried in a memory layer.

A signal that is not its loss's gradient trains as well as any, and a trait that is not true (a slope, an identity)
takes a way through the kernels that computes something else. Neither shows in a training curve, so both are looked for
here: on random inputs of a few tokens, on the CPU, in float64.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from miras_search.kernels import dispatch, recurrence
from miras_search.kernels.recurrence import apply
from miras_search.kernels.state import Layers
from miras_search.models.config import ModelConfig
from miras_search.models.contract import BATCH, TOKENS, Broken, Property, off, tried
from miras_search.models.mixer import Mixer
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Static

CHUNK = 5  # several in TOKENS, the last one short
BOUND = 100.0  # of outputs whose rounding may be compared; inputs and starts are about 1
SHORTER = 4  # times that steps are made shorter by ten
NUDGE = 2.0**-50  # of each input: about the rounding of a few operations
CHAOTIC = 100.0  # times what such a nudge does to token by token itself, which then tells no more of a trait
CLOSE = 1e-6  # of the largest value; two ways in float64 differ by rounding, or by more than that


@dataclasses.dataclass(frozen=True, slots=True)
class _Given:
    """What a memory is given by the layer around it."""

    inputs: Inputs
    start: Layers
    static: Static


class _Enough(Exception):
    """The memory's inputs are known; what it makes of them is another property's."""


def examine_design(design: DesignPoint, config: ModelConfig, seed: int = 0) -> tuple[Property, ...]:
    """Try every property of a design's options in a layer of `config`; one without a layer has the first one only.

    Chunks are of at most `CHUNK` tokens, so that there are several.
    """
    execution = dataclasses.replace(design.execution, chunk=min(CHUNK, design.execution.chunk))
    design = dataclasses.replace(design, execution=execution)
    layer: list[Mixer] = []
    given: list[_Given] = []
    found = [tried("construction", lambda: _construction(design, config, seed, layer, given))]
    if not given:
        return tuple(found)
    properties: tuple[tuple[str, Callable[[], str]], ...] = (
        ("shapes", lambda: _shapes(design, given[0])),
        ("identity", lambda: _identity(design, given[0])),
        ("gradient", lambda: _gradient(design, config)),
        ("runs", lambda: _runs(layer[0])),
        ("definition", lambda: _definition(design, given[0])),
    )
    return (*found, *(tried(name, attempt) for name, attempt in properties))


def _x(config: ModelConfig, tokens: int) -> Tensor:
    """Inputs [BATCH, tokens, d] of the size that a normalised residual stream has."""
    generator = torch.Generator().manual_seed(tokens)
    return torch.randn(BATCH, tokens, config.d_model, generator=generator, dtype=torch.float64)


def _construction(design: DesignPoint, config: ModelConfig, seed: int, layer: list[Mixer], given: list[_Given]) -> str:
    """The layer, and what it gives to its memory."""
    made = Mixer(config, design).double()
    made.initialise(torch.Generator().manual_seed(seed))

    def enough(inputs: Inputs, start: Layers, static: Static) -> None:
        given.append(
            _Given(
                inputs.map(Tensor.detach),
                tuple(z.detach() for z in start),
                {name: x.detach() for name, x in static.items()},
            )
        )
        raise _Enough

    made.observer = enough
    with contextlib.suppress(_Enough):
        made(_x(config, TOKENS))
    made.observer = None
    layer.append(made)
    return f"a layer of width {config.d_model}"


def _shapes(design: DesignPoint, given: _Given) -> str:
    """Torch would stretch what has a wrong shape, and train."""
    if not design.descends:
        return "no weights"
    inputs = given.inputs
    duals = tuple(design.retention.origin(z).unsqueeze(0) for z in given.start)
    weights = design.retention.links(duals, given.static)
    for z, w in zip(duals, weights, strict=True):
        if w.shape != z.shape:
            raise Broken(f"link makes weights {list(w.shape)} of an accumulator {list(z.shape)}")
    k, v = inputs.k.transpose(1, 2), inputs.v.transpose(1, 2)
    prediction = design.memory.forward(k, apply(weights), given.static)
    if prediction.shape != v.shape:
        raise Broken(f"forward predicts {list(prediction.shape)} where values are {list(v.shape)}")
    u = design.bias.signal(prediction, v, _threshold(design, v))
    if u.shape != v.shape:
        raise Broken(f"signal is {list(u.shape)} for predictions {list(v.shape)}")
    return f"weights {', '.join(str(list(w.shape[1:])) for w in weights)}, signals as values"


def _identity(design: DesignPoint, given: _Given) -> str:
    """A link that is said to be none is never called, so no comparison of outputs shows it."""
    if not design.descends or not design.retention.identity:
        return "weights follow from what is kept"
    generator = torch.Generator().manual_seed(4)
    kept = tuple(torch.randn(1, *z.shape, generator=generator, dtype=z.dtype) for z in given.start)
    weights = design.retention.links(kept, given.static)
    share = max((off(w, z) for w, z in zip(weights, kept, strict=True)), default=0.0)
    if share > CLOSE:
        raise Broken(f"identity is true, and link makes other weights (off by {share:.2g}) of what is kept")
    return "weights are what is kept"


def _gradient(design: DesignPoint, config: ModelConfig) -> str:
    """Signal against autograd of the loss, near and far from the value."""
    generator = torch.Generator().manual_seed(2)
    draw = torch.randn(2, 3, 4, config.values, generator=generator, dtype=torch.float64)
    p, v = (draw * torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)[:, None, None]).unbind()
    p.requires_grad_()
    threshold = _threshold(design, v)
    loss = design.bias.loss(p, v, threshold)
    if loss is None:
        return "no loss is written down"
    if loss.shape != p.shape[:-1]:
        raise Broken(f"loss is {list(loss.shape)} for predictions {list(p.shape)}: one number a token")
    (wanted,) = torch.autograd.grad(loss.sum(), p)
    with torch.no_grad():
        share = off(design.bias.signal(p, v, threshold), wanted)
    if share > CLOSE:
        cure = "mend one of them, or write no loss for a rule that descends none"
        raise Broken(f"signal is not the gradient of loss (off by {share:.2g} of the largest): {cure}")
    return "signal is the gradient of loss"


def _runs(layer: Mixer) -> str:
    """A training step's two directions. What they give may be too large for a number: a design may diverge."""
    for tokens in (1, TOKENS):
        x = _x(layer.config, tokens).requires_grad_()
        torch.autograd.grad(layer(x)[0].square().sum(), x)
    return f"outputs and gradients of 1 and {TOKENS} tokens"


def _definition(design: DesignPoint, given: _Given) -> str:
    """What would run here against token by token: outputs, and the gradients of all that the memory is given."""
    inputs = _tame(design, given).map(lambda x: x.detach().requires_grad_())
    names, leaves = zip(*((name, x) for name, x in inputs._asdict().items() if x is not None), strict=True)
    nudged = inputs.map(lambda x: (x.detach() * (1 + NUDGE)).requires_grad_())
    moved = [x for x in nudged if x is not None]
    results = []
    for way, where, wrt in ((dispatch.run, inputs, leaves), (recurrence.run, inputs, leaves),
                            (recurrence.run, nudged, moved)):  # fmt: skip
        y = way(design, where, given.start, given.static, None)[0]
        grads = torch.autograd.grad(y.square().sum(), wrt, materialize_grads=True)
        results.append([y.detach(), *grads])
    whats = ("outputs", *(f"gradients of {name}" for name in names))
    for what, found, wanted, near in zip(whats, *results, strict=True):
        if not bool(found.isfinite().all()):
            raise Broken(f"{what} are not finite, however short the steps")
        share = off(found, wanted)
        if share > max(CLOSE, CHAOTIC * off(near, wanted)):
            raise Broken(f"{what} are not those of token by token (off by {share:.2g}): a trait is not true")
    return "as token by token, gradients too"


@torch.no_grad()
def _tame(design: DesignPoint, given: _Given) -> Inputs:
    """What the memory is given, its steps so short that outputs stay in bounds: beyond them rounding is everything."""
    inputs = design.control.apply(given.inputs)
    for _ in range(SHORTER):
        y = recurrence.run(design, inputs, given.start, given.static, None)[0]
        if bool(y.isfinite().all()) and float(y.abs().max()) < BOUND:
            break
        inputs = inputs.stepped(0.1)
    return inputs


def _threshold(design: DesignPoint, v: Tensor) -> Tensor | None:
    """One number a token, or a channel where the design has it so, for a bias with a threshold."""
    if "threshold" not in design.gates:
        return None
    channels = v.shape[-1] if design.scopes["threshold"] == "value" else 1
    generator = torch.Generator().manual_seed(3)
    return torch.rand(*v.shape[:-1], channels, generator=generator, dtype=v.dtype) + 0.5

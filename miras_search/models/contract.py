"""What a layer of the user's own must do before an ablation with it means something, tried on the layer itself.

A layer that looks ahead wins every recall task; one whose draws do not follow the seed cannot be paired; a parameter
that no gradient reaches is counted and does nothing. None of this shows in a training curve, so it is checked here, on
random inputs of a few tokens, on the CPU, in float32.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from miras_search.models.budget import tree_bytes
from miras_search.models.config import ModelConfig
from miras_search.models.own_layer import OwnLayer, OwnState
from miras_search.space.own_mixer import OwnMixer

TOKENS = 17  # odd, and no multiple of any chunk
BATCH = 3
LENGTHS = (1, 2, 7, TOKENS)
SEGMENTS = (1, 6, TOKENS - 7)
CLOSE = 1e-4  # of the largest output: float32 sums in another order differ by less


@dataclass(frozen=True, slots=True)
class Property:
    """One thing that a layer must do, and what was found."""

    name: str
    ok: bool
    found: str
    raised: bool = False
    """Whether an exception, and no measured number, says that it does not hold."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A layer and all its properties."""

    mixer: str
    digest: str
    parameters: int | None
    """None for a layer that cannot be constructed."""
    state_bytes: int | None
    """After `TOKENS` tokens of one sequence; None for a layer without a state of its own."""
    properties: tuple[Property, ...]

    @property
    def ok(self) -> bool:
        """Whether the layer keeps the whole contract."""
        return all(one.ok for one in self.properties)


class Broken(Exception):
    """A property that does not hold, in words."""


def examine(mixer: OwnMixer, config: ModelConfig, seed: int = 0) -> Contract:
    """Try every property; a layer that cannot be constructed has the first one only.

    Raises `SpecError` where its class is not there.
    """
    built: list[OwnLayer] = []
    found = [tried("construction", lambda: _construction(mixer, config, seed, built))]
    if not built:
        return Contract(str(mixer), mixer.digest, None, None, tuple(found))
    layer = built[0]
    trained = sum(parameter.numel() for parameter in layer.parameters() if parameter.requires_grad)
    carried: list[int | None] = [None]
    properties: tuple[tuple[str, Callable[[], str]], ...] = (
        ("shape", lambda: _shape(layer)),
        ("finite", lambda: _finite(layer)),
        ("causality", lambda: _causality(layer)),
        ("lengths", lambda: _lengths(layer)),
        ("batch", lambda: _batch(layer)),
        ("determinism", lambda: _determinism(layer, built[1])),
        ("gradients", lambda: _gradients(layer)),
        ("streaming", lambda: _streaming(layer, carried)),
    )
    layer.eval()
    built[1].eval()
    found += [tried(name, attempt) for name, attempt in properties]
    return Contract(str(mixer), mixer.digest, trained, carried[0], tuple(found))


def tried(name: str, attempt: Callable[[], str]) -> Property:
    """What an attempt finds; the border to a user's code: whatever it raises is told at its line."""
    try:
        return Property(name, True, attempt())
    except Broken as broken:
        return Property(name, False, str(broken))
    except Exception as error:  # see above
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename]
        place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        what = f"raised {type(error).__name__}: {' '.join(str(error).split())}{place}"
        return Property(name, False, what, raised=True)


def _x(layer: OwnLayer, seed: int = 1) -> Tensor:
    """Inputs [BATCH, TOKENS, d] of the size that a normalised residual stream has."""
    return torch.randn(BATCH, TOKENS, layer.config.d_model, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def _run(layer: OwnLayer, x: Tensor) -> Tensor:
    y, _ = layer(x.clone())
    return torch.clone(y)


def off(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest output; nan counts as infinite."""
    found, wanted = found.detach(), wanted.detach()
    share = float((found - wanted).abs().max()) / (float(wanted.abs().max()) or 1.0)
    return share if share == share else float("inf")


def _construction(mixer: OwnMixer, config: ModelConfig, seed: int, built: list[OwnLayer]) -> str:
    for _ in range(2):
        layer = OwnLayer(config, mixer, 0)
        layer.initialise(torch.Generator().manual_seed(seed))
        built.append(layer)
    return f"{mixer} of width {config.d_model}"


def _shape(layer: OwnLayer) -> str:
    x = _x(layer)
    y = _run(layer, x)  # the wrapper refuses another shape
    if y.dtype != x.dtype:
        raise Broken(f"{y.dtype} out of {x.dtype}")
    return f"{list(x.shape)} -> {list(y.shape)}"


def _finite(layer: OwnLayer) -> str:
    y = _run(layer, _x(layer))
    if not bool(y.isfinite().all()):
        raise Broken(f"{int((~y.isfinite()).sum())} of {y.numel()} outputs are not finite at the start")
    return f"outputs up to {float(y.abs().max()):.3g} at the start"


def _causality(layer: OwnLayer) -> str:
    """For every token: what came before it must not change with it and all after it."""
    x, other = _x(layer), 10 * _x(layer, seed=2)
    y = _run(layer, x)
    for first in range(1, TOKENS):
        changed = _run(layer, torch.cat([x[:, :first], other[:, first:]], 1))
        share = off(changed[:, :first], y[:, :first])
        if share > CLOSE:
            at = int((changed[:, :first] - y[:, :first]).abs().amax((0, 2)).argmax())
            raise Broken(f"the output at token {at} changes (by {share:.2g}) with inputs from token {first} on")
    return f"no output changes with later inputs, at any of {TOKENS - 1} places"


def _lengths(layer: OwnLayer) -> str:
    """Short and odd sequences, each the beginning of the whole."""
    x = _x(layer)
    y = _run(layer, x)
    for length in LENGTHS:
        share = off(_run(layer, x[:, :length]), y[:, :length])
        if share > CLOSE:
            raise Broken(
                f"a sequence of {length} has other outputs (by {share:.2g}) than the beginning of one of {TOKENS}"
            )
    return f"sequences of {', '.join(map(str, LENGTHS))} tokens agree"


def _batch(layer: OwnLayer) -> str:
    x = _x(layer)
    y = _run(layer, x)
    for i in range(BATCH):
        share = off(_run(layer, x[i : i + 1]), y[i : i + 1])
        if share > CLOSE:
            raise Broken(f"sequence {i} alone gives other outputs (by {share:.2g}) than among {BATCH}")
    return "each sequence alone gives the same outputs"


def _determinism(layer: OwnLayer, twin: OwnLayer) -> str:
    mine, other = (dict([*one.named_parameters(), *one.named_buffers()]) for one in (layer, twin))
    for name, tensor in mine.items():
        if name not in other or not torch.equal(tensor, other[name]):
            raise Broken(f"two builds from one seed differ in '{name.removeprefix('inner.')}': draw by torch alone")
    x = _x(layer)
    y = _run(layer, x)
    if not torch.equal(y, _run(layer, x)):
        raise Broken("two forward passes of one layer differ, with eval() set")
    if not torch.equal(y, _run(twin, x)):
        raise Broken("two builds from one seed give different outputs")
    return "two builds from one seed are equal, and so are two forward passes"


def _gradients(layer: OwnLayer) -> str:
    """Each trained parameter, and the input, in a training step. A gradient of 0 may be the start's doing."""
    layer.train()
    layer.zero_grad(set_to_none=True)
    x = _x(layer).requires_grad_()
    weights = _x(layer, seed=3)
    (layer(x)[0] * weights).sum().backward()
    layer.eval()
    grads = {name.removeprefix("inner."): p.grad for name, p in layer.named_parameters() if p.requires_grad}
    missing = [name for name, grad in grads.items() if grad is None]
    if missing:
        raise Broken(f"none reaches {', '.join(missing)}: unused, or cut off by detach or no_grad")
    bad = [n for n, g in [*grads.items(), ("the input", x.grad)] if g is not None and not bool(g.isfinite().all())]
    if bad:
        raise Broken(f"not finite at {', '.join(bad)}")
    if x.grad is None:
        raise Broken("none reaches the input")
    idle = [name for name, grad in grads.items() if grad is not None and not bool(grad.any())]
    note = f"; 0 at the start for {', '.join(idle)}" if idle else ""
    return f"reach all {len(grads)} parameters and the input{note}"


def _streaming(layer: OwnLayer, carried: list[int | None]) -> str:
    if not layer.streams:
        return "no parameter 'state': run again over the whole sequence, and its state is left empty in tables"
    x = _x(layer)
    y = _run(layer, x)
    state: OwnState | None = None
    parts = []
    with torch.no_grad():
        for part in torch.split(x, list(SEGMENTS), 1):
            out, state = layer(part.clone(), state)
            parts.append(out)
        _, one = layer(x[:1].clone())
    share = off(torch.cat(parts, 1), y)
    if share > CLOSE:
        raise Broken(f"segments of {', '.join(map(str, SEGMENTS))} tokens differ from the whole (by {share:.2g})")
    carried[0] = tree_bytes(one.own)
    size = "of a type that is not counted" if carried[0] is None else f"of {carried[0]:,} bytes after {TOKENS} tokens"
    return f"segments of {', '.join(map(str, SEGMENTS))} tokens are the whole; a state {size}"

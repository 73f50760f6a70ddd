"""A layer of the user's own as the mixer of a block.

The contract: a torch module that is constructed as `MyLayer(d_model=..., **args)`, with `heads` and `layer` (its place
among the blocks, from 0) if the constructor names them, and maps x [B,T,d] to y [B,T,d] without looking ahead. If its
`forward` has a parameter called `state`, it streams: `forward(x, state=...) -> (y, state)`, from None at a sequence's
start. A layer that does not stream is run again over all it has seen.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from miras_search.errors import MirasError
from miras_search.models.config import ModelConfig
from miras_search.space.fields import SpecError
from miras_search.space.own_mixer import GIVEN, OwnMixer, load_class

WHERE = ("mixer",)


class OwnState(NamedTuple):
    """What a layer carries between segments: its own state, or all its inputs [B,T,D] where it does not stream."""

    own: object
    past: Tensor | None


class OwnLayer(nn.Module):
    """x [B,T,D] -> [B,T,D] through the user's module.

    Raises `SpecError` where the class is not there, cannot be constructed or is no module.
    """

    def __init__(self, config: ModelConfig, mixer: OwnMixer, layer: int) -> None:
        super().__init__()
        self.config, self.mixer, self.layer = config, mixer, layer
        self.inner = self._made(0)
        self.streams = "state" in inspect.signature(self.inner.forward).parameters

    def _made(self, seed: int) -> nn.Module:
        """The user's module, its parameters drawn from the seed."""
        cls = load_class(self.mixer, WHERE)
        given = {"heads": self.config.heads, "layer": self.layer}
        args = self.mixer.args
        try:
            known = inspect.signature(cls).parameters
            args |= {name: given[name] for name in GIVEN if name in known and name not in args}
            with seeded(seed):
                made = cls(d_model=self.config.d_model, **args)
        except (TypeError, ValueError, AssertionError, KeyError, AttributeError, RuntimeError) as error:
            words = ", ".join([f"d_model={self.config.d_model}", *(f"{key}={value!r}" for key, value in args.items())])
            what = f"{self.mixer.name}({words}) raised {type(error).__name__}: {' '.join(str(error).split())}"
            raise SpecError.at(WHERE, what) from error
        if not isinstance(made, nn.Module):
            raise SpecError.at(WHERE, f"{self.mixer.module} is no torch.nn.Module: derive it from one")
        return made

    def initialise(self, generator: torch.Generator) -> None:
        """Construct the module again, its draws seeded by one of the generator's: any way to initialise will do."""
        self.inner = self._made(int(torch.randint(2**62, (), generator=generator)))

    def forward(self, x: Tensor, state: OwnState | None = None) -> tuple[Tensor, OwnState]:
        """The layer's output [B,T,D], and the state with which a next segment continues. Raises `MirasError`."""
        if self.streams:
            found = self.inner(x, state=None if state is None else state.own)
            if not isinstance(found, tuple) or len(found) != 2:
                raise MirasError(f"{self.mixer}: forward has a parameter 'state', so it returns (y, state)")
            y, after = cast(tuple[Tensor, object], found)
            return self._checked(y, x), OwnState(after, None)
        past = x if state is None or state.past is None else torch.cat([state.past, x], 1)
        y = self._checked(self.inner(past), past)
        return y[:, past.shape[1] - x.shape[1] :], OwnState(None, past)

    def _checked(self, y: object, x: Tensor) -> Tensor:
        if not isinstance(y, Tensor):
            cure = "name a parameter 'state' if it streams" if isinstance(y, tuple) else "a layer returns a tensor"
            raise MirasError(f"{self.mixer}: forward returned a {type(y).__name__}: {cure}")
        if y.shape != x.shape:
            raise MirasError(f"{self.mixer}: forward made {list(y.shape)} of {list(x.shape)}: a layer keeps the shape")
        return y


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws from the CPU's global generator follow the seed, and it is afterwards what it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

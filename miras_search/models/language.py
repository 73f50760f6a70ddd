"""The language model: embedding, pre-norm blocks of memory layers, and a head that is evaluated only where labels
are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from miras_search.models import fit
from miras_search.models.config import ModelConfig
from miras_search.models.layout import Slot, layout
from miras_search.models.mixer import Mixer, MixerState, Observer
from miras_search.models.norms import rms_norm
from miras_search.models.own_layer import OwnLayer, OwnState
from miras_search.space.design import DesignPoint

NORM_EPS = 1e-5
LayerState = MixerState | OwnState


class SwiGlu(nn.Module):
    """Channel mixer: (SiLU(x A) * (x B)) C."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def initialise(self, generator: torch.Generator, scale: float) -> None:
        """scale / sqrt(fan in)."""
        for linear in (self.up, self.down):
            nn.init.normal_(linear.weight, std=scale * linear.in_features**-0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """[B,T,D] -> [B,T,D]."""
        gate, value = self.up(x).chunk(2, -1)
        result: Tensor = self.down(functional.silu(gate) * value)
        return result


class Block(nn.Module):
    """x + mixer(norm(x)), then, where there is a channel mixer, x + feed_forward(norm(x))."""

    def __init__(self, config: ModelConfig, slot: Slot, layer: int) -> None:
        super().__init__()
        own, self.is_memory = slot.design.mixer, slot.is_memory
        self.mixer = Mixer(slot.config, slot.design) if own is None else OwnLayer(slot.config, own, layer)
        self.mixer_norm = nn.Parameter(torch.empty(config.d_model))
        self.feed_forward = self.feed_forward_norm = None
        if config.feed_forward == "swiglu":
            self.feed_forward = SwiGlu(config.d_model, max(1, round(config.feed_forward_ratio * config.d_model)))
            self.feed_forward_norm = nn.Parameter(torch.empty(config.d_model))

    def initialise(self, generator: torch.Generator, scale: float) -> None:
        """Norms at one, the parts as they say."""
        self.mixer.initialise(generator)
        nn.init.ones_(self.mixer_norm)
        if self.feed_forward is not None and self.feed_forward_norm is not None:
            self.feed_forward.initialise(generator, scale)
            nn.init.ones_(self.feed_forward_norm)

    def forward(self, x: Tensor, state: LayerState | None = None) -> tuple[Tensor, LayerState]:
        """[B,T,D] -> [B,T,D] and the mixer's state."""
        y, state = self.mixer(rms_norm(x, self.mixer_norm, NORM_EPS), state)
        x = x + y
        if self.feed_forward is not None and self.feed_forward_norm is not None:
            x = x + self.feed_forward(rms_norm(x, self.feed_forward_norm, NORM_EPS))
        return x, state


class LanguageModel(nn.Module):
    """A stack of blocks over token embeddings. Construct, then `initialise` with a seeded generator.

    Raises `SpecError` for a design point that does not fit into the model.
    """

    def __init__(self, config: ModelConfig, design: DesignPoint, vocab_size: int) -> None:
        super().__init__()
        fit.check(design, config)
        self.config, self.design, self.vocab_size = config, design, vocab_size
        self.embedding = nn.Parameter(torch.empty(vocab_size, config.d_model))
        self.blocks = nn.ModuleList(Block(config, slot, i) for i, slot in enumerate(layout(config, design)))
        self.norm = nn.Parameter(torch.empty(config.d_model))
        self.head = None if config.tie_embeddings else nn.Parameter(torch.empty(vocab_size, config.d_model))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every parameter from the generator, in a fixed order."""
        scale, width = self.config.init_scale, self.config.d_model
        nn.init.normal_(self.embedding, std=scale * width**-0.5, generator=generator)
        for block in self._blocks():
            block.initialise(generator, scale)
        nn.init.ones_(self.norm)
        if self.head is not None:
            nn.init.normal_(self.head, std=scale * width**-0.5, generator=generator)

    def _blocks(self) -> Iterator[Block]:
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def _memories(self) -> list[Mixer]:
        """The memories under study: not the attention of a hybrid, nor a layer of the user's own."""
        return [block.mixer for block in self._blocks() if block.is_memory and isinstance(block.mixer, Mixer)]

    @property
    def step_scale(self) -> float:
        """What the steps of all memories are multiplied by."""
        scales = [mixer.step_scale for mixer in self._memories()]
        return 1.0 if not scales or scales[0] is None else float(scales[0])

    @property
    def streams(self) -> bool:
        """Whether every layer carries a state of its own from token to token, and none all its inputs."""
        return all(block.mixer.streams for block in self._blocks() if isinstance(block.mixer, OwnLayer))

    def scale_steps(self, scale: float) -> None:
        """Multiply the steps that the memories' gates give by a constant, in place of any earlier one."""
        for mixer in self._memories():
            mixer.step_scale = self.embedding.new_tensor(scale)

    @contextlib.contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """While active, tell the observer what each memory layer is given, layer by layer."""
        for mixer in self._memories():
            mixer.observer = observer
        try:
            yield
        finally:
            for mixer in self._memories():
                mixer.observer = None

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits [B,M,vocab] at `positions` [B,M] of the sequences `tokens` [B,T]."""
        hidden, _ = self.stream(tokens)
        labelled = hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return self.logits(labelled)

    def stream(
        self, tokens: Tensor, states: Sequence[LayerState] | None = None
    ) -> tuple[Tensor, tuple[LayerState, ...]]:
        """Hidden states [B,T,D] of a segment, and the states with which the next segment continues."""
        x, after = functional.embedding(tokens, self.embedding), []
        for i, block in enumerate(self._blocks()):
            x, state = block(x, None if states is None else states[i])
            after.append(state)
        return x, tuple(after)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., vocab]."""
        weight = self.embedding if self.head is None else self.head
        return functional.linear(rms_norm(hidden, self.norm, NORM_EPS), weight)

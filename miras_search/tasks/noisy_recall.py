"""In-context recall among noise: pairs repeat, and the value of a key must be known when the key comes again.

    k3 v8 * * k1 v5 k3 v8 * * * * k1 v5       * noise tokens; labels v8 and v5, at the second k3 and the second k1

A sequence is length/2 pairs. A key is drawn uniformly with replacement; its value is drawn the first time that it
appears and holds for the rest of the sequence. With probability `noise` a pair is replaced by two noise tokens. The
last pair is never noise and its key has been seen before, so every sequence has a label; if noise took all the other
pairs, the first one is kept. With `noise: 0` this is plain in-context recall. The published task drops the very last
value from the input; here it stays, after the last label, so that `length` is the length the model sees.

Tokens: with W = vocab - noise_vocab, keys in [0, W/2), values in [W/2, W), noise in [W, vocab).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from miras_search.space.fields import require, setting
from miras_search.tasks.base import GUESSES, IGNORE, Batch, EvaluationSplit, Guess, register_task, stream


@register_task("noisy_recall", harder=("vocab", "length", "noise"))
@final
@dataclass(frozen=True, slots=True)
class NoisyRecall:
    """Recall of repeated keys' values; the label sits at the key, its target is the token that follows."""

    name: ClassVar[str]
    summary: ClassVar[str] = "recall the value of a key seen before, in a stream of pairs and noise tokens"
    source: ClassVar[str] = "Poli et al. 2024, MAD (arXiv 2403.17844): noisy and in-context recall"

    vocab: int = setting(48, "tokens: keys, values, then noise_vocab noise tokens at the top")
    length: int = setting(96, "tokens in a sequence, even")
    noise: float = setting(0.4, "share of pairs replaced by two noise tokens, from 0 to below 1")
    noise_vocab: int = setting(16, "how many of the tokens are noise")
    targets: Literal["probes", "next"] = setting(
        "probes", "what is trained: probes (values of repeated keys) | next (every next token); always tested on probes"
    )

    def __post_init__(self) -> None:
        require(self.length >= 4, "length", f"{self.length} has no room for two pairs; take 4 or more")
        require(self.length % 2 == 0, "length", f"{self.length} must be even; take {self.length + 1}")
        require(0 <= self.noise < 1, "noise", f"{self.noise} must be from 0 to below 1")
        require(
            self.noise_vocab >= (1 if self.noise else 0),
            "noise_vocab",
            f"{self.noise_vocab} must be at least 1, or set noise: 0",
        )
        require(
            self.vocab >= self.noise_vocab + 4,
            "vocab",
            f"{self.vocab} leaves {self.vocab - self.noise_vocab} tokens beside the noise; "
            f"two keys and two values need {self.noise_vocab + 4} or more",
        )

    @property
    def vocab_size(self) -> int:
        """Keys, values and noise."""
        return self.vocab

    @property
    def sequence_length(self) -> int:
        """T."""
        return self.length

    @property
    def labels(self) -> int:
        """Every pair but the first can repeat a key; with `targets: next` every token but the last has a next one.

        Evaluation has the same number of slots, so that a compiled model meets one shape.
        """
        return self.length - 1 if self.targets == "next" else self.length // 2 - 1

    @property
    def chance(self) -> float:
        """1 / number of value tokens."""
        return 1 / (self._signal - self._keys)

    @property
    def unbound(self) -> Guess:
        """The value that came most often so far.

        It is right in 0.28 at vocabulary 40, length 64, noise 0.4, where 1 / number of values is 0.083, since few of
        the values occur in one sequence. Measured on drawn sequences, the same ones every time.
        """
        right = max(self.chance, _commonest(self.vocab, self.length, self.noise, self.noise_vocab))
        return Guess(right, "by the value that came most often so far")

    @property
    def _signal(self) -> int:
        """Keys and values together: the first noise token."""
        return self.vocab - self.noise_vocab

    @property
    def _keys(self) -> int:
        """Number of keys: the first value token."""
        return self._signal // 2

    def train_batch(self, data_seed: int, step: int, size: int) -> Batch:
        """The batch of a step, labelled as `targets` says."""
        tokens, repeated = self._draw(stream(data_seed, "train", step), size)
        return self._next(tokens) if self.targets == "next" else self._probes(tokens, repeated)

    def evaluation(self, split: EvaluationSplit, eval_seed: int, examples: int) -> Batch:
        """Held-out sequences from the split's own stream, labelled at repeated keys only."""
        return self._probes(*self._draw(stream(eval_seed, split), examples))

    def _draw(self, rng: np.random.Generator, size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Tokens [size, length], and which of the pairs [size, length/2] repeat a key seen before."""
        pairs, rows = self.length // 2, np.arange(size)[:, None]
        keys = rng.integers(0, self._keys, size=(size, pairs))
        # one value for each key and sequence: the same as drawing it when the key first appears
        value_of = rng.integers(self._keys, self._signal, size=(size, self._keys))
        noisy = rng.random((size, pairs)) < self.noise
        noisy[:, -1] = False
        noisy[noisy[:, :-1].all(axis=1), 0] = False

        # the index of each key's first pair; noise goes to a spare column. Not a plain assignment in reverse: which of
        # two writes to one place stays is up to numpy's iteration order
        column = np.where(noisy, self._keys, keys)
        first = np.full((size, self._keys + 1), pairs)
        np.minimum.at(first, (rows, column[:, :-1]), np.arange(pairs - 1))
        seen = first[:, : self._keys] < pairs
        keys[:, -1] = np.argmax(rng.random(seen.shape) * seen + seen, axis=1)  # uniform among the keys seen
        repeated = ~noisy & (np.arange(pairs) > np.take_along_axis(first, keys, axis=1))

        tokens = np.empty((size, self.length), dtype=np.int64)
        tokens[:, 0::2] = keys
        tokens[:, 1::2] = np.take_along_axis(value_of, keys, axis=1)
        if self.noise:
            noise = rng.integers(self._signal, self.vocab, size=(size, self.length))
            np.copyto(tokens, noise, where=noisy.repeat(2, axis=1))
        return tokens, repeated

    def _probes(self, tokens: NDArray[np.int64], repeated: NDArray[np.bool_]) -> Batch:
        """Labels at the keys of repeated pairs: slot j belongs to pair j + 1, padding where that is new or noise."""
        size, pairs = repeated.shape
        positions = np.zeros((size, self.labels), dtype=np.int64)
        targets = np.full((size, self.labels), IGNORE, dtype=np.int64)
        positions[:, : pairs - 1] = np.where(repeated, 2 * np.arange(pairs), 0)[:, 1:]
        targets[:, : pairs - 1] = np.where(repeated, tokens[:, 1::2], IGNORE)[:, 1:]
        return Batch(tokens=tokens, positions=positions, targets=targets)

    def _next(self, tokens: NDArray[np.int64]) -> Batch:
        """Labels everywhere: what follows, the unpredictable keys and noise included."""
        positions = np.tile(np.arange(self.length - 1), (len(tokens), 1))
        return Batch(tokens=tokens, positions=positions, targets=tokens[:, 1:].copy())


@functools.lru_cache(maxsize=64)
def _commonest(vocab: int, length: int, noise: float, noise_vocab: int) -> float:
    """Accuracy, at the probes, of the value that came most often before; of several the one that led first."""
    task = NoisyRecall(vocab, length, noise, noise_vocab)
    size = max(64, min(GUESSES, 4_000_000 // max(vocab, length)))
    batch = task.evaluation("validation", 0, size)
    rows = np.arange(size)
    counts = np.zeros((size, vocab), dtype=np.int64)
    leader = np.full(size, task._keys)
    right = asked = 0
    for pair, targets in enumerate(batch.targets.T):  # of the pair after it
        value = batch.tokens[:, 2 * pair + 1]
        counts[rows, value] += value < task._signal  # noise is no answer
        leader = np.where(counts[rows, value] > counts[rows, leader], value, leader)
        right += int((leader == targets).sum())
        asked += int((targets != IGNORE).sum())
    return right / asked

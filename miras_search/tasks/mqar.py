"""Multi-query associative recall: read all pairs first, then answer for every key.

    context    k1 v1 k2 v2 ... kn vn                 n distinct keys, n distinct values
    queries    . k3 . . k1 . . . . k2 . .            each key once more, at a slot drawn with p(s) ~ (s + 1)^(power - 1)
    labels       v3     v1         v2                at the position of the query; the value is never written again

Tokens: 0 blank, keys in [1, V/2), values in [V/2, V). The places between queries are blanks, or random tokens of
everything except the keys: a filler equal to a key not yet queried would put that key beside a second, wrong value
before its query and make the label ambiguous, for 8 to 11 % of the queries of a small vocabulary in a known generator.

Everything is drawn for the whole batch at once: a batch of 32 sequences takes well under 2 ms.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from miras_search.space.fields import require, setting
from miras_search.tasks.base import GUESSES, Batch, EvaluationSplit, Guess, register_task, stream


@register_task("mqar", harder=("pairs", "length"))
@final
@dataclass(frozen=True, slots=True)
class Mqar:
    """Multi-query associative recall; one label a pair, at the query's own position."""

    name: ClassVar[str]
    summary: ClassVar[str] = "read key-value pairs, then give the value of every key when it is asked for again"
    source: ClassVar[str] = "Arora et al. 2023, Zoology (arXiv 2312.04927)"

    vocab: int = setting(64, "tokens: blank, then keys, then values from the middle up")
    length: int = setting(64, "tokens in a sequence, even, at least 4 x pairs")
    pairs: int = setting(8, "key-value pairs to hold, each asked for once")
    power: float = setting(0.01, "where queries fall: near 0 crowds them after the context, 1 spreads them evenly")
    filler: Literal["random", "zero"] = setting("random", "tokens between queries: random (never a key) | zero")

    def __post_init__(self) -> None:
        require(self.pairs >= 2, "pairs", f"{self.pairs} leaves nothing to tell apart; take 2 or more")
        require(self.length % 2 == 0, "length", f"{self.length} must be even; take {self.length + 1}")
        # n pairs fill 2n places and their queries need n slots of two
        require(
            self.length >= 4 * self.pairs,
            "length",
            f"{self.length} is too short for {self.pairs} pairs and their queries; take {4 * self.pairs} or more",
        )
        least = 2 * (self.pairs + 1)
        require(
            self.vocab >= least,
            "vocab",
            f"{self.vocab} has too few keys for {self.pairs} distinct ones; take {least} or more",
        )
        require(0 < self.power < float("inf"), "power", f"{self.power} must be a positive number; the usual is 0.01")

    @property
    def vocab_size(self) -> int:
        """Blank, keys and values."""
        return self.vocab

    @property
    def sequence_length(self) -> int:
        """T."""
        return self.length

    @property
    def labels(self) -> int:
        """One a pair; none is ever padding."""
        return self.pairs

    @property
    def chance(self) -> float:
        """1 / number of value tokens. A guess among those of the context, which are fewer, has read and kept them."""
        return 1 / (self.vocab - self.vocab // 2)

    @property
    def unbound(self) -> Guess:
        """By the order of queries, which needs positions and no keys.

        Slots are drawn key after key, so where they crowd, early pairs are asked for early. Who answers the i-th
        query with the value of the pair that is asked for there most often is right in 0.17 at 8 pairs and length 64,
        where one of the values of the context is right in 0.125; in 0.22 at length 32, in 0.13 at power 1; in 0.49 at
        3 pairs and length 12. Measured on drawn sequences, the same ones every time.
        """
        return Guess(max(1 / self.pairs, _in_order(self.pairs, self.length, self.power)), "by the order of queries")

    def train_batch(self, data_seed: int, step: int, size: int) -> Batch:
        """The batch of a step; a fresh stream for each, so any step can be the first."""
        return self._draw(stream(data_seed, "train", step), size)

    def evaluation(self, split: EvaluationSplit, eval_seed: int, examples: int) -> Batch:
        """Held-out sequences by the same rules from the split's own stream."""
        return self._draw(stream(eval_seed, split), examples)

    def _draw(self, rng: np.random.Generator, size: int) -> Batch:
        first_value = self.vocab // 2
        keys = 1 + _distinct(rng, size, self.pairs, first_value - 1)
        values = first_value + _distinct(rng, size, self.pairs, self.vocab - first_value)
        context = 2 * self.pairs
        tokens = np.zeros((size, self.length), dtype=np.int64)
        if self.filler == "random":
            # 0 and the values, as one range with the keys left out of its middle
            noise = rng.integers(0, 1 + self.vocab - first_value, size=(size, self.length - context))
            tokens[:, context:] = np.where(noise == 0, 0, noise + first_value - 1)
        tokens[:, 0:context:2] = keys
        tokens[:, 1:context:2] = values
        positions = context + 2 * self._slots(rng, size)
        np.put_along_axis(tokens, positions, keys, axis=1)
        return Batch(tokens=tokens, positions=positions, targets=values)

    def _slots(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        """[size, pairs] distinct slots, the i-th for key i, drawn one after the other with p ~ (s + 1)^(power - 1).

        The order of arrival of exponential clocks with rates p is exactly that draw without replacement.
        """
        slots = (self.length - 2 * self.pairs) // 2
        waits = (np.arange(slots) + 1.0) ** (1 - self.power)
        arrivals = rng.standard_exponential((size, slots)) * waits
        return np.argsort(arrivals, axis=1)[:, : self.pairs]


@functools.lru_cache(maxsize=64)
def _in_order(pairs: int, length: int, power: float) -> float:
    """Accuracy of the likeliest pair at each place in the order of queries, chosen on sequences of its own."""
    task = Mqar(vocab=2 * (pairs + 1), length=length, pairs=pairs, power=power)
    size = max(64, min(GUESSES, 4_000_000 // length))
    seen, tried = (task._slots(stream(0, split), size).argsort(axis=1) for split in ("train", "validation"))
    likeliest = [np.bincount(asked, minlength=pairs).argmax() for asked in seen.T]
    return float((tried == likeliest).mean())


def _distinct(rng: np.random.Generator, rows: int, count: int, population: int) -> NDArray[np.int64]:
    """[rows, count] numbers of [0, population), in random order, no number twice in a row of the result.

    Floyd's sampling: `count` draws a row however large the population is, where a shuffle of it would cost milliseconds
    at 8,192 tokens. A draw that hits a number already taken takes the newest number instead, which no row has yet.
    """
    newest = np.arange(population - count, population)
    draws = rng.integers(0, newest + 1, size=(rows, count))
    for i in range(1, count):
        taken = (draws[:, :i] == draws[:, i, None]).any(axis=1)
        draws[taken, i] = newest[i]
    return rng.permuted(draws, axis=1)

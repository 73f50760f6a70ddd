"""Byte-level language modelling of real files: the next byte, everywhere.

No tokenizer and no download: `corpus: stdlib` reads the Python sources that come with every Python, so that a study of
real text runs on any machine. They differ between Python versions; `corpus_hash` says exactly what was read.

Windows of `length + 1` bytes are cut from the joined files of a split: inputs are the first `length`, targets the last.
The loss is in nats per byte; divided by ln 2 it is bits per byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from miras_search.errors import MirasError
from miras_search.space.fields import require, setting
from miras_search.tasks.base import Batch, EvaluationSplit, Split, register_task, stream
from miras_search.tasks.corpus import read_corpus


@register_task("text")
@final
@dataclass(frozen=True, slots=True)
class Text:
    """Next-byte prediction on files. Nothing is read from disk before the first batch."""

    name: ClassVar[str]
    summary: ClassVar[str] = "predict the next byte of real files, by default of the Python standard library's sources"
    source: ClassVar[str] = "byte-level language modelling; the files are named by the setting `corpus`"

    corpus: str = setting("stdlib", "stdlib (Python's own sources), a file, a folder, or a glob pattern")
    length: int = setting(256, "bytes in a sequence")
    max_bytes: int = setting(8_000_000, "bytes to read at most, of files sampled from the whole corpus")

    def __post_init__(self) -> None:
        require(bool(self.corpus), "corpus", "'' names no file; give stdlib, a path or a glob pattern")
        require(self.length >= 1, "length", f"{self.length} must be at least 1")
        least = 20 * (self.length + 1)  # validation and test hold one twentieth each
        require(
            self.max_bytes >= least,
            "max_bytes",
            f"{self.max_bytes} leaves no window of {self.length} bytes to test on; take {least} or more",
        )

    @property
    def vocab_size(self) -> int:
        """The bytes."""
        return 256

    @property
    def sequence_length(self) -> int:
        """T."""
        return self.length

    @property
    def labels(self) -> int:
        """One a position."""
        return self.length

    @property
    def chance(self) -> float:
        """1 / 256; always answering the commonest byte does far better, so this is no bar to be proud of."""
        return 1 / self.vocab_size

    @property
    def corpus_hash(self) -> str:
        """sha256 of what is trained and tested on, which each run keeps (`engine/corpora.py`). Reads the files."""
        return read_corpus(self.corpus, self.max_bytes).hash

    def train_batch(self, data_seed: int, step: int, size: int) -> Batch:
        """Windows at random places of the training part, drawn afresh at every step."""
        data, rng = self._part("train"), stream(data_seed, "train", step)
        return self._windows(data, rng.integers(0, len(data) - self.length, size=size))

    def evaluation(self, split: EvaluationSplit, eval_seed: int, examples: int) -> Batch:
        """Windows of a held-out part that do not overlap, chosen by the seed.

        More examples than such windows exist are spread evenly over the part instead, and then overlap.
        """
        data, rng = self._part(split), stream(eval_seed, split)
        apart = (len(data) - 1) // self.length
        if examples <= apart:
            starts = self.length * rng.choice(apart, size=examples, replace=False)
        else:
            starts = np.linspace(0, len(data) - 1 - self.length, examples).astype(np.int64)
        return self._windows(data, starts)

    def _part(self, split: Split) -> NDArray[np.uint8]:
        """The bytes of a split, or a MirasError when not one window fits."""
        data = read_corpus(self.corpus, self.max_bytes).parts[split]
        if len(data) <= self.length:
            raise MirasError(
                f"text corpus {self.corpus!r}: its {split} part has {len(data)} bytes, a window of length "
                f"{self.length} needs {self.length + 1}; give a larger corpus or a shorter length"
            )
        return data

    def _windows(self, data: NDArray[np.uint8], starts: NDArray[np.int64]) -> Batch:
        window = data[starts[:, None] + np.arange(self.length + 1)].astype(np.int64)
        positions = np.tile(np.arange(self.length), (len(starts), 1))
        return Batch(tokens=window[:, :-1].copy(), positions=positions, targets=window[:, 1:].copy())

"""Windows of text: next-byte labels, splits that share no byte, clear errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from miras_search.errors import MirasError
from miras_search.space.fields import FieldError
from miras_search.tasks.corpus import read_corpus
from miras_search.tasks.text import Text


@pytest.fixture(autouse=True)
def no_cached_corpus() -> Iterator[None]:
    read_corpus.cache_clear()
    yield
    read_corpus.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hundred files; each repeats a letter pair that no other file has."""
    for i in range(100):
        pair = chr(65 + i // 10) + chr(97 + i % 10)
        (tmp_path / f"{i}.txt").write_text(pair * 100)
    return tmp_path


def pairs_seen(tokens: np.ndarray) -> set[str]:
    """The capital-small pairs in some windows."""
    texts = [bytes(row.astype(np.uint8)).decode() for row in tokens]
    return {
        text[i : i + 2] for text in texts for i in range(len(text) - 1) if text[i].isupper() and text[i + 1].islower()
    }


def test_targets_are_the_next_bytes_of_the_part(folder: Path) -> None:
    task = Text(corpus=str(folder), length=16)
    part = read_corpus(str(folder), task.max_bytes).parts["train"].tobytes()
    batch = task.train_batch(0, 0, 8)
    assert np.array_equal(batch.positions, np.tile(np.arange(16), (8, 1)))
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        window = bytes([*tokens.tolist(), targets[-1]])
        assert window in part
        assert bytes(targets.tolist()) == window[1:]


def test_no_split_sees_a_file_of_another(folder: Path) -> None:
    task = Text(corpus=str(folder), length=32)
    train = pairs_seen(np.concatenate([task.train_batch(0, step, 64).tokens for step in range(40)]))
    validation, test = (pairs_seen(task.evaluation(split, 0, 64).tokens) for split in ("validation", "test"))
    assert (len(train), len(validation), len(test)) == (90, 5, 5)
    assert not (train & validation or train & test or validation & test)


def test_training_reaches_both_ends_of_its_part(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(100)))
    task = Text(corpus=str(tmp_path / "a.txt"), length=4)  # 90 bytes to train on, and the boundary
    batch = task.train_batch(0, 0, 2000)
    assert batch.tokens[:, 0].min() == 0
    assert set(batch.targets[batch.tokens[:, -1] == 89, -1].tolist()) == {0}


def test_evaluation_windows_do_not_overlap_while_they_fit(folder: Path) -> None:
    task = Text(corpus=str(folder), length=10)
    part = read_corpus(str(folder), task.max_bytes).parts["test"]
    assert len(part) == 1005
    every_window = Counter(part[10 * i : 10 * i + 10].tobytes() for i in range(100))
    batch = task.evaluation("test", 5, 100)
    assert Counter(bytes(row.tolist()) for row in batch.tokens) == every_window
    assert all(bytes(row.tolist()) in every_window for row in task.evaluation("test", 6, 10).tokens)


def test_more_examples_than_windows_cover_the_part_evenly(folder: Path) -> None:
    task = Text(corpus=str(folder), length=100)
    part = read_corpus(str(folder), task.max_bytes).parts["validation"]
    batch = task.evaluation("validation", 0, 500)
    assert batch.tokens.shape == (500, 100)
    assert batch.tokens[0].tolist() == part[:100].tolist()
    assert batch.targets[-1].tolist() == part[-100:].tolist()
    assert np.array_equal(batch.tokens, task.evaluation("validation", 1, 500).tokens), "the whole part needs no seed"


def test_a_corpus_too_small_for_a_window_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short " * 20)
    fits, too_long = Text(corpus=str(tmp_path), length=6), Text(corpus=str(tmp_path), length=7)
    assert fits.evaluation("validation", 0, 1).tokens.shape == (1, 6)
    assert too_long.train_batch(0, 0, 2).tokens.shape == (2, 7)
    with pytest.raises(MirasError, match="validation part has 7 bytes, a window of length 7 needs 8"):
        too_long.evaluation("validation", 0, 1)


def test_nothing_is_read_before_the_first_batch() -> None:
    task = Text(corpus="no/such/place")
    assert (task.vocab_size, task.labels, task.sequence_length) == (256, 256, 256)
    with pytest.raises(MirasError, match="no such file or folder"):
        task.train_batch(0, 0, 1)


def test_the_corpus_hash_names_what_was_read(folder: Path) -> None:
    whole, capped = Text(corpus=str(folder)), Text(corpus=str(folder), max_bytes=6000)
    assert whole.corpus_hash == Text(corpus=str(folder), length=8).corpus_hash != capped.corpus_hash


@pytest.mark.parametrize(
    ("settings", "field", "cure"),
    [
        ({"corpus": ""}, "corpus", "give stdlib, a path or a glob pattern"),
        ({"length": 0}, "length", "at least 1"),
        ({"length": 256, "max_bytes": 5139}, "max_bytes", "take 5140 or more"),
    ],
)
def test_bad_settings_name_the_field_and_the_cure(settings: dict[str, str | int], field: str, cure: str) -> None:
    with pytest.raises(FieldError, match=cure) as error:
        Text(**settings)
    assert error.value.field == field

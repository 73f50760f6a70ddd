"""Noisy in-context recall against its rules, read token by token."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from miras_search.space.fields import FieldError
from miras_search.tasks.base import IGNORE, Batch
from miras_search.tasks.noisy_recall import NoisyRecall

TASKS = [
    NoisyRecall(),
    NoisyRecall(vocab=64, length=48, noise=0.8, noise_vocab=1),
    NoisyRecall(vocab=16, length=128, noise=0.0, noise_vocab=0),  # plain in-context recall
    NoisyRecall(vocab=21, length=4, noise=0.95),
]


def read(task: NoisyRecall, tokens: list[int]) -> dict[int, int]:
    """What a perfect memory answers, written as the rules are: position of each repeated key -> its value."""
    signal = task.vocab - task.noise_vocab
    memory: dict[int, int] = {}
    answers = {}
    for t in range(0, len(tokens), 2):
        key, value = tokens[t], tokens[t + 1]
        if key >= signal:
            assert value >= signal, "a noise token is never half of a pair"
            continue
        assert key < signal // 2 <= value < signal
        if key in memory:
            answers[t] = memory[key]
        memory.setdefault(key, value)
        assert memory[key] == value, "a key keeps its value"
    return answers


def labels(batch: Batch, row: int) -> dict[int, int]:
    kept = batch.targets[row] != IGNORE
    return dict(zip(batch.positions[row][kept].tolist(), batch.targets[row][kept].tolist(), strict=True))


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_dictionary_answers_every_label_and_no_repeat_is_missed(task: NoisyRecall) -> None:
    for batch in (task.train_batch(3, 9, 64), task.evaluation("validation", 3, 64)):
        for row, tokens in enumerate(batch.tokens.tolist()):
            assert read(task, tokens) == labels(batch, row)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_last_pair_is_always_asked(task: NoisyRecall) -> None:
    batch = task.train_batch(0, 0, 256)
    last = task.length - 2
    for row in range(256):
        assert labels(batch, row)[last] == batch.tokens[row, -1]
        assert batch.tokens[row, last] in batch.tokens[row, :last:2]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_target_is_the_token_after_the_key(task: NoisyRecall) -> None:
    batch = task.train_batch(1, 0, 64)
    following = np.take_along_axis(batch.tokens, batch.positions + 1, axis=1)
    kept = batch.targets != IGNORE
    assert np.array_equal(following[kept], batch.targets[kept])


@pytest.mark.parametrize("noise", [0.2, 0.4, 0.8])
def test_noise_takes_its_share_of_the_pairs(noise: float) -> None:
    task = NoisyRecall(noise=noise)
    pairs = task.evaluation("test", 0, 2000).tokens.reshape(2000, 48, 2)[:, :-1]  # the last is never noise
    assert (pairs >= 32).all(axis=2).mean() == pytest.approx(noise, abs=0.008)  # over 4 sd
    assert (pairs >= 32).any(axis=2).mean() == (pairs >= 32).all(axis=2).mean()


def test_keys_values_noise_and_the_last_key_are_uniform() -> None:
    task = NoisyRecall(vocab=12, length=24, noise=0.3, noise_vocab=4)
    pairs = task.train_batch(0, 0, 10_000).tokens.reshape(10_000, 12, 2)
    clean = pairs[:, :-1][pairs[:, :-1, 0] < 8]
    noise = pairs[pairs[:, :, 0] >= 8]
    for sample, first in ((clean[:, 0], 0), (clean[:, 1], 4), (noise.ravel(), 8), (pairs[:, -1, 0], 0)):
        shares = np.bincount(sample, minlength=first + 4)[first : first + 4] / len(sample)
        assert shares == pytest.approx(0.25, abs=0.018)  # over 4 sd


def test_the_last_key_is_uniform_among_those_seen_however_often_they_came() -> None:
    # two keys, the first pair fixes which was seen; where both were, each is asked half of the time
    task = NoisyRecall(vocab=4, length=12, noise=0.0, noise_vocab=0)
    keys = task.train_batch(0, 0, 20_000).tokens[:, 0::2]
    lopsided = keys[keys[:, :-1].sum(axis=1) == 1]  # key 1 once, key 0 four times
    assert len(lopsided) > 2000
    assert lopsided[:, -1].mean() == pytest.approx(0.5, abs=0.04)


def test_next_labels_every_token_in_training_and_probes_in_evaluation() -> None:
    task = NoisyRecall(length=32, targets="next")
    batch = task.train_batch(2, 0, 8)
    assert np.array_equal(batch.targets, batch.tokens[:, 1:])
    assert np.array_equal(batch.positions, np.tile(np.arange(31), (8, 1)))
    held_out = task.evaluation("test", 2, 8)
    assert held_out.targets.shape == (8, 31)
    for row, tokens in enumerate(held_out.tokens.tolist()):
        assert read(task, tokens) == labels(held_out, row)


def test_both_kinds_of_targets_see_the_same_sequences() -> None:
    probes, everything = NoisyRecall(targets="probes"), NoisyRecall(targets="next")
    assert np.array_equal(probes.train_batch(1, 2, 8).tokens, everything.train_batch(1, 2, 8).tokens)


@pytest.mark.parametrize(
    "task",
    [
        NoisyRecall(vocab=40, length=64),
        NoisyRecall(vocab=48, noise_vocab=0, noise=0.0, targets="next"),
        NoisyRecall(vocab=9, length=10, noise_vocab=0, noise=0.0),
    ],
)
def test_unbound_is_the_value_that_came_most_often(task: NoisyRecall) -> None:
    """Counted again by hand, on other sequences."""
    batch = task.evaluation("test", 5, 2000)
    first, noise = (task.vocab - task.noise_vocab) // 2, task.vocab - task.noise_vocab
    hits: list[bool] = []
    for row, tokens in enumerate(batch.tokens.tolist()):
        for position, target in labels(batch, row).items():
            values = [token for token in tokens[1:position:2] if first <= token < noise]
            hits.append(Counter(values).most_common(1)[0][0] == target)
    assert task.unbound.accuracy == pytest.approx(sum(hits) / len(hits), abs=0.015)
    assert task.unbound.accuracy > task.chance == 1 / (noise - first)


def test_with_one_value_in_context_it_needs_no_key() -> None:
    assert NoisyRecall(vocab=20, length=4).unbound.accuracy == 1


@pytest.mark.parametrize(
    ("settings", "field", "cure"),
    [
        ({"length": 2}, "length", "take 4 or more"),
        ({"length": 95}, "length", "95 must be even; take 96"),
        ({"noise": 1.0}, "noise", "from 0 to below 1"),
        ({"noise": -0.1}, "noise", "from 0 to below 1"),
        ({"noise": float("nan")}, "noise", "from 0 to below 1"),
        ({"noise_vocab": 0}, "noise_vocab", "or set noise: 0"),
        ({"noise": 0.0, "noise_vocab": -1}, "noise_vocab", "-1"),
        ({"vocab": 19}, "vocab", "need 20 or more"),
    ],
)
def test_bad_settings_name_the_field_and_the_cure(settings: dict[str, float], field: str, cure: str) -> None:
    with pytest.raises(FieldError, match=cure) as error:
        NoisyRecall(**settings)
    assert error.value.field == field

"""Multi-query associative recall against its rules, read token by token."""

from __future__ import annotations

import numpy as np
import pytest

from miras_search.space.fields import FieldError
from miras_search.tasks.base import Batch
from miras_search.tasks.mqar import Mqar

TASKS = [
    Mqar(),
    Mqar(vocab=18, length=32, pairs=8, power=1.0),  # every key and every slot in use
    Mqar(vocab=19, length=40, pairs=4, filler="zero"),
    Mqar(vocab=8192, length=512, pairs=64),
]


def read(tokens: list[int], pairs: int, first_value: int) -> dict[int, int]:
    """What a perfect memory answers: position of each key met after the context -> its value."""
    memory = {tokens[2 * i]: tokens[2 * i + 1] for i in range(pairs)}
    return {t: memory[token] for t, token in enumerate(tokens) if t >= 2 * pairs and 0 < token < first_value}


def sequences(batch: Batch) -> list[tuple[list[int], dict[int, int]]]:
    """Tokens and labels (position -> target) of every sequence."""
    rows = zip(batch.tokens.tolist(), batch.positions.tolist(), batch.targets.tolist(), strict=True)
    return [(tokens, dict(zip(positions, targets, strict=True))) for tokens, positions, targets in rows]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_dictionary_answers_every_query_and_meets_no_other_key(task: Mqar) -> None:
    # a KeyError would be a filler in the key range; equality says: all queries labelled, nothing else is a key
    for split_batch in (task.train_batch(3, 9, 16), task.evaluation("test", 3, 16)):
        for tokens, labels in sequences(split_batch):
            assert read(tokens, task.pairs, task.vocab // 2) == labels


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_keys_and_values_are_distinct_and_in_their_ranges(task: Mqar) -> None:
    batch = task.train_batch(0, 0, 64)
    keys, values = batch.tokens[:, 0 : 2 * task.pairs : 2], batch.tokens[:, 1 : 2 * task.pairs : 2]
    assert keys.min() >= 1 and keys.max() < task.vocab // 2
    assert values.min() >= task.vocab // 2 and values.max() < task.vocab
    for row in (*keys.tolist(), *values.tolist()):
        assert len(set(row)) == task.pairs


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_each_key_is_asked_once_at_an_even_place_and_not_met_before(task: Mqar) -> None:
    batch = task.train_batch(0, 5, 64)
    keys = batch.tokens[:, 0 : 2 * task.pairs : 2]
    assert np.array_equal(np.take_along_axis(batch.tokens, batch.positions, axis=1), keys)
    assert (batch.positions % 2 == 0).all() and batch.positions.min() >= 2 * task.pairs
    for row, places in zip(batch.tokens, batch.positions, strict=True):
        for key, place in zip(row[0 : 2 * task.pairs : 2], places, strict=True):
            assert np.flatnonzero(row == key).tolist() == [np.flatnonzero(row == key)[0], place]


def test_random_filler_uses_everything_but_the_keys() -> None:
    task = Mqar(vocab=20, length=64, pairs=2)
    batch = task.train_batch(0, 0, 200)
    rest = batch.tokens[:, 4:].copy()
    np.put_along_axis(rest, batch.positions - 4, -1, axis=1)
    assert set(np.unique(rest).tolist()) == {-1, 0, *range(10, 20)}


def test_zero_filler_is_blank() -> None:
    task = Mqar(length=64, pairs=4, filler="zero")
    batch = task.train_batch(0, 0, 32)
    assert (np.count_nonzero(batch.tokens[:, 8:], axis=1) == 4).all()


@pytest.mark.parametrize("power", [0.01, 0.5, 1.0, 2.0])
def test_the_first_query_falls_by_the_stated_law(power: float) -> None:
    task = Mqar(length=24, pairs=2, power=power)
    slots = (task.train_batch(0, 0, 20_000).positions[:, 0] - 4) // 2
    expected = (np.arange(10) + 1.0) ** (power - 1)
    expected /= expected.sum()
    assert np.bincount(slots, minlength=10) / 20_000 == pytest.approx(expected, abs=0.015)  # over 4 sd


def test_keys_and_values_are_uniform_and_in_random_order() -> None:
    task = Mqar(vocab=12, length=16, pairs=3)
    batch = task.train_batch(0, 0, 20_000)
    for place in (0, 2, 4):
        assert np.bincount(batch.tokens[:, place])[1:6] / 20_000 == pytest.approx(1 / 5, abs=0.012)  # over 4 sd
        assert np.bincount(batch.tokens[:, place + 1])[6:12] / 20_000 == pytest.approx(1 / 6, abs=0.011)


@pytest.mark.parametrize(
    ("pairs", "length", "power", "right"),
    [(8, 64, 0.01, 0.167), (8, 32, 0.01, 0.219), (8, 64, 1.0, 0.126), (3, 12, 0.01, 0.487)],
)
def test_unbound_is_a_guess_by_the_order_of_queries(pairs: int, length: int, power: float, right: float) -> None:
    """Of each query the pair that is asked for there most often."""
    task = Mqar(pairs=pairs, length=length, power=power)
    batch = task.evaluation("test", 0, 100_000)
    order = batch.positions.argsort(1)  # of the i-th query the pair
    guesses = [np.bincount(column, minlength=pairs).max() / len(column) for column in order.T]
    assert np.mean(guesses) == pytest.approx(right, abs=0.006)
    assert task.unbound.accuracy == pytest.approx(right, abs=0.01)


def test_where_order_tells_nothing_it_is_one_of_the_values_of_the_context() -> None:
    task = Mqar(pairs=8, length=512, power=1.0)
    batch = task.evaluation("test", 0, 4000)
    guess = batch.tokens[:, 1]  # always the first value
    assert (batch.targets == guess[:, None]).mean() == pytest.approx(1 / 8)
    assert 1 / 8 <= task.unbound.accuracy < 0.13


@pytest.mark.parametrize("vocab", [64, 19])
def test_chance_is_one_of_all_values(vocab: int) -> None:
    task = Mqar(vocab=vocab, length=32, pairs=4)
    seen = np.unique(task.evaluation("test", 0, 4000).targets)
    assert task.chance == 1 / len(seen)


@pytest.mark.parametrize(
    ("settings", "field", "cure"),
    [
        ({"pairs": 1}, "pairs", "1 leaves nothing to tell apart; take 2 or more"),
        ({"length": 63}, "length", "63 must be even; take 64"),
        ({"length": 30}, "length", "take 32 or more"),
        ({"vocab": 17}, "vocab", "take 18 or more"),
        ({"power": 0.0}, "power", "positive"),
        ({"power": float("nan")}, "power", "positive"),
        ({"power": float("inf")}, "power", "positive"),
    ],
)
def test_bad_settings_name_the_field_and_the_cure(settings: dict[str, float], field: str, cure: str) -> None:
    with pytest.raises(FieldError, match=cure) as error:
        Mqar(**settings)
    assert error.value.field == field

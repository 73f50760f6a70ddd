"""How hard a task is: a ladder of its settings around given ones, easier to harder.

A task that registers knobs (`register_task(name, harder=...)`) has one. The first knob moves first, by a quarter a
rung, to a quarter and four times its value; the next one moves from there on. A share, such as noise, moves by 0.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from miras_search.space.fields import Plain, SpecError
from miras_search.tasks.base import HARDER, TASKS, task_from_spec

STEP = 1.25
SHARE_STEP = 0.1
REACH = 4  # times a knob's value, up and down
MOST_SHARE = 0.9

Spec = Mapping[str, Plain]


def ladder(spec: Spec) -> tuple[list[dict[str, Plain]], int]:
    """The rungs and which of them the given settings are; that one alone for a task without knobs."""
    given = dict(spec)
    easier = list(_climb(given, up=False))
    return [*reversed(easier), given, *_climb(given, up=True)], len(easier)


def knobs(spec: Spec) -> tuple[str, ...]:
    """The settings that make the task harder as they grow, the one to turn first first."""
    return HARDER[TASKS[str(spec["name"])]]


def _climb(spec: Spec, *, up: bool) -> Iterator[dict[str, Plain]]:
    now = dict(spec)
    for knob in knobs(spec):
        for value in _values(now[knob], up=up):
            rung = _valid({**now, knob: value}, knob)
            if rung is None:
                break
            if rung != now:
                now = rung
                yield dict(now)


def _values(start: Plain, *, up: bool) -> Iterator[int | float]:
    if isinstance(start, float):
        steps = range(1, round(1 / SHARE_STEP) + 1)
        values = (round(start + (SHARE_STEP if up else -SHARE_STEP) * i, 2) for i in steps)
        yield from (value for value in values if 0 <= value <= MOST_SHARE)
        return
    assert isinstance(start, int)
    factor, i = STEP if up else 1 / STEP, 1
    while start / REACH <= (value := round(start * factor**i)) <= start * REACH and value >= 1:
        yield value
        i += 1


def _valid(spec: dict[str, Plain], knob: str) -> dict[str, Plain] | None:
    """The settings, or those with the next whole number (some sizes are even); None where the task has neither."""
    value = spec[knob]
    for tried in (value, value + 1) if isinstance(value, int) else (value,):
        try:
            task_from_spec({**spec, knob: tried})
        except SpecError:
            continue
        return {**spec, knob: tried}
    return None

"""What a caption says of a study's lock: that there is none, which one it is, and where a table departs from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from miras_search.store.types import LockRow

EXPLORATORY = "exploratory: nothing was locked before its results"
SHOWN = 12  # digits of the hash


def lock_text(
    lock: LockRow | None,
    *,
    seeds: Sequence[int],
    metric: str,
    split: str,
    against: str | None = None,
    margin: float | None = None,
) -> str:
    """In a few words; `seeds` are those with jobs, the rest is what the table shows."""
    if lock is None:
        return EXPLORATORY
    content = lock.content
    named = f"locked {lock.locked_at.date().isoformat()}, {lock.hash[:SHOWN]}"
    found = _about_seeds(set(seeds), set(cast(Sequence[int], content["seeds"])))
    if (metric, split) != (content["metric"], content["split"]):
        found.append(f"{metric} ({split}) instead of {content['metric']} ({content['split']})")
    if against is not None and against != content["base"]:
        found.append(f"against {against} instead of {content['base']}")
    if margin is not None and margin != content["margin"]:
        said = "none" if content["margin"] is None else f"{content['margin']:g}"
        found.append(f"margin {margin:g} instead of {said}")
    return f"{named}, but this departs from it: {'; '.join(found)}" if found else named


def locked_margin(lock: LockRow | None) -> float | None:
    """The margin that was locked."""
    return None if lock is None else cast(float | None, lock.content["margin"])


def _about_seeds(trained: set[int], planned: set[int]) -> list[str]:
    more, fewer = sorted(trained - planned), sorted(planned - trained)
    found = [f"{_seeds(more)} more than locked"] if more else []
    return [*found, f"{_seeds(fewer)} of the locked {len(planned)} left out"] if fewer else found


def _seeds(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"seed {shown}" if len(numbers) == 1 else f"{len(numbers)} seeds ({shown})"

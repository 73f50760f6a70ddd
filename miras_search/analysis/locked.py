"""What a caption says of a study's lock: that there is none, which one it is, and where a table departs from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from miras_search.store.types import LockRow

TEST = (
    "p < .05 by joint per-seed sign flips, step-down over the cells, and a 95 % interval without zero, by t that leans "
    "with the skewness of the differences; where the base is much noisier than the cells or the differences look "
    "skewed, also by Holm over t tests against exponential noise"
)
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
    added: Sequence[int] = (),
) -> str:
    """In a few words; `seeds` are those with jobs, `added` those that came after results, the rest is what the table
    shows.
    """
    if lock is None:
        late = f", and {_seeds(sorted(added))} {'was' if len(added) == 1 else 'were'} added after some"
        return f"{EXPLORATORY}{late if added else ''}"
    content = lock.content
    named = f"locked {lock.locked_at.date().isoformat()}, {lock.hash[:SHOWN]}"
    top_up = cast(Mapping[str, Sequence[int]], content.get("top_up", {}))
    found = _about_seeds(set(seeds), set(cast(Sequence[int], content["seeds"])), set(top_up.get("seeds", ())))
    if (metric, split) != (content["metric"], content["split"]):
        found.append(f"{metric} ({split}) instead of {content['metric']} ({content['split']})")
    if content["test"] != TEST:
        found.append("tested by the rule of another version")
    if against is not None and against != content["base"]:
        found.append(f"against {against} instead of {content['base']}")
    if margin is not None and margin != content["margin"]:
        said = "none" if content["margin"] is None else f"{content['margin']:g}"
        found.append(f"margin {margin:g} instead of {said}")
    return f"{named}, but this departs from it: {'; '.join(found)}" if found else named


def locked_margin(lock: LockRow | None) -> float | None:
    """The margin that was locked."""
    return None if lock is None else cast(float | None, lock.content["margin"])


def _about_seeds(trained: set[int], planned: set[int], topped_up: set[int]) -> list[str]:
    more, fewer = sorted(trained - planned - topped_up), sorted(planned - trained)
    found = [f"{_seeds(more)} more than locked"] if more else []
    return [*found, f"{_seeds(fewer)} of the locked {len(planned)} left out"] if fewer else found


def _seeds(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"seed {shown}" if len(numbers) == 1 else f"{len(numbers)} seeds ({shown})"

"""What differs between a stored study and a file of the same name, in a few words for the error that refuses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

NOT_COMPARED = ("name", "question", "seeds", "resources", "extent", "rival")
"""What may change under one name."""
MOST = 3
LONGEST = 60  # characters of a value


def told(then: Mapping[str, object], now: Mapping[str, object]) -> str:
    """`base.train.steps 150 -> 160`: the first few differences of two configurations; of cells their names.

    A cell spells out the settings that it has from the base, so cells are named only where nothing else differs.
    """
    keys = [key for key in dict.fromkeys((*then, *now)) if key not in NOT_COMPARED and key != "cells"]
    found = [line for key in keys for line in _differences(key, then.get(key), now.get(key))]
    if not found:
        before, after = _names(then), _names(now)
        gone, new = [one for one in before if one not in after], [one for one in after if one not in before]
        found = [f"without the cell {one}" for one in gone] + [f"with the cell {one}" for one in new]
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return ", ".join(found[:MOST]) + more or "a setting of its cells"


def _differences(path: str, then: object, now: object) -> Iterator[str]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*then, *now)):
            yield from _differences(f"{path}.{key}", then.get(key), now.get(key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for place, pair in enumerate(zip(then, now, strict=True)):
            yield from _differences(f"{path}.{place}", *pair)
    elif then != now:
        yield f"{path} {_short(then)} -> {_short(now)}"


def _names(config: Mapping[str, object]) -> list[str]:
    cells = config.get("cells")
    return [str(cell["name"]) for cell in cells if isinstance(cell, Mapping)] if isinstance(cells, Sequence) else []


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."

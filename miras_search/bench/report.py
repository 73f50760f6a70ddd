"""Measurements as aligned text, and lists of sizes as options give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from miras_search.errors import MirasError
from miras_search.space.fields import Plain

Columns = Sequence[tuple[str, str, str]]  # key of the row, title, format


def aligned(rows: Iterable[Plain], columns: Columns, *, left: int = 1) -> list[str]:
    """A line of titles and a line a row; the first `left` columns flush left, figures flush right, None blank."""
    lines = [[title for _, title, _ in columns]]
    for row in rows:
        assert isinstance(row, Mapping)
        lines.append(["" if row[key] is None else format(row[key], form) for key, _, form in columns])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if i < left else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def numbers(option: str, text: str | None) -> tuple[int, ...]:
    """The numbers of a list with commas; none of no list. Raises MirasError for anything else."""
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    for part in parts:
        if not part.isdecimal() or int(part) < 1:
            raise MirasError(f"{option} {text}: {part!r} is no number from 1 up: write it as 1,4,16")
    return tuple(int(part) for part in parts)

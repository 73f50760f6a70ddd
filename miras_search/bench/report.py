"""Measurements as aligned text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from miras_search.space.fields import Plain

Columns = Sequence[tuple[str, str, str]]  # key of the row, title, format


def aligned(rows: Iterable[Plain], columns: Columns, *, left: int = 1) -> list[str]:
    """A line of titles and a line a row; the first `left` columns flush left, figures flush right."""
    lines = [[title for _, title, _ in columns]]
    for row in rows:
        assert isinstance(row, Mapping)
        lines.append([format(row[key], form) for key, _, form in columns])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if i < left else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]

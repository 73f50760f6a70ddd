"""Errors that are shown to a user as one line, without a traceback."""

from __future__ import annotations


class MirasError(Exception):
    """An error whose message names the place, the value and the cure.

    The command line prints the message and exits with `exit_code`.
    """

    exit_code = 2


def cause(text: str | None, kind: str | None = None) -> str:
    """The line of an error's text that says what happened: of a traceback its last exception's, else the last line.

    A message may go on for lines after the first, and these may be marks alone.

    Args:
        text: the error's text, None where there is none.
        kind: the error's type, put before a line that does not begin with it.
    """
    text, kind = text or "", kind or ""
    *_, last = text.split("Traceback (most recent call last):\n")
    lines = [line for line in last.splitlines() if any(map(str.isalnum, line))]
    if last != text:
        lines = [line for line in lines if not line[0].isspace()][:1]
    line = lines[-1].strip() if lines else ""
    return line if line.startswith(kind) else f"{kind}: {line}" if line else kind


class EnvironmentProblem(MirasError):
    """Something outside the study is missing or unreachable: a database, a cluster, a package."""

    exit_code = 3

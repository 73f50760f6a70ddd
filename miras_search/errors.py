"""Errors that are shown to a user as one line, without a traceback."""

from __future__ import annotations


class MirasError(Exception):
    """An error whose message names the place, the value and the cure.

    The command line prints the message and exits with `exit_code`.
    """

    exit_code = 2


class EnvironmentProblem(MirasError):
    """Something outside the study is missing or unreachable: a database, a cluster, a package."""

    exit_code = 3
